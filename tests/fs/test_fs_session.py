"""INIT, DESTROY, and what comes before and after them."""

import os
from struct import pack
from tempfile import TemporaryDirectory

import pytest
from fuse_client import OFFERED, ROOT, BytesMessage, error_of, request

from pyhv.errors import ConfigError
from pyhv.fs import fuse
from pyhv.fs.server import MAX_IO, Server


def test_versions_and_sizes(serve):
    init = serve(init=False).init()
    assert (init.major, init.minor) == (7, 38)
    assert init.max_write == MAX_IO == init.max_pages * 4096
    assert init.readahead == 1 << 17 and init.time_gran == 1
    assert 0 < init.congestion <= init.background


def test_flags_are_those_that_both_sides_have(serve):
    client = serve(init=False, writable=True)
    assert client.init(offered=fuse.ASYNC_READ | fuse.MAX_PAGES).flags == fuse.ASYNC_READ | fuse.MAX_PAGES
    flags = client.init().flags
    for wanted in (fuse.DO_READDIRPLUS, fuse.PARALLEL_DIROPS, fuse.ATOMIC_O_TRUNC, fuse.AUTO_INVAL_DATA, fuse.BIG_WRITES):
        assert flags & wanted
    for unwanted in (1 << 1, 1 << 10, 1 << 16, fuse.NO_OPEN_SUPPORT):  # locks and the write-back cache are the guest's
        assert not flags & unwanted


def test_flags_beyond_32_bits(serve):
    assert serve(init=False, cache="none").init().flags2 == fuse.DIRECT_IO_ALLOW_MMAP >> 32
    assert serve(init=False, cache="none").init(offered=OFFERED & ~fuse.INIT_EXT).flags2 == 0


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (6, 38), (0, 0)])
def test_old_versions_are_refused(serve, major, minor):
    client = serve(init=False)
    assert error_of(client.init, major=major, minor=minor) == "EPROTO"
    assert error_of(client.lookup, "dir") == "EIO"


def test_a_newer_major_is_told_ours_and_asks_again(serve):
    client = serve(init=False)
    assert client.init(major=8, minor=0).major == 7
    assert error_of(client.lookup, "dir") == "EIO"
    client.init()
    client.lookup("dir")


def test_nothing_before_init_nor_after_destroy(serve):
    client = serve(init=False)
    assert error_of(client.getattr, ROOT) == "EIO"
    client.init()
    node = client.lookup("hello.txt").node
    client.open(node)
    client.destroy()
    assert error_of(client.getattr, ROOT) == "EIO"
    assert not client.server.handles.open and len(client.server.tree.nodes) == 1 and client.server.tree.held == 0


def test_a_second_init_begins_anew(serve):
    client = serve()
    node = client.lookup("hello.txt").node
    handle = client.open(node)
    client.init()
    assert error_of(client.getattr, node) == "ESTALE"
    assert error_of(client.read, ROOT, handle, 4) == "EBADF"
    assert client.lookup("hello.txt").node != node


def test_unknown_operations(serve):
    client = serve(writable=True)
    for opcode in (0, 7, 31, 32, 33, 37, 39, 40, 41, 48, 49, 51, 52, 4096, 0xFFFFFFFF):
        assert error_of(client.call, opcode, ROOT, bytes(64)) == "ENOSYS"


def test_unknown_nodes(serve):
    client = serve(writable=True)
    for node in (0, 2, 1 << 63, (1 << 64) - 1):
        assert error_of(client.lookup, "dir", node) == "ESTALE"
        assert error_of(client.getattr, node) == "ESTALE"
        assert error_of(client.link, node, "new") == "ESTALE"
        assert error_of(client.rename, "dir", "new", ROOT, node) == "ESTALE"


def test_requests_without_reply(serve):
    client = serve()
    client.silent(fuse.INTERRUPT, 0, bytes(8))
    client.silent(fuse.FORGET, 99, bytes(8))
    client.silent(fuse.FORGET, 99, b"")
    client.silent(fuse.BATCH_FORGET, 0, pack("<II", 1000, 0) + pack("<QQ", 99, 1))
    client.silent(fuse.BATCH_FORGET, 0, b"")
    client.lookup("dir")


def test_lengths_that_lie(serve):
    client = serve()
    honest = request(fuse.GETATTR, ROOT, bytes(16))
    for length in (0, 39, 55, 57, 0xFFFFFFFF):
        message = BytesMessage(length.to_bytes(4, "little") + honest[4:], 200)
        assert client.server.serve(message) == 16
        assert message.reply[4:8] == (-22).to_bytes(4, "little", signed=True)
    for size in range(40):
        assert client.server.serve(BytesMessage(honest[:size], 200)) == 0


def test_replies_that_do_not_fit(serve):
    client = serve(writable=True)
    for room in range(16):
        assert client.server.serve(BytesMessage(request(fuse.LOOKUP, ROOT, b"dir\0"), room)) == 0
    assert len(client.server.tree.nodes) == 1
    assert error_of(client.call, fuse.LOOKUP, ROOT, b"dir\0", 127) == "EINVAL"
    assert error_of(client.call, fuse.MKDIR, ROOT, pack("<II", 0, 0) + b"new\0", 127) == "EINVAL"
    assert error_of(client.call, fuse.READLINK, client.lookup("link").node, b"", 8) == "ERANGE"
    assert error_of(client.call, fuse.INIT, 0, pack("<4I", 7, 38, 0, 0), 63) == "ERANGE"


def test_long_requests_that_are_no_writes(serve):
    client = serve()
    assert error_of(client.call, fuse.LOOKUP, ROOT, b"n" * 5000 + b"\0") == "ENAMETOOLONG"
    assert error_of(client.call, fuse.LOOKUP, ROOT, b"n" * 500_000 + b"\0") == "EINVAL"
    assert error_of(client.call, 999, ROOT, bytes(500_000)) == "ENOSYS"


def test_what_cannot_be_shared(tmp_path):
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path / "file", "Not a directory"), ("/proc", "kernel's own")):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=why):
            Server(str(path))


def test_a_folder_that_this_process_may_not_look_into():
    if os.geteuid():
        pytest.skip("needs root, to act as somebody else")
    with TemporaryDirectory(dir="/tmp") as path:
        os.chmod(path, 0o744)
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigError, match=r"^share: path: '.*' cannot be shared: this process may not look into it$"):
                Server(path)
        finally:
            os.seteuid(0)
        Server(path).close()


def test_closing_gives_everything_back(folder):
    before = os.listdir("/proc/self/fd")
    server = Server(str(folder), cache="always")
    from fuse_client import Client, direct

    client = Client(direct(server))
    client.read(client.walk("dir/sub/deep"), 0, 100)
    Client(direct(server), offered=0).open(client.walk("dir/inner.txt"))
    server.close()
    server.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
