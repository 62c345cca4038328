/* The sieve of Eratosthenes. */
#include "bench.h"
#include "guest.h"

enum { LIMIT = 16384, PRIMES_BELOW_LIMIT = 1900 };

static uint8_t composite[LIMIT];

uint32_t bench_sieve(uint32_t seed)
{
    uint32_t count = 0, sum = seed;

    for (unsigned i = 0; i < LIMIT; i++)
        composite[i] = 0;
    for (unsigned i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        count++;
        sum = sum * 31 + i;
        for (unsigned multiple = i * i; multiple < LIMIT; multiple += i)
            composite[multiple] = 1;
    }
    check(count == PRIMES_BELOW_LIMIT);
    return sum;
}
