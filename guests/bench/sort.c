/* Quicksort with the middle element as pivot (Hoare's partition), insertion sort for short runs. */
#include "bench.h"
#include "guest.h"

enum { COUNT = 2048, SHORT_RUN = 8 };

static uint32_t values[COUNT];

static void insertion_sort(uint32_t *v, int n)
{
    for (int i = 1; i < n; i++) {
        uint32_t x = v[i];
        int j = i;

        for (; j > 0 && v[j - 1] > x; j--)
            v[j] = v[j - 1];
        v[j] = x;
    }
}

static void quicksort(uint32_t *v, int n)
{
    if (n <= SHORT_RUN) {
        insertion_sort(v, n);
        return;
    }
    uint32_t pivot = v[n / 2];
    int i = -1, j = n;

    for (;;) {
        do
            i++;
        while (v[i] < pivot);
        do
            j--;
        while (v[j] > pivot);
        if (i >= j)
            break;
        uint32_t t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
    quicksort(v, j + 1);
    quicksort(v + j + 1, n - j - 1);
}

uint32_t bench_sort(uint32_t seed)
{
    uint32_t before = 0, after = 0, sum = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = random_next(&seed);
        before += values[i];
    }
    quicksort(values, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        check(i == 0 || values[i - 1] <= values[i]);
        after += values[i];
        sum = sum * 31 + values[i];
    }
    check(before == after);
    return sum;
}
