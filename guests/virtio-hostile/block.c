/* Block requests that make no sense (5.2.6), and the sense of unusual ones. */
#include "hostile.h"
#include "virtio_blk.h"

enum {
    HALF = SANDBOX / 2,
    NEVER = 0xee,
    FREE_MEMORY = 32 << 20,     /* RAM that this guest does not use */
    FREE_LENGTH = 16 << 20,
};

#define F_ALL_OF_BLOCK (F_INDIRECT | F_BLOCK_RO | F_BLOCK_FLUSH | FEATURE(13) | FEATURE(14))

static void header(uint32_t type, uint64_t sector)
{
    volatile struct block_header *h = (volatile void *)sandbox;

    h->type = type;
    h->reserved = ~0u;
    h->sector = sector;
}

/* One request of so many readable and writable bytes; the last writable one is its status, which this returns. */
static int request(struct target *t, unsigned readable, unsigned writable, unsigned piece)
{
    struct virtq *q = &t->q[0];

    if (writable)
        sandbox[HALF + writable - 1] = NEVER;
    lay_out(q, 0, readable, writable, piece);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
    q->seen = q->used->idx;
    return writable && !gave_up(t) ? sandbox[HALF + writable - 1] : -1;
}

/* What cannot be done is an error, with which the device goes on: 5.2.6.2 */
static void must_fail(struct target *t, uint32_t type, uint64_t sector, unsigned readable, unsigned writable)
{
    header(type, sector);
    int status = request(t, readable, writable, 4096);

    if (status == BLOCK_OK)
        fail("a request of type %u, %u and %u bytes was done", type, readable, writable);
    if (gave_up(t))
        bring_up(t, F_ALL_OF_BLOCK);
}

static void start(struct target *t) { bring_up(t, F_ALL_OF_BLOCK); }

static uint64_t capacity(const struct target *t)
{
    return mmio_read32(t->device.config) | (uint64_t)mmio_read32(t->device.config + 4) << 32;
}

static void header_too_short(struct target *t)
{
    start(t);
    for (unsigned length = 1; length < 16; length += 7)
        must_fail(t, BLOCK_IN, 0, length, 513);
    must_fail(t, BLOCK_OUT, 0, 15, 1);
}

static void no_header(struct target *t)
{
    start(t);
    must_fail(t, BLOCK_IN, 0, 0, 513);
    must_fail(t, BLOCK_IN, 0, 0, 1);
}

static void no_status(struct target *t)
{
    start(t);
    must_fail(t, BLOCK_IN, 0, 16, 0);
    must_fail(t, BLOCK_OUT, 0, 16 + SECTOR, 0);
    must_fail(t, BLOCK_FLUSH, 0, 16, 0);
}

static void half_sectors(struct target *t)
{
    start(t);
    must_fail(t, BLOCK_IN, 0, 16, 512 + 100 + 1);
    must_fail(t, BLOCK_IN, 0, 16, 511 + 1);
    must_fail(t, BLOCK_OUT, 1, 16 + 100, 1);
}

static void beyond_the_end(struct target *t)
{
    uint64_t end = capacity(t);

    start(t);
    must_fail(t, BLOCK_IN, end, 16, 513);
    must_fail(t, BLOCK_IN, end - 1, 16, 1025);
    must_fail(t, BLOCK_OUT, end, 16 + SECTOR, 1);
    must_fail(t, BLOCK_OUT, end - 1, 16 + 2 * SECTOR, 1);
    for (unsigned shift = 40; shift < 64; shift += 5) {
        must_fail(t, BLOCK_IN, 1ull << shift, 16, 513);
        must_fail(t, BLOCK_OUT, (1ull << shift) - 1, 16 + SECTOR, 1);
    }
    must_fail(t, BLOCK_IN, ~0ull, 16, 513);
    must_fail(t, BLOCK_OUT, 1ull << 55, 16 + SECTOR, 1); /* times 512 it is 0 in 64 bits */
}

static void unknown_types(struct target *t)
{
    static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 77, 0x80000000, 0x80000001, ~0u};

    start(t);
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++)
        must_fail(t, types[i], 1, 16 + 32, 33);
}

static void wrong_direction(struct target *t)
{
    start(t);
    header(BLOCK_OUT, 1);
    request(t, 16, 513, 512); /* nothing to write, and room for what is read */
    header(BLOCK_IN, 1);
    request(t, 16 + 512, 1, 512);
    header(BLOCK_FLUSH, 1);
    request(t, 16 + 512, 513, 512);
    check(!gave_up(t) || t->answering == 0);
}

static void name_cut_short(struct target *t)
{
    start(t);
    header(BLOCK_GET_ID, 0);
    request(t, 16, 1, 512);
    request(t, 16, 10 + 1, 512);
    request(t, 16, 19 + 1, 3);
    request(t, 16, 600, 512);
}

static void put_segment(unsigned at, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    volatile uint32_t *s = (volatile uint32_t *)(sandbox + 16 + 16 * at);

    s[0] = sector;
    s[1] = sector >> 32;
    s[2] = sectors;
    s[3] = flags;
}

/* 5.2.6: discard and write zeroes */
static void segments(struct target *t, uint32_t type)
{
    uint64_t end = capacity(t);

    start(t);
    put_segment(0, end, 1, 0);
    must_fail(t, type, 0, 32, 1);
    put_segment(0, end - 1, 2, 0);
    must_fail(t, type, 0, 32, 1);
    put_segment(0, ~0ull, ~0u, 0);
    must_fail(t, type, 0, 32, 1);
    put_segment(0, ~0ull - 7, 8, 0);
    must_fail(t, type, 0, 32, 1);
    put_segment(0, 1ull << 55, 8, 0);
    must_fail(t, type, 0, 32, 1);
    put_segment(0, 1, 8, 0xfffffffe);
    must_fail(t, type, 0, 32, 1);
    put_segment(0, 1, 8, 0);
    must_fail(t, type, 0, 16 + 15, 1);
    must_fail(t, type, 0, 16 + 17, 1);
    must_fail(t, type, 0, 16, 1);
    header(type, 0);
    put_segment(0, 1, 0, 0);
    request(t, 32, 1, 4096);
    for (unsigned i = 0; i < 500; i++)
        put_segment(i, 1, 1, 0);
    header(type, 0);
    request(t, 16 + 16 * 500, 1, 4096);
}

static void discarded_nonsense(struct target *t) { segments(t, BLOCK_DISCARD); }
static void zeroed_nonsense(struct target *t) { segments(t, BLOCK_WRITE_ZEROES); }

/* 2.7.4.1: devices make no assumption about how a message is cut into descriptors. */
static void in_small_pieces(struct target *t)
{
    static const unsigned pieces[] = {1, 3, 5, 16, 17, 100, 511};

    start(t);
    if (virtio_features(&t->device) & F_BLOCK_RO)
        return;
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        unsigned piece = pieces[i];

        header(BLOCK_FLUSH, 0);
        check(request(t, 16, 1, piece) == BLOCK_OK);
        if (piece < 16)
            continue;
        for (unsigned n = 0; n < SECTOR; n++)
            sandbox[16 + n] = n * piece;
        header(BLOCK_OUT, 2);
        check(request(t, 16 + SECTOR, 1, piece) == BLOCK_OK);
        header(BLOCK_IN, 2);
        check(request(t, 16, SECTOR + 1, piece) == BLOCK_OK);
        for (unsigned n = 0; n < SECTOR; n++)
            check(sandbox[HALF + n] == (uint8_t)(n * piece));
    }
}

static void much_at_once(struct target *t)
{
    struct virtq *q = &t->q[0];

    start(t);
    header(BLOCK_IN, 0);
    for (unsigned i = 0; i + 1 < q->size; i++) {
        describe(q, i, (uintptr_t)sandbox, i ? HALF : 16, DESC_NEXT | (i ? DESC_WRITE : 0), i + 1);
        if (i)
            q->desc[i].address += HALF;
    }
    describe(q, q->size - 1, (uintptr_t)sandbox + HALF, 1, DESC_WRITE, 0);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
}

/* As much as a queue can ask for in one request: where the disk is that long, others wait for it, but not for ever. */
static void gigabytes_at_once(struct target *t)
{
    struct virtq *q = &t->q[0];

    start(t);
    header(BLOCK_IN, 0);
    describe(q, 0, (uintptr_t)sandbox, 16, DESC_NEXT, 1);
    for (unsigned i = 1; i + 1 < q->size; i++)
        describe(q, i, FREE_MEMORY, FREE_LENGTH, DESC_NEXT | DESC_WRITE, i + 1);
    describe(q, q->size - 1, (uintptr_t)sandbox + HALF, 1, DESC_WRITE, 0);
    expose(q, 0);
    virtq_kick(q);
    must_answer(t, q, 1);
}

#define CASE(name) {#name, name}
const struct attack block_attacks[] = {
    CASE(header_too_short),
    CASE(no_header),
    CASE(no_status),
    CASE(half_sectors),
    CASE(beyond_the_end),
    CASE(unknown_types),
    CASE(wrong_direction),
    CASE(name_cut_short),
    CASE(discarded_nonsense),
    CASE(zeroed_nonsense),
    CASE(in_small_pieces),
    CASE(much_at_once),
    CASE(gigabytes_at_once),
    {0},
};
