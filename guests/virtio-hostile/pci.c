/* What only a function on the PCI bus has: configuration space, ranges, MSI-X, and a window to its registers (4.1). */
#include "pci.h"
#include "apic.h"
#include "hostile.h"
#include "virtio_pci.h"

enum {
    FREE_MEMORY = 0x3000000,    /* RAM that this guest does not use */
    HOLE = 0xf9000000,          /* in the window of the host bridge */
    NO_APIC = 0xfe,             /* a processor that is not there */
};

static unsigned function(const struct target *t) { return t->device.function; }

static unsigned memory_bar(const struct target *t, unsigned after)
{
    for (unsigned i = after; i < BARS; i++)
        if (t->bars[i] && !(t->bars[i] & BAR_IO) && (i == 0 || (t->bars[i - 1] & (BAR_IO | BAR_64)) != BAR_64))
            return i;
    return BARS;
}

#define each_bar(t, i) for (unsigned i = memory_bar(t, 0); i < BARS; i = memory_bar(t, i + 1))

static void move_all(struct target *t, uint64_t to)
{
    each_bar(t, i)
        pci_bar_set(function(t), i, to);
}

static void put_back(struct target *t)
{
    for (unsigned i = 0; i < BARS; i++)
        pci_write(function(t), PCI_BAR + 4 * i, 4, t->bars[i]);
}

/* A buffer is under way at each moment of what follows. */
static void offer_one(struct target *t)
{
    unsigned i = t->answering == NO_QUEUE ? 0 : t->answering;

    describe(&t->q[i], 0, (uintptr_t)sandbox, 64, DESC_WRITE, 0);
    expose(&t->q[i], 0);
}

static void ranges_moved_to(struct target *t, uint64_t to)
{
    bring_up(t, 0);
    offer_one(t);
    move_all(t, to);
    raw_notify(&t->device, 0); /* where they were */
    put_back(t);
    glance(t);
    check(t->device.bus->status(&t->device) & STATUS_DRIVER_OK);
}

static void ranges_over_memory(struct target *t)
{
    volatile uint32_t *memory = (volatile uint32_t *)FREE_MEMORY;

    memory[0] = 0x600d600d;
    memory[1024] = 0x600d600d;
    ranges_moved_to(t, FREE_MEMORY);
    check(memory[0] == 0x600d600d && memory[1024] == 0x600d600d);
}

static void ranges_over_this_program(struct target *t) { ranges_moved_to(t, 0x100000); }
static void ranges_at_zero(struct target *t) { ranges_moved_to(t, 0); }
static void ranges_at_the_end(struct target *t) { ranges_moved_to(t, ~0ull); }
static void ranges_far_away(struct target *t) { ranges_moved_to(t, 1ull << 51 | HOLE); }

static void ranges_over_the_local_apic(struct target *t)
{
    uint32_t version = apic_read(APIC_VERSION);

    ranges_moved_to(t, APIC_BASE & ~0xfffffu);
    check(apic_read(APIC_VERSION) == version);
}

static void ranges_over_the_ioapic(struct target *t)
{
    unsigned pins = ioapic_pins();

    ranges_moved_to(t, 0xfec00000);
    check(ioapic_pins() == pins);
}

static void ranges_over_configuration_space(struct target *t) { ranges_moved_to(t, 0xe0000000); }
static void ranges_over_virtio_mmio(struct target *t) { ranges_moved_to(t, 0xfeb00000); }
static void ranges_over_firmware(struct target *t) { ranges_moved_to(t, 0xffff0000); }

static void ranges_over_each_other(struct target *t)
{
    unsigned first = memory_bar(t, 0), second = memory_bar(t, first + 1);

    bring_up(t, 0);
    if (second < BARS) {
        pci_bar_set(function(t), second, pci_bar(function(t), first));
        t->device.bus->status(&t->device);
        pci_bar_set(function(t), first, HOLE);
        raw_notify(&t->device, 0);
    }
    put_back(t);
    glance(t);
}

static void ranges_over_another_device(struct target *t)
{
    bring_up(t, 0);
    for (unsigned f = 0; (f = pci_next(f)) < PCI_FUNCTIONS; f++) {
        uint64_t its = pci_bar(f, 0);

        if (f == function(t) || !its || its & BAR_IO || its >> 32)
            continue;
        move_all(t, its);
        mmio_read32((uintptr_t)its);
        break;
    }
    put_back(t);
    check(t->device.bus->status(&t->device) & STATUS_DRIVER_OK);
}

/* All ones ask for the size (PCI 3.0, 6.2.5.1); here while the range is in use. */
static void ranges_sized_while_in_use(struct target *t)
{
    bring_up(t, 0);
    offer_one(t);
    for (unsigned i = 0; i < BARS; i++) {
        pci_write(function(t), PCI_BAR + 4 * i, 4, ~0u);
        pci_read(function(t), PCI_BAR + 4 * i, 4);
        raw_notify(&t->device, 0);
        mmio_read32(t->device.registers);
        pci_write(function(t), PCI_BAR + 4 * i, 4, t->bars[i]);
    }
    glance(t);
}

static void ranges_moved_often(struct target *t)
{
    bring_up(t, 0);
    for (unsigned i = 0; i < 40; i++)
        move_all(t, HOLE + 0x10000 * i);
    put_back(t);
    check(t->device.bus->status(&t->device) & STATUS_DRIVER_OK);
}

static void decoding_off_while_notifying(struct target *t)
{
    bring_up(t, 0);
    offer_one(t);
    for (unsigned i = 0; i < 8; i++) {
        pci_write(function(t), PCI_COMMAND, 2, COMMAND_MASTER);
        raw_notify(&t->device, 0);
        check(mmio_read32(t->device.registers) == ~0u); /* nobody answers */
        mmio_write8(t->device.registers + COMMON_STATUS, 0);
        pci_write(function(t), PCI_COMMAND, 2, COMMAND_MASTER | COMMAND_MEMORY);
        raw_notify(&t->device, 0);
    }
    check(t->device.bus->status(&t->device) & STATUS_DRIVER_OK);
}

static void no_bus_master(struct target *t)
{
    bring_up(t, 0);
    pci_write(function(t), PCI_COMMAND, 2, COMMAND_MEMORY);
    offer_one(t);
    raw_notify(&t->device, t->answering == NO_QUEUE ? 0 : t->answering);
    glance(t);
    pci_write(function(t), PCI_COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER);
    glance(t);
}

static void command_at_random(struct target *t)
{
    bring_up(t, 0);
    for (unsigned i = 0; i < 24; i++) {
        offer_one(t);
        pci_write(function(t), PCI_COMMAND, 2, chance());
        raw_notify(&t->device, 0);
    }
    pci_write(function(t), PCI_COMMAND, 2, t->command);
    glance(t);
}

/* MSI-X */

static void msix_control(struct target *t, unsigned v)
{
    if (t->device.msix)
        pci_write(function(t), t->device.msix + MSIX_CONTROL, 2, v);
}

static void entry(struct target *t, unsigned n, uint64_t address, uint32_t data, uint32_t control)
{
    uintptr_t at = t->device.msix_table + MSIX_ENTRY * n;

    mmio_write32(at, address);
    mmio_write32(at + 4, address >> 32);
    mmio_write32(at + 8, data);
    mmio_write32(at + 12, control);
}

/* With the table like this, both interrupts are provoked: by a used buffer, then by the device's giving up. */
static void with_messages(struct target *t, uint64_t address, uint32_t data)
{
    unsigned main_queue = t->answering == NO_QUEUE ? 0 : t->answering;

    if (!t->device.msix)
        return;
    for (unsigned n = 0; n < t->device.vectors; n++)
        entry(t, n, address, data, 0);
    msix_control(t, MSIX_ENABLE);
    t->device.msix_in_use = 1;
    bring_up(t, 0);
    t->device.msix_in_use = 0;
    offer_one(t);
    raw_notify(&t->device, main_queue);
    glance(t);
    expose(&t->q[main_queue], 0xffff);
    raw_notify(&t->device, main_queue);
    glance(t);
    msix_control(t, 0);
}

static void messages_to_memory(struct target *t) { with_messages(t, FREE_MEMORY, 0x21); }
static void messages_to_devices(struct target *t) { with_messages(t, 0xfec00000, 0x21); }
static void messages_to_its_own_table(struct target *t) { with_messages(t, t->device.msix_table, ~0u); }
static void messages_far_away(struct target *t) { with_messages(t, ~0ull, ~0u); }
static void messages_above_four_gib(struct target *t) { with_messages(t, 1ull << 32 | APIC_BASE, 0x50); }
static void messages_with_low_vectors(struct target *t) { with_messages(t, APIC_BASE | apic_id() << 12, 0x0f); }
static void messages_of_reserved_kinds(struct target *t) { with_messages(t, APIC_BASE | apic_id() << 12, 0x3352); }
static void messages_to_absent_processors(struct target *t) { with_messages(t, APIC_BASE | NO_APIC << 12, 0x52); }
static void messages_to_no_logical_processor(struct target *t) { with_messages(t, APIC_BASE | NO_APIC << 12 | 0xc, 0x152); }
static void messages_by_level(struct target *t) { with_messages(t, APIC_BASE | apic_id() << 12, 0xc053); }

static void vectors_that_are_not_there(struct target *t)
{
    const struct virtio *d = &t->device;

    if (!d->msix)
        return;
    msix_control(t, MSIX_ENABLE);
    bring_to_features(t, 0);
    raw_select(d, 0);
    for (unsigned v = d->vectors; v < 0x10000; v = 2 * v + 1) {
        mmio_write16(d->registers + COMMON_CONFIG_VECTOR, v);
        mmio_write16(d->registers + COMMON_QUEUE_VECTOR, v);
        check(mmio_read16(d->registers + COMMON_CONFIG_VECTOR) == NO_VECTOR); /* 4.1.5.1.2.1 */
        check(mmio_read16(d->registers + COMMON_QUEUE_VECTOR) == NO_VECTOR);
    }
    raw_select(d, 0xffff);
    mmio_write16(d->registers + COMMON_QUEUE_VECTOR, 0);
    bring_queues(t);
    virtio_ready(&t->device);
    msix_control(t, 0);
}

static void table_in_other_widths(struct target *t)
{
    uintptr_t table = t->device.msix_table;
    unsigned length = MSIX_ENTRY * t->device.vectors;

    if (!t->device.msix)
        return;
    msix_control(t, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    for (unsigned at = 0; at < length; at += 3) {
        mmio_write8(table + at, 0xa5);
        mmio_write16(table + at, 0x5aa5);
        mmio_write32(table + at, 0xdeadbeef);
        *(volatile uint64_t *)(table + at) = ~0ull;
        mmio_read8(table + at);
        mmio_read16(table + at + 1);
        (void)*(volatile uint64_t *)(table + at);
    }
    for (unsigned at = 0; at < 64; at += 4) { /* behind its end, and the pending bits */
        mmio_write32(table + length + at, ~0u);
        mmio_write32(table + 2048 + at, ~0u);
        mmio_read32(table + length + at);
    }
    msix_control(t, 0);
    glance(t);
}

static void masks_back_and_forth(struct target *t)
{
    if (!t->device.msix)
        return;
    t->device.msix_in_use = 1;
    msix_control(t, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    bring_up(t, 0);
    t->device.msix_in_use = 0;
    for (unsigned i = 0; i < 16; i++) {
        entry(t, i % t->device.vectors, APIC_BASE | apic_id() << 12, 0x54, i & 1);
        offer_one(t);
        raw_notify(&t->device, t->answering == NO_QUEUE ? 0 : t->answering);
        glance(t);
        msix_control(t, i & 2 ? MSIX_ENABLE : i & 4 ? 0 : MSIX_ENABLE | MSIX_FUNCTION_MASK);
    }
    msix_control(t, 0);
}

/* The window: 4.1.4.9 */

static void window_at_random(struct target *t)
{
    static const uint32_t offsets[] = {0, 1, 3, 0x14, 0x37, 0x3c, 0xfff, 0x1000, 0x2000, 0x3000, 0x7fff, 0x8000, ~0u, ~3u};
    static const uint32_t lengths[] = {0, 1, 2, 3, 4, 8, 0x1000, ~0u};
    unsigned f = function(t), at = 0;

    do
        at = pci_capability(f, CAPABILITY_VENDOR, at);
    while (at && pci_read(f, at + CAP_TYPE, 1) != CAP_CONFIG);
    check(at); /* 4.1.4.9.1: each device has one */
    bring_up(t, 0);
    for (unsigned bar = 0; bar < 8; bar++)
        for (unsigned i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            uint32_t length = lengths[(i + bar) % (sizeof lengths / sizeof *lengths)];

            pci_write(f, at + CAP_BAR, 1, bar == 7 ? 255 : bar);
            pci_write(f, at + CAP_OFFSET, 4, offsets[i]);
            pci_write(f, at + CAP_LENGTH, 4, length);
            pci_read(f, at + CAP_CONFIG_DATA, 4);
            pci_read(f, at + CAP_CONFIG_DATA + 1, 1);
            if (bar) /* not where the registers are, lest rings are somewhere */
                pci_write(f, at + CAP_CONFIG_DATA, 4, chance());
        }
    pci_write(f, at + CAP_BAR, 1, 0);
    pci_write(f, at + CAP_OFFSET, 4, COMMON_STATUS);
    pci_write(f, at + CAP_LENGTH, 4, 1);
    glance(t);
}

/* Configuration space */

static void header_written(struct target *t)
{
    unsigned f = function(t);
    uint32_t id = pci_read(f, PCI_ID, 4), kind = pci_read(f, PCI_CLASS, 4);
    unsigned capabilities = pci_read(f, PCI_CAPABILITIES, 1);

    bring_up(t, 0);
    for (unsigned reg = 0; reg < 64; reg++) {
        if (reg >= PCI_BAR && reg < PCI_BAR + 4 * BARS)
            continue;
        for (unsigned width = 1; width <= 4 && reg % width == 0; width *= 2)
            pci_write(f, reg, width, ~0u);
    }
    check(pci_read(f, PCI_ID, 4) == id && pci_read(f, PCI_CLASS, 4) == kind);
    check(pci_read(f, PCI_CAPABILITIES, 1) == capabilities);
    pci_write(f, PCI_COMMAND, 2, t->command);
    glance(t);
}

static void capabilities_written(struct target *t)
{
    unsigned f = function(t), start = pci_read(f, PCI_CAPABILITIES, 1);

    bring_up(t, 0);
    for (unsigned i = 0, at = start; at && i < 48; i++) {
        unsigned kind = pci_read(f, at, 1), next = pci_read(f, at + 1, 1);

        pci_write(f, at, 2, 0);
        for (unsigned field = 2; field < 16; field++)
            pci_write(f, at + field, 1, 0xff);
        check(pci_read(f, at, 1) == kind && pci_read(f, at + 1, 1) == next);
        at = next;
    }
    msix_control(t, 0);
    glance(t);
}

static void configuration_everywhere(struct target *t)
{
    unsigned f = function(t);

    outl(PCI_ADDRESS_PORT, 0x7fffffff); /* not enabled */
    outl(PCI_DATA_PORT, ~0u);
    check(inl(PCI_DATA_PORT) == ~0u);
    outl(PCI_ADDRESS_PORT, ~0u);
    inl(PCI_DATA_PORT);
    outl(PCI_DATA_PORT, ~0u);
    outw(PCI_ADDRESS_PORT, 0xffff);
    outb(PCI_ADDRESS_PORT, 0xff);
    inw(PCI_ADDRESS_PORT + 1);
    outl(PCI_ADDRESS_PORT, PCI_ENABLE | f << 8); /* over the end of the word */
    inw(PCI_DATA_PORT + 3);
    inl(PCI_DATA_PORT + 2);
    outl(PCI_DATA_PORT + 3, ~0u);
    for (unsigned absent = 0; absent < PCI_FUNCTIONS; absent += 37)
        if (absent != f)
            pci_read(absent, PCI_ID, 4);
    if (!ecam)
        return;
    for (unsigned at = 0; at < 4096; at += 97) {
        (void)*(volatile uint64_t *)(ecam + (f << 12) + at);
        mmio_read16(ecam + (f << 12) + at);
    }
    for (unsigned at = 256; at < 4096; at += 61)
        mmio_write32(ecam + (f << 12) + at, ~0u);
    mmio_read32(ecam + (f << 12) + 4094);
    glance(t);
}

static void read_only_fields_written(struct target *t)
{
    const struct virtio *d = &t->device;
    unsigned queues = mmio_read16(d->registers + COMMON_NUM_QUEUES);

    bring_up(t, 0);
    mmio_write32(d->registers + COMMON_DEVICE_FEATURE, ~0u);
    mmio_write16(d->registers + COMMON_NUM_QUEUES, 0xffff);
    mmio_write8(d->registers + COMMON_GENERATION, 0xff);
    mmio_write16(d->registers + COMMON_QUEUE_NOTIFY_OFF, 0xffff);
    mmio_write16(d->registers + 0x38, 0xffff);
    mmio_write8(d->isr, 0xff);
    check(mmio_read16(d->registers + COMMON_NUM_QUEUES) == queues);
    check(d->bus->status(d) & STATUS_DRIVER_OK);
}

static void fields_in_other_widths(struct target *t)
{
    const struct virtio *d = &t->device;

    bring_up(t, 0);
    for (unsigned at = 0; at < COMMON_SIZE + 8; at++) {
        mmio_read8(d->registers + at);
        mmio_read16(d->registers + at);
        mmio_read32(d->registers + at);
        (void)*(volatile uint64_t *)(d->registers + at);
        if (at != COMMON_STATUS)
            mmio_write8(d->registers + at, 0xff);
    }
    for (unsigned at = 1; at < COMMON_SIZE; at += 2)
        *(volatile uint64_t *)(d->registers + at) = ~0ull;
    mmio_read32(d->isr);
    glance(t);
}

static void notified_in_other_widths(struct target *t)
{
    uintptr_t at = t->device.notify;

    bring_up(t, 0);
    for (unsigned i = 0; i < 4; i++) {
        mmio_write8(at, i);
        mmio_write32(at, i);
        *(volatile uint64_t *)at = i;
        mmio_write16(at + 1, i);
        mmio_write32(at + 2, ~0u);
        mmio_write16(at + 0x7fe, i);
        mmio_read16(at);
    }
    glance(t);
}

#define CASE(name) {#name, name}
const struct attack pci_attacks[] = {
    CASE(ranges_over_memory),
    CASE(ranges_over_this_program),
    CASE(ranges_at_zero),
    CASE(ranges_at_the_end),
    CASE(ranges_far_away),
    CASE(ranges_over_the_local_apic),
    CASE(ranges_over_the_ioapic),
    CASE(ranges_over_configuration_space),
    CASE(ranges_over_virtio_mmio),
    CASE(ranges_over_firmware),
    CASE(ranges_over_each_other),
    CASE(ranges_over_another_device),
    CASE(ranges_sized_while_in_use),
    CASE(ranges_moved_often),
    CASE(decoding_off_while_notifying),
    CASE(no_bus_master),
    CASE(command_at_random),
    CASE(messages_to_memory),
    CASE(messages_to_devices),
    CASE(messages_to_its_own_table),
    CASE(messages_far_away),
    CASE(messages_above_four_gib),
    CASE(messages_with_low_vectors),
    CASE(messages_of_reserved_kinds),
    CASE(messages_to_absent_processors),
    CASE(messages_to_no_logical_processor),
    CASE(messages_by_level),
    CASE(vectors_that_are_not_there),
    CASE(table_in_other_widths),
    CASE(masks_back_and_forth),
    CASE(window_at_random),
    CASE(header_written),
    CASE(capabilities_written),
    CASE(configuration_everywhere),
    CASE(read_only_fields_written),
    CASE(fields_in_other_widths),
    CASE(notified_in_other_widths),
    {0},
};
