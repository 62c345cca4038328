"""What a PC BIOS leaves in low memory and at the top of its segment, for software that never calls it.

There is no BIOS: interrupts answer "not supported" or just return, so that a stray INT in a guest does no harm. Only the
timer's counts its ticks at 0x46C, as every program that waits in real mode expects.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import COM1, EBDA_BASE
from pyhv.x86.registers import DescriptorTable

if TYPE_CHECKING:
    from typing import Final

CONVENTIONAL_KIB: Final = EBDA_BASE >> 10
EQUIPMENT: Final = 0x0202
"""BIOS data area 0x410: a coprocessor, one serial port."""

TOP_BASE: Final = 0xF_FE00
"""The fixed part of the BIOS segment: descriptor tables and interrupt stubs, up to 1 MiB."""
TOP_SIZE: Final = 0x10_0000 - TOP_BASE

PROCESSOR_MSRS: Final = {0x2FF: 0x806}
"""Set on every processor: MTRR_DEF_TYPE with the MTRRs on and all memory write-back. Left off, Linux gives up PAT too."""

_GDT_32, _GDT_LINUX_32, _GDT_LINUX_64 = TOP_BASE, TOP_BASE + 0x40, TOP_BASE + 0x80
_CODE_32, _CODE_64, _DATA, _TSS = 0x00CF9B00_0000FFFF, 0x00AF9B00_0000FFFF, 0x00CF9300_0000FFFF, 0x00008B00_00000067
_TABLES: Final = {
    _GDT_32: (0, _CODE_32, _DATA, _TSS),
    _GDT_LINUX_32: (0, 0, _CODE_32, _DATA, _TSS),
    _GDT_LINUX_64: (0, 0, _CODE_64, _DATA, _TSS, 0),
}

_IRET, _EOI, _EOI_BOTH, _FAIL, _MEMORY, _EQUIPMENT = 0xFF53, 0xFF60, 0xFF70, 0xFF80, 0xFF90, 0xFF98
_TICK, _TIME = 0xFFA0, 0xFFB8
_STUBS: Final = {
    _IRET: "cf",
    _EOI: "50 b020 e620 58 cf",  # push ax; out 0x20, 0x20; pop ax; iret
    _EOI_BOTH: "50 b020 e6a0 e620 58 cf",
    _FAIL: "55 89e5 804e0601 5d b486 cf",  # set CF in the caller's flags, AH = 0x86 (function not supported)
    _MEMORY: "b8" + struct.pack("<H", CONVENTIONAL_KIB).hex() + "cf",
    _EQUIPMENT: "b8" + struct.pack("<H", EQUIPMENT).hex() + "cf",
    # push ds; push ax; mov ds, 0; inc dword ptr [0x46c]; int 0x1c; out 0x20, 0x20; pop ax; pop ds; iret
    _TICK: "1e 50 31c0 8ed8 66ff066c04 cd1c b020 e620 58 1f cf",
    # cmp ah, 0; jne _FAIL; push ds; mov ds, 0; mov dx, [0x46c]; mov cx, [0x46e]; mov al, 0; pop ds; iret
    _TIME: "80fc00 75c3 1e 31c9 8ed9 8b166c04 8b0e6e04 b000 1f cf",
    0xFFE0: "ba f90c b006 ee f4 ebfd",  # reset: out 0xcf9, 6; hlt
    0xFFF0: "eaE0ff00f0",  # the reset vector: jmp f000:ffe0
    0xFFFE: "fc",  # model byte: AT
}


def gdt_32() -> DescriptorTable:
    """Selectors 0x08 code, 0x10 data, 0x18 TSS, all 32-bit."""
    return DescriptorTable(_GDT_32, 4 * 8 - 1)


def gdt_linux_32() -> DescriptorTable:
    """Linux's __BOOT_CS 0x10 (32-bit) and __BOOT_DS 0x18."""
    return DescriptorTable(_GDT_LINUX_32, 5 * 8 - 1)


def gdt_linux_64() -> DescriptorTable:
    """Linux's __BOOT_CS 0x10 (64-bit) and __BOOT_DS 0x18; a TSS descriptor of 16 bytes follows."""
    return DescriptorTable(_GDT_LINUX_64, 6 * 8 - 1)


def top_of_segment() -> bytes:
    """The bytes from TOP_BASE to 1 MiB."""
    area = bytearray(TOP_SIZE)
    for address, entries in _TABLES.items():
        struct.pack_into(f"<{len(entries)}Q", area, address - TOP_BASE, *entries)
    for offset, code in _STUBS.items():
        stub = bytes.fromhex(code)
        start = 0xF_0000 + offset - TOP_BASE
        area[start : start + len(stub)] = stub
    return bytes(area)


def low_memory() -> bytes:
    """The interrupt vectors and the BIOS data area: the first 0x500 bytes of memory."""
    vectors = [_IRET] * 256
    vectors[0x08:0x10] = [_TICK] + [_EOI] * 7
    vectors[0x70:0x78] = [_EOI_BOTH] * 8
    for service in (0x13, 0x14, 0x15):
        vectors[service] = _FAIL
    vectors[0x11], vectors[0x12], vectors[0x1A] = _EQUIPMENT, _MEMORY, _TIME
    area = bytearray(0x500)
    struct.pack_into("<256I", area, 0, *(0xF000_0000 | offset for offset in vectors))
    struct.pack_into("<H", area, 0x400, COM1)
    struct.pack_into("<H", area, 0x40E, EBDA_BASE >> 4)
    struct.pack_into("<H", area, 0x410, EQUIPMENT)
    struct.pack_into("<H", area, 0x413, CONVENTIONAL_KIB)
    return bytes(area)
