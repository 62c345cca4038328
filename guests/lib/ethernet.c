#include "ethernet.h"

#include <stddef.h>

enum {
    TYPE_IPV4 = 0x0800,
    TYPE_ARP = 0x0806,
    ARP_REQUEST = 1,
    ARP_REPLY = 2,
    IP_UDP = 17,
    OUR_PORT = 49152,

    ARP = 14,                   /* where headers are in a frame */
    IP = 14,
    UDP = IP + 20,
    DATA = UDP + 8,
};

static void put16(uint8_t *at, unsigned v)
{
    at[0] = v >> 8;
    at[1] = v;
}

static unsigned get16(const uint8_t *at) { return at[0] << 8 | at[1]; }

static void copy(uint8_t *to, const uint8_t *from, unsigned n)
{
    while (n--)
        *to++ = *from++;
}

static int same(const uint8_t *a, const uint8_t *b, unsigned n)
{
    while (n && *a == *b)
        a++, b++, n--;
    return !n;
}

static void begin(uint8_t *frame, const uint8_t *to, const uint8_t *from, unsigned type)
{
    for (unsigned i = 0; i < ETHERNET_MIN; i++)
        frame[i] = 0;
    for (unsigned i = 0; i < 6; i++)
        frame[i] = to ? to[i] : 0xff;
    copy(frame + 6, from, 6);
    put16(frame + 12, type);
}

unsigned arp_request(uint8_t *frame, const struct peer *from, const uint8_t ip[4])
{
    begin(frame, NULL, from->mac, TYPE_ARP);
    put16(frame + ARP, 1); /* Ethernet */
    put16(frame + ARP + 2, TYPE_IPV4);
    frame[ARP + 4] = 6;
    frame[ARP + 5] = 4;
    put16(frame + ARP + 6, ARP_REQUEST);
    copy(frame + ARP + 8, from->mac, 6);
    copy(frame + ARP + 14, from->ip, 4);
    copy(frame + ARP + 24, ip, 4);
    return ETHERNET_MIN;
}

int arp_is_reply(const uint8_t *frame, unsigned length, const struct peer *to, struct peer *from)
{
    if (length < ARP + 28 || get16(frame + 12) != TYPE_ARP || get16(frame + ARP + 6) != ARP_REPLY)
        return 0;
    if (!same(frame, to->mac, 6) || !same(frame + ARP + 14, from->ip, 4) || !same(frame + ARP + 24, to->ip, 4))
        return 0;
    copy(from->mac, frame + ARP + 8, 6);
    return 1;
}

static unsigned checksum(const uint8_t *at, unsigned n)
{
    unsigned sum = 0;

    for (; n; n -= 2, at += 2)
        sum += get16(at);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

unsigned udp_datagram(uint8_t *frame, const struct peer *from, const struct peer *to, uint16_t port, const void *data,
                      unsigned length)
{
    begin(frame, to->mac, from->mac, TYPE_IPV4);
    frame[IP] = 0x45; /* version 4, a header of 5 words */
    put16(frame + IP + 2, 28 + length);
    frame[IP + 8] = 64; /* time to live */
    frame[IP + 9] = IP_UDP;
    copy(frame + IP + 12, from->ip, 4);
    copy(frame + IP + 16, to->ip, 4);
    put16(frame + IP + 10, checksum(frame + IP, 20));
    put16(frame + UDP, OUR_PORT);
    put16(frame + UDP + 2, port);
    put16(frame + UDP + 4, 8 + length); /* without a checksum of its own: 0 */
    copy(frame + DATA, data, length);
    return DATA + length < ETHERNET_MIN ? (unsigned)ETHERNET_MIN : DATA + length;
}

const uint8_t *udp_from(const uint8_t *frame, unsigned length, const struct peer *to, const struct peer *from,
                        uint16_t port, unsigned *data_length)
{
    if (length < DATA || get16(frame + 12) != TYPE_IPV4 || frame[IP] != 0x45 || frame[IP + 9] != IP_UDP)
        return NULL;
    if (!same(frame, to->mac, 6) || !same(frame + IP + 12, from->ip, 4) || !same(frame + IP + 16, to->ip, 4))
        return NULL;
    if (get16(frame + UDP) != port || get16(frame + UDP + 2) != OUR_PORT || checksum(frame + IP, 20))
        return NULL;
    *data_length = get16(frame + UDP + 4) - 8;
    return *data_length <= length - DATA ? frame + DATA : NULL;
}
