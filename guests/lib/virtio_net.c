#include "virtio_net.h"
#include "guest.h"
#include "io.h"

#include <stddef.h>

static void offer(struct net *n, unsigned buffer)
{
    struct virtq_part part = {&n->received[buffer], sizeof n->received[buffer]};

    n->buffer_of[virtq_add(&n->rx, &part, 0, 1)] = buffer;
}

void net_start(struct net *n, struct virtio *d)
{
    n->device = d;
    if (d->wait == virtio_wait)
        d->wait = virtio_wait_shared;
    virtio_begin(d, F_NET_MAC | F_NET_MRG_RXBUF);
    check(d->features & F_NET_MAC);
    for (unsigned i = 0; i < MAC; i++)
        n->mac[i] = mmio_read8(d->config + i);
    virtio_queue(d, &n->rx, NET_RX, &n->rx_memory);
    virtio_queue(d, &n->tx, NET_TX, &n->tx_memory);
    virtio_ready(d);
    for (unsigned i = 0; i < NET_BUFFERS && i < n->rx.size; i++)
        offer(n, i);
    virtq_kick(&n->rx);
}

int net_send(struct net *n, const void *frame, uint32_t length)
{
    struct virtq_part parts[] = {{&n->header, sizeof n->header}, {(void *)frame, length}};
    unsigned head = virtq_add(&n->tx, parts, 2, 0);

    virtq_kick(&n->tx);
    return virtq_await(&n->tx, NULL) == (int)head;
}

uint32_t net_receive(struct net *n, uint8_t frame[NET_FRAME])
{
    uint32_t written;
    int head = virtq_await(&n->rx, &written);

    if (head < 0)
        return 0;
    unsigned buffer = n->buffer_of[head];

    check(written > sizeof n->header && written <= sizeof n->received[buffer]);
    check(n->received[buffer].header.buffers == 1); /* 5.1.6.4: each has room for a frame */
    written -= sizeof n->header;
    for (unsigned i = 0; i < written; i++)
        frame[i] = n->received[buffer].frame[i];
    offer(n, buffer);
    virtq_kick(&n->rx);
    return written;
}
