"""The memory map that the firmware reports (ACPI specification, 15: system address map interfaces)."""

from __future__ import annotations

from pyhv.chipset.layout import BIOS_AREA, EBDA_BASE, ECAM_BASE, ECAM_SIZE, KVM_IDENTITY_MAP
from pyhv.memo import memo
from pyhv.memory.layout import ram_ranges

RAM = 1
RESERVED = 2
ACPI = 3
NVS = 4

MIB = 1 << 20
VGA_HOLE = 0xA_0000


class MapEntry:
    """`length` bytes at `address`; `kind` is RAM, RESERVED, ACPI or NVS."""

    __slots__ = ("address", "kind", "length")

    def __init__(self, address: int, length: int, kind: int) -> None:
        self.address = address
        self.length = length
        self.kind = kind

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + self.length


@memo(maxsize=64)
def memory_map(ram_size: int, reserved: tuple[tuple[int, int], ...] = ()) -> tuple[MapEntry, ...]:
    """What a machine with `ram_size` bytes reports, by rising address; `reserved` are (address, length) outside RAM."""
    ranges = ram_ranges(ram_size)
    low = ranges[0][1]
    entries = [
        MapEntry(0, EBDA_BASE, RAM),
        MapEntry(EBDA_BASE, VGA_HOLE - EBDA_BASE, RESERVED),
        MapEntry(BIOS_AREA, MIB - BIOS_AREA, RESERVED),
        MapEntry(ECAM_BASE, ECAM_SIZE, RESERVED),
        MapEntry(KVM_IDENTITY_MAP, 0xFF00_0000 - KVM_IDENTITY_MAP, RESERVED),
    ]
    if low > MIB:
        entries.append(MapEntry(MIB, low - MIB, RAM))
    entries += [MapEntry(address, length, RAM) for address, length in ranges[1:]]
    entries += [MapEntry(address, length, RESERVED) for address, length in reserved]
    return tuple(sorted(entries, key=lambda e: e.address))


def low_memory_end(ram_size: int) -> int:
    """Where RAM below 4 GiB ends."""
    return ram_ranges(ram_size)[0][1]
