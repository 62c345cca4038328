"""Raw images: the file's bytes, sparse where nothing is, and on stable storage after a flush."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.block import fallocate, host_file
from pyhv.block.open import open_image
from pyhv.errors import ConfigError

SIZE = 1 << 20


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "disk.img"
    file.write_bytes(bytes(range(256)) * (SIZE // 256))
    return str(file)


@pytest.fixture
def image(path):
    image = open_image(path)
    yield image
    image.close()


def test_reads_and_writes(image, path):
    assert (image.size, image.readonly, image.unit) == (SIZE, False, 4096)
    assert image.read(255, 3) == b"\xff\0\x01"
    image.write(4094, b"hello")
    assert image.read(4093, 7) == b"\xfdhello\x03"
    image.flush()
    with open(path, "rb") as file:
        file.seek(4094)
        assert file.read(5) == b"hello"


def test_many_buffers(image):
    parts = [bytearray(1 + i % 3) for i in range(3000)]
    length = sum(map(len, parts))
    image.preadv([memoryview(part) for part in parts], 17, length)
    assert b"".join(parts) == image.read(17, length)
    image.pwritev([memoryview(part) for part in parts], 5000, length)
    assert image.read(5000, length) == b"".join(parts)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (0, -1), (1 << 70, 1), (1, 1 << 70)])
def test_outside(image, offset, length):
    for call in (
        lambda: image.preadv([], offset, length),
        lambda: image.pwritev([], offset, length),
        lambda: image.discard(offset, length),
        lambda: image.write_zeroes(offset, length, unmap=True),
    ):
        with pytest.raises(OSError, match="outside") as error:
            call()
        assert error.value.errno == errno.EINVAL


def test_read_only(path):
    with open(path, "rb") as file:
        before = file.read()
    image = open_image(path, readonly=True)
    assert image.readonly
    for call in (
        lambda: image.write(0, b"x"),
        lambda: image.discard(0, 4096),
        lambda: image.write_zeroes(0, 4096, unmap=False),
    ):
        with pytest.raises(OSError, match="Read-only") as error:
            call()
        assert error.value.errno == errno.EROFS
    image.flush()
    image.close()
    with open(path, "rb") as file:
        assert file.read() == before


def test_a_tail_that_is_no_sector_reads_as_zeros_and_can_be_written(tmp_path):
    file = tmp_path / "odd"
    file.write_bytes(b"x" * 700)
    image = open_image(str(file))
    assert image.size == 1024
    assert image.read(512, 512) == b"x" * 188 + bytes(324)
    image.write_zeroes(690, 334, unmap=True)
    assert file.stat().st_size == 700
    image.write(1000, b"end")
    assert image.read(680, 344) == b"x" * 10 + bytes(310) + b"end" + bytes(21)
    image.close()
    assert file.stat().st_size == 1003


def test_a_file_that_became_shorter_is_an_error(image, path):
    os.truncate(path, 8192)
    assert image.read(0, 8192) == bytes(range(256)) * 32
    with pytest.raises(OSError, match="longer") as error:
        image.read(8000, 512)
    assert error.value.errno == errno.EIO
    image.write(SIZE - 1, b"x")  # and long again
    assert image.read(8000, 512)[192:] == bytes(320)


def blocks(path):
    return os.stat(path).st_blocks * 512


@pytest.mark.parametrize("how", ["discard", "zero"])
def test_storage_is_given_back(image, path, how):
    before = blocks(path)
    if how == "discard":
        image.discard(0, SIZE // 2)
    else:
        image.write_zeroes(0, SIZE // 2, unmap=True)
    assert image.read(0, SIZE // 2) == bytes(SIZE // 2)
    assert image.read(SIZE // 2, 256) == bytes(range(256))
    assert os.stat(path).st_size == SIZE
    if blocks(path) == before:
        pytest.skip(f"the file system of {os.path.dirname(path)} has no holes")
    assert blocks(path) <= before - SIZE // 2 + 8192


@pytest.mark.parametrize("unmap", [False, True])
@pytest.mark.parametrize("missing", [(), ("punch_hole",), ("zero_range",), ("punch_hole", "zero_range")])
def test_zeros_without_the_host_s_help(image, monkeypatch, unmap, missing):
    calls = []

    def refuse(fd, offset, length):
        calls.append(offset)
        raise OSError(errno.EOPNOTSUPP, "no")

    for name in missing:
        monkeypatch.setattr(fallocate, name, refuse)
    for start in (100, 5000):
        image.write_zeroes(start, 1000, unmap=unmap)
        assert image.read(start - 1, 1002) == bytes([start - 1 & 255]) + bytes(1000) + bytes([start + 1000 & 255])
    image.discard(8192, 4096)
    assert image.read(8192, 4096) in (bytes(4096), bytes(range(256)) * 16)
    assert len(calls) <= len(missing)  # what is not there is not asked for again


def test_errors_of_the_host_are_not_hidden(image, monkeypatch):
    def fail(fd, offset, length):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fallocate, "punch_hole", fail)
    with pytest.raises(OSError, match="broken"):
        image.discard(0, 4096)
    with pytest.raises(OSError, match="broken"):
        image.write_zeroes(0, 4096, unmap=True)


def test_a_flush_syncs_and_a_failure_is_for_ever(image, monkeypatch):
    synced = []
    monkeypatch.setattr(host_file.os, "fdatasync", synced.append)
    image.write(0, b"x")
    assert not synced
    image.flush()
    assert len(synced) == 1

    def fail(fd):
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(host_file.os, "fdatasync", fail)
    with pytest.raises(OSError, match="lost"):
        image.flush()
    monkeypatch.setattr(host_file.os, "fdatasync", synced.append)
    with pytest.raises(OSError, match="lost data before"):
        image.flush()
    assert len(synced) == 1
    image.discard(0, 0)
    with pytest.raises(OSError, match="lost data before"):
        image.close()
    image.close()


def test_closing_flushes_what_was_changed(path, monkeypatch):
    synced = []
    monkeypatch.setattr(host_file.os, "fdatasync", synced.append)
    open_image(path).close()
    assert not synced
    image = open_image(path)
    image.write(0, b"x")
    image.close()
    image.close()
    assert len(synced) == 1


def test_a_full_disk_is_an_error_and_no_more(tmp_path):
    file = tmp_path / "full"
    file.write_bytes(bytes(1 << 16))
    image = open_image(str(file))
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, image._fd)
    os.close(full)
    with pytest.raises(OSError) as error:
        image.write(0, b"x" * 4096)
    assert error.value.errno == errno.ENOSPC


@given(
    st.lists(st.tuples(st.sampled_from(["write", "zero", "unmap", "read"]), st.integers(0, 20000), st.integers(0, 6000))),
    st.integers(1, 20000),
)
def test_like_bytes(tmp_path_factory, steps, size):
    file = tmp_path_factory.mktemp("raw") / "disk"
    file.write_bytes(b"\xaa" * size)
    image = open_image(str(file))
    model = bytearray(b"\xaa" * size + bytes(-size % 512))
    for number, (what, offset, length) in enumerate(steps):
        offset %= len(model)
        length = min(length, len(model) - offset)
        if what == "write":
            model[offset : offset + length] = data = bytes([number & 255]) * length
            image.write(offset, data)
        elif what != "read":
            image.write_zeroes(offset, length, unmap=what == "unmap")
            model[offset : offset + length] = bytes(length)
        assert image.read(offset, length) == model[offset : offset + length]
    assert image.read(0, image.size) == model
    image.close()


@pytest.mark.parametrize("what", ["absent", "directory", "fifo", "character", "nul"])
def test_what_is_no_image(tmp_path, what):
    path = {"character": "/dev/zero", "nul": "a\0b"}.get(what, str(tmp_path / what))
    if what == "directory":
        os.mkdir(path)
    if what == "fifo":
        os.mkfifo(path)
    for options in ({}, {"readonly": True}, {"overlay": True}):
        with pytest.raises(ConfigError) as error:
            open_image(path, **options)
        assert str(error.value).startswith(f"disk: path: {path!r} ") and "\n" not in str(error.value)
