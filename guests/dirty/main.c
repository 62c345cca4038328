/*
 * Writes to a known set of pages, and to no others of that region, so that a host's dirty log can be compared with
 * the truth: page n * n, counted from 4 MiB, for n = 0 to 15. The pages in between are only read.
 */
#include "guest.h"

enum { BASE = 0x400000, PAGE = 4096, TOUCHED = 16, LAST = (TOUCHED - 1) * (TOUCHED - 1) };

static volatile uint32_t *word(unsigned page, unsigned offset)
{
    return (volatile uint32_t *)(BASE + page * PAGE + offset);
}

/* A different place in each page, its last word among them. */
static unsigned offset_in(unsigned n) { return (n * 273 + 3) * 4 % PAGE; }

int main(void)
{
    unsigned sum = 0;

    for (unsigned n = 0; n < TOUCHED; n++)
        *word(n * n, offset_in(n)) = 0xd1570000 + n;
    for (unsigned page = 0; page <= LAST; page++)
        sum |= *word(page, PAGE / 2 + 4);
    for (unsigned n = 0; n < TOUCHED; n++)
        check(*word(n * n, offset_in(n)) == 0xd1570000 + n);
    check(sum == 0);
    print("dirty: %u pages written, %u only read\n", TOUCHED, LAST + 1 - TOUCHED);
    print("dirty: ok\n");
    return 0;
}
