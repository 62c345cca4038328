"""What an image is, by its magic numbers, in the order in which `qemu -kernel` looks."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.boot.image import Buffer, Image

FORMATS = ("flat", "multiboot", "pvh", "bzimage", "elf")
SECTOR = 512
CONVENTIONAL = 0x9_FC00 - 0x7C00
"""What a boot sector can bring along below the extended BIOS data area."""
HEADER_MAGIC = 0x1BADB002
SEARCH = 8192
"""A multiboot header lies wholly in this many bytes (specification, 3.1)."""
HAS_ADDRESSES = 1 << 16


class MultibootHeader:
    """Where a multiboot header is in the file, its flags, and the address fields (zero unless flags bit 16 is set)."""

    __slots__ = ("bss_end_addr", "entry_addr", "flags", "header_addr", "load_addr", "load_end_addr", "position")

    def __init__(
        self,
        position: int,
        flags: int,
        header_addr: int = 0,
        load_addr: int = 0,
        load_end_addr: int = 0,
        bss_end_addr: int = 0,
        entry_addr: int = 0,
    ) -> None:
        self.position = position
        self.flags = flags
        self.header_addr = header_addr
        self.load_addr = load_addr
        self.load_end_addr = load_end_addr
        self.bss_end_addr = bss_end_addr
        self.entry_addr = entry_addr


def find_multiboot_header(data: Buffer) -> MultibootHeader | None:
    """The first multiboot header with a right checksum."""
    head = data[:SEARCH]
    magic = HEADER_MAGIC.to_bytes(4, "little")
    position = head.find(magic)
    while 0 <= position <= len(head) - 12:
        if position % 4 == 0:
            _, flags, checksum = struct.unpack_from("<III", head, position)
            if (HEADER_MAGIC + flags + checksum) & 0xFFFF_FFFF == 0:
                if not flags & HAS_ADDRESSES:
                    return MultibootHeader(position, flags)
                if position <= len(head) - 32:
                    return MultibootHeader(position, flags, *struct.unpack_from("<5I", head, position + 12))
        position = head.find(magic, position + 1)
    return None


def recognise(image: Image) -> str:
    """One of FORMATS. Raises ConfigError, in one line, for what is none of them.

    A Linux setup header comes first. Then multiboot, but a 64-bit ELF file with a PVH note is PVH: `qemu -kernel` takes
    no 64-bit multiboot kernels. A flat image is only known as a boot sector (55 AA at offset 510) in whole sectors.
    """
    data = image.data
    if not len(data):
        raise ConfigError(f"{image}: not a kernel: the file is empty")
    if data[0x202:0x206] == b"HdrS":
        return "bzimage"
    if data[:4] == b"\x7fELF":
        return _elf(image)
    if find_multiboot_header(data) is not None:
        return "multiboot"
    if data[510:512] == b"\x55\xaa" and len(data) % SECTOR == 0:
        if len(data) <= CONVENTIONAL:
            return "flat"
        raise ConfigError(f"{image}: not a kernel: it looks like a disk image ({len(data)} bytes with a boot sector)")
    raise ConfigError(
        f"{image}: not a kernel: no bzImage, multiboot, PVH or ELF header; use --format flat for a raw image"
    )


def _elf(image: Image) -> str:
    from pyhv.boot import elf

    found = find_multiboot_header(image.data)
    if found is not None and found.flags & HAS_ADDRESSES:
        return "multiboot"
    header = elf.read_header(image)
    if found is not None and header.bits == 32:
        return "multiboot"
    from pyhv.boot import pvh

    if pvh.find_entry(image, elf.read_program_headers(image, header)) is not None:
        return "pvh"
    return "multiboot" if found is not None else "elf"
