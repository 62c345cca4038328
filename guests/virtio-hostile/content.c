/* Random buffers and random descriptors, in every queue of any device; `seed` decides which. */
#include "hostile.h"
#include "apic.h"
#include "isr.h"
#include "smp.h"

enum { ROUNDS = 16, CHAINS = 6, WAKE_VECTOR = 0x41 };

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

/*
 * Another processor writes all over the rings and buffers while the device looks at them; without one, this one does
 * between two notifications. What was checked must not be read again.
 */
static struct target *volatile victim;  /* while another processor is to do so */
static volatile unsigned scribblers, victim_left;

/* Writes that lead devices into the sandbox, or out of memory. */
static void scribble(struct target *t, uint32_t *luck)
{
    *luck = *luck * 1664525 + 1013904223;
    uint32_t v = *luck >> 8;
    struct virtq *q = &t->q[v % t->queues];
    volatile struct virtq_desc *desc = &q->desc[(v >> 2) % 8];

    switch (v >> 6 & 7) {
    case 0: desc->address = (uintptr_t)sandbox + (v >> 9) % (SANDBOX - 4096); break;
    case 1: desc->address = (uint64_t)v << 33 | 1ull << 62; break;
    case 2: desc->length = (v >> 9) % 2048; break;
    case 3: desc->length = v | 1u << 31; break;
    case 4: desc->flags = v >> 9 & 7; break;
    case 5: desc->next = (v >> 9) % 20; break;
    case 6: ((volatile uint32_t *)sandbox)[(v >> 9) % 16] = v >> 16 & 1 ? v | NO_PAGE : NO_PAGE; break;
    case 7: q->avail->ring[(v >> 9) % q->size] = v >> 19; break;
    }
}

static void on_wake(struct frame *frame)
{
    (void)frame;
    apic_eoi();
}

void ap_main(unsigned number)
{
    uint32_t luck = seed + number;
    struct target *t;

    isr_set(WAKE_VECTOR, on_wake);
    for (scribblers = 1;;) {
        irq_wait();
        while (number == 1 && (t = victim))
            scribble(t, &luck);
        if (number == 1)
            victim_left = 1;
    }
}

static void scribble_on(struct target *t)
{
    if (!scribblers)
        return;
    victim_left = 0;
    victim = t;
    apic_send(0, ICR_FIXED | ICR_ALL_BUT_SELF | WAKE_VECTOR);
}

static void scribble_no_more(const struct target *t)
{
    victim = NULL;
    for (unsigned i = 0; scribblers && !victim_left; i++) {
        check(i < BOUND);
        glance(t);
    }
}

static void rings_written_meanwhile(struct target *t)
{
    uint32_t luck = chance();

    for (unsigned round = 0; round < ROUNDS / 2; round++) {
        bring_up(t, F_INDIRECT);
        for (unsigned queue = 0; queue < t->queues; queue++) {
            fill(t);
            offer(t, queue);
        }
        scribble_on(t);
        for (unsigned i = 0; i < 24; i++) {
            struct virtq *q = &t->q[i % t->queues];

            if (!scribblers)
                scribble(t, &luck);
            expose(q, i % 16);
            raw_notify(&t->device, q->index);
        }
        scribble_no_more(t);
        glance(t);
    }
    virtio_reset(&t->device);
}

#define CASE(name) {#name, name}
const struct attack content_attacks[] = {
    CASE(random_buffers),
    CASE(random_descriptors),
    CASE(rings_written_meanwhile),
    {0},
};
