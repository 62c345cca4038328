"""The kernel inside a bzImage, unpacked on the host: it can then be entered without running its own unpacker."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot.elf import MAGIC as ELF_MAGIC
from pyhv.boot.packing import unpack as unpack_bytes
from pyhv.boot.setup_header import read_setup_header
from pyhv.errors import BootError

if TYPE_CHECKING:
    from pyhv.boot.image import Image
    from pyhv.boot.setup_header import SetupHeader

LIMIT = 512 << 20
"""A kernel that unpacks to more is refused."""


def unpack(image: Image) -> bytes:
    """The vmlinux of a bzImage, an ELF file. The build puts its size, in four bytes, at the end of the packed one.

    Raises BootError when there is none or it is damaged, CapabilityMissing when its packing needs a library that is not
    installed.
    """
    header = read_setup_header(image)
    packed = _payload(image, header)
    try:
        out = packed if packed[:4] == ELF_MAGIC else unpack_bytes(packed, LIMIT, "this kernel")
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise BootError(f"{image}: bzImage: the payload is damaged: {error}") from None
    if out is None:
        raise BootError(f"{image}: bzImage: the payload's packing is not known (it begins with {packed[:4].hex()})")
    if len(out) > LIMIT:
        raise BootError(f"{image}: bzImage: the payload unpacks to more than {LIMIT >> 20} MiB")
    claimed = int.from_bytes(packed[-4:], "little")
    if out is not packed and claimed != len(out):
        raise BootError(
            f"{image}: bzImage: the payload is damaged: it unpacks to {len(out)} bytes, and says {claimed} at its end"
        )
    if out[:4] != ELF_MAGIC:
        raise BootError(f"{image}: bzImage: the payload does not hold an ELF file")
    return out


def _payload(image: Image, header: SetupHeader) -> bytes:
    start = header.offset + header.payload_offset
    if not header.payload_length:
        raise BootError(f"{image}: bzImage: no payload (payload_length 0): this image cannot be unpacked")
    if header.payload_offset + header.payload_length > header.size:
        raise BootError(f"{image}: bzImage: payload_offset and payload_length lie outside the kernel")
    return image.data[start : start + header.payload_length]
