#include "hostile.h"
#include "virtio_mmio.h"
#include "virtio_pci.h"

_Alignas(4096) volatile uint8_t sandbox[SANDBOX];
struct virtq_memory rings[QUEUES], decoys[QUEUES];
uint32_t seed = 1;
uintptr_t ecam;

void bring_to_features(struct target *t, uint64_t wanted) { virtio_begin(&t->device, wanted); }

void bring_queues(struct target *t)
{
    for (unsigned i = 0; i < t->queues; i++)
        virtio_queue(&t->device, &t->q[i], i, &rings[i]);
}

void bring_up(struct target *t, uint64_t wanted)
{
    bring_to_features(t, wanted);
    bring_queues(t);
    virtio_ready(&t->device);
}

void describe(struct virtq *q, unsigned index, uint64_t address, uint32_t length, unsigned flags, unsigned next)
{
    q->desc[index].address = address;
    q->desc[index].length = length;
    q->desc[index].flags = flags;
    q->desc[index].next = next;
}

void expose(struct virtq *q, unsigned head)
{
    q->avail->ring[q->avail->idx % q->size] = head;
    __asm__ volatile("" : : : "memory");
    q->avail->idx++;
}

int gave_up(const struct target *t) { return (t->device.bus->status(&t->device) & STATUS_NEEDS_RESET) != 0; }

void must_answer(struct target *t, struct virtq *q, unsigned buffers)
{
    for (unsigned i = 0; i < BOUND; i++)
        if ((uint16_t)(q->used->idx - q->seen) >= buffers || gave_up(t))
            return;
    fail("no answer: %u of %u buffers used", (uint16_t)(q->used->idx - q->seen), buffers);
}

void must_refuse(struct target *t, struct virtq *q, unsigned head)
{
    virtq_kick(q);
    must_answer(t, q, 1);
    if (q->used->idx == q->seen)
        return;
    unsigned id = q->used->ring[q->seen % q->size].id, length = q->used->ring[q->seen % q->size].length;

    if (id != head || length)
        fail("buffer %u came back with %u bytes, instead of %u with none", id, length, head);
}

void glance(const struct target *t)
{
    for (unsigned i = 0; i < GLANCES; i++)
        t->device.bus->status(&t->device);
}

void raw_select(const struct virtio *d, unsigned queue)
{
    if (is_pci(d))
        mmio_write16(d->registers + COMMON_QUEUE_SELECT, queue);
    else
        mmio_write32(d->registers + MMIO_QUEUE_SEL, queue);
}

void raw_size(const struct virtio *d, unsigned size)
{
    if (is_pci(d))
        mmio_write16(d->registers + COMMON_QUEUE_SIZE, size);
    else
        mmio_write32(d->registers + MMIO_QUEUE_NUM, size);
}

static void raw_area(const struct virtio *d, unsigned pci, unsigned mmio, uint64_t address)
{
    uintptr_t at = d->registers + (is_pci(d) ? pci : mmio);

    mmio_write32(at, address);
    mmio_write32(at + 4, address >> 32);
}

void raw_areas(const struct virtio *d, uint64_t desc, uint64_t avail, uint64_t used)
{
    raw_area(d, COMMON_QUEUE_DESC, MMIO_QUEUE_DESC, desc);
    raw_area(d, COMMON_QUEUE_DRIVER, MMIO_QUEUE_DRIVER, avail);
    raw_area(d, COMMON_QUEUE_DEVICE, MMIO_QUEUE_DEVICE, used);
}

void raw_enable(const struct virtio *d, unsigned value)
{
    if (is_pci(d))
        mmio_write16(d->registers + COMMON_QUEUE_ENABLE, value);
    else
        mmio_write32(d->registers + MMIO_QUEUE_READY, value);
}

unsigned raw_enabled(const struct virtio *d)
{
    return is_pci(d) ? mmio_read16(d->registers + COMMON_QUEUE_ENABLE) : mmio_read32(d->registers + MMIO_QUEUE_READY);
}

void raw_notify(const struct virtio *d, unsigned queue)
{
    if (is_pci(d))
        mmio_write16(d->notify + queue * d->notify_step, queue);
    else
        mmio_write32(d->registers + MMIO_QUEUE_NOTIFY, queue);
}

unsigned lay_out(struct virtq *q, unsigned index, unsigned readable, unsigned writable, unsigned piece)
{
    unsigned first = index, at = 0, total = readable + writable;

    while (at < total) {
        int write = at >= readable;
        unsigned left = write ? total - at : readable - at, length = left < piece ? left : piece;
        uint64_t address = (uintptr_t)sandbox + (write ? SANDBOX / 2 + at - readable : at);

        check(index < q->size);
        describe(q, index, address, length, (write ? DESC_WRITE : 0) | (at + length < total ? DESC_NEXT : 0), index + 1);
        at += length;
        index++;
    }
    return index - first;
}

uint32_t chance(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

uint32_t chance_below(uint32_t limit) { return chance() % limit; }
