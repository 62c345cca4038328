/*
 * The test device: QEMU's pc-testdev, and one thing more.
 *
 * Ports 0xe0-0xe3 are a 32-bit latch, readable and writable in any width; writing port 0x2000 + n sets interrupt
 * line n (0 to 15) to 0 or 1; at 0xff000000 there are 64 KiB of memory behind MMIO.
 *
 * QEMU gives a CPU no way to send itself an MSI, so pyhv's device has two more ports: 0x2080 holds a message's
 * address (32 bits, readable), and a 32-bit write to 0x2084 sends the message with that data.
 */
#pragma once
#include "io.h"

enum {
    TESTDEV_LATCH = 0xe0,
    TESTDEV_IRQ = 0x2000,
    TESTDEV_MSI_ADDRESS = 0x2080,
    TESTDEV_MSI_DATA = 0x2084,
};

static const uintptr_t TESTDEV_MMIO = 0xff000000;

static inline int port_latches(uint16_t port, uint32_t value)
{
    outl(port, value);
    return inl(port) == value;
}

static inline int testdev_present(void)
{
    return port_latches(TESTDEV_LATCH, 0x5aa5c33c) && port_latches(TESTDEV_LATCH, 0);
}

static inline int testdev_has_msi(void)
{
    return port_latches(TESTDEV_MSI_ADDRESS, 0xfee00000) && port_latches(TESTDEV_MSI_ADDRESS, 0);
}

static inline void testdev_line(unsigned irq, unsigned level) { outb(TESTDEV_IRQ + irq, level); }

static inline void testdev_msi(uint32_t address, uint32_t data)
{
    outl(TESTDEV_MSI_ADDRESS, address);
    outl(TESTDEV_MSI_DATA, data);
}
