/* Virtio 1.2, 2.7. Stores are seen in their order on x86; only the compiler, and loads after stores, need to be told. */
#include "virtq.h"
#include "guest.h"
#include "virtio.h"

#define barrier() __asm__ volatile("" : : : "memory")
#define fence() __asm__ volatile("lock addl $0, (%%" STACK_POINTER ")" : : : "memory", "cc")

#ifdef __x86_64__
#define STACK_POINTER "rsp"
#else
#define STACK_POINTER "esp"
#endif

void virtq_init(struct virtq *q, struct virtio *device, unsigned index, unsigned size, struct virtq_memory *memory)
{
    uint8_t *at = memory->bytes;

    check(size && size <= VIRTQ_MAX);
    __builtin_memset(at, 0, sizeof memory->bytes);
    *q = (struct virtq){.device = device, .index = index, .size = size, .left = size};
    q->desc = (void *)at;
    q->avail = (void *)(at + 16 * size);
    q->used = (void *)(at + ((16 * size + 6 + 2 * size + 3) & ~3u));
    for (unsigned i = 0; i < size; i++)
        q->desc[i].next = i + 1;
}

unsigned virtq_add(struct virtq *q, const struct virtq_part *parts, unsigned readable, unsigned writable)
{
    unsigned head = q->free, count = readable + writable;

    check(count && count <= q->left);
    for (unsigned i = 0; i < count; i++) {
        volatile struct virtq_desc *desc = &q->desc[q->free];

        desc->address = (uintptr_t)parts[i].address;
        desc->length = parts[i].length;
        desc->flags = (i < readable ? 0 : DESC_WRITE) | (i + 1 < count ? DESC_NEXT : 0);
        q->free = desc->next;
    }
    q->left -= count;
    q->avail->ring[q->avail->idx % q->size] = head;
    barrier();
    q->avail->idx++;
    return head;
}

void virtq_kick(const struct virtq *q)
{
    fence();
    if (!(q->used->flags & USED_NO_NOTIFY))
        q->device->bus->notify(q);
}

int virtq_take(struct virtq *q, uint32_t *written)
{
    if (q->used->idx == q->seen)
        return -1;
    barrier();
    unsigned head = q->used->ring[q->seen % q->size].id, last = head;

    if (written)
        *written = q->used->ring[q->seen % q->size].length;
    check(head < q->size);
    q->seen++;
    for (q->left++; q->desc[last].flags & DESC_NEXT; q->left++)
        last = q->desc[last].next;
    q->desc[last].next = q->free;
    q->free = head;
    return head;
}

int virtq_await(struct virtq *q, uint32_t *written)
{
    return q->device->wait(q) ? virtq_take(q, written) : -1;
}
