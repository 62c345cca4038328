/* The network device (virtio 1.2, 5.1), without offloads. */
#pragma once
#include "virtio.h"

enum {
    NET_RX = 0,                 /* queues: 5.1.2 */
    NET_TX = 1,
    NET_BUFFERS = 8,
    NET_FRAME = 1514,
    MAC = 6,
};

#define F_NET_MAC FEATURE(5)    /* 5.1.3 */
#define F_NET_MRG_RXBUF FEATURE(15)

struct net_header {             /* 5.1.6 */
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset, buffers;
};

struct net {
    struct virtio *device;
    uint8_t mac[MAC];
    struct virtq rx, tx;
    struct virtq_memory rx_memory, tx_memory;
    struct net_header header;
    struct {
        struct net_header header;
        uint8_t frame[NET_FRAME];
    } received[NET_BUFFERS];
    uint8_t buffer_of[VIRTQ_MAX];       /* which buffer a head stands for */
};

/* Brings the device to work, all buffers waiting for frames. */
void net_start(struct net *, struct virtio *);

/* Sends a frame, and waits until the device has taken it; 0 when it did not. */
int net_send(struct net *, const void *frame, uint32_t length);

/* The next frame that came: copies it out and returns its length; 0 when none comes in time. */
uint32_t net_receive(struct net *, uint8_t frame[NET_FRAME]);
