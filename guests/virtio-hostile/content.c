/* Random buffers and random descriptors, in every queue of any device; `seed` decides which. */
#include "hostile.h"

enum { ROUNDS = 16, CHAINS = 6 };

static void offer(struct target *t, unsigned queue)
{
    static const unsigned sizes[] = {0, 1, 2, 4, 8, 16, 24, 40, 64, 200, 512, 4096};
    struct virtq *q = &t->q[queue];
    unsigned n = 0, heads[CHAINS], chains = 0;

    while (chains < CHAINS) {
        unsigned readable = sizes[chance_below(12)], writable = sizes[chance_below(12)];
        unsigned piece = readable + writable < 64 ? 1 + chance_below(32) : 512;

        if (!readable && !writable)
            continue;
        if (n + (readable + writable) / piece + 2 > q->size)
            break;
        heads[chains++] = n;
        n += lay_out(q, n, readable, writable, piece);
    }
    for (unsigned i = 0; i < chains; i++)
        expose(q, heads[i]);
    raw_notify(&t->device, queue);
}

static void fill(const struct target *t)
{
    volatile uint32_t *words = (volatile uint32_t *)sandbox;

    for (unsigned i = 0; i < 128; i++)
        words[i] = chance() | (t->device.type == VIRTIO_BALLOON ? NO_PAGE : 0);
    if (chance_below(2) && t->device.type != VIRTIO_BALLOON)
        for (unsigned i = 0; i < 4; i++)
            words[i] &= chance() & 0x1f;
}

static void random_buffers(struct target *t)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        bring_up(t, chance_below(2) ? ~0ull & ~FEATURE(34) & ~FEATURE(33) : 0);
        for (unsigned queue = 0; queue < t->queues; queue++) {
            fill(t);
            offer(t, queue);
        }
        glance(t);
    }
}

static uint64_t some_address(void)
{
    switch (chance_below(8)) {
    case 0: return 0xc0000000;
    case 1: return 1ull << chance_below(64) | 1ull << 62;
    case 2: return 0xfeb00000 + chance_below(0x10000);
    default: return (uintptr_t)sandbox + chance_below(SANDBOX - 4096);
    }
}

static void random_descriptors(struct target *t)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        bring_up(t, F_INDIRECT | (chance_below(2) ? F_EVENT_IDX : 0));
        for (unsigned queue = 0; queue < t->queues; queue++) {
            struct virtq *q = &t->q[queue];

            for (unsigned i = 0; i < 16; i++) {
                uint32_t length = chance_below(4) ? chance_below(1024) : 16 * chance_below(64);

                describe(q, i, some_address(), chance_below(16) ? length : 1u << 31, chance_below(12) ? chance_below(4) : 4,
                         chance_below(8) ? chance_below(16) : chance_below(0x10000));
            }
            for (unsigned i = 0; i < CHAINS; i++)
                expose(q, chance_below(32) ? chance_below(16) : chance_below(0x10000));
            raw_notify(&t->device, queue);
        }
        glance(t);
    }
}

#define CASE(name) {#name, name}
const struct attack content_attacks[] = {
    CASE(random_buffers),
    CASE(random_descriptors),
    {0},
};
