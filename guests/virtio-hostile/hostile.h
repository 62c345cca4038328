/* What the cases of the hostile driver share. Section numbers are those of virtio 1.2. */
#pragma once
#include "guest.h"
#include "io.h"
#include "virtio.h"

#include <stddef.h>

/* Balloons take page numbers, and the host takes the pages: with these bits, at any offset, none is this guest's. */
#define NO_PAGE 0x80808080u

enum {
    QUEUES = 4,                 /* of a device that are attacked */
    NO_QUEUE = -1,
    SANDBOX = 16384,            /* bytes that devices may be made to write */
    BOUND = 200000,             /* looks at a device that owes an answer; each is an access that leaves the processor */
    GLANCES = 10,               /* looks at one that does not */
};

/* A device under attack. */
struct target {
    struct virtio device;
    const char *bus;
    unsigned number;            /* of its bus */
    unsigned queues;            /* that it has, at most QUEUES */
    int answering;              /* the queue whose buffers it uses at once, or NO_QUEUE */
    struct virtq q[QUEUES];
    uint32_t bars[6];           /* PCI: as firmware left them */
    unsigned command;
};

/* One attack. Afterwards the device is reset, and must work; meanwhile another device must. */
struct attack {
    const char *name;
    void (*run)(struct target *);
};

/* Each ends with one that has no name. */
extern const struct attack status_attacks[], queue_attacks[], register_attacks[], mmio_attacks[], pci_attacks[];
extern const struct attack ring_attacks[], chain_attacks[], packed_attacks[], content_attacks[];
extern const struct attack block_attacks[], net_attacks[], console_attacks[], balloon_attacks[], vsock_attacks[], fs_attacks[];

extern volatile uint8_t sandbox[SANDBOX];
extern struct virtq_memory rings[QUEUES], decoys[QUEUES];

static inline int is_pci(const struct virtio *d) { return d->msix_table || d->function; }

/* From a reset to DRIVER_OK with all queues empty; or without DRIVER_OK. Refuses no feature of `wanted` that is offered. */
void bring_up(struct target *, uint64_t wanted);
void bring_to_features(struct target *, uint64_t wanted);
void bring_queues(struct target *);

/* One descriptor; and a chain made available without a notification. */
void describe(struct virtq *, unsigned index, uint64_t address, uint32_t length, unsigned flags, unsigned next);
void expose(struct virtq *, unsigned head);

/* Whether the device said that it needs a reset. */
int gave_up(const struct target *);

/* Waits until as many buffers were used, or the device gave up; fails when neither comes. */
void must_answer(struct target *, struct virtq *, unsigned buffers);

/* Notifies, and has the malformed chain `head` come back unused, or the device give up. */
void must_refuse(struct target *, struct virtq *, unsigned head);

/* Gives the device some time, where it owes nothing. */
void glance(const struct target *);

/* A queue's registers, whatever the transport has them at: no check, no order. */
void raw_select(const struct virtio *, unsigned queue);
void raw_size(const struct virtio *, unsigned size);
void raw_areas(const struct virtio *, uint64_t desc, uint64_t avail, uint64_t used);
void raw_enable(const struct virtio *, unsigned value);
unsigned raw_enabled(const struct virtio *);
void raw_notify(const struct virtio *, unsigned queue);

/* Lays a buffer of `readable` and then `writable` bytes over the first descriptors from `index` on, in pieces of `piece`.
 * Returns how many that took. Readable bytes are from the sandbox's beginning, writable ones from its middle. */
unsigned lay_out(struct virtq *, unsigned index, unsigned readable, unsigned writable, unsigned piece);

/* Pseudo-random numbers (xorshift, 32 bits), the same in each run with the same seed. */
uint32_t chance(void);
uint32_t chance_below(uint32_t limit);
extern uint32_t seed;

/* Configuration space in memory, 0 if there is none. */
extern uintptr_t ecam;
