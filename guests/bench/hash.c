/* A hash table with open addressing and linear probing; deletions shift the rest of their run back. */
#include "bench.h"
#include "guest.h"

enum { SLOTS = 4096, KEYS = 2500 };

static struct slot {
    uint32_t key; /* 0: free */
    uint32_t value;
} slots[SLOTS];

static unsigned home(uint32_t key) { return (key * 2654435761u) >> 20; } /* Knuth's multiplicative hash, 12 bits */

static struct slot *find(uint32_t key)
{
    unsigned i = home(key);

    while (slots[i].key && slots[i].key != key)
        i = (i + 1) % SLOTS;
    return &slots[i];
}

static void delete(struct slot *slot)
{
    unsigned hole = slot - slots;

    for (unsigned i = (hole + 1) % SLOTS; slots[i].key; i = (i + 1) % SLOTS)
        if ((i - home(slots[i].key)) % SLOTS >= (i - hole) % SLOTS) {
            slots[hole] = slots[i];
            hole = i;
        }
    slots[hole].key = 0;
}

uint32_t bench_hash(uint32_t seed)
{
    uint32_t state = seed, sum = 0, found = 0, gone = 0;

    for (unsigned i = 0; i < SLOTS; i++)
        slots[i].key = 0;
    for (uint32_t i = 0; i < KEYS; i++)
        *find(random_next(&state)) = (struct slot){state, i};
    state = seed;
    for (uint32_t i = 0; i < KEYS; i++) {
        struct slot *slot = find(random_next(&state));
        check(slot->key == state && slot->value == i);
        if (i % 3 == 0)
            delete(slot);
    }
    state = seed;
    for (uint32_t i = 0; i < KEYS; i++) {
        struct slot *slot = find(random_next(&state));
        found += slot->key != 0;
        gone += slot->key == 0;
        sum = sum * 31 + (slot->key ? slot->value : 7);
    }
    check(gone == (KEYS + 2) / 3 && found + gone == KEYS);
    return sum;
}
