/* Registers and configuration spaces, in widths and at offsets that no driver uses (2.5.1, 4.1.3.1, 4.2.2.2). */
#include "hostile.h"
#include "virtio_mmio.h"
#include "virtio_pci.h"

enum {
    CONFIG_SIZE = 256,
    RANDOM_ACCESSES = 150,
};

static uint64_t read_any(uintptr_t at, unsigned width)
{
    switch (width) {
    case 1: return mmio_read8(at);
    case 2: return mmio_read16(at);
    case 4: return mmio_read32(at);
    default: return *(volatile uint64_t *)at;
    }
}

static void write_any(uintptr_t at, unsigned width, uint64_t v)
{
    switch (width) {
    case 1: mmio_write8(at, v); break;
    case 2: mmio_write16(at, v); break;
    case 4: mmio_write32(at, v); break;
    default: *(volatile uint64_t *)at = v;
    }
}

static void read_all(uintptr_t from, unsigned length, unsigned step)
{
    for (unsigned width = 1; width <= 8; width *= 2)
        for (unsigned at = 0; at + width <= length; at += step)
            read_any(from + at, width);
}

static void config_in_all_widths(struct target *t)
{
    if (!t->device.config)
        return;
    read_all(t->device.config, 64, 3);
    bring_up(t, 0);
    read_all(t->device.config, 64, 3);
    for (unsigned at = 64; at < 4096; at = 2 * at - 3)
        read_any(t->device.config + (is_pci(&t->device) ? at : at % 3800), 4);
}

/* The same bytes, whatever the width: as long as nothing changes. */
static void config_in_parts(struct target *t)
{
    uintptr_t config = t->device.config;

    if (!config)
        return;
    bring_up(t, 0);
    for (unsigned at = 0; at < 32; at += 4) {
        uint32_t whole = mmio_read32(config + at), parts = 0;

        for (unsigned i = 0; i < 4; i++)
            parts |= (uint32_t)mmio_read8(config + at + i) << 8 * i;
        check(whole == parts);
        check(whole == (mmio_read16(config + at) | (uint32_t)mmio_read16(config + at + 2) << 16));
    }
}

static void config_written(struct target *t)
{
    if (!t->device.config)
        return;
    bring_up(t, 0);
    for (unsigned width = 1; width <= 8; width *= 2)
        for (unsigned at = 0; at < 48; at += 5)
            write_any(t->device.config + at, width, at % 2 ? ~0ull : 0);
    for (unsigned at = 60; at < CONFIG_SIZE; at += 17)
        write_any(t->device.config + at, 4, chance());
    glance(t);
}

static void config_written_before_features(struct target *t)
{
    if (!t->device.config)
        return;
    virtio_reset(&t->device);
    for (unsigned at = 0; at < 48; at += 4)
        write_any(t->device.config + at, 4, ~0u);
    glance(t);
}

/* Instructions that repeat, or that read and write at once. */
static void strings(struct target *t)
{
    static uint8_t copy[128];
    const void *from = (const void *)t->device.registers;
    void *to = copy;
    unsigned long n = 60;
    uint8_t byte = 0;

    bring_up(t, 0);
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
    from = (const void *)t->device.registers, to = copy, n = 15;
    __asm__ volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
    __asm__ volatile("lock incl %0" : "+m"(*(volatile uint32_t *)t->device.registers));
    __asm__ volatile("xchgb %0, %1" : "+m"(*(volatile uint8_t *)(t->device.registers + 8)), "+q"(byte));
    glance(t);
}

/* Random reads and writes, but for addresses of rings: those lead into the sandbox or out of memory. */
static void at_random(struct target *t)
{
    struct virtio *d = &t->device;
    unsigned length = is_pci(d) ? COMMON_SIZE : 0x140;

    bring_up(t, 0);
    for (unsigned i = 0; i < RANDOM_ACCESSES; i++) {
        unsigned at = chance_below(length), width = 1 << chance_below(4);
        unsigned desc = is_pci(d) ? COMMON_QUEUE_DESC : MMIO_QUEUE_DESC;
        unsigned end = is_pci(d) ? COMMON_QUEUE_DEVICE + 8 : MMIO_QUEUE_DEVICE + 8;

        if (chance_below(3) == 0)
            read_any(d->registers + at, width);
        else if (at + width > desc && at < end) {
            uint64_t box = (uintptr_t)sandbox;
            raw_areas(d, box + 16 * chance_below(64), box + 4096 + 2 * chance_below(64), box + 8192 + 4 * chance_below(64));
        } else
            write_any(d->registers + at, width, chance_below(2) ? chance_below(16) : chance());
        if (i % 16 == 0)
            raw_notify(d, chance_below(t->queues + 1));
        if (i % 50 == 49)
            bring_up(t, chance() & chance());
    }
    glance(t);
}

#define CASE(name) {#name, name}
const struct attack register_attacks[] = {
    CASE(config_in_all_widths),
    CASE(config_in_parts),
    CASE(config_written),
    CASE(config_written_before_features),
    CASE(strings),
    CASE(at_random),
    {0},
};

/* Only the page of virtio-mmio has what follows. */

static void registers_in_all_widths(struct target *t)
{
    bring_up(t, 0);
    read_all(t->device.registers, MMIO_CONFIG, 5);
    check(t->device.bus->status(&t->device) & STATUS_DRIVER_OK);
}

static void registers_written_in_other_widths(struct target *t)
{
    struct virtio *d = &t->device;

    bring_up(t, 0);
    for (unsigned at = 0; at < MMIO_CONFIG; at += 3) {
        if (at == MMIO_QUEUE_NOTIFY)
            continue;
        mmio_write8(d->registers + at, 0);
        mmio_write16(d->registers + at, 0xffff);
        if (at % 4)
            mmio_write32(d->registers + at, ~0u);
        write_any(d->registers + at, 8, ~0ull);
    }
    glance(t);
}

static void read_only_registers_written(struct target *t)
{
    static const unsigned registers[] = {
        MMIO_MAGIC, MMIO_VERSION, MMIO_DEVICE_ID, 0x0c, MMIO_DEVICE_FEATURES, MMIO_QUEUE_NUM_MAX, MMIO_INTERRUPT_STATUS,
        MMIO_CONFIG_GENERATION, 0x18, 0x40, 0x54, 0xb0, 0xf8,
    };
    struct virtio *d = &t->device;

    bring_up(t, 0);
    for (unsigned i = 0; i < sizeof registers / sizeof *registers; i++)
        mmio_write32(d->registers + registers[i], ~0u);
    check(mmio_read32(d->registers + MMIO_MAGIC) == 0x74726976);
    check(mmio_read32(d->registers + MMIO_VERSION) == 2);
    check(mmio_read32(d->registers + MMIO_DEVICE_ID) == d->type);
}

static void interrupts_acknowledged_that_were_none(struct target *t)
{
    struct virtio *d = &t->device;

    bring_up(t, 0);
    for (unsigned i = 0; i < 8; i++)
        mmio_write32(d->registers + MMIO_INTERRUPT_ACK, i % 2 ? ~0u : 1u << i);
    check(mmio_read32(d->registers + MMIO_INTERRUPT_STATUS) == 0);
}

static void over_the_end_of_the_page(struct target *t)
{
    uintptr_t end = t->device.registers + MMIO_SLOT;

    bring_up(t, 0);
    for (unsigned before = 1; before < 8; before++) {
        read_any(end - before, 8);
        read_any(end - before, before < 4 ? 4 : 8);
    }
    for (unsigned at = 0x200; at < MMIO_SLOT; at += 0x1ff)
        mmio_write32(t->device.registers + at, ~0u);
    glance(t);
}

static void notified_in_other_widths(struct target *t)
{
    uintptr_t at = t->device.registers + MMIO_QUEUE_NOTIFY;

    bring_up(t, 0);
    for (unsigned i = 0; i < 4; i++) {
        mmio_write8(at, i);
        mmio_write16(at, i);
        write_any(at, 8, i);
        mmio_write16(at + 2, i);
        mmio_write8(at + 3, 0xff);
    }
    glance(t);
}

static void shared_memory_that_is_not_there(struct target *t)
{
    for (unsigned i = 0; i < 256; i += 51) {
        mmio_write32(t->device.registers + 0xac, i);
        check(mmio_read32(t->device.registers + 0xb0) == ~0u); /* 4.2.2: a length of -1 */
        check(mmio_read32(t->device.registers + 0xb4) == ~0u);
    }
}

const struct attack mmio_attacks[] = {
    CASE(registers_in_all_widths),
    CASE(registers_written_in_other_widths),
    CASE(read_only_registers_written),
    CASE(interrupts_acknowledged_that_were_none),
    CASE(over_the_end_of_the_page),
    CASE(notified_in_other_widths),
    CASE(shared_memory_that_is_not_there),
    {0},
};
