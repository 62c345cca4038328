#include "virtio_rng.h"
#include "guest.h"

void entropy_start(struct entropy *e, struct virtio *d)
{
    e->device = d;
    virtio_begin(d, 0);
    virtio_queue(d, &e->queue, 0, &e->memory);
    virtio_ready(d);
}

int entropy_read(struct entropy *e, volatile void *buffer, uint32_t length)
{
    struct virtq_part part = {buffer, length};
    unsigned head = virtq_add(&e->queue, &part, 0, 1);
    uint32_t written;

    virtq_kick(&e->queue);
    if (virtq_await(&e->queue, &written) != (int)head)
        return -1;
    check(written <= length);
    return written;
}
