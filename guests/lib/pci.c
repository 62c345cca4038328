#include "pci.h"
#include "io.h"

enum { ALL_ONES = 0xffffffff, CAPABILITY_LIMIT = 48 };

uintptr_t pci_ecam;

/* 3.2.2.3.2: the address to one port, the data through the bytes of the other that it is for. */
static uint16_t select_by_port(unsigned function, unsigned reg)
{
    outl(PCI_ADDRESS_PORT, PCI_ENABLE | function << 8 | (reg & 0xfc));
    return PCI_DATA_PORT + (reg & 3);
}

uint32_t pci_read(unsigned function, unsigned reg, unsigned width)
{
    if (pci_ecam) {
        uintptr_t at = pci_ecam + (function << 12 | reg);
        return width == 1 ? mmio_read8(at) : width == 2 ? mmio_read16(at) : mmio_read32(at);
    }
    uint16_t port = select_by_port(function, reg);
    return width == 1 ? inb(port) : width == 2 ? inw(port) : inl(port);
}

void pci_write(unsigned function, unsigned reg, unsigned width, uint32_t v)
{
    if (pci_ecam) {
        uintptr_t at = pci_ecam + (function << 12 | reg);
        width == 1 ? mmio_write8(at, v) : width == 2 ? mmio_write16(at, v) : mmio_write32(at, v);
        return;
    }
    uint16_t port = select_by_port(function, reg);
    width == 1 ? outb(port, v) : width == 2 ? outw(port, v) : outl(port, v);
}

static int is_there(unsigned function) { return (pci_read(function, PCI_ID, 4) & 0xffff) != 0xffff; }

unsigned pci_next(unsigned function)
{
    while (function < PCI_FUNCTIONS) {
        unsigned first = function & ~7u;

        if (function != first && !(pci_read(first, PCI_HEADER_TYPE, 1) & MULTI_FUNCTION))
            function = first + 8;
        else if (is_there(function))
            return function;
        else
            function += function == first ? 8 : 1;
    }
    return PCI_FUNCTIONS;
}

unsigned pci_capability(unsigned function, unsigned kind, unsigned after)
{
    unsigned at;

    if (!(pci_read(function, PCI_STATUS, 2) & STATUS_CAPABILITIES))
        return 0;
    at = pci_read(function, after ? after + 1 : (unsigned)PCI_CAPABILITIES, 1) & 0xfc;
    for (unsigned i = 0; at && i < CAPABILITY_LIMIT; i++) {
        if (pci_read(function, at, 1) == kind)
            return at;
        at = pci_read(function, at + 1, 1) & 0xfc;
    }
    return 0;
}

uint64_t pci_bar(unsigned function, unsigned index)
{
    uint32_t low = pci_read(function, PCI_BAR + 4 * index, 4);

    if (low & BAR_IO)
        return low & ~3u;
    return (low & ~0xfu) | (low & BAR_64 ? (uint64_t)pci_read(function, PCI_BAR + 4 * index + 4, 4) << 32 : 0);
}

void pci_bar_set(unsigned function, unsigned index, uint64_t address)
{
    uint32_t low = pci_read(function, PCI_BAR + 4 * index, 4);

    pci_write(function, PCI_BAR + 4 * index, 4, address);
    if (!(low & BAR_IO) && low & BAR_64)
        pci_write(function, PCI_BAR + 4 * index + 4, 4, address >> 32);
}

uint64_t pci_bar_size(unsigned function, unsigned index)
{
    unsigned command = pci_read(function, PCI_COMMAND, 2);
    uint64_t address = pci_bar(function, index), size;

    pci_write(function, PCI_COMMAND, 2, command & ~(COMMAND_IO | COMMAND_MEMORY));
    pci_bar_set(function, index, ~0ull);
    size = pci_bar(function, index);
    if (!(pci_read(function, PCI_BAR + 4 * index, 4) & BAR_64) && size)
        size |= ~0ull << 32;
    pci_bar_set(function, index, address);
    pci_write(function, PCI_COMMAND, 2, command);
    return size & -size;
}
