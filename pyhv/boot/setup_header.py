"""The setup header of a bzImage (Documentation/arch/x86/boot.rst), read and doubted."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot.zero_page import HEADER_LIMIT, HEADER_START, LOADED_HIGH
from pyhv.errors import BootError
from pyhv.record import record

if TYPE_CHECKING:
    from pyhv.boot.image import Image

SECTOR = 512
MINIMUM_VERSION = 0x0202
"""The first protocol with a command line pointer."""
XLF_KERNEL_64 = 0x01
XLF_ABOVE_4G = 0x02
HIGH_ADDRESS = 0x10_0000
OLD_CMDLINE_LIMIT = 255
OLD_INITRD_MAX = 0x37FF_FFFF


@record(frozen=True)
class SetupHeader:
    """The fields that a loader needs; those younger than the image's protocol have the values that it implies.

    `offset`, `size`: the protected-mode kernel inside the file, in bytes. `load_address`: where it goes, `memory`: the
    bytes that it needs there. `raw`: the header itself, for the zero page.
    """

    version: int
    offset: int
    size: int
    load_address: int
    memory: int
    entry_64: bool
    above_4g: bool
    code32_start: int
    initrd_max: int
    cmdline_size: int
    payload_offset: int
    payload_length: int
    raw: bytes


def read_setup_header(image: Image) -> SetupHeader:
    """Raises BootError that names the field that is wrong."""
    data = image.data
    head = data[:HEADER_LIMIT].ljust(HEADER_LIMIT, b"\0")

    def u8(offset: int) -> int:
        return head[offset]

    def u16(offset: int) -> int:
        return int(struct.unpack_from("<H", head, offset)[0])

    def u32(offset: int) -> int:
        return int(struct.unpack_from("<I", head, offset)[0])

    if len(data) < 0x230:
        raise BootError(f"{image}: bzImage: truncated inside the setup header ({len(data)} bytes)")
    if head[0x202:0x206] != b"HdrS":
        raise BootError(f"{image}: bzImage: no setup header (HdrS)")
    if u16(0x1FE) != 0xAA55:
        raise BootError(f"{image}: bzImage: boot_flag {u16(0x1FE):#06x} is not 0xaa55")
    version = u16(0x206)
    if not MINIMUM_VERSION <= version <= 0x03FF:
        raise BootError(f"{image}: bzImage: version {version >> 8}.{version & 0xFF:02}: at least 2.02 is needed")
    if not u8(0x211) & LOADED_HIGH:
        raise BootError(f"{image}: bzImage: loadflags {u8(0x211):#x}: a zImage, which is loaded low, is not supported")
    offset = ((u8(0x1F1) or 4) + 1) * SECTOR
    size = len(data) - offset
    if size <= 0:
        raise BootError(f"{image}: bzImage: setup_sects {u8(0x1F1)} puts the kernel outside the file")
    claimed = u32(0x1F4) * 16 if version >= 0x0204 else 0
    if claimed > size + 15:
        raise BootError(f"{image}: bzImage: syssize says {claimed} bytes, but only {size} follow: truncated")

    load_address, memory = HIGH_ADDRESS, size
    if version >= 0x020A:
        load_address = struct.unpack_from("<Q", head, 0x258)[0]
        memory = max(size, u32(0x260))
        if load_address % 4096 or load_address < HIGH_ADDRESS:
            raise BootError(f"{image}: bzImage: pref_address {load_address:#x} is not a page above 1 MiB")
    flags = u16(0x236) if version >= 0x020C else 0
    if flags & XLF_KERNEL_64 and size <= 0x200:
        raise BootError(f"{image}: bzImage: xloadflags promise a 64-bit entry, but the kernel has only {size} bytes")
    payload_offset, payload_length = (u32(0x248), u32(0x24C)) if version >= 0x0208 else (0, 0)
    end = min(HEADER_LIMIT, max(0x202 + u8(0x201), 0x230))
    return SetupHeader(
        version=version,
        offset=offset,
        size=size,
        load_address=load_address,
        memory=memory,
        entry_64=bool(flags & XLF_KERNEL_64),
        above_4g=bool(flags & XLF_ABOVE_4G),
        code32_start=u32(0x214),
        initrd_max=u32(0x22C) if version >= 0x0203 else OLD_INITRD_MAX,
        cmdline_size=(u32(0x238) or OLD_CMDLINE_LIMIT) if version >= 0x0206 else OLD_CMDLINE_LIMIT,
        payload_offset=payload_offset,
        payload_length=payload_length,
        raw=data[HEADER_START:end],
    )
