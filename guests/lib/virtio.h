/* Virtio devices, as their drivers see them. All section numbers are those of virtio 1.2. */
#pragma once
#include "virtq.h"

enum {
    VIRTIO_NET = 1,             /* device types: 5 */
    VIRTIO_BLOCK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_ENTROPY = 4,
    VIRTIO_BALLOON = 5,
    VIRTIO_VSOCK = 19,
    VIRTIO_FS = 26,
    VIRTIO_PMEM = 27,

    STATUS_ACKNOWLEDGE = 1,     /* device status: 2.1 */
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,

    ISR_QUEUE = 1,              /* interrupt status: 4.1.4.5, 4.2.2 */
    ISR_CONFIG = 2,

    PATIENCE = 10000,           /* milliseconds until an interrupt counts as lost, as drivers begin */
};

#define FEATURE(number) (1ull << (number))
#define F_INDIRECT FEATURE(28)  /* 6 */
#define F_EVENT_IDX FEATURE(29)
#define F_VERSION_1 FEATURE(32)
#define F_RING_RESET FEATURE(40)

/* A device on its transport. */
struct virtio {
    const struct virtio_bus *bus;
    unsigned type;
    uintptr_t config;           /* where the device's own configuration is (2.5), 0 where it has none */
    uint64_t features;          /* those in force */
    int (*wait)(struct virtq *);        /* until a buffer was used; 0 when none was in time */
    volatile unsigned interrupts, config_interrupts;    /* those that came */
    unsigned awaited;           /* those that were waited for */
    unsigned patience;          /* milliseconds until one counts as lost */

    uintptr_t registers;        /* MMIO: its page; PCI: the common configuration */
    unsigned gsi;               /* MMIO: its input of the I/O APIC */
    unsigned function;          /* PCI: the rest (pci.h) */
    uintptr_t isr, notify, notify_step, msix_table;
    unsigned msix, vectors, msix_in_use;        /* the capability, and the entries of its table */
};

/* What differs between the transports (4.1, 4.2). */
struct virtio_bus {
    const char *name;
    unsigned (*status)(const struct virtio *);
    void (*set_status)(const struct virtio *, unsigned);
    uint32_t (*features)(const struct virtio *, unsigned half);
    void (*set_features)(const struct virtio *, unsigned half, uint32_t);
    unsigned (*queue_max)(const struct virtio *, unsigned index);       /* descriptors; selects the queue */
    void (*queue_enable)(const struct virtio *, struct virtq *);
    void (*notify)(const struct virtq *);
    void (*use_interrupts)(struct virtio *);                            /* before queues are enabled */
};

/* "block" and so on. */
const char *virtio_name(unsigned type);

/* Resets the device, and waits until it is (2.4). */
void virtio_reset(struct virtio *);

/* The device's features (2.2). */
uint64_t virtio_features(const struct virtio *);

/* The way to a working device (3.1.1): reset, features (those of `wanted` that are offered) ... */
void virtio_begin(struct virtio *, uint64_t wanted);

/* ... each queue, in memory of the driver's ... */
void virtio_queue(struct virtio *, struct virtq *, unsigned index, struct virtq_memory *);

/* ... and go. */
void virtio_ready(struct virtio *);

/* `wait` by sleeping until an interrupt comes: one for each used buffer ... */
int virtio_wait(struct virtq *);

/* ... or where queues share interrupts, unless another one's has told of the buffer, too. */
int virtio_wait_shared(struct virtq *);

/* An interrupt came: for the transports. */
void virtio_interrupted(struct virtio *, unsigned isr);
