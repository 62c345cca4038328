/* Messages that are almost right, to devices that are made of them: file systems, sockets, consoles, balloons. */
#include "hostile.h"

enum {
    HALF = SANDBOX / 2,

    FS_REQUESTS = 1,            /* queues: 5.11.2, 5.10.2, 5.3.2, 5.5.2 */
    VSOCK_TX = 1,
    CONSOLE_CONTROL_TX = 3,
    INFLATE = 0,
    STATISTICS = 2,

    ROUNDS = 3,
};

/* The sandbox's first bytes as one message, with room for an answer. Chains that stay with the device are left there. */
static void tell(struct target *t, unsigned queue, unsigned readable, unsigned writable)
{
    struct virtq *q = &t->q[queue];
    unsigned slot = q->avail->idx % (q->size / 2) * 2;

    if (gave_up(t) || (uint16_t)(q->avail->idx - q->used->idx) >= q->size / 2)
        bring_up(t, ~FEATURE(34));
    lay_out(q, slot, readable, writable, SANDBOX);
    expose(q, slot);
    raw_notify(&t->device, queue);
    t->device.bus->status(&t->device);
}

static void random_words(unsigned from, unsigned to)
{
    for (; from < to; from++)
        ((volatile uint32_t *)sandbox)[from] = chance_below(3) ? chance_below(300) : chance();
}

/* FUSE: length, opcode, unique (64 bits), node (64 bits), uid, gid, pid, padding; then what the opcode wants. */
static void fuse(unsigned length, unsigned opcode, uint64_t node)
{
    volatile uint32_t *w = (volatile uint32_t *)sandbox;

    w[0] = length;
    w[1] = opcode;
    w[2] = opcode;
    w[3] = 0;
    w[4] = node;
    w[5] = node >> 32;
    w[6] = w[7] = w[8] = w[9] = 0;
}

/* What the last request's answer says, a negative errno; 0 is fine. */
static int fuse_error(struct target *t)
{
    struct virtq *q = &t->q[FS_REQUESTS];

    must_answer(t, q, (uint16_t)(q->avail->idx - q->seen));
    q->seen = q->used->idx;
    check(!gave_up(t));
    return *(volatile int32_t *)(sandbox + HALF + 4);
}

static int has_slash(const char *name)
{
    while (*name && *name != '/')
        name++;
    return *name != 0;
}

static void fs_start(struct target *t)
{
    volatile uint32_t *w = (volatile uint32_t *)sandbox;

    bring_up(t, ~FEATURE(34));
    fuse(40 + 16, 26, 0); /* INIT: major, minor, readahead, flags */
    w[10] = 7;
    w[11] = 31;
    w[12] = w[13] = 0;
    tell(t, FS_REQUESTS, 56, 256);
    check(fuse_error(t) == 0);
}

static void fs_opcodes_with_random_arguments(struct target *t)
{
    static const unsigned lengths[] = {40, 41, 48, 56, 80, 104, 300};

    fs_start(t);
    for (unsigned opcode = 0; opcode < 60; opcode++)
        for (unsigned i = 0; i < ROUNDS; i++) {
            unsigned length = lengths[chance_below(7)];

            if (opcode == 38) /* DESTROY */
                continue;
            random_words(10, 80);
            fuse(length, opcode, chance_below(4));
            tell(t, i == 2 ? 0 : FS_REQUESTS, length, chance_below(2) ? 200 : 4096);
        }
    glance(t);
}

/* Names that lead out of the folder. */
static void fs_names(struct target *t)
{
    static const char *const names[] = {
        "..", ".", "", "/", "/etc/passwd", "../../../../etc/passwd", "folder/../..", "a/b", "\xff\xfe",
    };
    static const unsigned opcodes[] = {1, 9, 10, 11, 22}; /* LOOKUP, MKDIR, UNLINK, RMDIR, GETXATTR */

    fs_start(t);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        for (unsigned o = 0; o < sizeof opcodes / sizeof *opcodes; o++) {
            unsigned n = 0, start = 40 + (opcodes[o] == 9 || opcodes[o] == 22 ? 8 : 0);

            for (unsigned b = 40; b < start; b++)
                sandbox[b] = 0xff;
            for (; names[i][n]; n++)
                sandbox[start + n] = names[i][n];
            sandbox[start + n] = 0;
            fuse(start + n + 1, opcodes[o], 1);
            tell(t, FS_REQUESTS, start + n + 1, 300);
            check(fuse_error(t) || !has_slash(names[i]));
        }
    glance(t);
}

static void fs_lengths_that_lie(struct target *t)
{
    static const uint32_t lengths[] = {0, 1, 39, 40, 41, 4096, 0x7fffffff, ~0u};

    fs_start(t);
    for (unsigned opcode = 1; opcode < 20; opcode += 2)
        for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            fuse(lengths[i], opcode, 1);
            tell(t, FS_REQUESTS, 4 + 11 * i, 16 * (i % 3));
        }
    glance(t);
}

/* 5.10.6: addresses, ports, length, type, operation, flags, credit */
static void vsock_packets(struct target *t)
{
    volatile uint32_t *w = (volatile uint32_t *)sandbox;
    uint32_t cid = mmio_read32(t->device.config);

    bring_up(t, ~FEATURE(34));
    for (unsigned i = 0; i < 160; i++) {
        random_words(0, 32);
        w[0] = chance_below(8) ? cid : chance();
        w[1] = chance_below(8) ? 0 : chance();
        w[2] = chance_below(8) ? 2 : chance();
        w[3] = chance_below(8) ? 0 : chance();
        w[4] = 1000 + chance_below(3);
        w[5] = 2000 + chance_below(3);
        w[6] = chance_below(4) ? 64 : chance();
        w[7] = (1 + chance_below(3)) | chance_below(9) << 16;
        tell(t, VSOCK_TX, chance_below(6) ? 44 + 64 : 1 + chance_below(60), 0);
    }
    glance(t);
}

/* 5.3.6.2: port, event, value */
static void console_controls(struct target *t)
{
    volatile uint32_t *w = (volatile uint32_t *)sandbox;

    bring_up(t, ~FEATURE(34));
    if (t->queues <= CONSOLE_CONTROL_TX)
        return;
    for (unsigned i = 0; i < 120; i++) {
        random_words(0, 16);
        w[0] = chance_below(4) ? chance_below(3) : chance();
        w[1] = chance_below(9) | (chance_below(3) ? chance_below(2) : chance()) << 16;
        tell(t, CONSOLE_CONTROL_TX, chance_below(6) ? 8 : 1 + chance_below(40), 0);
    }
    glance(t);
}

/* 5.5.6: page numbers beyond all memory; statistics of tags that do not exist, cut anywhere. */
static void balloon_numbers(struct target *t)
{
    volatile uint32_t *w = (volatile uint32_t *)sandbox;

    bring_up(t, ~FEATURE(34));
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned n = 0; n < 128; n++)
            w[n] = i % 2 ? ~n : chance() | NO_PAGE;
        tell(t, INFLATE + (i & 1), 4 * chance_below(128) + chance_below(5) + 1, 0);
        if (t->queues > STATISTICS)
            tell(t, STATISTICS, 1 + chance_below(200), 0);
    }
    glance(t);
}

#define CASE(name) {#name, name}
const struct attack fs_attacks[] = {
    CASE(fs_opcodes_with_random_arguments),
    CASE(fs_names),
    CASE(fs_lengths_that_lie),
    {0},
};
const struct attack vsock_attacks[] = {CASE(vsock_packets), {0}};
const struct attack console_attacks[] = {CASE(console_controls), {0}};
const struct attack balloon_attacks[] = {CASE(balloon_numbers), {0}};
