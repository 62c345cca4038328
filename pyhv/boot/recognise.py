"""What an image is, by its magic numbers, in the order in which `qemu -kernel` looks."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.boot.image import Image

FORMATS = ("flat", "multiboot", "pvh", "bzimage", "elf")
SECTOR = 512
CONVENTIONAL = 0x9_FC00 - 0x7C00
"""What a boot sector can bring along below the extended BIOS data area."""


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
    from pyhv.boot import elf, multiboot

    if data[:4] == elf.MAGIC:
        return _elf(image)
    if multiboot.find_header(data) is not None:
        return "multiboot"
    if data[510:512] == b"\x55\xaa" and len(data) % SECTOR == 0:
        if len(data) <= CONVENTIONAL:
            return "flat"
        raise ConfigError(f"{image}: not a kernel: it looks like a disk image ({len(data)} bytes with a boot sector)")
    raise ConfigError(
        f"{image}: not a kernel: no bzImage, multiboot, PVH or ELF header; use --format flat for a raw image"
    )


def _elf(image: Image) -> str:
    from pyhv.boot import elf, multiboot, pvh

    found = multiboot.find_header(image.data)
    if found is not None and found.flags & multiboot.HAS_ADDRESSES:
        return "multiboot"
    header = elf.read_header(image)
    if found is not None and header.bits == 32:
        return "multiboot"
    if pvh.find_entry(image, elf.read_program_headers(image, header)) is not None:
        return "pvh"
    return "multiboot" if found is not None else "elf"
