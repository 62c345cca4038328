/* Frames and commands that make no sense (5.1.6), and too little room for frames that come. */
#include "hostile.h"
#include "ethernet.h"
#include "virtio_net.h"

enum {
    HALF = SANDBOX / 2,
    HEADER = sizeof(struct net_header),
    CONTROL = 2,                /* the queue, with one pair of the others */
};

#define F_NET_ALL ((1ull << 28) - 1)    /* each bit of its own that is offered */

static volatile struct net_header *header(void) { return (volatile void *)sandbox; }

/* Sends the sandbox's first bytes, whatever they are. */
static void send(struct target *t, unsigned length, unsigned piece)
{
    struct virtq *q = &t->q[NET_TX];

    lay_out(q, 0, length, 0, piece);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
    q->seen = q->used->idx;
    if (gave_up(t))
        bring_up(t, F_NET_ALL);
}

static unsigned arp(uint8_t fill)
{
    struct peer we = {.mac = {2, 0, 0, 0, 0, 0x99}, .ip = {10, 0, 2, 15}};
    uint8_t they[4] = {10, 0, 2, 2}, frame[ETHERNET_MIN];

    for (unsigned i = 0; i < HEADER; i++)
        sandbox[i] = fill;
    arp_request(frame, &we, they);
    for (unsigned i = 0; i < ETHERNET_MIN; i++)
        sandbox[HEADER + i] = frame[i];
    return HEADER + ETHERNET_MIN;
}

static void frames_too_short(struct target *t)
{
    bring_up(t, F_NET_ALL);
    arp(0);
    for (unsigned length = 1; length < HEADER + 20; length++)
        send(t, length, 4096);
}

static void frames_too_long(struct target *t)
{
    bring_up(t, F_NET_ALL);
    arp(0);
    send(t, HEADER + 1515, 4096);
    send(t, HALF, 4096);
    struct virtq *q = &t->q[NET_TX];

    for (unsigned i = 0; i < q->size; i++) /* many times 64 KiB */
        describe(q, i, (uintptr_t)sandbox, SANDBOX, i + 1 < q->size ? DESC_NEXT : 0, i + 1);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
}

static void frames_in_small_pieces(struct target *t)
{
    bring_up(t, F_NET_ALL);
    for (unsigned piece = 1; piece < 40; piece += 6)
        send(t, arp(0), piece);
}

/* 5.1.6.2: offloads that were not negotiated, or that point out of the frame. */
static void nonsense_in_headers(struct target *t)
{
    static const uint8_t kinds[] = {0, 1, 2, 3, 4, 5, 0x80, 0x81, 0x7f, 0xff};

    for (unsigned round = 0; round < 2; round++) {
        bring_up(t, round ? F_NET_ALL : 0);
        for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            unsigned length = arp(0);

            *header() = (struct net_header){.flags = 1, .gso_type = kinds[i], .gso_size = i, .checksum_start = 14};
            send(t, length, 4096);
            *header() = (struct net_header){.flags = 1, .gso_type = kinds[i], .header_length = 0xffff, .gso_size = 1,
                                            .checksum_start = 0xffff, .checksum_offset = 0xffff, .buffers = 0xffff};
            send(t, length, 4096);
            *header() = (struct net_header){.flags = 1, .checksum_start = ETHERNET_MIN - i, .checksum_offset = i};
            send(t, length, 4096);
            send(t, arp(0xff), 4096);
        }
        for (unsigned i = 0; i < 32; i++) {
            unsigned length = arp(0);

            for (unsigned n = 0; n < HEADER; n++)
                sandbox[n] = chance();
            send(t, length, 4096);
        }
    }
}

static void random_frames(struct target *t)
{
    bring_up(t, F_NET_ALL);
    for (unsigned i = 0; i < 24; i++) {
        unsigned length = HEADER + 14 + chance_below(120);

        arp(0);
        for (unsigned n = 0; n < 8; n++)
            sandbox[HEADER + 12 + chance_below(length - HEADER - 12)] = chance();
        send(t, length, 4096);
    }
}

/* Asks for an answer for which there is no room, or room of a strange kind. */
static void answer_into(struct target *t, uint64_t features, unsigned count, const uint32_t *lengths, unsigned flags)
{
    struct virtq *rx = &t->q[NET_RX];

    bring_up(t, features);
    for (unsigned i = 0; i < count; i++) {
        describe(rx, i, (uintptr_t)sandbox + HALF + 64 * i, lengths[i], flags, i);
        expose(rx, i);
    }
    raw_notify(&t->device, NET_RX);
    for (unsigned i = 0; i < 4; i++)
        send(t, arp(0), 4096);
    glance(t);
}

static void no_room_for_frames(struct target *t)
{
    static const uint32_t none[] = {0}, tiny[] = {1, 1, 1, 1};
    static const uint32_t header[] = {HEADER, HEADER, HEADER}, little[] = {20, 1, 40, 13};

    answer_into(t, 0, 0, none, DESC_WRITE);
    answer_into(t, 0, 1, none, DESC_WRITE);
    answer_into(t, 0, 4, tiny, DESC_WRITE);
    answer_into(t, 0, 3, header, DESC_WRITE);
    answer_into(t, 0, 4, little, DESC_WRITE);
    answer_into(t, F_NET_ALL, 4, tiny, DESC_WRITE);
    answer_into(t, F_NET_ALL, 3, header, DESC_WRITE);
    answer_into(t, F_NET_ALL, 4, little, DESC_WRITE);
}

static void broken_room_for_frames(struct target *t)
{
    static const uint32_t lengths[] = {2000, 2000, 2000, 2000}, endless[] = {0xffffffff, 0xffffffff};

    answer_into(t, 0, 4, lengths, 0);
    answer_into(t, 0, 4, lengths, DESC_WRITE | DESC_NEXT);
    answer_into(t, 0, 2, endless, DESC_WRITE);
    answer_into(t, 0, 4, lengths, DESC_WRITE | DESC_INDIRECT);
    answer_into(t, F_NET_ALL | F_INDIRECT, 4, lengths, DESC_WRITE | DESC_INDIRECT);
    answer_into(t, F_NET_ALL, 4, lengths, DESC_WRITE | DESC_NEXT);
}

/* 5.1.6.5: the first byte is the class, the second the command, the last one the device's answer. */
static void control(struct target *t, unsigned readable, unsigned writable)
{
    struct virtq *q = &t->q[CONTROL];

    lay_out(q, 0, readable, writable, 4096);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
    q->seen = q->used->idx;
    if (gave_up(t))
        bring_up(t, F_NET_ALL);
}

static void nonsense_commands(struct target *t)
{
    bring_up(t, F_NET_ALL);
    if (t->queues <= CONTROL || !(t->device.features & FEATURE(17)))
        return;
    for (unsigned class = 0; class < 8; class++)
        for (unsigned command = 0; command < 4; command++) {
            for (unsigned i = 0; i < 40; i++)
                sandbox[i] = i < 2 ? 0 : chance();
            sandbox[0] = class == 7 ? 255 : class;
            sandbox[1] = command == 3 ? 255 : command;
            control(t, 2, 1);
            control(t, 3, 1);
            control(t, 4 + 2 * class, 1);
            control(t, 40, 0);
            control(t, 0, 1);
            control(t, 1, 2);
        }
}

static void endless_tables_of_addresses(struct target *t)
{
    bring_up(t, F_NET_ALL);
    if (t->queues <= CONTROL || !(t->device.features & FEATURE(17)))
        return;
    for (unsigned i = 0; i < HALF; i++)
        sandbox[i] = 0xff;
    sandbox[0] = 1; /* MAC, TABLE_SET */
    sandbox[1] = 0;
    control(t, 2 + 4, 1);
    control(t, HALF, 1);
    for (unsigned i = 2; i < 6; i++)
        sandbox[i] = 0;
    control(t, HALF, 1);
    sandbox[3] = 4; /* 1024 addresses */
    control(t, HALF, 1);
    struct virtq *q = &t->q[CONTROL];

    for (unsigned i = 0; i + 1 < q->size; i++)
        describe(q, i, (uintptr_t)sandbox, SANDBOX, DESC_NEXT, i + 1);
    describe(q, q->size - 1, (uintptr_t)sandbox, 1, DESC_WRITE, 0);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
}

#define CASE(name) {#name, name}
const struct attack net_attacks[] = {
    CASE(frames_too_short),
    CASE(frames_too_long),
    CASE(frames_in_small_pieces),
    CASE(nonsense_in_headers),
    CASE(random_frames),
    CASE(no_room_for_frames),
    CASE(broken_room_for_frames),
    CASE(nonsense_commands),
    CASE(endless_tables_of_addresses),
    {0},
};
