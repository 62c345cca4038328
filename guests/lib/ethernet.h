/* Just enough of Ethernet (RFC 894), ARP (RFC 826), IPv4 (RFC 791) and UDP (RFC 768) to ask and to understand the answer. */
#pragma once
#include <stdint.h>

enum { ETHERNET_MIN = 60 };

struct peer {
    uint8_t mac[6], ip[4];
};

/* Each makes a frame of at least ETHERNET_MIN bytes, and returns its length. */
unsigned arp_request(uint8_t *frame, const struct peer *from, const uint8_t ip[4]);
unsigned udp_datagram(uint8_t *frame, const struct peer *from, const struct peer *to, uint16_t port, const void *data,
                      unsigned length);

/* Whether a frame is the answer: an ARP reply that tells where `from->ip` is, which it fills in ... */
int arp_is_reply(const uint8_t *frame, unsigned length, const struct peer *to, struct peer *from);

/* ... or a datagram from `port`; its data, or NULL. */
const uint8_t *udp_from(const uint8_t *frame, unsigned length, const struct peer *to, const struct peer *from,
                        uint16_t port, unsigned *data_length);
