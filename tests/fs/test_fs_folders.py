"""READDIR and READDIRPLUS."""

import os
import stat

import pytest
from fuse_client import ROOT, error_of

from pyhv.fs import fuse

NAMES = {b"dir", b"hello.txt", b"empty", b"link", b"out", b"outdir", b"etc", b"fifo", b"sock"}


@pytest.mark.parametrize("plus", [False, True])
def test_all_entries(serve, folder, plus):
    client = serve()
    found = client.list(plus=plus)
    assert {one.name for one in found} == NAMES and len(found) == len(NAMES)
    for one in found:
        st = os.lstat(folder / os.fsdecode(one.name))
        assert one.ino == st.st_ino and one.type == stat.S_IFMT(st.st_mode) >> 12
        if plus:
            assert one.entry.attr.ino == st.st_ino
            assert client.getattr(one.entry.node) == one.entry.attr


def test_the_dots(serve, folder):
    client = serve()
    for plus in (False, True):
        dots = {one.name: one for one in client.readdir(ROOT, client.opendir(ROOT), plus=plus) if one.name in (b".", b"..")}
        root = os.stat(folder).st_ino
        assert dots[b"."].ino == dots[b".."].ino == root  # what is above is not told
        assert not plus or dots[b".."].entry.node == 0
        node = client.lookup("dir").node
        inner = {one.name: one.ino for one in client.readdir(node, client.opendir(node), plus=plus)}
        assert inner[b".."] == root


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [300, 1000, 4096, 1 << 17])
def test_many_entries_in_replies_of_any_size(serve, folder, plus, size):
    many = folder / "many"
    many.mkdir()
    names = {f"{'n' * (n % 90)}{n}".encode() for n in range(700)}
    for name in names:
        (many / os.fsdecode(name)).touch()
    client = serve()
    node = client.lookup("many").node
    found = [one.name for one in client.list(node, size, plus=plus)]
    assert set(found) == names and len(found) == len(names)


def test_entries_are_lookups(serve):
    client = serve()
    node = next(one.entry.node for one in client.list(plus=True) if one.name == b"dir")
    assert client.lookup("dir").node == node
    client.forget(node)
    client.getattr(node)
    client.forget(node)
    assert error_of(client.getattr, node) == "ESTALE"


def test_only_entries_that_were_given_count(serve):
    client = serve()
    handle = client.opendir()
    given = [one for one in client.readdir(ROOT, handle, 0, 500, plus=True) if one.entry.node]
    assert 0 < len(given) < len(NAMES)
    assert len(client.server.tree.nodes) == 1 + len(given)


def test_positions_may_be_revisited(serve):
    client = serve()
    handle = client.opendir()
    every = client.readdir(ROOT, handle)
    for index, one in enumerate(every):
        assert client.readdir(ROOT, handle, one.off) == every[index + 1 :]
        small = client.readdir(ROOT, handle, one.off, 64)
        assert small == every[index + 1 : index + 1 + len(small)]
    assert client.readdir(ROOT, handle) == every


def test_starting_again_shows_what_is_new(serve, folder):
    client = serve()
    handle = client.opendir()
    client.readdir(ROOT, handle, 0, 64)
    (folder / "new").touch()
    assert b"new" in [one.name for one in client.readdir(ROOT, handle)]


def test_entries_that_vanish_while_they_are_listed(serve, folder):
    client = serve()
    handle = client.opendir()
    first = client.readdir(ROOT, handle, 0, 200, plus=True)
    for name in ("hello.txt", "empty", "link", "out", "outdir", "etc", "fifo", "sock"):
        (folder / name).unlink()
    rest = client.readdir(ROOT, handle, first[-1].off, plus=True)
    assert {one.name for one in rest} <= {b"dir", b".", b".."}


def test_a_removed_directory(serve, folder):
    (folder / "gone").mkdir()
    client = serve()
    node = client.lookup("gone").node
    handle = client.opendir(node)
    (folder / "gone").rmdir()
    assert error_of(client.readdir, node, handle) == "ENOENT"  # as on the host


def test_what_cannot_be_listed(serve):
    client = serve()
    node = client.lookup("hello.txt").node
    assert error_of(client.opendir, node) == "ENOTDIR"
    handle = client.opendir()
    assert error_of(client.readdir, ROOT, handle, 0, 20) == "EINVAL"  # not one entry fits
    assert error_of(client.readdir, ROOT, handle, 0, 100, plus=True) == "EINVAL"
    assert error_of(client.readdir, ROOT, handle + 1) == "EBADF"
    assert error_of(client.readdir, ROOT, 0) == "EBADF"
    assert error_of(client.readdir, node, client.open(node)) == "ENOTDIR"
    assert error_of(client.call, fuse.READDIR, ROOT, bytes(39)) == "EINVAL"
    assert error_of(client.releasedir, ROOT, 99) == "EBADF"


@pytest.mark.parametrize("offset", [1, 77, 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_positions_that_were_never_given(serve, offset):
    client = serve()
    handle = client.opendir()
    try:
        client.readdir(ROOT, handle, offset)
    except OSError as error:
        assert error.strerror
    assert {one.name for one in client.readdir(ROOT, handle)} >= NAMES


def test_listing_without_opening(serve):
    client = serve(cache="always")
    assert error_of(client.opendir) == "ENOSYS"
    node = client.lookup("dir").node
    assert {one.name for one in client.readdir(node, 0)} == {b".", b"..", b"inner.txt", b"sub"}
    every = client.readdir(node, 0)
    client.server.handles.drop(client.server.tree.nodes[node])
    assert client.readdir(node, 0, every[-1].off) == []
    assert client.readdir(node, 0) == every
    assert error_of(client.readdir, client.lookup("empty").node, 0) == "ENOTDIR"


def test_cached_listings(serve):
    client = serve(cache="always", offered=0)
    client.opendir()
    assert client.opened == fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
