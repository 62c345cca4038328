/*
 * A disk of at least 32 sectors, whose first begins with a line of text: it is read, sectors 8 to 23 are written, and
 * nothing else is. On the network somebody answers to 10.0.2.2, as in the user networks of QEMU and pyhv, and maybe
 * echoes what comes to UDP port 7.
 */
#include "virtio_steps.h"
#include "apic.h"
#include "ethernet.h"
#include "guest.h"
#include "virtio_blk.h"
#include "virtio_net.h"
#include "virtio_rng.h"

#include <stddef.h>

enum {
    FIRST = 8,                  /* sectors that are written */
    COUNT = 16,
    LENGTH = COUNT * SECTOR,
    CUT = 3 * SECTOR + 4,       /* nobody promises descriptors of whole sectors */
    LINE = 60,

    ECHO_PORT = 7,              /* RFC 862 */
    ECHO_PATIENCE = 3000,       /* milliseconds: it need not be there */
    FRAMES = 64,                /* that are looked at for an answer */
    UNKNOWN_REQUEST = 77,
};

static uint8_t out[LENGTH], in[LENGTH];

/* What is written at a byte of the disk: the host can tell, too. */
static uint8_t pattern(unsigned at) { return at * 7 + (at >> 8) * 13 + 5; }

/* A device interrupts once for each request when there is one at a time (2.7.7). */
static void check_interrupts(const struct virtio *d, unsigned wanted)
{
    apic_sleep(APIC_MILLISECOND);
    check(d->interrupts == wanted);
}

static void print_text(const char *before, const uint8_t *text, unsigned max)
{
    char line[LINE + 1];
    unsigned n = 0;

    for (; n < LINE && n < max && text[n] >= ' ' && text[n] <= '~'; n++)
        line[n] = text[n];
    line[n] = 0;
    print("%s%s\n", before, line);
}

static void print_mac(const char *before, const uint8_t mac[MAC])
{
    print("%s", before);
    for (unsigned i = 0; i < MAC; i++)
        print("%s%x%x", i ? ":" : "", mac[i] >> 4, mac[i] & 0xf);
    print("\n");
}

static void use_block(struct virtio *d)
{
    static struct block b;
    static uint8_t id[BLOCK_ID];
    struct virtq_part whole = {in, LENGTH}, sector = {in, SECTOR}, name = {id, sizeof id};
    struct virtq_part pieces[] = {{out, CUT}, {out + CUT, 100}, {out + CUT + 100, LENGTH - CUT - 100}};

    block_start(&b, d);
    check(b.sectors >= FIRST + COUNT);
    print("block: %lu sectors\n", (unsigned long)b.sectors);

    check(block_request(&b, BLOCK_IN, 0, &sector, 1) == BLOCK_OK);
    print_text("block: read: ", in, SECTOR);

    for (unsigned i = 0; i < LENGTH; i++)
        out[i] = pattern(i);
    check(block_request(&b, BLOCK_OUT, FIRST, pieces, 3) == BLOCK_OK);
    check(block_request(&b, BLOCK_IN, FIRST, &whole, 1) == BLOCK_OK);
    for (unsigned i = 0; i < LENGTH; i++)
        check(in[i] == out[i]);
    print("block: %u sectors written and read back\n", COUNT);

    check(d->features & F_BLOCK_FLUSH);
    check(block_request(&b, BLOCK_FLUSH, 0, NULL, 0) == BLOCK_OK);
    print("block: flushed\n");

    check(block_request(&b, BLOCK_GET_ID, 0, &name, 1) == BLOCK_OK);
    print_text("block: id: ", id, sizeof id);

    check(block_request(&b, BLOCK_IN, b.sectors, &sector, 1) == BLOCK_IOERR);
    check(block_request(&b, BLOCK_OUT, b.sectors - COUNT + 1, &whole, 1) == BLOCK_IOERR);
    check(block_request(&b, BLOCK_IN, ~0ull, &sector, 1) == BLOCK_IOERR);
    check(block_request(&b, UNKNOWN_REQUEST, 0, &sector, 1) == BLOCK_UNSUPP);
    print("block: errors where it ends, and for an unknown request\n");

    check_interrupts(d, 9);
    print("block: an interrupt for each request\n");
}

static void use_net(struct virtio *d)
{
    static const char greeting[] = "a datagram from a guest without an operating system";
    static struct net n;
    static uint8_t frame[NET_FRAME];
    struct peer we = {.ip = {10, 0, 2, 15}}, they = {.ip = {10, 0, 2, 2}};
    const uint8_t *data = NULL;
    unsigned length, size = 0, known = 0;

    net_start(&n, d);
    for (unsigned i = 0; i < sizeof we.mac; i++)
        we.mac[i] = n.mac[i];
    print_mac("net: address ", we.mac);

    check(net_send(&n, frame, arp_request(frame, &we, they.ip)));
    for (unsigned i = 0; !known && i < FRAMES && (length = net_receive(&n, frame)); i++)
        known = arp_is_reply(frame, length, &we, &they);
    check(known);
    print_mac("net: 10.0.2.2 is at ", they.mac);

    d->patience = ECHO_PATIENCE;
    check(net_send(&n, frame, udp_datagram(frame, &we, &they, ECHO_PORT, greeting, sizeof greeting)));
    for (unsigned i = 0; !data && i < FRAMES && (length = net_receive(&n, frame)); i++)
        data = udp_from(frame, length, &we, &they, ECHO_PORT, &size);
    if (!data) {
        print("net: no echo of a datagram\n");
        return;
    }
    check(size == sizeof greeting);
    for (unsigned i = 0; i < size; i++)
        check(data[i] == (uint8_t)greeting[i]);
    print("net: a datagram echoed\n");
}

static void use_entropy(struct virtio *d)
{
    static struct entropy e;
    unsigned got = 0, requests = 0, same = 0;

    entropy_start(&e, d);
    for (unsigned i = 0; i < 2; i++) {
        volatile uint8_t *half = in + i * 64;

        for (got = 0; got < 64; requests++) { /* 5.4.6.2: at least one byte, maybe not all */
            int n = entropy_read(&e, half + got, 64 - got);
            check(n > 0);
            got += n;
        }
    }
    for (unsigned i = 0; i < 64; i++)
        same += in[i] == in[64 + i];
    check(same < 16);
    print("entropy: 64 bytes, and 64 others\n");
    check_interrupts(d, requests);
    print("entropy: an interrupt for each request\n");
}

int virtio_use(struct virtio *d)
{
    d->bus->use_interrupts(d);
    switch (d->type) {
    case VIRTIO_BLOCK: use_block(d); break;
    case VIRTIO_NET: use_net(d); break;
    case VIRTIO_ENTROPY: use_entropy(d); break;
    default: return 0;
    }
    virtio_reset(d);
    return 1;
}
