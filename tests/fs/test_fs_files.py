"""OPEN, READ, WRITE and what else open files take."""

import os
import stat
from struct import pack

import pytest
from fuse_client import ROOT, BytesMessage, error_of, request

from pyhv.fs import files, fuse

DEEP = bytes(range(256)) * 64


@pytest.mark.parametrize("shape", [None, 1, 7, 4096])
def test_reads(serve, shape):
    client = serve(shape=shape)
    node = client.walk("dir/sub/deep")
    handle = client.open(node)
    assert client.read(node, handle, 1000) == DEEP[:1000]
    assert client.read(node, handle, 5000, 77) == DEEP[77:5077]
    assert client.read(node, handle, 20_000, 16_000) == DEEP[16_000:]
    assert client.read(node, handle, 0) == b""
    for offset in (len(DEEP), 1 << 40, (1 << 63) - 5000):
        assert client.read(node, handle, 100, offset) == b""


def test_reads_that_cannot_be(serve):
    client = serve()
    node = client.walk("dir/sub/deep")
    handle = client.open(node)
    for offset in ((1 << 63) - 1, 1 << 63):
        assert error_of(client.read, node, handle, 10, offset) == "EINVAL"
    assert error_of(client.read, node, handle, 10, (1 << 64) - 1) == "EINVAL"
    assert error_of(client.read, node, handle, (1 << 20) + 1) == "EINVAL"
    body = pack("<QQIIQII", handle, 0, 4096, 0, 0, 0, 0)
    assert error_of(client.call, fuse.READ, node, body, 4095) == "EINVAL"
    for number in (0, handle + 1, 1 << 63):
        assert error_of(client.read, node, number, 10) == "EBADF"
    assert error_of(client.call, fuse.READ, node, body[:-1]) == "EINVAL"
    directory = client.opendir(ROOT)
    assert error_of(client.read, ROOT, directory, 10) == "EISDIR"


@pytest.mark.parametrize("shape", [None, 100, 3])
def test_writes(serve, folder, shape):
    client = serve(writable=True, shape=shape)
    node = client.lookup("empty").node
    handle = client.open(node, os.O_RDWR)
    assert client.write(node, handle, b"short") == 5
    assert client.write(node, handle, DEEP, 10) == len(DEEP)
    assert client.write(node, handle, b"") == 0
    assert (folder / "empty").read_bytes() == b"short" + bytes(5) + DEEP
    assert client.read(node, handle, 20) == b"short" + bytes(5) + DEEP[:10]


def test_one_write_of_the_largest_size(serve, folder):
    client = serve(writable=True)
    node = client.lookup("empty").node
    handle = client.open(node, os.O_WRONLY)
    data = os.urandom(1 << 20)
    assert client.write(node, handle, data) == 1 << 20
    assert (folder / "empty").read_bytes() == data
    assert error_of(client.write, node, handle, data + b"x") == "EINVAL"
    assert error_of(client.read, node, handle, 1) == "EBADF"  # it is open for writing


def test_writes_that_cannot_be(serve, folder):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    handle = client.open(node, os.O_RDONLY)
    assert error_of(client.write, node, handle, b"x") == "EBADF"
    writer = client.open(node, os.O_WRONLY)
    for offset in (1 << 63, (1 << 64) - 1, (1 << 63) - 1):
        assert error_of(client.write, node, writer, b"xy", offset) in ("EINVAL", "EFBIG")
    short = pack("<QQIIQII", writer, 0, 100, 0, 0, 0, 0) + b"only this"
    assert error_of(client.call, fuse.WRITE, node, short, 8) == "EINVAL"
    assert (folder / "hello.txt").read_bytes() == b"hello\n"


def test_the_file_size_limit_is_an_error(serve, folder, tmp_path):
    import resource

    client = serve(writable=True)
    node = client.lookup("empty").node
    handle = client.open(node, os.O_WRONLY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert client.write(node, handle, bytes(8192)) == 4096
        assert error_of(client.write, node, handle, b"x", 4096) == "EFBIG"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_appending_is_said_with_each_write(serve, folder):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    handle = client.open(node, os.O_WRONLY | os.O_APPEND)
    (folder / "hello.txt").write_bytes(b"the host wrote ")
    client.write(node, handle, b"guest", 0, flags=os.O_APPEND)
    client.write(node, handle, b"T", 0)
    assert (folder / "hello.txt").read_bytes() == b"The host wrote guest"


def test_truncation_by_open(serve, folder):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    client.open(node, os.O_WRONLY | os.O_TRUNC)
    assert (folder / "hello.txt").read_bytes() == b""


def test_a_read_only_folder(serve, folder):
    client = serve()
    node = client.lookup("hello.txt").node
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_ACCMODE):
        assert error_of(client.open, node, flags) == "EROFS"
    handle = client.open(node)
    assert error_of(client.write, node, handle, b"x") == "EROFS"
    assert error_of(client.fallocate, node, handle, 0, 100) == "EROFS"
    assert error_of(client.copy, (node, handle), (node, handle), 3) == "EROFS"
    for call in (client.flush, client.fsync):
        assert error_of(call, node, handle) == "ENOSYS"  # Linux asks no more, and takes it for done
    assert error_of(client.call, fuse.SYNCFS, ROOT, bytes(8)) == "ENOSYS"
    assert (folder / "hello.txt").read_bytes() == b"hello\n"


@pytest.mark.parametrize("name", ["fifo", "sock", "link", "out"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_what_is_no_file_is_never_opened(serve, name, flags):
    client = serve(writable=True)
    assert error_of(client.open, client.lookup(name).node, flags) == "ENXIO"
    assert error_of(client.opendir, client.lookup(name).node) == "ENOTDIR"
    if name == "fifo":
        assert error_of(client.create, name, flags) == "ENXIO"


def test_devices_are_never_opened(serve, folder, as_root):
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    client = serve(writable=True, devices=True)
    node = client.lookup("null").node
    assert error_of(client.open, node) == "ENXIO"
    assert error_of(client.create, "null", os.O_RDWR) == "ENXIO"
    assert error_of(client.setattr, node, size=0) == "EINVAL"


def test_release(serve):
    client = serve()
    node = client.lookup("hello.txt").node
    handle = client.open(node)
    client.forget(node)  # may overtake by the other queue
    client.release(node, handle)
    assert error_of(client.release, node, handle) == "EBADF"
    assert client.server.tree.held == 0
    assert client.open(client.lookup("hello.txt").node) != handle


@pytest.mark.parametrize(
    ("cache", "first", "second", "changed"),
    [
        ("auto", 0, fuse.FOPEN_KEEP_CACHE, 0),
        ("always", *(fuse.FOPEN_KEEP_CACHE,) * 3),
        ("none", *(fuse.FOPEN_DIRECT_IO,) * 3),
    ],
)
def test_whether_data_is_kept(serve, folder, cache, first, second, changed):
    client = serve(cache=cache, writable=True)
    node = client.lookup("hello.txt").node
    client.open(node)
    assert client.opened == first
    client.open(node)
    assert client.opened == second
    (folder / "hello.txt").write_text("something else")
    client.open(node)
    assert client.opened == changed


def test_reading_without_opening(serve):
    client = serve(cache="always")
    node = client.walk("dir/sub/deep")
    assert error_of(client.open, node) == "ENOSYS"
    assert error_of(client.open, node, os.O_WRONLY) == "EROFS"
    assert client.read(node, 0, 100, 5) == DEEP[5:105]
    assert client.read(node, 0, 100, 6) == DEEP[6:106]
    assert client.lseek(node, 0, 0, os.SEEK_HOLE) == len(DEEP)
    assert error_of(client.read, node, 5, 100) == "EBADF"
    assert error_of(client.read, client.lookup("fifo").node, 0, 100) == "ENXIO"
    assert error_of(client.read, ROOT, 0, 100) == "EISDIR"
    assert len(client.server.handles.open) == 0 < client.server.tree.held
    client.forget(node)
    assert error_of(client.read, node, 0, 100) == "ESTALE"


def test_only_guests_that_can_read_without_opening_do(serve):
    client = serve(cache="always", offered=0)
    node = client.lookup("hello.txt").node
    assert error_of(client.read, node, 0, 100) == "EBADF"
    assert client.read(node, client.open(node), 100) == b"hello\n"
    assert error_of(serve(cache="always", writable=True).read, ROOT, 0, 100) == "EBADF"


def test_holes(serve, folder):
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(512 << 10)
        file.write(b"data" * 1024)
    client = serve()
    node = client.lookup("sparse").node
    handle = client.open(node)
    assert client.lseek(node, handle, 0, os.SEEK_DATA) == 512 << 10
    assert client.lseek(node, handle, 513 << 10, os.SEEK_HOLE) == 516 << 10
    assert error_of(client.lseek, node, handle, 2 << 20, os.SEEK_DATA) == "ENXIO"
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 99):
        assert error_of(client.lseek, node, handle, 0, whence) == "EINVAL"
    assert error_of(client.lseek, node, handle, 1 << 63, os.SEEK_DATA) == "EINVAL"


def test_space(serve, folder):
    client = serve(writable=True)
    node = client.lookup("empty").node
    handle = client.open(node, os.O_RDWR)
    client.fallocate(node, handle, 0, 10_000)
    assert (folder / "empty").stat().st_size == 10_000
    client.fallocate(node, handle, 0, 20_000, 1)  # FALLOC_FL_KEEP_SIZE
    assert (folder / "empty").stat().st_size == 10_000
    client.write(node, handle, b"x" * 10_000)
    client.fallocate(node, handle, 4096, 4096, 3)  # with FALLOC_FL_PUNCH_HOLE
    assert client.read(node, handle, 4, 4094) == b"xx\0\0"
    assert error_of(client.fallocate, node, handle, 0, 0) == "EINVAL"
    for offset, length in ((1 << 63, 1), (0, 1 << 63), ((1 << 63) - 1, (1 << 63) - 1)):
        assert error_of(client.fallocate, node, handle, offset, length) in ("EINVAL", "EFBIG")
    assert error_of(client.fallocate, node, handle, 0, 10, 0xFFFFFFFF) in ("EINVAL", "EOPNOTSUPP")


def test_copies(serve, folder, monkeypatch):
    client = serve(writable=True)
    source, target = client.walk("dir/sub/deep"), client.lookup("empty").node
    reader, writer = client.open(source), client.open(target, os.O_RDWR)
    assert client.copy((source, reader), (target, writer), 1000, at=16, to=4) == 1000
    assert (folder / "empty").read_bytes() == bytes(4) + DEEP[16:1016]
    monkeypatch.setattr(files, "MAX_COPY", 100)
    assert client.copy((source, reader), (target, writer), 1 << 63) == 100
    assert error_of(client.copy, (source, reader), (target, writer), 1, flags=1) == "EINVAL"
    assert error_of(client.copy, (source, 99), (target, writer), 1) == "EBADF"
    assert error_of(client.copy, (source, reader), (target, 99), 1) == "EBADF"
    assert error_of(client.copy, (source, reader), (target, writer), 1, at=1 << 63) == "EINVAL"


def test_syncing(serve):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    handle = client.open(node, os.O_RDWR)
    client.flush(node, handle)
    client.fsync(node, handle)
    client.fsync(node, handle, fuse.FSYNC_FDATASYNC)
    client.fsync(ROOT, client.opendir(ROOT), opcode=fuse.FSYNCDIR)
    client.call(fuse.SYNCFS, ROOT, bytes(8))
    for call in (client.flush, client.fsync):
        assert error_of(call, node, 99) == "EBADF"
    assert len(client.server.handles.open) == 2


@pytest.mark.parametrize(("before", "after"), [(0o6755, 0o755), (0o6745, 0o2745), (0o4700, 0o700), (0o644, 0o644)])
def test_a_write_by_a_user_drops_privileges(serve, folder, before, after):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    path = folder / "hello.txt"
    handle = client.open(node, os.O_RDWR)

    def left(call, *arguments, **named):
        path.chmod(before)
        call(*arguments, **named)
        return stat.S_IMODE(path.stat().st_mode)

    assert left(client.write, node, handle, b"x", extra=fuse.WRITE_KILL_SUIDGID) == after
    assert left(client.open, node, os.O_WRONLY | os.O_TRUNC, fuse.OPEN_KILL_SUIDGID) == after
    assert left(client.setattr, node, size=1, drop=True) == after
    if os.geteuid() == 0:
        assert left(client.write, node, handle, b"x") == before


def test_reading_leaves_no_trace(serve, folder, as_root):
    os.utime(folder / "hello.txt", (0, 0))
    client = serve()
    node = client.lookup("hello.txt").node
    assert client.read(node, client.open(node), 10) == b"hello\n"
    assert (folder / "hello.txt").stat().st_atime == 0


def test_more_pieces_than_one_call_takes(serve, folder):
    client = serve(writable=True)
    node = client.lookup("empty").node
    handle = client.open(node, os.O_RDWR)
    body = pack("<QQIIQII", handle, 3, 5000, 0, 0, 0, 0)
    message = BytesMessage(request(fuse.WRITE, node, body + DEEP[:5000]), 24, shape=2)
    client.server.serve(message)
    assert message.reply[16:20] == (5000).to_bytes(4, "little")
    message = BytesMessage(request(fuse.READ, node, body), 16 + 5000, shape=2)
    assert client.server.serve(message) == 5016 and message.reply[16:] == DEEP[:5000]
    message = BytesMessage(request(fuse.READ, node, pack("<QQIIQII", handle, 3003, 5000, 0, 0, 0, 0)), 16 + 5000, shape=1)
    assert client.server.serve(message) == 2016
