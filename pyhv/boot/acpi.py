"""ACPI tables (ACPI specification 6.0, chapter 5), for an always-enabled ACPI without SMM."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot.dsdt import dsdt_body
from pyhv.boot.pci_root import mcfg
from pyhv.chipset.layout import (
    IOAPIC_BASE,
    LAPIC_BASE,
    PM1_CONTROL_PORT,
    PM1_EVENT_PORT,
    PM_TIMER_PORT,
    RESET_CONTROL_PORT,
    SCI_IRQ,
)

if TYPE_CHECKING:
    from typing import Final

    from pyhv.boot.pci_root import PciRoot

    Table = tuple[bytes, int, bytes]

OEM: Final = b"PYHV  "
OEM_TABLE: Final = b"PYHVMACH"
CREATOR: Final = b"PYHV"
HEADER_SIZE: Final = 36
FADT_SIZE: Final = 276
RESET_VALUE: Final = 0x06
"""Port 0xCF9: a full reset."""
CMOS_CENTURY: Final = 0x32
LEVEL_HIGH: Final = 0x000D
"""MPS INTI flags: level-triggered, active high."""
MAX_XAPIC: Final = 254

WBINVD, PROC_C1, NO_SLEEP_BUTTON, NO_FIXED_RTC, RESET_SUPPORTED = 1 << 0, 1 << 2, 1 << 5, 1 << 6, 1 << 10
LEGACY_DEVICES, NO_VGA = 1 << 0, 1 << 2
IO_SPACE: Final = 1


def checksummed(data: bytes, at: int) -> bytes:
    """The bytes with the one at `at` chosen so that all add up to zero."""
    out = bytearray(data)
    out[at] = 0
    out[at] = -sum(out) & 0xFF
    return bytes(out)


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A system description table: the common header (5.2.6), then `body`."""
    header = struct.pack(
        "<4sIBB6s8sI4sI", signature, HEADER_SIZE + len(body), revision, 0, OEM, OEM_TABLE, 1, CREATOR, 1
    )
    return checksummed(header + body, 9)


def rsdp(rsdt: int, xsdt: int) -> bytes:
    """The root pointer, revision 2 (5.2.5.3)."""
    first = checksummed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 2, rsdt), 8)
    return checksummed(first + struct.pack("<IQB3x", 36, xsdt, 0), 32)


def facs() -> bytes:
    """The firmware control structure, which has no checksum (5.2.10)."""
    return struct.pack("<4sI", b"FACS", 64).ljust(32, b"\0") + bytes((2,)) + bytes(31)


def _register(width: int, address: int, access: int) -> bytes:
    return struct.pack("<BBBBQ", IO_SPACE, width, 0, access, address)


def fadt(facs_at: int, dsdt_at: int) -> bytes:
    """The fixed description table, revision 6 (5.2.9)."""
    body = bytearray(FADT_SIZE - HEADER_SIZE)

    def put(layout: str, offset: int, value: int) -> None:
        struct.pack_into(layout, body, offset - HEADER_SIZE, value)

    def register(offset: int, width: int, address: int, access: int) -> None:
        start = offset - HEADER_SIZE
        body[start : start + 12] = _register(width, address, access)

    put("<I", 36, facs_at)
    put("<I", 40, dsdt_at)
    put("<H", 46, SCI_IRQ)
    put("<I", 56, PM1_EVENT_PORT)
    put("<I", 64, PM1_CONTROL_PORT)
    put("<I", 76, PM_TIMER_PORT)
    put("<B", 88, 4)  # PM1_EVT_LEN
    put("<B", 89, 2)  # PM1_CNT_LEN
    put("<B", 91, 4)  # PM_TMR_LEN
    put("<H", 96, 0xFFF)  # no C2
    put("<H", 98, 0xFFF)  # no C3
    put("<B", 108, CMOS_CENTURY)
    put("<H", 109, LEGACY_DEVICES | NO_VGA)
    put("<I", 112, WBINVD | PROC_C1 | NO_SLEEP_BUTTON | NO_FIXED_RTC | RESET_SUPPORTED)
    register(116, 8, RESET_CONTROL_PORT, 1)
    put("<B", 128, RESET_VALUE)
    put("<Q", 132, facs_at)
    put("<Q", 140, dsdt_at)
    register(148, 32, PM1_EVENT_PORT, 2)
    register(172, 16, PM1_CONTROL_PORT, 2)
    register(208, 32, PM_TIMER_PORT, 3)
    return table(b"FACP", 6, bytes(body))


def madt(cpus: int) -> bytes:
    """Local APICs, the I/O APIC and how ISA interrupts reach it (5.2.12)."""
    entries = [struct.pack("<BBBBI", 0, 8, index, index, 1) for index in range(min(cpus, MAX_XAPIC + 1))]
    entries += [struct.pack("<BBHIII", 9, 16, 0, index, 1, index) for index in range(MAX_XAPIC + 1, cpus)]
    entries.append(struct.pack("<BBBBII", 1, 12, 0, 0, IOAPIC_BASE, 0))
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0))
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, SCI_IRQ, SCI_IRQ, LEVEL_HIGH))
    entries.append(struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1))
    if cpus > MAX_XAPIC + 1:
        entries.append(struct.pack("<BBHIB3x", 0xA, 12, 0, 0xFFFF_FFFF, 1))
    return table(b"APIC", 4, struct.pack("<II", LAPIC_BASE, 1) + b"".join(entries))


def build_below(
    end: int, cpus: int, pci: PciRoot, aml: bytes = b"", more: tuple[Table, ...] = ()
) -> tuple[int, bytes]:
    """All tables, to end at or below `end`: their address, a multiple of 64, and bytes. The root pointer comes first.

    `aml` is added to \\_SB in the DSDT; `more` are the signatures, revisions and bodies of further tables.
    """
    dsdt = table(b"DSDT", 2, dsdt_body(cpus, pci, aml))
    apic = madt(cpus)
    others = [table(b"MCFG", 1, mcfg()), *(table(*parts) for parts in more)]
    listed = 2 + len(others)
    sizes = (
        *(64, 64, len(dsdt), FADT_SIZE, len(apic), HEADER_SIZE + listed * 4, HEADER_SIZE + listed * 8),
        *map(len, others),
    )
    offsets, size = [], 0
    for length in sizes:
        offsets.append(size)
        size += (length + 7) & -8
    base = (end - size) & -64
    _, facs_at, dsdt_at, fadt_at, madt_at, rsdt_at, xsdt_at, *others_at = (base + offset for offset in offsets)
    pointers = (fadt_at, madt_at, *others_at)
    parts = (
        rsdp(rsdt_at, xsdt_at),
        facs(),
        dsdt,
        fadt(facs_at, dsdt_at),
        apic,
        table(b"RSDT", 1, struct.pack(f"<{listed}I", *pointers)),
        table(b"XSDT", 1, struct.pack(f"<{listed}Q", *pointers)),
        *others,
    )
    out = bytearray(size)
    for offset, part in zip(offsets, parts, strict=True):
        out[offset : offset + len(part)] = part
    return base, bytes(out)
