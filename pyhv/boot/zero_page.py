"""Linux's boot parameters: the "zero page" (Documentation/arch/x86/zero-page.rst, struct boot_params)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot.e820 import MIB, low_memory_end
from pyhv.boot.placer import PAGE, align_up
from pyhv.memo import memo
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.e820 import MapEntry

HEADER_START = 0x1F1
HEADER_LIMIT = 0x290
"""struct setup_header ends here at the latest; the EDD signatures follow."""
MAP_LIMIT = 128
LOADER_TYPE = 0xFF
"""type_of_loader: none of the assigned ones."""
NORMAL_VIDEO = 0xFFFF
LOADED_HIGH = 0x01

PAGE_TABLE, LARGE_PAGE = 0x003, 0x083
TABLES_SIZE = 6 * PAGE
"""One PML4, one page directory pointer table, four page directories of 2 MiB pages: 4 GiB mapped one to one."""


@record(frozen=True)
class Parameters:
    """What goes into the zero page; `header` are the image's bytes from HEADER_START (empty for a bare vmlinux)."""

    header: bytes
    cmdline: bytes
    map: Sequence[MapEntry]
    ram_size: int
    rsdp: int
    initrd: tuple[int, int]
    code32_start: int


@memo(maxsize=4)
def identity_tables(base: int) -> bytes:
    """Page tables for the first 4 GiB, to be loaded at `base`; it is also CR3."""
    first = struct.pack("<Q", base + PAGE | PAGE_TABLE).ljust(PAGE, b"\0")
    second = struct.pack("<4Q", *(base + (2 + i) * PAGE | PAGE_TABLE for i in range(4))).ljust(PAGE, b"\0")
    return first + second + struct.pack("<2048Q", *(i << 21 | LARGE_PAGE for i in range(2048)))


def block_size(cmdline: bytes, *, tables: bool) -> int:
    """Bytes that `build_block` makes."""
    return (TABLES_SIZE if tables else 0) + PAGE + align_up(len(cmdline) + 1, PAGE)


def build_block(base: int, parameters: Parameters, *, tables: bool) -> tuple[int, bytes]:
    """The zero page's address, and the bytes for `base`: page tables (with `tables`), zero page, command line."""
    prefix = identity_tables(base) if tables else b""
    zero_page = base + len(prefix)
    return zero_page, prefix + _zero_page(parameters, zero_page + PAGE) + parameters.cmdline + b"\0"


def _zero_page(p: Parameters, cmdline: int) -> bytes:
    page = bytearray(PAGE)
    header = p.header[: HEADER_LIMIT - HEADER_START]
    page[HEADER_START : HEADER_START + len(header)] = header
    above = (low_memory_end(p.ram_size) - MIB) >> 10
    initrd, initrd_size = p.initrd

    def put(layout: str, offset: int, value: int) -> None:
        struct.pack_into(layout, page, offset, value)

    put("<H", 0x002, min(above, 0xFFFF))  # ext_mem_k
    put("<Q", 0x070, p.rsdp)  # acpi_rsdp_addr
    put("<I", 0x0C0, initrd >> 32)  # ext_ramdisk_image
    put("<I", 0x0C4, initrd_size >> 32)
    put("<I", 0x0C8, cmdline >> 32)  # ext_cmd_line_ptr
    put("<I", 0x1E0, above)  # alt_mem_k
    entries = p.map[:MAP_LIMIT]
    put("<B", 0x1E8, len(entries))
    put("<H", 0x1FA, NORMAL_VIDEO)
    put("<B", 0x210, LOADER_TYPE)
    page[0x211] |= LOADED_HIGH
    put("<I", 0x214, p.code32_start)
    put("<I", 0x218, initrd & 0xFFFF_FFFF)
    put("<I", 0x21C, initrd_size & 0xFFFF_FFFF)
    put("<I", 0x228, cmdline & 0xFFFF_FFFF)
    for index, e in enumerate(entries):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * index, e.address, e.length, e.kind)
    return bytes(page)
