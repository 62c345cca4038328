"""LZ4 blocks and the legacy frame in which Linux packs its kernels (lz4 documentation: Block Format, Frame Format).

The system's liblz4 does the work where there is one; the decoder here gives the same bytes, more slowly.
"""

from __future__ import annotations

import ctypes

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LEGACY_MAGIC = b"\x02\x21\x4c\x18"
BLOCK_SIZE = 8 << 20
"""What a block of a legacy frame unpacks to, at most."""


class Lz4Error(ValueError):
    """Damaged data."""


def unpack_legacy(data: bytes, limit: int) -> bytes:
    """The contents of a legacy frame, at most `limit` bytes. Raises Lz4Error."""
    if data[:4] != LEGACY_MAGIC:
        raise Lz4Error("not a legacy LZ4 frame")
    decode = _library_decoder() or decode_block
    out: list[bytes] = []
    total, position = 0, 4
    while position + 4 <= len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if data[position - 4 : position] == LEGACY_MAGIC:
            continue
        if size == 0 or size > len(data) - position:
            break
        block = decode(data[position : position + size], BLOCK_SIZE)
        total += len(block)
        if total > limit:
            raise Lz4Error(f"more than {limit} bytes unpacked")
        out.append(block)
        position += size
    return b"".join(out)


def decode_block(block: bytes, limit: int) -> bytes:
    """One block, decoded in Python. Raises Lz4Error."""
    out = bytearray()
    position, end = 0, len(block)
    try:
        while position < end:
            token = block[position]
            position += 1
            literals = token >> 4
            if literals == 15:
                literals, position = _extend(block, position, literals)
            out += block[position : position + literals]
            position += literals
            if position >= end:
                if position > end:
                    raise Lz4Error("literals run past the end of a block")
                break
            distance = block[position] | block[position + 1] << 8
            position += 2
            length = token & 15
            if length == 15:
                length, position = _extend(block, position, length)
            if len(out) + length + 4 > limit:
                raise Lz4Error(f"a block unpacks to more than {limit} bytes")
            _copy(out, distance, length + 4)
    except IndexError:
        raise Lz4Error("a block ends inside a sequence") from None
    if len(out) > limit:
        raise Lz4Error(f"a block unpacks to more than {limit} bytes")
    return bytes(out)


def _extend(block: bytes, position: int, value: int) -> tuple[int, int]:
    while True:
        byte = block[position]
        position += 1
        value += byte
        if byte != 255:
            return value, position


def _copy(out: bytearray, distance: int, length: int) -> None:
    start = len(out) - distance
    if distance == 0 or start < 0:
        raise Lz4Error("a match reaches before the start of its block")
    if distance >= length:
        out += out[start : start + length]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (length // distance + 1))[:length]


def _library_decoder() -> Callable[[bytes, int], bytes] | None:
    try:
        library = ctypes.CDLL("liblz4.so.1")
        function = library.LZ4_decompress_safe
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    function.restype = ctypes.c_int
    out = ctypes.create_string_buffer(BLOCK_SIZE)

    def decode(block: bytes, limit: int) -> bytes:
        size = function(block, out, len(block), min(limit, len(out)))
        if size < 0:
            raise Lz4Error("a damaged block")
        return ctypes.string_at(out, size)

    return decode
