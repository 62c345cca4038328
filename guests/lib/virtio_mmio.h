/* Virtio over MMIO (virtio 1.2, 4.2). */
#pragma once
#include "virtio.h"

enum {                          /* registers: table 4.1 */
    MMIO_MAGIC = 0x000,
    MMIO_VERSION = 0x004,
    MMIO_DEVICE_ID = 0x008,
    MMIO_DEVICE_FEATURES = 0x010,
    MMIO_DEVICE_FEATURES_SEL = 0x014,
    MMIO_DRIVER_FEATURES = 0x020,
    MMIO_DRIVER_FEATURES_SEL = 0x024,
    MMIO_QUEUE_SEL = 0x030,
    MMIO_QUEUE_NUM_MAX = 0x034,
    MMIO_QUEUE_NUM = 0x038,
    MMIO_QUEUE_READY = 0x044,
    MMIO_QUEUE_NOTIFY = 0x050,
    MMIO_INTERRUPT_STATUS = 0x060,
    MMIO_INTERRUPT_ACK = 0x064,
    MMIO_STATUS = 0x070,
    MMIO_QUEUE_DESC = 0x080,    /* 64 bits each, in two halves */
    MMIO_QUEUE_DRIVER = 0x090,
    MMIO_QUEUE_DEVICE = 0x0a0,
    MMIO_QUEUE_RESET = 0x0c0,
    MMIO_CONFIG_GENERATION = 0x0fc,
    MMIO_CONFIG = 0x100,

    MMIO_SLOT = 0x1000,
};

/*
 * Finds devices: those that the command line names (virtio_mmio.device=SIZE@ADDRESS:GSI, as Linux has it), otherwise the
 * row of pages from 0xfeb00000 on, whose interrupts are GSI 16 to 23 in turn. Fills in at most `max`; returns how many.
 */
unsigned virtio_mmio_find(const char *command_line, struct virtio *, unsigned max);
