/* Queue registers: values that no queue can have, in each order, and after the queue is in use (4.1.4.3, 4.2.2). */
#include "hostile.h"

static uint64_t place(const volatile void *p) { return (uintptr_t)p; }

/* Sets queue 0 up like this and has the device start with it. It is refused: not enabled, or the device gives up. */
static void refused(struct target *t, unsigned size, uint64_t desc, uint64_t avail, uint64_t used)
{
    struct virtio *d = &t->device;

    bring_to_features(t, 0);
    raw_select(d, 0);
    raw_size(d, size);
    raw_areas(d, desc, avail, used);
    raw_enable(d, 1);
    int in_use = raw_enabled(d) == 1 && !gave_up(t);

    d->bus->set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    raw_notify(d, 0);
    glance(t);
    if (in_use && !gave_up(t))
        fail("a queue of size %u at %lx, %lx and %lx is in use", size, (unsigned long)desc, (unsigned long)avail,
             (unsigned long)used);
}

static void with_size(struct target *t, unsigned size)
{
    refused(t, size, place(sandbox), place(sandbox + 4096), place(sandbox + 8192));
}

static unsigned max(struct target *t)
{
    virtio_reset(&t->device); /* PCI: the register then has the maximum (4.1.4.3) */
    return t->device.bus->queue_max(&t->device, 0);
}

static void size_zero(struct target *t) { with_size(t, 0); }
static void size_not_a_power_of_two(struct target *t) { with_size(t, 3); }
static void size_almost_the_maximum(struct target *t) { with_size(t, max(t) - 1); }
static void size_above_the_maximum(struct target *t) { with_size(t, 2 * max(t)); }
static void size_of_16_bits(struct target *t) { with_size(t, 0x8000); }
static void size_all_ones(struct target *t) { with_size(t, 0xffff); }

#define RINGS place(sandbox), place(sandbox + 4096), place(sandbox + 8192)
static void descriptors_misaligned(struct target *t)
{
    refused(t, 16, place(sandbox + 8), place(sandbox + 4096), place(sandbox + 8192));
}

static void available_ring_misaligned(struct target *t)
{
    refused(t, 16, place(sandbox), place(sandbox + 4097), place(sandbox + 8192));
}

static void used_ring_misaligned(struct target *t)
{
    refused(t, 16, place(sandbox), place(sandbox + 4096), place(sandbox + 8194));
}

static const uint64_t ABSENT[] = {0xc0000000, 0xfeb00000, 0xfec00000, 0xfee00000, 0xfffff000, 1ull << 40, ~0ull << 12};

static void descriptors_outside_memory(struct target *t)
{
    for (unsigned i = 0; i < sizeof ABSENT / sizeof *ABSENT; i++)
        refused(t, 16, ABSENT[i], place(sandbox + 4096), place(sandbox + 8192));
}

static void available_ring_outside_memory(struct target *t)
{
    for (unsigned i = 0; i < sizeof ABSENT / sizeof *ABSENT; i++)
        refused(t, 16, place(sandbox), ABSENT[i], place(sandbox + 8192));
}

static void used_ring_outside_memory(struct target *t)
{
    for (unsigned i = 0; i < sizeof ABSENT / sizeof *ABSENT; i++)
        refused(t, 16, place(sandbox), place(sandbox + 4096), ABSENT[i]);
}

static void high_half_of_an_address(struct target *t)
{
    refused(t, 16, place(sandbox) | 1ull << 63, place(sandbox + 4096), place(sandbox + 8192));
}

/* All parts on top of each other: that is in memory, and so the driver's own problem. */
static void parts_on_the_same_memory(struct target *t)
{
    struct virtio *d = &t->device;

    bring_to_features(t, 0);
    raw_select(d, 0);
    raw_size(d, 16);
    for (unsigned i = 0; i < 512; i++)
        sandbox[i] = chance();
    raw_areas(d, place(sandbox), place(sandbox), place(sandbox));
    raw_enable(d, 1);
    d->bus->set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    for (unsigned i = 0; i < 8; i++)
        raw_notify(d, 0);
    glance(t);
}

/* What was written after a queue was enabled is not its own (4.2.2.2; published vulnerabilities came of it). */
static void registers_after_enable(struct target *t)
{
    unsigned index = t->answering == NO_QUEUE ? 0 : t->answering;
    struct virtio *d = &t->device;
    struct virtq *q = &t->q[index];

    bring_up(t, 0);
    __builtin_memset(decoys, 0, sizeof decoys);
    raw_select(d, index);
    raw_size(d, 0x8000);
    raw_areas(d, place(&decoys[0]), place(&decoys[1]), place(&decoys[2]));
    raw_enable(d, 1);
    for (unsigned i = 0; i < 2 * q->size; i++) {
        unsigned slot = i % q->size;

        describe(q, slot, (uintptr_t)sandbox, 64, DESC_WRITE, 0);
        expose(q, slot);
        if (slot + 1 < q->size)
            continue;
        raw_notify(d, index);
        if (t->answering == NO_QUEUE) {
            glance(t);
            break;
        }
        must_answer(t, q, q->size);
        q->seen = q->used->idx;
    }
    for (unsigned i = 0; i < sizeof decoys[2]; i++)
        check(!decoys[2].bytes[i]);
}

static void enabled_before_features(struct target *t)
{
    struct virtio *d = &t->device;

    virtio_reset(d);
    d->bus->set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    raw_select(d, 0);
    raw_size(d, 16);
    raw_areas(d, RINGS);
    raw_enable(d, 1);
    raw_notify(d, 0);
    glance(t);
}

static void enabled_without_addresses(struct target *t)
{
    struct virtio *d = &t->device;

    bring_to_features(t, 0);
    raw_select(d, 0);
    raw_enable(d, 1);
    d->bus->set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    raw_notify(d, 0);
    glance(t);
}

static void enabled_twice_and_strangely(struct target *t)
{
    struct virtio *d = &t->device;

    bring_up(t, 0);
    raw_select(d, 0);
    raw_enable(d, 1);
    raw_enable(d, 0xfffe);
    raw_enable(d, 2);
    raw_enable(d, 0xffff);
    raw_notify(d, 0);
    glance(t);
}

static void taken_back_and_notified(struct target *t)
{
    struct virtio *d = &t->device;

    bring_up(t, 0);
    for (unsigned i = 0; i < t->queues; i++) {
        describe(&t->q[i], 0, (uintptr_t)sandbox, 64, DESC_WRITE, 0);
        expose(&t->q[i], 0);
        raw_select(d, i);
        raw_enable(d, 0);
        raw_notify(d, i);
    }
    glance(t);
}

static void enabled_while_running(struct target *t)
{
    struct virtio *d = &t->device;

    bring_to_features(t, 0);
    virtio_ready(d);
    bring_queues(t);
    for (unsigned i = 0; i < t->queues; i++) {
        describe(&t->q[i], 0, (uintptr_t)sandbox, 64, DESC_WRITE, 0);
        expose(&t->q[i], 0);
        raw_notify(d, i);
    }
    glance(t);
}

static const unsigned MISSING[] = {0x40, 0x7fff, 0xffff};

static void queues_that_are_not_there(struct target *t)
{
    struct virtio *d = &t->device;

    bring_to_features(t, 0);
    for (unsigned i = 0; i < sizeof MISSING / sizeof *MISSING; i++) {
        check(!d->bus->queue_max(d, MISSING[i]));
        raw_size(d, 16);
        raw_areas(d, RINGS);
        raw_enable(d, 1);
        check(!raw_enabled(d));
    }
    virtio_ready(d);
    glance(t);
}

static void notified_when_not_there(struct target *t)
{
    bring_up(t, 0);
    for (unsigned i = 0; i < sizeof MISSING / sizeof *MISSING; i++) {
        if (is_pci(&t->device))
            mmio_write16(t->device.notify, MISSING[i]);
        else
            raw_notify(&t->device, MISSING[i]);
    }
    raw_notify(&t->device, t->queues + 7);
    glance(t);
}

static void notified_before_driver_ok(struct target *t)
{
    bring_to_features(t, 0);
    bring_queues(t);
    for (unsigned i = 0; i < t->queues; i++) {
        describe(&t->q[i], 0, (uintptr_t)sandbox, 64, DESC_WRITE, 0);
        expose(&t->q[i], 0);
        raw_notify(&t->device, i);
    }
    glance(t);
    for (unsigned i = 0; i < t->queues; i++)
        check(t->q[i].used->idx == 0); /* 3.1.1: the device uses no buffer before DRIVER_OK */
}

static void notified_after_reset(struct target *t)
{
    bring_up(t, 0);
    virtio_reset(&t->device);
    for (unsigned i = 0; i < t->queues; i++) {
        describe(&t->q[i], 0, (uintptr_t)sandbox, 64, DESC_WRITE, 0);
        expose(&t->q[i], 0);
        raw_notify(&t->device, i);
    }
    glance(t);
    for (unsigned i = 0; i < t->queues; i++)
        check(t->q[i].used->idx == 0);
}

#define CASE(name) {#name, name}
const struct attack queue_attacks[] = {
    CASE(size_zero),
    CASE(size_not_a_power_of_two),
    CASE(size_almost_the_maximum),
    CASE(size_above_the_maximum),
    CASE(size_of_16_bits),
    CASE(size_all_ones),
    CASE(descriptors_misaligned),
    CASE(available_ring_misaligned),
    CASE(used_ring_misaligned),
    CASE(descriptors_outside_memory),
    CASE(available_ring_outside_memory),
    CASE(used_ring_outside_memory),
    CASE(high_half_of_an_address),
    CASE(parts_on_the_same_memory),
    CASE(registers_after_enable),
    CASE(enabled_before_features),
    CASE(enabled_without_addresses),
    CASE(enabled_twice_and_strangely),
    CASE(taken_back_and_notified),
    CASE(enabled_while_running),
    CASE(queues_that_are_not_there),
    CASE(notified_when_not_there),
    CASE(notified_before_driver_ok),
    CASE(notified_after_reset),
    {0},
};
