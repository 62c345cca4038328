/* The cache of decoded code: blocks of ops, kept by physical page (as an offset in RAM) and mode. */
#ifndef SIM_BLOCK_H
#define SIM_BLOCK_H

#include "cpu.h"

/* Cpu.mode. The low five bits are the key of a decoded block. */
enum {
    MODE_16 = 0, MODE_32 = 1, MODE_64 = 2, MODE_SIZE_MASK = 3,
    MODE_SS32 = 4,    /* stack pointer is 32 bits wide (outside 64-bit mode) */
    MODE_FLAT = 8,    /* 32-bit code with DS, ES and SS flat: operands need no segment checks */
    MODE_CSLIM = 16,  /* CS does not span 4 GiB: jumps are looked up with a limit check */
    MODE_BLOCK_MASK = 31,
    MODE_USER = 32,   /* CPL 3 */
};

#define BLOCK_MAX_OPS 64
#define PAGE_HEADS 64

struct Block {
    Block *next;          /* same hash head */
    struct CodePage *page;
    uint64_t granules;    /* 64-byte parts of the page that the block's bytes touch */
    uint16_t off;         /* in the page */
    uint16_t bytes;
    uint16_t n;           /* instructions */
    uint8_t mode;
    uint8_t dead;
    Op ops[];             /* n ops and a trailer */
};

typedef struct CodePage {
    uint64_t granules;    /* with live code */
    uint64_t index;       /* ram offset >> 12 */
    struct CodePage *next_page; /* all pages, for the flush */
    Block *heads[PAGE_HEADS];
} CodePage;

typedef struct CodeArena {
    uint8_t *base;
    size_t size, used;
    uint64_t flushes;
    CodePage *pages;
} CodeArena;

#define ARENA_SIZE (48u << 20)

static inline CodePage *code_page_at(const Machine *m, const uint8_t *p)
{
    return m->code_pages[(uint64_t)(p - m->ram) >> 12];
}

static inline uint64_t granule_mask(unsigned off, unsigned size)
{
    unsigned first = off >> 6, last = (off + size - 1) >> 6;
    if (last > 63)
        last = 63;
    return (~0ull << first) & (~0ull >> (63 - last));
}

#endif
