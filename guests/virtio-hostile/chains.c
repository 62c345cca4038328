/*
 * Descriptor chains that break the rules (2.6, 2.7.4, 2.7.5), on every queue of a device: each comes back unused, or the
 * device needs a reset; and chains that are within the rules but odd, which come back somehow.
 */
#include "hostile.h"

#define KIB 1024u
#define MIB (1024u * KIB)
#define GIB (1024ull * MIB)

enum {
    READ = 0,
    WRITE = DESC_WRITE,
    NEXT = DESC_NEXT,
    INDIRECT = DESC_INDIRECT,
};

static const uint64_t NOWHERE = 0xc0000000, BEYOND = 1ull << 40;
static const uint64_t DEVICES = 0xfeb00000, IOAPIC = 0xfec00000, LAPIC = 0xfee00000, FIRMWARE = 0xfffff000;

static uint64_t box(unsigned at) { return (uintptr_t)sandbox + at; }

/* Has `build` make one chain in each queue, and gives it to the device. */
static void each(struct target *t, uint64_t features, unsigned (*build)(struct virtq *), int broken)
{
    bring_up(t, features);
    for (unsigned i = 0; i < t->queues && !gave_up(t); i++) {
        struct virtq *q = &t->q[i];
        unsigned head = build(q);

        expose(q, head);
        if ((int)i != t->answering) {
            virtq_kick(q);
            glance(t);
        } else if (broken)
            must_refuse(t, q, head);
        else {
            virtq_kick(q);
            must_answer(t, q, 1);
        }
    }
}

#define CHAIN(name, features, broken)                                                                           \
    static unsigned build_##name(struct virtq *);                                                               \
    static void name(struct target *t) { each(t, features, build_##name, broken); }                             \
    static unsigned build_##name(struct virtq *q)
#define BROKEN(name) CHAIN(name, 0, 1)
#define BROKEN_TABLE(name) CHAIN(name, F_INDIRECT, 1)
#define ODD(name) CHAIN(name, F_INDIRECT, 0)

/* 2.7.5.2: no loops, as they make a chain longer than 4 GiB. */

BROKEN(leads_to_itself)
{
    describe(q, 3, box(0), 16, NEXT, 3);
    return 3;
}

BROKEN(leads_back)
{
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, box(64), 16, NEXT | WRITE, 2);
    describe(q, 2, box(128), 16, NEXT | WRITE, 1);
    return 0;
}

BROKEN(leads_back_empty)
{
    describe(q, 0, box(0), 0, NEXT, 1);
    describe(q, 1, box(0), 0, NEXT, 0);
    return 0;
}

BROKEN(whole_table_in_a_circle)
{
    for (unsigned i = 0; i < q->size; i++)
        describe(q, i, box(16 * (i % 64)), 16, NEXT, (i + 1) % q->size);
    return q->size - 1;
}

BROKEN(leads_out_of_the_table)
{
    describe(q, 0, box(0), 16, NEXT, q->size);
    return 0;
}

BROKEN(leads_far_out_of_the_table)
{
    describe(q, 0, box(0), 16, NEXT, 0xffff);
    return 0;
}

/* 2.7.5: lengths and addresses. */

BROKEN(longest)
{
    describe(q, 0, box(0), 0xffffffff, READ, 0);
    return 0;
}

BROKEN(longest_to_write)
{
    describe(q, 0, box(0), 0xffffffff, WRITE, 0);
    return 0;
}

BROKEN(over_the_end_of_memory)
{
    describe(q, 0, 32 * MIB, 2 * GIB, WRITE, 0);
    return 0;
}

BROKEN(over_the_end_of_addresses)
{
    describe(q, 0, ~0ull - 15, 32, WRITE, 0);
    return 0;
}

BROKEN(address_and_length_wrap)
{
    describe(q, 0, ~0ull - 0xfffff, 0xffffffff, READ, 0);
    return 0;
}

BROKEN(outside_memory)
{
    describe(q, 0, NOWHERE, 512, READ, 0);
    return 0;
}

BROKEN(outside_memory_to_write)
{
    describe(q, 0, NOWHERE, 512, WRITE, 0);
    return 0;
}

BROKEN(beyond_all_memory)
{
    describe(q, 0, BEYOND, 512, WRITE, 0);
    return 0;
}

BROKEN(high_half_of_an_address)
{
    describe(q, 0, box(0) | 1ull << 63, 512, WRITE, 0);
    return 0;
}

BROKEN(at_device_registers)
{
    describe(q, 0, DEVICES + 0x70, 4, WRITE, 0);
    return 0;
}

BROKEN(at_device_registers_to_read)
{
    describe(q, 0, DEVICES, 256, READ, 0);
    return 0;
}

BROKEN(at_the_ioapic)
{
    describe(q, 0, IOAPIC, 32, WRITE, 0);
    return 0;
}

BROKEN(at_the_local_apic)
{
    describe(q, 0, LAPIC, 4096, WRITE, 0);
    return 0;
}

BROKEN(at_the_reset_vector)
{
    describe(q, 0, FIRMWARE, 4096, WRITE, 0);
    return 0;
}

BROKEN(good_then_outside_memory)
{
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, NOWHERE, 16, READ, 0);
    return 0;
}

BROKEN(good_then_outside_memory_to_write)
{
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, box(64), 512, WRITE | NEXT, 2);
    describe(q, 2, BEYOND, 1, WRITE, 0);
    return 0;
}

/* 2.7.4.2: writable elements come after the readable ones. */

BROKEN(readable_after_writable)
{
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, box(64), 512, WRITE | NEXT, 2);
    describe(q, 2, box(1024), 16, READ, 0);
    return 0;
}

BROKEN(readable_between_writable)
{
    describe(q, 0, box(0), 16, WRITE | NEXT, 1);
    describe(q, 1, box(64), 512, NEXT, 2);
    describe(q, 2, box(1024), 16, WRITE, 0);
    return 0;
}

/* 2.7.5.3: indirect tables, in the sandbox from 8 KiB on. */

static volatile struct virtq_desc *table(void) { return (volatile void *)(sandbox + 8 * KIB); }

static void row(unsigned index, uint64_t address, uint32_t length, unsigned flags, unsigned next)
{
    volatile struct virtq_desc *at = &table()[index];

    at->address = address;
    at->length = length;
    at->flags = flags;
    at->next = next;
}

static unsigned refer(struct virtq *q, uint32_t length, unsigned flags)
{
    describe(q, 0, (uintptr_t)table(), length, INDIRECT | flags, 1);
    describe(q, 1, box(0), 16, READ, 0);
    return 0;
}

BROKEN(table_not_negotiated)
{
    row(0, box(0), 16, READ, 0);
    return refer(q, 16, 0);
}

BROKEN_TABLE(table_and_next)
{
    row(0, box(0), 16, READ, 0);
    return refer(q, 16, NEXT);
}

BROKEN_TABLE(table_in_a_table)
{
    row(0, (uintptr_t)table() + 64, 16, INDIRECT, 0);
    row(4, box(0), 16, READ, 0);
    return refer(q, 32, 0);
}

BROKEN_TABLE(table_of_itself)
{
    row(0, (uintptr_t)table(), 16, INDIRECT, 0);
    return refer(q, 16, 0);
}

BROKEN_TABLE(empty_table)
{
    row(0, box(0), 16, READ, 0);
    return refer(q, 0, 0);
}

BROKEN_TABLE(table_of_half_a_descriptor)
{
    row(0, box(0), 16, READ, 0);
    return refer(q, 8, 0);
}

BROKEN_TABLE(table_of_an_odd_size)
{
    row(0, box(0), 16, READ, 0);
    return refer(q, 33, 0);
}

BROKEN_TABLE(longest_table)
{
    row(0, box(0), 16, READ, 0);
    return refer(q, 0xfffffff0, 0);
}

BROKEN_TABLE(table_outside_memory)
{
    describe(q, 0, NOWHERE, 32, INDIRECT, 0);
    return 0;
}

BROKEN_TABLE(table_at_device_registers)
{
    describe(q, 0, DEVICES, 256, INDIRECT, 0);
    return 0;
}

BROKEN_TABLE(table_over_the_end_of_addresses)
{
    describe(q, 0, ~0ull - 15, 32, INDIRECT, 0);
    return 0;
}

BROKEN_TABLE(loop_in_a_table)
{
    row(0, box(0), 16, NEXT, 1);
    row(1, box(0), 16, NEXT, 0);
    return refer(q, 32, 0);
}

BROKEN_TABLE(leads_out_of_its_table)
{
    row(0, box(0), 16, NEXT, 2);
    row(2, box(0), 16, READ, 0);
    return refer(q, 32, 0);
}

BROKEN_TABLE(table_of_bad_addresses)
{
    row(0, box(0), 16, NEXT, 1);
    row(1, NOWHERE, 16, WRITE, 0);
    return refer(q, 32, 0);
}

BROKEN_TABLE(table_with_readable_after_writable)
{
    row(0, box(0), 16, NEXT | WRITE, 1);
    row(1, box(64), 16, READ, 0);
    return refer(q, 32, 0);
}

BROKEN_TABLE(chain_longer_than_the_queue)
{
    for (unsigned i = 0; i <= q->size; i++)
        row(i, box(16 * (i % 64)), 1, i < q->size ? NEXT : 0, i + 1);
    return refer(q, 16 * (q->size + 1), 0);
}

BROKEN_TABLE(longer_than_the_queue_with_its_table)
{
    for (unsigned i = 0; i < q->size; i++)
        row(i, box(16 * (i % 64)), 1, i + 1 < q->size ? NEXT : 0, i + 1);
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, (uintptr_t)table(), 16 * q->size, INDIRECT, 0);
    return 0;
}

/* Within the rules. */

ODD(nothing)
{
    describe(q, 0, box(0), 0, READ, 0);
    return 0;
}

ODD(nothing_to_write)
{
    describe(q, 0, box(0), 0, WRITE, 0);
    return 0;
}

ODD(nothing_at_all_often)
{
    for (unsigned i = 0; i < q->size; i++)
        describe(q, i, box(0), 0, i + 1 < q->size ? NEXT : 0, i + 1);
    return 0;
}

ODD(one_byte_to_read)
{
    describe(q, 0, box(0), 1, READ, 0);
    return 0;
}

ODD(one_byte_to_write)
{
    describe(q, 0, box(0), 1, WRITE, 0);
    return 0;
}

ODD(longest_chain)
{
    for (unsigned i = 0; i < q->size; i++)
        describe(q, i, box(16 * (i % 64)), 1, (i + 1 < q->size ? NEXT : 0) | (i < q->size / 2 ? 0 : WRITE), i + 1);
    return 0;
}

ODD(longest_chain_in_a_table)
{
    for (unsigned i = 0; i < q->size; i++)
        row(i, box(16 * (i % 64)), 1, (i + 1 < q->size ? NEXT : 0) | (i < q->size / 2 ? 0 : WRITE), i + 1);
    return refer(q, 16 * q->size, 0);
}

ODD(table_after_descriptors)
{
    row(0, box(64), 16, WRITE, 0);
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, (uintptr_t)table(), 16, INDIRECT | WRITE, 0);
    return 0;
}

ODD(undefined_flags)
{
    describe(q, 0, box(0), 16, 0xfff8, 0);
    return 0;
}

ODD(all_of_memory_many_times)
{
    unsigned n = q->size < 64 ? q->size : 64;

    for (unsigned i = 0; i < n; i++)
        describe(q, i, 32 * MIB, 16 * MIB, i + 1 < n ? NEXT : 0, i + 1);
    return 0;
}

ODD(writes_over_its_own_descriptors)
{
    describe(q, 0, box(0), 16, NEXT, 1);
    describe(q, 1, (uintptr_t)q->desc, 16 * q->size, WRITE, 0);
    return 0;
}

ODD(reads_and_writes_the_same)
{
    describe(q, 0, box(0), 512, NEXT, 1);
    describe(q, 1, box(0), 512, WRITE, 0);
    return 0;
}

#define CASE(name) {#name, name}
const struct attack chain_attacks[] = {
    CASE(leads_to_itself),
    CASE(leads_back),
    CASE(leads_back_empty),
    CASE(whole_table_in_a_circle),
    CASE(leads_out_of_the_table),
    CASE(leads_far_out_of_the_table),
    CASE(longest),
    CASE(longest_to_write),
    CASE(over_the_end_of_memory),
    CASE(over_the_end_of_addresses),
    CASE(address_and_length_wrap),
    CASE(outside_memory),
    CASE(outside_memory_to_write),
    CASE(beyond_all_memory),
    CASE(high_half_of_an_address),
    CASE(at_device_registers),
    CASE(at_device_registers_to_read),
    CASE(at_the_ioapic),
    CASE(at_the_local_apic),
    CASE(at_the_reset_vector),
    CASE(good_then_outside_memory),
    CASE(good_then_outside_memory_to_write),
    CASE(readable_after_writable),
    CASE(readable_between_writable),
    CASE(table_not_negotiated),
    CASE(table_and_next),
    CASE(table_in_a_table),
    CASE(table_of_itself),
    CASE(empty_table),
    CASE(table_of_half_a_descriptor),
    CASE(table_of_an_odd_size),
    CASE(longest_table),
    CASE(table_outside_memory),
    CASE(table_at_device_registers),
    CASE(table_over_the_end_of_addresses),
    CASE(loop_in_a_table),
    CASE(leads_out_of_its_table),
    CASE(table_of_bad_addresses),
    CASE(table_with_readable_after_writable),
    CASE(chain_longer_than_the_queue),
    CASE(longer_than_the_queue_with_its_table),
    CASE(nothing),
    CASE(nothing_to_write),
    CASE(nothing_at_all_often),
    CASE(one_byte_to_read),
    CASE(one_byte_to_write),
    CASE(longest_chain),
    CASE(longest_chain_in_a_table),
    CASE(table_after_descriptors),
    CASE(undefined_flags),
    CASE(all_of_memory_many_times),
    CASE(writes_over_its_own_descriptors),
    CASE(reads_and_writes_the_same),
    {0},
};
