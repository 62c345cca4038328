"""Operations that change names and attributes."""

import errno
import os
import stat
import subprocess
import traceback
from struct import pack

from fuse_client import ROOT, FuseError, error_of

from pyhv.fs import fuse

UTIME_NOW = (1 << 30) - 1


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_directories(serve, folder):
    client = serve(writable=True)
    entry = client.mkdir("new", 0o1751)
    st = os.stat(folder / "new")
    assert entry.attr.ino == st.st_ino and stat.S_IMODE(st.st_mode) == 0o1751 and st.st_uid == os.geteuid()
    inner = client.mkdir("inner", 0o700, entry.node)
    assert (folder / "new/inner").is_dir()
    assert error_of(client.mkdir, "new") == "EEXIST"
    assert error_of(client.rmdir, "new") == "ENOTEMPTY"
    client.rmdir("inner", entry.node)
    client.rmdir("new")
    assert not (folder / "new").exists()
    assert error_of(client.rmdir, "new") == "ENOENT"
    assert error_of(client.rmdir, "hello.txt") == "ENOTDIR"
    assert error_of(client.lookup, "x", inner.node) == "ENOENT"  # it has no entries any more
    assert client.getattr(entry.node).nlink == 0


def test_the_umask_is_the_guests(serve, folder):
    before = os.umask(0o077)
    try:
        client = serve(writable=True)
        client.mkdir("d", 0o777)
        client.create("f", os.O_RDWR, 0o666)
        client.mknod("n", stat.S_IFREG | 0o664)
        client.mknod("p", stat.S_IFIFO | 0o622)
    finally:
        os.umask(before)
    assert [mode(folder / name) for name in "dfnp"] == [0o777, 0o666, 0o664, 0o622]


def test_created_files(serve, folder):
    client = serve(writable=True)
    entry, handle = client.create("new", os.O_RDWR, 0o4640)
    assert entry.attr.mode == stat.S_IFREG | 0o4640 and mode(folder / "new") == 0o4640
    client.write(entry.node, handle, b"text")
    assert client.read(entry.node, handle, 9) == b"text"
    assert client.lookup("new").node == entry.node
    assert error_of(client.create, "new", os.O_RDWR | os.O_EXCL) == "EEXIST"
    again, other = client.create("new", os.O_RDONLY)
    assert again.node == entry.node and client.read(again.node, other, 9) == b"text"
    again, other = client.create("new", os.O_WRONLY | os.O_TRUNC)
    assert again.attr.size == 0 == (folder / "new").stat().st_size
    client.create("locked", os.O_WRONLY, 0)
    assert mode(folder / "locked") == 0


def test_create_of_what_is_no_file(serve, folder):
    client = serve(writable=True)
    assert error_of(client.create, "out", os.O_RDWR | os.O_TRUNC) == "ENXIO"
    assert error_of(client.create, "sock") == "ENXIO"
    assert error_of(client.create, "dir", os.O_RDWR) == "EISDIR"
    assert error_of(client.create, "x", node=client.lookup("hello.txt").node) == "ENOTDIR"
    assert len(client.server.tree.nodes) == 2  # the failures left nothing to forget


def test_an_unlinked_file_stays_open(serve, folder):
    client = serve(writable=True)
    entry, handle = client.create("tmp")
    client.unlink("tmp")
    client.write(entry.node, handle, b"still here")
    assert client.getattr(entry.node).nlink == 0
    assert client.setattr(entry.node, size=5).size == 5
    assert client.setattr(entry.node, size=3, fh=handle).size == 3
    assert client.read(entry.node, handle, 100) == b"sti"
    other, _ = client.create("tmp")
    assert other.node != entry.node
    client.release(entry.node, handle)
    client.forget(entry.node)
    assert client.lookup("tmp").node == other.node


def test_a_reused_inode_is_another_file(serve, folder):
    client = serve(writable=True)
    for number in range(20):  # file systems like to use a number again at once
        node = client.mknod("file", 0o644).node
        client.unlink("file")
        assert client.mknod("file", 0o600).node != node, number
        client.unlink("file")


def test_special_files(serve, folder):
    client = serve(writable=True)
    assert client.mknod("reg", 0o640).attr.mode == stat.S_IFREG | 0o640
    assert stat.S_ISFIFO(client.mknod("p", stat.S_IFIFO | 0o600).attr.mode)
    assert stat.S_ISSOCK(client.mknod("s", stat.S_IFSOCK | 0o600).attr.mode)
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        assert error_of(client.mknod, "dev", kind | 0o600, rdev=0x103) == "EPERM"
    for kind in (stat.S_IFDIR, stat.S_IFLNK, 0o150000):
        assert error_of(client.mknod, "odd", kind | 0o600) == "EINVAL"
    assert not (folder / "dev").exists() and not (folder / "odd").exists()


def test_devices_where_they_are_asked_for(serve, folder, as_root):
    client = serve(writable=True, devices=True)
    entry = client.mknod("dev", stat.S_IFCHR | 0o620, rdev=0x103)
    assert entry.attr.rdev == 0x103 and os.stat(folder / "dev").st_rdev == os.makedev(1, 3)


def test_symbolic_links(serve, folder):
    client = serve(writable=True)
    entry = client.symlink("up", "../../..")
    assert stat.S_ISLNK(entry.attr.mode) and os.readlink(folder / "up") == "../../.."
    assert client.readlink(entry.node) == b"../../.."
    assert error_of(client.symlink, "up", "x") == "EEXIST"
    assert error_of(client.symlink, "void", "") == "ENOENT"
    for body in (b"name\0target", b"name\0tar\0get\0", b"name\0", b"\0target\0", b"name"):
        assert error_of(client.call, fuse.SYMLINK, ROOT, body) == "EINVAL"


def test_hard_links(serve, folder):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    entry = client.link(node, "hard", client.lookup("dir").node)
    assert entry.node == node and entry.attr.nlink == 2
    assert os.path.samefile(folder / "dir/hard", folder / "hello.txt")
    assert error_of(client.link, node, "empty") == "EEXIST"
    assert error_of(client.link, client.lookup("dir").node, "x") == "EPERM"
    link = client.link(client.lookup("out").node, "out2")  # the link, not what it says
    assert stat.S_ISLNK(link.attr.mode) and os.readlink(folder / "out2") == "../outside/secret"
    client.link(client.lookup("fifo").node, "fifo2")
    client.unlink("hello.txt")
    client.lookup("hard", client.lookup("dir").node)
    assert client.getattr(node).nlink == 1


def test_renaming(serve, folder):
    client = serve(writable=True)
    node, directory = client.lookup("hello.txt").node, client.lookup("dir").node
    client.rename("hello.txt", "moved", ROOT, directory)
    assert (folder / "dir/moved").read_bytes() == b"hello\n" and not (folder / "hello.txt").exists()
    assert client.getattr(node).size == 6
    client.rename("moved", "empty", directory, ROOT)
    assert client.getattr(node).size == 6 and client.lookup("empty").node == node
    assert error_of(client.rename, "none", "x") == "ENOENT"
    assert error_of(client.rename, "dir", "x", ROOT, client.walk("dir/sub")) == "EINVAL"
    assert error_of(client.rename, "empty", "dir") == "EISDIR"
    assert error_of(client.rename, "dir", "empty") == "ENOTDIR"
    deep = client.walk("dir/sub/deep")
    client.rename("dir", "folder")
    assert client.getattr(deep).size == 256 * 64


def test_renaming_with_flags(serve, folder):
    client = serve(writable=True)
    hello, empty = client.lookup("hello.txt").node, client.lookup("empty").node
    assert error_of(client.rename, "hello.txt", "empty", flags=1) == "EEXIST"
    client.rename("hello.txt", "empty", flags=2)
    assert (folder / "empty").read_bytes() == b"hello\n"
    assert client.getattr(hello).size == 6 and client.getattr(empty).size == 0
    assert error_of(client.rename, "empty", "none", flags=2) == "ENOENT"
    client.rename("empty", "new", flags=1)
    assert client.getattr(hello).size == 6
    for flags in (3, 4, 5, 8, 0xFFFFFFFF):
        assert error_of(client.rename, "new", "newer", flags=flags) == "EINVAL"


def test_renaming_one_of_two_names_to_the_other(serve, folder):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    client.link(node, "hard")
    client.rename("hello.txt", "hard")  # does nothing, says POSIX
    assert client.lookup("hello.txt").node == client.lookup("hard").node == node
    assert client.getattr(node).nlink == 2


def test_attributes(serve, folder):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    path = folder / "hello.txt"
    assert client.setattr(node, mode=stat.S_IFREG | 0o2750).mode == stat.S_IFREG | 0o2750 == path.stat().st_mode
    assert client.setattr(node, size=3).size == 3 and path.read_bytes() == b"hel"
    assert client.setattr(node, size=10_000).size == 10_000
    attr = client.setattr(node, atime=5, atimensec=6, mtime=7, mtimensec=999_999_999)
    assert (attr.atime, attr.atimensec, attr.mtime, attr.mtimensec) == (5, 6, 7, 999_999_999)
    assert path.stat().st_mtime_ns == 7_999_999_999
    before = path.stat().st_atime_ns
    assert client.setattr(node, mtime=(1 << 64) - 2, mtimensec=1).mtime == (1 << 64) - 2
    assert path.stat().st_atime_ns == before and path.stat().st_mtime_ns == -1_999_999_999
    client.setattr(node, mtime_now=True, atime_now=True)
    assert path.stat().st_mtime > 1e9
    assert client.setattr(node).size == 10_000


def test_attributes_that_cannot_be(serve):
    client = serve(writable=True)
    node = client.lookup("hello.txt").node
    for bad in (1_000_000_000, UTIME_NOW, UTIME_NOW - 1, 0xFFFFFFFF):
        assert error_of(client.setattr, node, mtime=0, mtimensec=bad) == "EINVAL"
    for size in (1 << 63, (1 << 64) - 1):
        assert error_of(client.setattr, node, size=size) == "EINVAL"
    try:
        client.setattr(node, size=(1 << 63) - 1)  # which some file systems can have
        client.setattr(node, size=6)
    except FuseError as error:
        assert error.errno in (errno.EFBIG, errno.EINVAL)
    assert error_of(client.setattr, ROOT, size=0) == "EISDIR"
    for name in ("fifo", "sock", "link"):
        assert error_of(client.setattr, client.lookup(name).node, size=0) == "EINVAL"
    handle = client.open(node)
    assert error_of(client.setattr, node, size=0, fh=handle) == "EINVAL"  # open for reading only
    assert client.getattr(node).size == 6


def test_attributes_of_special_files_do_not_open_them(serve, folder):
    client = serve(writable=True)
    for name in ("fifo", "sock"):
        assert client.setattr(client.lookup(name).node, mode=0o600, mtime=5, atime=5).mtime == 5
        assert mode(folder / name) == 0o600
    link = client.lookup("out").node
    assert client.setattr(link, mtime=9, atime=9).mtime == 9
    assert error_of(client.setattr, link, mode=0o600) == "EOPNOTSUPP"


def test_owners(serve, folder, outside, as_root):
    client = serve(writable=True, uid=1234, gid=567)
    secret = os.stat(outside / "secret")
    client.mkdir("d")
    client.create("f")
    client.mknod("p", stat.S_IFIFO | 0o600)
    client.symlink("l", "../outside/secret")
    for name in "dfpl":
        st = os.lstat(folder / name)
        assert (st.st_uid, st.st_gid) == (1234, 567)
    assert client.setattr(client.lookup("l").node, uid=77).uid == 77
    assert client.setattr(client.lookup("f").node, gid=88).gid == 88
    assert os.lstat(folder / "f").st_uid == 1234
    assert os.stat(outside / "secret") == secret


def test_a_directory_decides_the_group(serve, folder, as_root):
    os.chown(folder / "dir", 0, 4321)
    (folder / "dir").chmod(0o2775)
    client = serve(writable=True, uid=1234, gid=567)
    directory = client.lookup("dir").node
    client.mkdir("d", 0o755, directory)
    client.create("f", node=directory)
    assert mode(folder / "dir/d") == 0o2755
    for name in "df":
        st = os.stat(folder / "dir" / name)
        assert (st.st_uid, st.st_gid) == (1234, 4321)


def as_nobody(call):
    """Run `call` in a child process without privileges; whether it came through."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            call()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def test_an_ordinary_user_keeps_what_the_guest_makes(serve, folder, as_root):
    for part in (folder, *folder.parents[:3]):
        part.chmod(0o777)
    (folder / "hello.txt").chmod(0o600)

    def work():
        client = serve(writable=True, uid=1234, gid=567)
        client.mkdir("d", 0o750)
        client.create("f", mode=0o640)
        client.symlink("l", "x")
        file, hello = client.lookup("f").node, client.lookup("hello.txt").node
        assert error_of(client.setattr, file, uid=0) == "EPERM"
        assert error_of(client.open, hello) == "EACCES"
        assert error_of(client.access, hello, os.R_OK) == "EACCES"
        assert client.setattr(file, mode=0o600).mode == stat.S_IFREG | 0o600
        reader = serve()
        assert error_of(reader.open, reader.lookup("hello.txt").node) == "EACCES"

    assert as_nobody(work)
    for name in "dfl":
        assert os.lstat(folder / name).st_uid == 65534


def test_nothing_changes_a_read_only_folder(serve, folder):
    client = serve()
    node = client.lookup("hello.txt").node
    before = {path: (os.lstat(path).st_ctime_ns, os.lstat(path).st_mode) for path in folder.rglob("*")}
    for call in (
        lambda: client.mkdir("new"),
        lambda: client.create("new"),
        lambda: client.create("hello.txt"),
        lambda: client.mknod("new", 0o644),
        lambda: client.symlink("new", "x"),
        lambda: client.link(node, "new"),
        lambda: client.unlink("hello.txt"),
        lambda: client.rmdir("dir"),
        lambda: client.rename("hello.txt", "new"),
        lambda: client.rename("hello.txt", "new", flags=0),
        lambda: client.setattr(node, mode=0),
        lambda: client.setattr(node, mtime_now=True),
    ):
        assert error_of(call) == "EROFS"
    assert {path: (os.lstat(path).st_ctime_ns, os.lstat(path).st_mode) for path in folder.rglob("*")} == before


def test_bodies_that_are_too_short(serve, folder):
    client = serve(writable=True)
    names = sorted(os.listdir(folder))
    for opcode in (3, 4, 6, *range(8, 17), 18, *range(20, 26), 27, 28, 29, 30, 34, 35, *range(43, 48)):
        for size in range(8 if opcode in (13, 18, 25, 29) else 2):
            assert error_of(client.call, opcode, ROOT, bytes(size)) in ("EINVAL", "EOPNOTSUPP")
    assert error_of(client.call, fuse.RENAME2, ROOT, pack("<QII", ROOT, 0, 0) + b"abcd") == "EINVAL"
    assert sorted(os.listdir(folder)) == names


def test_a_program_that_was_made_can_be_run_once_it_is_closed(serve, folder):
    client = serve(writable=True)
    made, handle = client.create("prog", os.O_RDWR, 0o755)
    client.write(made.node, handle, b"#!/bin/sh\nexit 3\n")
    client.release(made.node, handle)
    assert subprocess.run([folder / "prog"], check=False).returncode == 3
