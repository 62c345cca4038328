/* The split virtqueue (virtio 1.2, 2.7), as its driver uses it. */
#pragma once
#include <stdint.h>

struct virtio;

enum {
    VIRTQ_MAX = 128,            /* descriptors: a queue of this size fits one page */

    DESC_NEXT = 1,              /* 2.7.5 */
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    AVAIL_NO_INTERRUPT = 1,     /* 2.7.6 */
    USED_NO_NOTIFY = 1,         /* 2.7.8 */
};

struct virtq_desc {             /* 2.7.5 */
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct virtq_avail {            /* 2.7.6 */
    uint16_t flags, idx, ring[];
};

struct virtq_used {             /* 2.7.8 */
    uint16_t flags, idx;
    struct {
        uint32_t id, length;
    } ring[];
};

struct virtq_memory {
    _Alignas(4096) uint8_t bytes[4096];
};

struct virtq {
    struct virtio *device;
    unsigned index, size;
    uintptr_t doorbell;         /* where notifications go */
    volatile struct virtq_desc *desc;
    volatile struct virtq_avail *avail;
    volatile struct virtq_used *used;
    uint16_t free, left;        /* the first free descriptor, and how many there are; they are linked by `next` */
    uint16_t seen;              /* used elements that were taken */
};

/* A piece of a buffer. */
struct virtq_part {
    volatile void *address;
    uint32_t length;
};

/* Lays out an empty queue in zeroed memory: descriptors, available ring, used ring. */
void virtq_init(struct virtq *, struct virtio *, unsigned index, unsigned size, struct virtq_memory *);

/* Makes a buffer available (2.7.13): parts that the device reads, then parts that it writes. Returns its head. */
unsigned virtq_add(struct virtq *, const struct virtq_part *, unsigned readable, unsigned writable);

/* Notifies the device, if it wants that (2.7.10). */
void virtq_kick(const struct virtq *);

/* Takes a used buffer (2.7.14): its head, and how many bytes the device wrote; -1 when there is none. */
int virtq_take(struct virtq *, uint32_t *written);

/* Waits for one as the device's driver does (struct virtio, wait), then takes it; -1 when none came in time. */
int virtq_await(struct virtq *, uint32_t *written);
