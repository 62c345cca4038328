/* Multiplication of square matrices of 64-bit integers, checked by Freivalds' method. */
#include "bench.h"
#include "guest.h"

enum { N = 40 };

static uint64_t a[N][N], b[N][N], product[N][N];

static void multiply(void)
{
    for (unsigned row = 0; row < N; row++)
        for (unsigned column = 0; column < N; column++) {
            uint64_t sum = 0;
            for (unsigned k = 0; k < N; k++)
                sum += a[row][k] * b[k][column];
            product[row][column] = sum;
        }
}

/* (a b) v = a (b v) for a random vector v */
static void verify(uint32_t seed)
{
    uint64_t v[N], bv[N];

    for (unsigned i = 0; i < N; i++)
        v[i] = random_next(&seed);
    for (unsigned i = 0; i < N; i++) {
        bv[i] = 0;
        for (unsigned j = 0; j < N; j++)
            bv[i] += b[i][j] * v[j];
    }
    for (unsigned i = 0; i < N; i++) {
        uint64_t left = 0, right = 0;
        for (unsigned j = 0; j < N; j++) {
            left += product[i][j] * v[j];
            right += a[i][j] * bv[j];
        }
        check(left == right);
    }
}

uint32_t bench_matrix(uint32_t seed)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < N; i++)
        for (unsigned j = 0; j < N; j++) {
            a[i][j] = random_next(&seed);
            b[i][j] = random_next(&seed);
        }
    multiply();
    verify(seed);
    for (unsigned i = 0; i < N; i++)
        for (unsigned j = 0; j < N; j++)
            sum = sum * 31 + product[i][j];
    return sum ^ sum >> 32;
}
