"""The MP table (Intel MultiProcessor Specification 1.4, chapter 4), for kernels older than ACPI."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot.acpi import LEVEL_HIGH, checksummed
from pyhv.chipset.layout import IOAPIC_BASE, LAPIC_BASE, PCI_FIRST_GSI, SCI_IRQ, pci_wire

if TYPE_CHECKING:
    from typing import Final

    from pyhv.boot.pci_root import PciRoot

SPECIFICATION: Final = 4
"""Version 1.4."""
LAPIC_VERSION: Final = 0x14
IOAPIC_VERSION: Final = 0x20
ENABLED, BOOT = 1, 2
SIGNATURE: Final = 0x600
FEATURES: Final = 0x201
"""CPUID leaf 1 EDX: FPU and APIC."""
BROADCAST: Final = 0xFF
INT, NMI, EXTINT = 0, 1, 3
PCI_BUS, ISA_BUS = 0, 1
"""Bus identifiers: a PCI bus has its own number, and they come in order (D.1)."""
LEVEL_LOW: Final = 0x000F
"""As PCI's wires are. The I/O APIC here inverts nothing, whatever it is told."""
POINTER_SIZE: Final = 16
MAX_CPUS: Final = 255
"""APIC ids 0 to 254."""


def floating_pointer(table_at: int) -> bytes:
    """16 bytes for a 16-byte boundary in the EBDA or the BIOS segment (4.1); virtual wire mode."""
    return checksummed(struct.pack("<4sIBBB5x", b"_MP_", table_at, 1, SPECIFICATION, 0), 10)


def configuration(cpus: int, pci: PciRoot) -> bytes:
    """The configuration table: processors, the buses, the I/O APIC, and the wires (4.2, 4.3)."""
    entries = [
        struct.pack("<BBBBII8x", 0, index, LAPIC_VERSION, ENABLED | (0 if index else BOOT), SIGNATURE, FEATURES)
        for index in range(min(cpus, MAX_CPUS))
    ]
    entries.append(struct.pack("<BB6s", 1, PCI_BUS, b"PCI   "))
    entries.append(struct.pack("<BB6s", 1, ISA_BUS, b"ISA   "))
    entries.append(struct.pack("<BBBBI", 2, 0, IOAPIC_VERSION, ENABLED, IOAPIC_BASE))
    entries += [
        struct.pack("<BBHBBBB", 3, INT, LEVEL_HIGH if number == SCI_IRQ else 0, ISA_BUS, number, 0, number or 2)
        for number in range(16)
        if number != 2
    ]
    pins = sorted({(devfn >> 3, pin) for devfn, pin in pci.functions if pin})
    entries += [
        struct.pack(
            "<BBHBBBB", 3, INT, LEVEL_LOW, PCI_BUS, slot << 2 | pin - 1, 0, PCI_FIRST_GSI + pci_wire(slot, pin)
        )
        for slot, pin in pins
    ]
    entries.append(struct.pack("<BBHBBBB", 4, EXTINT, 0, ISA_BUS, 0, 0, 0))
    entries.append(struct.pack("<BBHBBBB", 4, NMI, 0, ISA_BUS, 0, BROADCAST, 1))
    body = b"".join(entries)
    header = struct.pack(
        "<4sHBB8s12sIHHIHBB",
        b"PCMP",
        44 + len(body),
        SPECIFICATION,
        0,
        b"PYHV    ",
        b"PYHV MACHINE",
        0,
        0,
        len(entries),
        LAPIC_BASE,
        0,
        0,
        0,
    )
    return checksummed(header + body, 7)
