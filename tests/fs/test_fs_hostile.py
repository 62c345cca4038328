"""A guest that sends anything: every request is answered as the protocol says, and nothing outside is touched."""

import os
import resource
import tempfile
from pathlib import Path
from struct import pack, unpack_from

import pytest
from fuse_client import BytesMessage, Client, direct
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.fs import descriptors, fuse
from pyhv.fs.server import Server

NAMES = (*b"a b dir file link out fifo . .. a/b ../outside".split(), b"", b"x" * 300, b"\xff\x80")
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 40, 0o644, 0o40755, 0x8000, 4096, 1 << 20, 1 << 31, (1 << 32) - 1)
LARGE = (*NUMBERS, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

pieces = st.one_of(
    st.sampled_from(NAMES).map(lambda name: name + b"\0"),
    st.sampled_from(NUMBERS).map(lambda value: pack("<I", value)),
    st.sampled_from(LARGE).map(lambda value: pack("<Q", value)),
    st.binary(max_size=64),
)
bodies = st.lists(pieces, max_size=8).map(b"".join)
FRUITFUL = (fuse.LOOKUP, fuse.OPEN, fuse.CREATE, fuse.READDIRPLUS, fuse.SETATTR)
opcodes = st.one_of(st.integers(1, 52), st.sampled_from(FRUITFUL))
nodes = st.one_of(st.integers(0, 8), st.sampled_from(LARGE))
rooms = st.one_of(st.sampled_from((0, 15, 16, 120, 144, 160, 4096, 1 << 17)), st.integers(0, 300))
lengths = st.one_of(st.none(), st.integers(0, 1 << 32 - 1))
requests = st.tuples(opcodes, nodes, bodies, rooms, lengths, st.integers(1, 5000))
options = st.fixed_dictionaries(
    {
        "writable": st.booleans(),
        "cache": st.sampled_from(("auto", "always", "none")),
        "xattr": st.sampled_from(("none", "read", "write")),
    }
)


@pytest.fixture(autouse=True)
def small_files():
    """Nothing fills the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def furnish(place):
    """A folder to share inside `place`, and a file outside of it."""
    shared = Path(place, "shared")
    (shared / "dir").mkdir(parents=True)
    (shared / "file").write_bytes(b"file")
    (shared / "dir/a").write_bytes(b"a" * 5000)
    (shared / "link").symlink_to("file")
    (shared / "out").symlink_to("../outside")
    os.mkfifo(shared / "fifo")
    Path(place, "outside").write_bytes(b"outside")
    return shared


@settings(max_examples=100)
@given(options, st.lists(requests, max_size=40))
def test_any_requests(options, sent):
    with tempfile.TemporaryDirectory() as place:
        server = Server(str(furnish(place)), **options)
        try:
            client = Client(direct(server))
            client.lookup("dir")
            client.lookup("file")
            for unique, (opcode, node, body, room, length, shape) in enumerate(sent, 1000):
                head = fuse.IN_HEADER.pack(
                    40 + len(body) if length is None else length, opcode, unique, node, 0, 0, 0, 0, 0
                )
                message = BytesMessage(head + body, room, shape)
                done = server.serve(message)
                assert done == 0 or 16 <= done <= room
                if done:
                    size, error, answered = unpack_from("<IiQ", message.reply)
                    assert size == done and answered == unique and -4096 < error <= 0 and (not error or done == 16)
                assert server.tree.held <= descriptors.limit()
            client.init()
            client.getattr(1)
        finally:
            server.close()
        assert Path(place, "outside").read_bytes() == b"outside"
        assert sorted(os.listdir(place)) == ["outside", "shared"]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes(data, room):
    with tempfile.TemporaryDirectory() as place:
        server = Server(str(furnish(place)), writable=True)
        try:
            Client(direct(server))
            message = BytesMessage(data, room, 7)
            assert server.serve(message) <= room
        finally:
            server.close()
