"""The LZ4 decoder, alone and against the system's library."""

import contextlib
import ctypes
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.boot import lz4

LIMIT = 1 << 20


def library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("liblz4.so.1")
    except OSError:
        pytest.skip("liblz4.so.1 is not installed (Debian: liblz4-1)")


def compress(data: bytes) -> bytes:
    lib = library()
    out = ctypes.create_string_buffer(lib.LZ4_compressBound(len(data)) + 1)
    size = lib.LZ4_compress_default(data, out, len(data), len(out))
    return out.raw[:size]


def test_literals_and_an_overlapping_match() -> None:
    assert lz4.decode_block(b"\x32abc\x03\x00\x10z", LIMIT) == b"abcabcabcz"
    assert lz4.decode_block(b"\x1fa\x01\x00\x05\x10z", LIMIT) == b"a" * 25 + b"z"


@pytest.mark.parametrize(
    "block",
    [
        b"\x10",
        b"\xf0",
        b"\xf0\xff",
        b"\x10a\x01",
        b"\x10a\x00\x00",
        b"\x10a\x02\x00",
        b"\x1fa\x01\x00",
        b"\x00\x01\x00",
    ],
)
def test_damaged_blocks(block: bytes) -> None:
    with pytest.raises(lz4.Lz4Error):
        lz4.decode_block(block, LIMIT)


def test_limits_hold() -> None:
    with pytest.raises(lz4.Lz4Error, match="more than"):
        lz4.decode_block(b"\x1fa\x01\x00" + b"\xff" * (1 << 22) + b"\x00\x10z", 1 << 23)
    with pytest.raises(lz4.Lz4Error, match="more than"):
        lz4.decode_block(b"\x1fa\x01\x00" + b"\xff" * 100 + b"\x00\x10z", 1000)
    block = b"\x50abcde"
    frame = lz4.LEGACY_MAGIC + (struct.pack("<I", len(block)) + block) * 3
    assert lz4.unpack_legacy(frame, 15) == b"abcde" * 3
    with pytest.raises(lz4.Lz4Error, match="more than 14"):
        lz4.unpack_legacy(frame, 14)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 60)), max_size=12))
def test_it_undoes_the_librarys_work(parts: list[tuple[bytes, int]]) -> None:
    data = b"".join(piece * count for piece, count in parts)
    assert lz4.decode_block(compress(data), LIMIT) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_the_error(block: bytes) -> None:
    try:
        out = lz4.decode_block(block, 4096)
    except lz4.Lz4Error:
        return
    assert len(out) <= 4096


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_with_the_library_any_frame_gives_data_or_the_error(data: bytes) -> None:
    with contextlib.suppress(lz4.Lz4Error):
        lz4.unpack_legacy(lz4.LEGACY_MAGIC + struct.pack("<I", len(data)) + data, LIMIT)


def test_many_small_blocks_are_quick() -> None:
    block = struct.pack("<I", 2) + b"\x10a"
    assert lz4.unpack_legacy(lz4.LEGACY_MAGIC + block * 50000, LIMIT) == b"a" * 50000


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lz4, "_library_decoder", lambda: None)
    block = struct.pack("<I", 2) + b"\x10a"
    assert lz4.unpack_legacy(lz4.LEGACY_MAGIC + block * 3, LIMIT) == b"aaa"
