"""The kernel inside a bzImage, unpacked on the host: it can then be entered without running its own unpacker."""

from __future__ import annotations

import importlib

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.boot.elf import MAGIC as ELF_MAGIC
from pyhv.boot.setup_header import read_setup_header
from pyhv.errors import BootError, CapabilityMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.boot.image import Image
    from pyhv.boot.setup_header import SetupHeader

LIMIT = 512 << 20
"""A kernel that unpacks to more is refused."""


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def unpack(image: Image) -> bytes:
    """The vmlinux of a bzImage, an ELF file. The build puts its size, in four bytes, at the end of the packed one.

    Raises BootError when there is none or it is damaged, CapabilityMissing when its packing needs a library that is not
    installed.
    """
    header = read_setup_header(image)
    packed = _payload(image, header)
    try:
        out = _unpack(image, packed)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise BootError(f"{image}: bzImage: the payload is damaged: {error}") from None
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


def _unpack(image: Image, packed: bytes) -> bytes:
    for magic, method in _METHODS.items():
        if packed.startswith(magic):
            return method(packed)
    if packed[:4] == ELF_MAGIC:
        return packed
    raise BootError(f"{image}: bzImage: the payload's packing is not known (it begins with {packed[:4].hex()})")


def _whole(decompressor: _Decompressor, packed: bytes, *errors: type[Exception]) -> bytes:
    try:
        return decompressor.decompress(packed, LIMIT + 1)
    except errors as error:
        raise ValueError(str(error)) from None


def _gzip(packed: bytes) -> bytes:
    import zlib

    return _whole(zlib.decompressobj(31), packed, zlib.error)


def _bzip2(packed: bytes) -> bytes:
    import bz2

    return _whole(bz2.BZ2Decompressor(), packed)


def _lzma(packed: bytes) -> bytes:
    import lzma

    return _whole(lzma.LZMADecompressor(memlimit=256 << 20), packed, lzma.LZMAError)


def _lz4(packed: bytes) -> bytes:
    from pyhv.boot.lz4 import unpack_legacy

    return unpack_legacy(packed, LIMIT)


def _zstd(packed: bytes) -> bytes:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise CapabilityMissing(
            "this kernel is packed with zstd: to unpack it on the host, install the 'zstandard' package "
            "(pip install 'pyhv[kernels]')"
        ) from None
    try:
        return bytes(zstandard.ZstdDecompressor().stream_reader(packed).read(LIMIT + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


_METHODS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\x5d\0\0": _lzma,
    b"\xfd7zXZ\0": _lzma,
    b"\x02\x21\x4c\x18": _lz4,
    b"\x28\xb5\x2f\xfd": _zstd,
}
