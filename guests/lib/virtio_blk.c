#include "virtio_blk.h"
#include "guest.h"
#include "io.h"

enum { NEVER_WRITTEN = 0xee };

void block_start(struct block *b, struct virtio *d)
{
    b->device = d;
    virtio_begin(d, F_BLOCK_FLUSH);
    b->sectors = mmio_read32(d->config) | (uint64_t)mmio_read32(d->config + 4) << 32; /* 5.2.4: capacity */
    virtio_queue(d, &b->queue, 0, &b->memory);
    virtio_ready(d);
}

int block_request(struct block *b, uint32_t type, uint64_t sector, const struct virtq_part *data, unsigned parts)
{
    struct virtq_part all[BLOCK_PARTS + 2] = {{&b->header, sizeof b->header}};
    unsigned n = 1, read_by_device = type == BLOCK_IN || type == BLOCK_GET_ID ? 1 : 1 + parts;
    uint32_t written;

    check(parts <= BLOCK_PARTS);
    b->header = (struct block_header){.type = type, .sector = sector};
    b->status = NEVER_WRITTEN;
    while (parts--)
        all[n++] = *data++;
    all[n++] = (struct virtq_part){&b->status, 1};
    unsigned head = virtq_add(&b->queue, all, read_by_device, n - read_by_device);

    virtq_kick(&b->queue);
    if (virtq_await(&b->queue, &written) != (int)head)
        return BLOCK_LOST;
    check(b->status != BLOCK_OK || written >= 1);
    return b->status;
}
