/* Virtio over PCI (virtio 1.2, 4.1): the modern interface. */
#pragma once
#include "pci.h"
#include "virtio.h"

enum {
    VIRTIO_VENDOR = 0x1af4,     /* 4.1.2 */
    VIRTIO_FIRST_DEVICE = 0x1040,

    CAP_TYPE = 3,               /* fields of a capability: 4.1.4 */
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_NOTIFY_MULTIPLIER = 16,
    CAP_CONFIG_DATA = 16,
    CAP_COMMON = 1,             /* what one is about */
    CAP_NOTIFY = 2,
    CAP_ISR = 3,
    CAP_DEVICE = 4,
    CAP_CONFIG = 5,

    COMMON_DEVICE_FEATURE_SELECT = 0x00,        /* 4.1.4.3 */
    COMMON_DEVICE_FEATURE = 0x04,
    COMMON_DRIVER_FEATURE_SELECT = 0x08,
    COMMON_DRIVER_FEATURE = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_NUM_QUEUES = 0x12,
    COMMON_STATUS = 0x14,
    COMMON_GENERATION = 0x15,
    COMMON_QUEUE_SELECT = 0x16,
    COMMON_QUEUE_SIZE = 0x18,
    COMMON_QUEUE_VECTOR = 0x1a,
    COMMON_QUEUE_ENABLE = 0x1c,
    COMMON_QUEUE_NOTIFY_OFF = 0x1e,
    COMMON_QUEUE_DESC = 0x20,
    COMMON_QUEUE_DRIVER = 0x28,
    COMMON_QUEUE_DEVICE = 0x30,
    COMMON_QUEUE_RESET = 0x3a,
    COMMON_SIZE = 0x3c,

    NO_VECTOR = 0xffff,         /* 4.1.5.1.2 */
};

/* Finds devices on bus 0, and opens them. Fills in at most `max`; returns how many. */
unsigned virtio_pci_find(struct virtio *, unsigned max);

/* Finds a function's structures, and lets it decode memory and be bus master; 0 if it is no modern device. */
int virtio_pci_open(struct virtio *, unsigned function);

/* The address where one queue's notifications go (4.1.4.4); selects the queue. */
uintptr_t virtio_pci_notify_address(const struct virtio *, unsigned queue);

/* Instead of bus->use_interrupts: by the function's pin, which firmware routed to an ISA interrupt line (4.1.4.5). */
void virtio_pci_use_pin(struct virtio *);
