/* Virtio 1.2, 4.1. */
#include "virtio_pci.h"
#include "apic.h"
#include "guest.h"
#include "isr.h"

#include <stddef.h>

enum {
    FIRST_VECTOR = 0x80,        /* two for each device: its configuration's, and its queues' */
    PIN_VECTOR = 0x70,
    DEVICES = 16,
    ISA_IRQS = 16,
};

static unsigned get8(const struct virtio *d, unsigned reg) { return mmio_read8(d->registers + reg); }
static unsigned get16(const struct virtio *d, unsigned reg) { return mmio_read16(d->registers + reg); }
static uint32_t get32(const struct virtio *d, unsigned reg) { return mmio_read32(d->registers + reg); }
static void put8(const struct virtio *d, unsigned reg, unsigned v) { mmio_write8(d->registers + reg, v); }
static void put16(const struct virtio *d, unsigned reg, unsigned v) { mmio_write16(d->registers + reg, v); }
static void put32(const struct virtio *d, unsigned reg, uint32_t v) { mmio_write32(d->registers + reg, v); }

static void put64(const struct virtio *d, unsigned reg, const volatile void *address)
{
    put32(d, reg, (uintptr_t)address);
    put32(d, reg + 4, (uint64_t)(uintptr_t)address >> 32);
}

static unsigned status(const struct virtio *d) { return get8(d, COMMON_STATUS); }
static void set_status(const struct virtio *d, unsigned v) { put8(d, COMMON_STATUS, v); }

static uint32_t features(const struct virtio *d, unsigned half)
{
    put32(d, COMMON_DEVICE_FEATURE_SELECT, half);
    return get32(d, COMMON_DEVICE_FEATURE);
}

static void set_features(const struct virtio *d, unsigned half, uint32_t v)
{
    put32(d, COMMON_DRIVER_FEATURE_SELECT, half);
    put32(d, COMMON_DRIVER_FEATURE, v);
}

static unsigned queue_max(const struct virtio *d, unsigned index)
{
    put16(d, COMMON_QUEUE_SELECT, index);
    return get16(d, COMMON_QUEUE_SIZE);
}

/* 4.1.5.1.3; queues share entry 1 of the MSI-X table, as far as it is in use. */
static void queue_enable(const struct virtio *d, struct virtq *q)
{
    q->doorbell = virtio_pci_notify_address(d, q->index);
    put16(d, COMMON_QUEUE_SIZE, q->size);
    check(get16(d, COMMON_QUEUE_SIZE) == q->size);
    put64(d, COMMON_QUEUE_DESC, q->desc);
    put64(d, COMMON_QUEUE_DRIVER, q->avail);
    put64(d, COMMON_QUEUE_DEVICE, q->used);
    if (d->msix_in_use) {
        put16(d, COMMON_CONFIG_VECTOR, 0);
        put16(d, COMMON_QUEUE_VECTOR, 1);
        check(get16(d, COMMON_CONFIG_VECTOR) == 0 && get16(d, COMMON_QUEUE_VECTOR) == 1);
    }
    put16(d, COMMON_QUEUE_ENABLE, 1);
    check(get16(d, COMMON_QUEUE_ENABLE) == 1);
}

uintptr_t virtio_pci_notify_address(const struct virtio *d, unsigned queue)
{
    put16(d, COMMON_QUEUE_SELECT, queue);
    return d->notify + get16(d, COMMON_QUEUE_NOTIFY_OFF) * d->notify_step;
}

static void notify(const struct virtq *q) { mmio_write16(q->doorbell, q->index); }

/* Interrupts: messages */

static struct virtio *by_vector[DEVICES];
static unsigned vectors_used;

static void on_message(struct frame *frame)
{
    unsigned n = frame->vector - FIRST_VECTOR;

    virtio_interrupted(by_vector[n / 2], n % 2 ? ISR_QUEUE : ISR_CONFIG);
    apic_eoi();
}

/* PCI 3.0, 6.8.2; the message as the local APIC understands it: AMD64 APM volume 2, 16.11.2. */
static void set_entry(const struct virtio *d, unsigned entry, unsigned vector)
{
    uintptr_t at = d->msix_table + MSIX_ENTRY * entry;

    isr_set(vector, on_message);
    mmio_write32(at, APIC_BASE | apic_id() << 12);
    mmio_write32(at + 4, 0);
    mmio_write32(at + 8, vector);
    mmio_write32(at + 12, 0);
}

static void use_interrupts(struct virtio *d)
{
    check(d->msix && d->vectors >= 2 && vectors_used < DEVICES);
    by_vector[vectors_used] = d;
    pci_write(d->function, d->msix + MSIX_CONTROL, 2, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    set_entry(d, 0, FIRST_VECTOR + 2 * vectors_used);
    set_entry(d, 1, FIRST_VECTOR + 2 * vectors_used + 1);
    pci_write(d->function, d->msix + MSIX_CONTROL, 2, MSIX_ENABLE);
    vectors_used++;
    d->msix_in_use = 1;
}

/* Interrupts: the pin */

static struct virtio *pin_user;

static void on_pin(struct frame *frame)
{
    (void)frame;
    virtio_interrupted(pin_user, mmio_read8(pin_user->isr)); /* reading lets go of the wire */
    apic_eoi();
}

void virtio_pci_use_pin(struct virtio *d)
{
    unsigned irq = pci_read(d->function, PCI_INTERRUPT_LINE, 1);

    check(pci_read(d->function, PCI_INTERRUPT_PIN, 1) && irq < ISA_IRQS);
    pin_user = d;
    if (d->msix)
        pci_write(d->function, d->msix + MSIX_CONTROL, 2, 0);
    d->msix_in_use = 0;
    isr_set(PIN_VECTOR, on_pin);
    ioapic_route(irq, PIN_VECTOR, IOAPIC_LEVEL);
}

static const struct virtio_bus bus = {
    .name = "pci",
    .status = status,
    .set_status = set_status,
    .features = features,
    .set_features = set_features,
    .queue_max = queue_max,
    .queue_enable = queue_enable,
    .notify = notify,
    .use_interrupts = use_interrupts,
};

/* Where the structure is that a capability tells of (4.1.4); 0 where it cannot be reached. */
static uintptr_t structure(unsigned function, unsigned at)
{
    unsigned index = pci_read(function, at + CAP_BAR, 1);

    if (index >= BARS || pci_read(function, PCI_BAR + 4 * index, 4) & BAR_IO)
        return 0;
    uint64_t base = pci_bar(function, index);
    return base && base >> 32 == 0 ? (uintptr_t)base + pci_read(function, at + CAP_OFFSET, 4) : 0;
}

static void find_msix(struct virtio *d)
{
    unsigned at = pci_capability(d->function, CAPABILITY_MSIX, 0);

    if (!at)
        return;
    uint32_t where = pci_read(d->function, at + MSIX_TABLE, 4);

    d->msix = at;
    d->vectors = (pci_read(d->function, at + MSIX_CONTROL, 2) & 0x7ff) + 1;
    d->msix_table = (uintptr_t)pci_bar(d->function, where & 7) + (where & ~7u);
}

int virtio_pci_open(struct virtio *d, unsigned function)
{
    unsigned device = pci_read(function, PCI_ID, 4) >> 16;

    *d = (struct virtio){.bus = &bus, .function = function, .wait = virtio_wait};
    d->type = device >= VIRTIO_FIRST_DEVICE ? device - VIRTIO_FIRST_DEVICE : pci_read(function, PCI_SUBSYSTEM + 2, 2);
    for (unsigned at = 0; (at = pci_capability(function, CAPABILITY_VENDOR, at));) {
        uintptr_t *field = NULL;

        switch (pci_read(function, at + CAP_TYPE, 1)) {
        case CAP_COMMON: field = &d->registers; break;
        case CAP_NOTIFY: field = &d->notify; break;
        case CAP_ISR: field = &d->isr; break;
        case CAP_DEVICE: field = &d->config; break;
        }
        if (!field || *field || !(*field = structure(function, at)))
            continue;
        if (field == &d->notify)
            d->notify_step = pci_read(function, at + CAP_NOTIFY_MULTIPLIER, 4);
    }
    find_msix(d);
    pci_write(function, PCI_COMMAND, 2, pci_read(function, PCI_COMMAND, 2) | COMMAND_MEMORY | COMMAND_MASTER);
    return d->registers && d->notify && d->isr;
}

unsigned virtio_pci_find(struct virtio *devices, unsigned max)
{
    unsigned found = 0;

    for (unsigned f = 0; found < max && (f = pci_next(f)) < PCI_FUNCTIONS; f++) {
        unsigned id = pci_read(f, PCI_ID, 4), device = id >> 16;

        if ((id & 0xffff) == VIRTIO_VENDOR && device >= 0x1000 && device < 0x1080 &&
            virtio_pci_open(&devices[found], f))
            found++;
    }
    return found;
}
