/* Virtio 1.2, chapters 2 and 3, as far as it is the same on every transport. */
#include "virtio.h"
#include "apic.h"
#include "guest.h"

const char *virtio_name(unsigned type)
{
    switch (type) {
    case VIRTIO_NET: return "net";
    case VIRTIO_BLOCK: return "block";
    case VIRTIO_CONSOLE: return "console";
    case VIRTIO_ENTROPY: return "entropy";
    case VIRTIO_BALLOON: return "balloon";
    case VIRTIO_VSOCK: return "vsock";
    case VIRTIO_FS: return "fs";
    case VIRTIO_PMEM: return "pmem";
    default: return "other";
    }
}

void virtio_reset(struct virtio *d)
{
    unsigned polls = 0;

    d->bus->set_status(d, 0);
    while (d->bus->status(d))
        if (++polls == 100000)
            fail("%s %s: no end of a reset", d->bus->name, virtio_name(d->type));
    d->features = 0;
}

uint64_t virtio_features(const struct virtio *d)
{
    return d->bus->features(d, 0) | (uint64_t)d->bus->features(d, 1) << 32;
}

void virtio_begin(struct virtio *d, uint64_t wanted)
{
    unsigned status = STATUS_ACKNOWLEDGE;

    d->patience = PATIENCE;
    virtio_reset(d);
    d->bus->set_status(d, status);
    d->bus->set_status(d, status |= STATUS_DRIVER);
    d->features = virtio_features(d) & (wanted | F_VERSION_1);
    check(d->features & F_VERSION_1);
    d->bus->set_features(d, 0, d->features);
    d->bus->set_features(d, 1, d->features >> 32);
    d->bus->set_status(d, status |= STATUS_FEATURES_OK);
    check(d->bus->status(d) == status);
}

void virtio_queue(struct virtio *d, struct virtq *q, unsigned index, struct virtq_memory *memory)
{
    unsigned max = d->bus->queue_max(d, index);

    check(max);
    virtq_init(q, d, index, max < VIRTQ_MAX ? max : VIRTQ_MAX, memory);
    d->bus->queue_enable(d, q);
}

void virtio_ready(struct virtio *d)
{
    unsigned status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

    d->bus->set_status(d, status);
    check(d->bus->status(d) == status);
}

int virtio_wait(struct virtq *q)
{
    struct virtio *d = q->device;

    do {
        if (!apic_wait(&d->interrupts, d->awaited + 1, d->patience))
            return 0;
        d->awaited++;
    } while (q->used->idx == q->seen);
    return 1;
}

int virtio_wait_shared(struct virtq *q)
{
    struct virtio *d = q->device;

    while (q->used->idx == q->seen) {
        if (!apic_wait(&d->interrupts, d->awaited + 1, d->patience))
            return 0;
        d->awaited = d->interrupts;
    }
    return 1;
}

void virtio_interrupted(struct virtio *d, unsigned isr)
{
    if (isr & ISR_QUEUE)
        d->interrupts++;
    if (isr & ISR_CONFIG)
        d->config_interrupts++;
}
