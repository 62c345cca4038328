/* Virtio 1.2, 4.2. */
#include "virtio_mmio.h"
#include "apic.h"
#include "guest.h"
#include "isr.h"

enum {
    MAGIC = 0x74726976,
    VERSION = 2,
    ROW_LENGTH = 256,
    FIRST_GSI = 16,
    GSIS = 8,
    FIRST_VECTOR = 0x60,
    SHARERS = 32,
};

static const uintptr_t ROW = 0xfeb00000;

static uint32_t get(const struct virtio *d, unsigned reg) { return mmio_read32(d->registers + reg); }
static void put(const struct virtio *d, unsigned reg, uint32_t v) { mmio_write32(d->registers + reg, v); }

static void put64(const struct virtio *d, unsigned reg, const volatile void *address)
{
    put(d, reg, (uintptr_t)address);
    put(d, reg + 4, (uint64_t)(uintptr_t)address >> 32);
}

static unsigned status(const struct virtio *d) { return get(d, MMIO_STATUS); }
static void set_status(const struct virtio *d, unsigned v) { put(d, MMIO_STATUS, v); }
static void notify(const struct virtq *q) { mmio_write32(q->doorbell, q->index); }

static uint32_t features(const struct virtio *d, unsigned half)
{
    put(d, MMIO_DEVICE_FEATURES_SEL, half);
    return get(d, MMIO_DEVICE_FEATURES);
}

static void set_features(const struct virtio *d, unsigned half, uint32_t v)
{
    put(d, MMIO_DRIVER_FEATURES_SEL, half);
    put(d, MMIO_DRIVER_FEATURES, v);
}

static unsigned queue_max(const struct virtio *d, unsigned index)
{
    put(d, MMIO_QUEUE_SEL, index);
    return get(d, MMIO_QUEUE_NUM_MAX);
}

/* 4.2.3.2 */
static void queue_enable(const struct virtio *d, struct virtq *q)
{
    q->doorbell = d->registers + MMIO_QUEUE_NOTIFY;
    put(d, MMIO_QUEUE_SEL, q->index);
    check(!get(d, MMIO_QUEUE_READY));
    put(d, MMIO_QUEUE_NUM, q->size);
    put64(d, MMIO_QUEUE_DESC, q->desc);
    put64(d, MMIO_QUEUE_DRIVER, q->avail);
    put64(d, MMIO_QUEUE_DEVICE, q->used);
    put(d, MMIO_QUEUE_READY, 1);
    check(get(d, MMIO_QUEUE_READY) == 1);
}

/* A line may have several devices on it: 4.2.3.4 for each. */
static struct virtio *sharers[SHARERS];

static void on_interrupt(struct frame *frame)
{
    for (unsigned i = 0; i < SHARERS && sharers[i]; i++) {
        struct virtio *d = sharers[i];
        uint32_t isr;

        if (FIRST_VECTOR + d->gsi != frame->vector || !(isr = get(d, MMIO_INTERRUPT_STATUS)))
            continue;
        put(d, MMIO_INTERRUPT_ACK, isr);
        virtio_interrupted(d, isr);
    }
    apic_eoi();
}

static void use_interrupts(struct virtio *d)
{
    unsigned i = 0;

    while (i < SHARERS && sharers[i] && sharers[i] != d)
        i++;
    check(i < SHARERS && d->gsi < ioapic_pins());
    sharers[i] = d;
    isr_set(FIRST_VECTOR + d->gsi, on_interrupt);
    ioapic_route(d->gsi, FIRST_VECTOR + d->gsi, IOAPIC_LEVEL | IOAPIC_ACTIVE_LOW);
}

static const struct virtio_bus bus = {
    .name = "mmio",
    .status = status,
    .set_status = set_status,
    .features = features,
    .set_features = set_features,
    .queue_max = queue_max,
    .queue_enable = queue_enable,
    .notify = notify,
    .use_interrupts = use_interrupts,
};

/* 4.2.2.2: pages without the magic number or of another version are none of ours; type 0 is an empty place. */
static int take(struct virtio *d, uintptr_t page, unsigned gsi)
{
    *d = (struct virtio){.bus = &bus, .registers = page, .config = page + MMIO_CONFIG, .gsi = gsi, .wait = virtio_wait};
    if (get(d, MMIO_VERSION) != VERSION)
        return 0;
    d->type = get(d, MMIO_DEVICE_ID);
    return d->type != 0;
}

static unsigned long number(const char **text)
{
    unsigned long v = 0;
    unsigned base = 10;

    if ((*text)[0] == '0' && (*text)[1] == 'x') {
        base = 16;
        *text += 2;
    }
    for (;; (*text)++) {
        unsigned c = **text, digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : base;

        if (digit >= base)
            return v;
        v = v * base + digit;
    }
}

/* The next device that the command line names; 0 when there is none. */
static int named(const char **text, uintptr_t *page, unsigned *gsi)
{
    static const char word[] = "virtio_mmio.device=";

    for (; *text && **text; (*text)++) {
        unsigned n = 0;

        while (word[n] && (*text)[n] == word[n])
            n++;
        if (word[n])
            continue;
        for (*text += n; **text && **text != '@'; (*text)++)
            ;
        if (!**text)
            return 0;
        (*text)++;
        *page = number(text);
        if (**text != ':')
            return 0;
        (*text)++;
        *gsi = number(text);
        return 1;
    }
    return 0;
}

unsigned virtio_mmio_find(const char *command_line, struct virtio *devices, unsigned max)
{
    unsigned found = 0, gsi, any = 0;
    uintptr_t page;

    for (; found < max && named(&command_line, &page, &gsi); any = 1)
        if (mmio_read32(page) == MAGIC && take(&devices[found], page, gsi))
            found++;
    for (unsigned i = 0; !any && found < max && i < ROW_LENGTH; i++) {
        page = ROW + MMIO_SLOT * i;
        if (mmio_read32(page) != MAGIC)
            break;
        if (take(&devices[found], page, FIRST_GSI + i % GSIS))
            found++;
    }
    return found;
}
