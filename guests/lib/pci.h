/* PCI functions of bus 0: PCI Local Bus Specification 3.0, chapter 6. */
#pragma once
#include <stdint.h>

enum {
    PCI_ADDRESS_PORT = 0xcf8,   /* configuration mechanism #1: 3.2.2.3.2 */
    PCI_DATA_PORT = 0xcfc,
    PCI_ENABLE = 1 << 31,

    PCI_ID = 0x00,              /* vendor, device: 6.1 */
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_CLASS = 0x08,           /* revision and class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR = 0x10,
    PCI_SUBSYSTEM = 0x2c,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,

    COMMAND_IO = 1,             /* 6.2.2 */
    COMMAND_MEMORY = 2,
    COMMAND_MASTER = 4,
    COMMAND_INTX_DISABLE = 0x400,
    STATUS_CAPABILITIES = 0x10, /* 6.2.3 */
    MULTI_FUNCTION = 0x80,

    BAR_IO = 1,                 /* 6.2.5 */
    BAR_64 = 4,
    BARS = 6,

    CAPABILITY_MSIX = 0x11,
    CAPABILITY_VENDOR = 0x09,

    MSIX_CONTROL = 2,           /* 6.8.2 */
    MSIX_TABLE = 4,
    MSIX_PENDING = 8,
    MSIX_ENABLE = 0x8000,
    MSIX_FUNCTION_MASK = 0x4000,
    MSIX_ENTRY = 16,            /* of the table: message address (64 bits), data, vector control */
    MSIX_ENTRY_MASKED = 1,

    PCI_FUNCTIONS = 256,        /* of a bus: device * 8 + function */
};

/* A register of a function, in one access of `width` bytes, through the ports or, if set, through memory. */
extern uintptr_t pci_ecam;
uint32_t pci_read(unsigned function, unsigned reg, unsigned width);
void pci_write(unsigned function, unsigned reg, unsigned width, uint32_t v);

/* The next function from `function` on; PCI_FUNCTIONS when there is none. */
unsigned pci_next(unsigned function);

/* The next capability of this kind after the one at `after` (0: the first one); 0 at the end. */
unsigned pci_capability(unsigned function, unsigned kind, unsigned after);

/* The address in a base address register, and how long its range is (the function does not decode meanwhile). */
uint64_t pci_bar(unsigned function, unsigned index);
uint64_t pci_bar_size(unsigned function, unsigned index);
void pci_bar_set(unsigned function, unsigned index, uint64_t address);
