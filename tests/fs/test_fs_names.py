"""LOOKUP, FORGET, attributes, links, STATFS, ACCESS."""

import os
import stat

import pytest
from fuse_client import ROOT, error_of

from pyhv.fs import fuse
from pyhv.fs.attributes import Attributes, decode_device, encode_device

KINDS = {
    "dir": stat.S_IFDIR,
    "hello.txt": stat.S_IFREG,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "sock": stat.S_IFSOCK,
}


def same(attr, st):
    assert (attr.ino, attr.mode, attr.nlink, attr.uid, attr.gid) == (st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid)
    assert (attr.size, attr.blocks, attr.blksize) == (st.st_size, st.st_blocks, st.st_blksize)
    assert attr.mtime * 10**9 + attr.mtimensec == st.st_mtime_ns
    assert attr.atime * 10**9 + attr.atimensec == st.st_atime_ns
    assert attr.ctime * 10**9 + attr.ctimensec == st.st_ctime_ns
    assert attr.flags == 0
    return True


@pytest.mark.parametrize("name", KINDS)
def test_attributes_are_the_hosts(serve, folder, name):
    client = serve()
    entry = client.lookup(name)
    assert same(entry.attr, os.lstat(folder / name)) and stat.S_IFMT(entry.attr.mode) == KINDS[name]
    assert same(client.getattr(entry.node), os.lstat(folder / name))
    assert same(client.getattr(ROOT), os.lstat(folder))


def test_times_before_1970(serve, folder):
    os.utime(folder / "empty", ns=(-1_500_000_000, -1))
    attr = serve().lookup("empty").attr
    assert (attr.atime, attr.atimensec) == ((1 << 64) - 2, 500_000_000)
    assert (attr.mtime, attr.mtimensec) == ((1 << 64) - 1, 999_999_999)


def test_device_numbers(serve, folder, as_root):
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "far", stat.S_IFBLK | 0o600, os.makedev(259, 0x12345))
    client = serve()
    assert client.lookup("null").attr.rdev == 0x103
    assert client.lookup("far").attr.rdev == encode_device(os.makedev(259, 0x12345)) == 0x12310345
    for device in (os.makedev(0, 0), os.makedev(4095, 0xFFFFF), os.makedev(8, 257)):
        assert decode_device(encode_device(device)) == device


def test_a_file_has_one_node_whatever_its_name(serve, folder):
    os.link(folder / "hello.txt", folder / "dir/hard")
    client = serve()
    entry = client.lookup("hello.txt")
    assert client.lookup("hard", client.walk("dir")).node == entry.node
    assert entry.attr.nlink == 2
    os.unlink(folder / "dir/hard")
    assert error_of(client.getattr, entry.node) == "ESTALE"  # known by the name that has gone
    assert client.lookup("hello.txt").node == entry.node
    assert client.getattr(entry.node).nlink == 1


def test_lookups_must_be_forgotten_as_often(serve):
    client = serve()
    node = client.lookup("dir").node
    client.lookup("dir")
    client.forget(node)
    client.lookup("sub", node)
    client.forget(node, 1)
    assert error_of(client.lookup, "sub", node) == "ESTALE"
    new = client.lookup("dir").node
    assert new != node
    client.batch_forget((new, 1), (node, 1), (ROOT, 1 << 63), (new, 5))
    assert error_of(client.getattr, new) == "ESTALE"
    client.getattr(ROOT)


def test_too_much_forgetting(serve):
    client = serve()
    node = client.lookup("dir").node
    client.forget(node, (1 << 64) - 1)
    assert error_of(client.getattr, node) == "ESTALE"
    client.forget(node, 3)
    client.lookup("dir")


def test_what_lies_below_survives_its_forgotten_parent(serve):
    client = serve()
    sub = client.walk("dir/sub")
    directory = client.lookup("dir").node
    client.forget(directory, 9)
    assert client.lookup("deep", sub).attr.size == 256 * 64


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "dir/", "/etc", "../outside", "a\0b"])
def test_names_that_are_no_names(serve, name):
    client = serve(writable=True)
    assert error_of(client.lookup, name) == "EINVAL"
    for change in (client.mkdir, client.create, client.unlink, client.rmdir, lambda n: client.mknod(n, 0o644)):
        assert error_of(change, name) == "EINVAL"
    assert error_of(client.link, client.lookup("empty").node, name) == "EINVAL"
    assert error_of(client.rename, "empty", name) == "EINVAL"
    if "\0" not in name:
        assert error_of(client.rename, name, "empty") == "EINVAL"
        assert error_of(client.symlink, name, "target") == "EINVAL"


def test_names_without_their_end(serve):
    client = serve(writable=True)
    for opcode, head in ((fuse.LOOKUP, 0), (fuse.MKDIR, 8), (fuse.UNLINK, 0), (fuse.RENAME, 8), (fuse.SYMLINK, 0)):
        assert error_of(client.call, opcode, ROOT, bytes(head) + b"dir" * 4) in ("EINVAL", "ESTALE")


def test_any_other_byte_makes_a_name(serve, folder):
    name = bytes(range(1, 47)) + bytes(range(48, 256))
    (folder / os.fsdecode(name)).touch()
    client = serve()
    assert client.lookup(name).attr.size == 0
    assert name in [one.name for one in client.list()]
    assert error_of(client.lookup, "x" * 256) == "ENAMETOOLONG"


def test_a_file_is_no_directory(serve):
    client = serve()
    for name in ("hello.txt", "link", "outdir", "fifo", "sock"):
        assert error_of(client.lookup, "secret", client.lookup(name).node) in ("ENOTDIR", "ESTALE")


def test_what_is_not_there(serve):
    client = serve()
    assert error_of(client.lookup, "missing") == "ENOENT"
    entry = serve(cache="always").lookup("missing")
    assert entry.node == 0 and entry.entry_valid > 3600


@pytest.mark.parametrize(("cache", "seconds"), [("auto", 1), ("always", 86400), ("none", 0)])
def test_how_long_it_holds(serve, cache, seconds):
    entry = serve(cache=cache).lookup("dir")
    assert entry.entry_valid == entry.attr_valid == seconds


def test_links_are_text(serve, outside):
    client = serve()
    assert client.readlink(client.lookup("link").node) == b"hello.txt"
    assert client.readlink(client.lookup("out").node) == b"../outside/secret"
    assert client.readlink(client.lookup("outdir").node) == os.fsencode(outside)
    assert error_of(client.readlink, client.lookup("hello.txt").node) == "EINVAL"
    node = client.lookup("link").node
    client.listxattr(node)  # it has a descriptor now
    assert client.readlink(node) == b"hello.txt"


def test_a_link_that_went_away(serve, folder):
    client = serve()
    node = client.lookup("link").node
    (folder / "link").unlink()
    assert error_of(client.readlink, node) == "ESTALE"


def test_a_name_that_means_another_file_now(serve, folder):
    client = serve()
    node = client.lookup("hello.txt").node
    (folder / "new").write_text("new")
    (folder / "new").rename(folder / "hello.txt")
    assert error_of(client.getattr, node) == "ESTALE"
    assert error_of(client.open, node) == "ESTALE"
    entry = client.lookup("hello.txt")
    assert entry.node != node and entry.attr.size == 3


def test_an_open_file_outlives_its_name(serve, folder):
    client = serve()
    node = client.lookup("hello.txt").node
    handle = client.open(node)
    (folder / "hello.txt").unlink()
    assert client.getattr(node).nlink == 0 == client.getattr(node, handle).nlink
    assert client.read(node, handle, 100) == b"hello\n"
    client.release(node, handle)


def test_file_system(serve, folder):
    st = os.statvfs(folder)
    blocks, _, _, files, _, bsize, namelen, frsize, _ = serve().statfs()
    assert (blocks, files, bsize, namelen, frsize) == (st.f_blocks, st.f_files, st.f_bsize, st.f_namemax, st.f_frsize)


def test_access(serve):
    client = serve()
    node = client.lookup("hello.txt").node
    client.access(node, os.R_OK)
    client.access(node, os.F_OK)
    assert error_of(client.access, node, os.W_OK) == "EROFS"
    assert error_of(client.access, node, os.X_OK) == "EACCES"
    serve(writable=True).access(ROOT, os.W_OK)


def test_inode_numbers_of_several_devices():
    attributes = Attributes(5, 0, 0)
    assert attributes.number(5, 77) == 77
    assert attributes.number(5, (1 << 64) - 1) == (1 << 64) - 1
    numbers = {attributes.number(device, inode) for device in range(5, 60) for inode in (1, 2, 77, (1 << 48) - 1)}
    assert len(numbers) == 55 * 4 and max(numbers) < 1 << 63
    far = {attributes.number(device, (1 << 60) + inode) for device in range(6, 60) for inode in range(100)}
    assert len(far) == 54 * 100 and min(far) >= 1 << 63 and max(far) < 1 << 64
    assert attributes.number(9, 77) == attributes.number(9, 77)
