"""What a packed kernel or kernel module holds; how it is packed is told by its first bytes."""

from __future__ import annotations

import importlib

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.errors import CapabilityMissing

if TYPE_CHECKING:
    from collections.abc import Callable


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def unpack(packed: bytes, limit: int, what: str) -> bytes | None:
    """At most `limit` + 1 bytes of what is packed; None where the packing is not known.

    `what` names it in the message of CapabilityMissing, raised when a library for it is not installed. Data that are damaged
    are a ValueError, OSError, EOFError or MemoryError.
    """
    for magic, method in _METHODS.items():
        if packed.startswith(magic):
            return method(packed, limit, what)
    return None


def _whole(decompressor: _Decompressor, packed: bytes, limit: int, *errors: type[Exception]) -> bytes:
    try:
        out = decompressor.decompress(packed, limit + 1)
    except errors as error:
        raise ValueError(str(error)) from None
    if not decompressor.eof and len(out) <= limit:
        raise ValueError("it ends too early")
    return out


def _gzip(packed: bytes, limit: int, what: str) -> bytes:
    import zlib

    return _whole(zlib.decompressobj(31), packed, limit, zlib.error)


def _bzip2(packed: bytes, limit: int, what: str) -> bytes:
    import bz2

    return _whole(bz2.BZ2Decompressor(), packed, limit)


def _lzma(packed: bytes, limit: int, what: str) -> bytes:
    import lzma

    return _whole(lzma.LZMADecompressor(memlimit=256 << 20), packed, limit, lzma.LZMAError)


def _lz4(packed: bytes, limit: int, what: str) -> bytes:
    from pyhv.boot.lz4 import unpack_legacy

    return unpack_legacy(packed, limit)


def _zstd(packed: bytes, limit: int, what: str) -> bytes:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise CapabilityMissing(
            f"{what} is packed with zstd: to unpack it on the host, install the 'zstandard' package "
            "(pip install 'pyhv[kernels]')"
        ) from None
    try:
        return bytes(zstandard.ZstdDecompressor().stream_reader(packed).read(limit + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


_METHODS: dict[bytes, Callable[[bytes, int, str], bytes]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\x5d\0\0": _lzma,
    b"\xfd7zXZ\0": _lzma,
    b"\x02\x21\x4c\x18": _lz4,
    b"\x28\xb5\x2f\xfd": _zstd,
}
