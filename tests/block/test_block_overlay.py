"""Copy on write in memory."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.block import fallocate
from pyhv.block.image import Image
from pyhv.block.open import open_image
from pyhv.block.overlay import BLOCK, Overlay
from pyhv.errors import ConfigError


class Pattern(Image):
    """A read-only image that remembers which parts were read."""

    readonly = True

    def __init__(self, size):
        self.size = size
        self.data = bytes((i * 7 + i // 256) & 255 for i in range(min(size, 1 << 20)))
        self.reads = []
        self.closed = False

    def preadv(self, views, offset, length):
        self.check(offset, length)
        self.reads.append((offset, length))
        for view in views:
            view[:] = self.data[offset : offset + len(view)].ljust(len(view), b"\0")
            offset += len(view)

    def close(self):
        self.closed = True


def test_the_file_stays_as_it_was(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"below" * 4096)
    image = open_image(str(path), overlay=True)
    assert not image.readonly
    image.write(3, b"above")
    image.write_zeroes(100, 5000, unmap=True)
    image.discard(8192, 4096)
    image.flush()
    assert image.read(0, 10) == b"belaboveow"
    image.close()
    image.close()
    assert path.read_bytes() == b"below" * 4096


def test_read_only_wins(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    image = open_image(str(path), overlay=True, readonly=True)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        image.write(0, b"x")
    image.close()


def test_whole_blocks_are_not_copied():
    base = Pattern(1 << 16)
    image = Overlay(base)
    image.write(BLOCK, b"x" * BLOCK)
    image.write_zeroes(4 * BLOCK, 2 * BLOCK, unmap=False)
    assert base.reads == []
    image.write(2 * BLOCK + 5, b"y")
    assert base.reads == [(2 * BLOCK, BLOCK)]
    image.write(2 * BLOCK + 100, b"y")
    assert base.reads == [(2 * BLOCK, BLOCK)]
    image.close()
    assert base.closed


def test_one_read_is_cut_where_the_holder_changes():
    base = Pattern(8 * BLOCK)
    image = Overlay(base)
    for block in (1, 2, 5):
        image.write(block * BLOCK, b"x" * BLOCK)
    buffers = [bytearray(1000) for _ in range(33)]
    image.preadv([memoryview(b)[: 32767 - 1000 * i] for i, b in enumerate(buffers)], 1, 32767)
    expected = bytearray(base.data[: 8 * BLOCK])
    for block in (1, 2, 5):
        expected[block * BLOCK : (block + 1) * BLOCK] = b"x" * BLOCK
    assert b"".join(buffers)[:32767] == expected[1:]
    assert base.reads == [(1, BLOCK - 1), (3 * BLOCK, 2 * BLOCK), (6 * BLOCK, 2 * BLOCK)]


def test_memory_is_only_taken_by_what_is_written():
    image = Overlay(Pattern(1 << 42))
    image.write(1 << 41, b"far away")
    image.discard(1 << 40, 1 << 28)
    assert image.read(1 << 41, 8) == b"far away"
    assert os.fstat(image._fd).st_blocks * 512 <= 4 * BLOCK
    image.close()


def test_a_disk_too_large_is_the_user_s_mistake():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as error:
        Overlay(Pattern(1 << 62))
    assert str(error.value) == f"disk: overlay: {1 << 62} bytes are too many for this host's memory"
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("offset", [-1, 1 << 16])
def test_outside(offset):
    image = Overlay(Pattern(1 << 16))
    for call in (
        lambda: image.read(offset, 1),
        lambda: image.write(offset, b"x"),
        lambda: image.discard(offset, 1),
        lambda: image.write_zeroes(offset, 1, unmap=True),
    ):
        with pytest.raises(OSError, match="outside"):
            call()


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "zero", "discard", "read"]), st.integers(0, 1 << 16), st.integers(0, 3 * BLOCK)),
    max_size=30,
)


@given(STEPS, st.sampled_from([512, BLOCK, 5 * BLOCK, 7 * BLOCK + 1536]), st.booleans())
def test_like_bytes(steps, size, holes):
    base = Pattern(size)
    image = Overlay(base)
    model = bytearray(base.data)
    punch = fallocate.punch_hole
    try:
        if not holes:
            fallocate.punch_hole = refuse
        for number, (what, offset, length) in enumerate(steps):
            offset %= size
            length = min(length, size - offset)
            if what == "write":
                model[offset : offset + length] = data = bytes([number + 1]) * length
                image.write(offset, data)
            elif what == "zero":
                model[offset : offset + length] = bytes(length)
                image.write_zeroes(offset, length, unmap=False)
            elif what == "discard":
                image.discard(offset, length)
                model[offset : offset + length] = image.read(offset, length)
            assert image.read(offset, length) == model[offset : offset + length]
        assert image.read(0, size) == model
    finally:
        fallocate.punch_hole = punch
        image.close()


def refuse(fd, offset, length):
    raise OSError(errno.EOPNOTSUPP, "no holes")
