/* The parts of the benchmark. Each does the same work in every round, on data that depends on the seed, and
 * returns a checksum of what it found. None uses floating point, vectors or a device. */
#pragma once
#include <stdint.h>

uint32_t bench_sieve(uint32_t seed);    /* byte stores with a stride, a well predicted branch */
uint32_t bench_sort(uint32_t seed);     /* quicksort: recursion, data-dependent branches */
uint32_t bench_crc(uint32_t seed);      /* table lookups in a tight loop, and the same bit by bit */
uint32_t bench_matrix(uint32_t seed);   /* multiplications in a triple loop */
uint32_t bench_states(uint32_t seed);   /* a tokeniser: jump tables, unpredictable branches */
uint32_t bench_hash(uint32_t seed);     /* an open-addressing hash table: scattered loads and stores */
uint32_t bench_calls(uint32_t seed);    /* a bytecode machine: calls through pointers */

/* xorshift32 (Marsaglia, 2003); the state must not be 0. */
static inline uint32_t random_next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}
