"""Compressed clusters: where they are, and what is in them."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.block.qcow2.header import COMPRESSIONS, ZSTD
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    Decompress = Callable[[bytes, int], bytes]

SECTOR = 512
WINDOW_BITS = 12
"""Of deflate, without zlib's header."""
MAX_WINDOW = 8 << 20
"""What a zstd frame may ask for; a cluster is at most 2 MiB."""


def extent(entry: int, cluster_bits: int) -> tuple[int, int]:
    """The offset and length in the file that an L2 entry gives: an offset, above it the number of further sectors."""
    shift = 62 - (cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = (entry >> shift & ((1 << (cluster_bits - 8)) - 1)) + 1
    return offset, sectors * SECTOR - offset % SECTOR


def decompressor(kind: int, path: str) -> Decompress:
    """What makes at most so many bytes of compressed ones. It raises ValueError. Raises ConfigError without its library."""
    if kind == ZSTD:
        try:
            import zstandard
        except ImportError:
            raise ConfigError(
                f"disk: {path!r}: it is compressed by {COMPRESSIONS[kind]}, which needs: pip install zstandard"
            ) from None

        def zstd(data: bytes, size: int) -> bytes:
            try:
                reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(data, read_across_frames=True)
                return reader.read(size)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from None

        return zstd
    import zlib

    def inflate(data: bytes, size: int) -> bytes:
        try:
            return zlib.decompressobj(-WINDOW_BITS).decompress(data, size)
        except zlib.error as error:
            raise ValueError(str(error)) from None

    return inflate
