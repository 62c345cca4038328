/* The block device (virtio 1.2, 5.2). */
#pragma once
#include "virtio.h"

enum {
    BLOCK_IN = 0,               /* request types: 5.2.6 */
    BLOCK_OUT = 1,
    BLOCK_FLUSH = 4,
    BLOCK_GET_ID = 8,
    BLOCK_DISCARD = 11,
    BLOCK_WRITE_ZEROES = 13,

    BLOCK_OK = 0,               /* their status */
    BLOCK_IOERR = 1,
    BLOCK_UNSUPP = 2,
    BLOCK_LOST = -1,            /* it did not come back */

    SECTOR = 512,
    BLOCK_ID = 20,
    BLOCK_PARTS = 16,
};

#define F_BLOCK_RO FEATURE(5)   /* 5.2.3 */
#define F_BLOCK_FLUSH FEATURE(9)

struct block_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct block {
    struct virtio *device;
    uint64_t sectors;
    struct virtq queue;
    struct virtq_memory memory;
    struct block_header header;
    volatile uint8_t status;
};

/* Brings the device to work, with its first queue. */
void block_start(struct block *, struct virtio *);

/* One request, from its header to its status. The device writes into the parts of BLOCK_IN and BLOCK_GET_ID. */
int block_request(struct block *, uint32_t type, uint64_t sector, const struct virtq_part *data, unsigned parts);
