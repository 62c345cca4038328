/* Packed rings that break the rules (2.8): descriptors are made available in place, and come back in place. */
#include "hostile.h"

#define F_PACKED FEATURE(34)

enum {
    NEXT = 1,
    WRITE = 2,
    INDIRECT = 4,
    AVAIL = 1 << 7,             /* 2.8.1: differ for a descriptor that is available, by turns of the ring */
    USED = 1 << 15,
    EVENT_RESERVED = 3,         /* 2.8.10 */
    ROUNDS = 24,
};

struct packed_desc {
    uint64_t address;
    uint32_t length;
    uint16_t id, flags;
};

struct packed_event {
    uint16_t offset, flags;
};

static volatile struct packed_desc *ring(const struct virtq *q) { return (volatile void *)q->desc; }
static volatile struct packed_event *driver_event(const struct virtq *q) { return (volatile void *)q->avail; }
static volatile struct packed_event *device_event(const struct virtq *q) { return (volatile void *)q->used; }

static uint64_t box(unsigned at) { return (uintptr_t)sandbox + at; }

/* Available in the first turn of the ring, unless the flags say otherwise. */
static void put(struct virtq *q, unsigned index, uint64_t address, uint32_t length, unsigned id, unsigned flags)
{
    volatile struct packed_desc *desc = &ring(q)[index];

    desc->address = address;
    desc->length = length;
    desc->id = id;
    __asm__ volatile("" : : : "memory");
    desc->flags = flags ^ AVAIL;
}

/* The queue that answers, its ring empty; NULL where the device has no packed rings. */
static struct virtq *start(struct target *t, uint64_t features)
{
    struct virtq *q = &t->q[t->answering == NO_QUEUE ? 0 : t->answering];

    bring_up(t, features | F_PACKED);
    if (!(t->device.features & F_PACKED))
        return NULL;
    for (unsigned i = 0; i < t->queues; i++)
        for (unsigned n = 0; n < t->q[i].size; n++) /* these are none of a split ring any more */
            ring(&t->q[i])[n].id = ring(&t->q[i])[n].flags = 0;
    return q;
}

static int came_back(const struct virtq *q, unsigned index)
{
    unsigned flags = ring(q)[index].flags;

    return (flags & (AVAIL | USED)) == (AVAIL | USED);
}

static void must_come_back(struct target *t, struct virtq *q, unsigned index)
{
    raw_notify(&t->device, q->index);
    if (t->answering == NO_QUEUE) {
        glance(t);
        return;
    }
    for (unsigned i = 0; i < BOUND; i++)
        if (came_back(q, index) || gave_up(t))
            return;
    fail("descriptor %u of a packed ring did not come back", index);
}

#define ATTACK(name, features)                                                                                  \
    static void on_##name(struct target *t, struct virtq *q);                                                   \
    static void name(struct target *t)                                                                          \
    {                                                                                                           \
        struct virtq *q = start(t, features);                                                                   \
                                                                                                                \
        if (q)                                                                                                  \
            on_##name(t, q);                                                                                    \
    }                                                                                                           \
    static void on_##name(struct target *t, struct virtq *q)

ATTACK(packed_any_id, 0)
{
    for (unsigned i = 0; i < 4; i++) {
        put(q, i, box(64 * i), 64, i * 0x5555, WRITE);
        must_come_back(t, q, i);
        check(gave_up(t) || t->answering == NO_QUEUE || ring(q)[i].id == i * 0x5555); /* 2.8.2: as it was given */
    }
}

ATTACK(packed_outside_memory, 0)
{
    put(q, 0, 1ull << 40, 64, 7, WRITE);
    must_come_back(t, q, 0);
}

ATTACK(packed_over_the_end_of_addresses, 0)
{
    put(q, 0, ~0ull - 15, 64, 7, 0);
    must_come_back(t, q, 0);
}

ATTACK(packed_longest, 0)
{
    put(q, 0, box(0), ~0u, 7, WRITE);
    must_come_back(t, q, 0);
}

ATTACK(packed_readable_after_writable, 0)
{
    put(q, 1, box(64), 64, 7, 0);
    put(q, 0, box(0), 64, 7, NEXT | WRITE);
    must_come_back(t, q, 0);
}

ATTACK(packed_without_an_end, 0)
{
    for (unsigned i = q->size; i--;)
        put(q, i, box(16 * (i % 64)), 16, i, NEXT);
    must_come_back(t, q, 0);
}

ATTACK(packed_continued_by_nothing, 0)
{
    put(q, 0, box(0), 64, 7, NEXT | WRITE); /* what follows is not available */
    raw_notify(&t->device, q->index);
    glance(t);
    put(q, 1, box(64), 64, 8, WRITE);
    raw_notify(&t->device, q->index);
    glance(t);
}

ATTACK(packed_flags_of_another_turn, 0)
{
    put(q, 0, box(0), 64, 7, WRITE | AVAIL | USED);
    raw_notify(&t->device, q->index);
    glance(t);
    put(q, 0, box(0), 64, 7, WRITE | USED);
    raw_notify(&t->device, q->index);
    glance(t);
}

ATTACK(packed_table_not_negotiated, 0)
{
    put(q, 0, box(0), 64, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_empty_table, F_INDIRECT)
{
    put(q, 0, box(0), 0, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_table_of_an_odd_size, F_INDIRECT)
{
    put(q, 0, box(0), 24, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_table_and_next, F_INDIRECT)
{
    put(q, 1, box(64), 64, 7, WRITE);
    put(q, 0, box(0), 16, 7, INDIRECT | NEXT);
    must_come_back(t, q, 0);
}

ATTACK(packed_table_outside_memory, F_INDIRECT)
{
    put(q, 0, 0xc0000000, 16, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_longest_table, F_INDIRECT)
{
    put(q, 0, box(0), 0xfffffff0, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_table_of_itself, F_INDIRECT)
{
    volatile struct packed_desc *row = (volatile void *)sandbox;

    row->address = box(0);
    row->length = 16;
    row->flags = INDIRECT | NEXT;
    put(q, 0, box(0), 16, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_table_longer_than_the_queue, F_INDIRECT)
{
    for (unsigned i = 0; i < SANDBOX / 16; i++) {
        volatile struct packed_desc *row = (volatile void *)(sandbox + 16 * i);

        row->address = box(16 * i);
        row->length = 1;
        row->flags = 0;
    }
    put(q, 0, box(0), SANDBOX, 7, INDIRECT);
    must_come_back(t, q, 0);
}

ATTACK(packed_events_that_do_not_exist, F_EVENT_IDX)
{
    for (unsigned i = 0; i < 8; i++) {
        driver_event(q)->offset = 0x1111 * i;
        driver_event(q)->flags = i;
        device_event(q)->offset = device_event(q)->flags = 0xffff; /* 2.8.10: the device's */
        put(q, i, box(64 * i), 64, i, WRITE);
        must_come_back(t, q, i);
    }
    driver_event(q)->flags = EVENT_RESERVED;
    raw_notify(&t->device, q->index);
    glance(t);
}

ATTACK(packed_writes_over_its_ring, 0)
{
    put(q, 0, (uintptr_t)q->desc, 16 * q->size, 7, WRITE);
    raw_notify(&t->device, q->index);
    glance(t);
    raw_notify(&t->device, q->index);
    glance(t);
}

/* A device with packed rings takes any size up to its largest (2.8.10.1); these are none. */
static void packed_sizes(struct target *t)
{
    static const unsigned sizes[] = {0, 0x8000, 0x8001, 0xffff, 3};
    struct virtio *d = &t->device;

    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bring_to_features(t, F_PACKED);
        raw_select(d, 0);
        raw_size(d, sizes[i]);
        raw_areas(d, box(0), box(4096), box(8192));
        __builtin_memset((void *)sandbox, 0, 4096);
        raw_enable(d, 1);
        d->bus->set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
        raw_notify(d, 0);
        glance(t);
    }
}

static void packed_at_random(struct target *t)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (!start(t, chance_below(2) ? F_INDIRECT | F_EVENT_IDX : 0))
            return;
        for (unsigned queue = 0; queue < t->queues; queue++) {
            struct virtq *q = &t->q[queue];
            unsigned n = 1 + chance_below(12);

            for (unsigned i = n; i--;) {
                unsigned flags = chance_below(10) ? chance_below(4) : chance() & 0x7f7f;
                uint64_t nowhere = 1ull << chance_below(64) | 1ull << 62, there = box(chance_below(SANDBOX - 1024));
                uint32_t length = chance_below(20) ? chance_below(1024) : chance() | 1u << 31;

                put(q, i, chance_below(10) ? there : nowhere, length, chance(), flags);
            }
            driver_event(q)->offset = chance();
            driver_event(q)->flags = chance_below(4);
            raw_notify(&t->device, queue);
        }
        glance(t);
    }
}

#define CASE(name) {#name, name}
const struct attack packed_attacks[] = {
    CASE(packed_any_id),
    CASE(packed_outside_memory),
    CASE(packed_over_the_end_of_addresses),
    CASE(packed_longest),
    CASE(packed_readable_after_writable),
    CASE(packed_without_an_end),
    CASE(packed_continued_by_nothing),
    CASE(packed_flags_of_another_turn),
    CASE(packed_table_not_negotiated),
    CASE(packed_empty_table),
    CASE(packed_table_of_an_odd_size),
    CASE(packed_table_and_next),
    CASE(packed_table_outside_memory),
    CASE(packed_longest_table),
    CASE(packed_table_of_itself),
    CASE(packed_table_longer_than_the_queue),
    CASE(packed_events_that_do_not_exist),
    CASE(packed_writes_over_its_ring),
    CASE(packed_sizes),
    CASE(packed_at_random),
    {0},
};
