/* The entropy device (virtio 1.2, 5.4). */
#pragma once
#include "virtio.h"

struct entropy {
    struct virtio *device;
    struct virtq queue;
    struct virtq_memory memory;
};

void entropy_start(struct entropy *, struct virtio *);

/* Random bytes: how many came of `length`, -1 for no answer. */
int entropy_read(struct entropy *, volatile void *buffer, uint32_t length);
