"""Random sequences of operations, done through the server and on a directory beside it: both must always agree."""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from unittest.mock import patch

from fuse_client import ROOT, Client, FuseError, direct
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.fs import calls, descriptors
from pyhv.fs.server import Server

NAMES = ("a", "b", "c")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
data = st.binary(max_size=40)
offsets = st.integers(0, 60)

operations = st.one_of(
    st.tuples(st.just("mkdir"), paths, st.sampled_from((0o700, 0o1777, 0o755))),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("create"), paths, data),
    st.tuples(st.just("exclusive"), paths),
    st.tuples(st.just("mkfifo"), paths),
    st.tuples(st.just("symlink"), paths),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("rename"), paths, paths, st.sampled_from((0, 0, 1, 2))),
    st.tuples(st.just("truncate"), paths, offsets),
    st.tuples(st.just("chmod"), paths, st.sampled_from((0o600, 0o4755, 0o000))),
    st.tuples(st.just("stat"), paths),
    st.tuples(st.just("readlink"), paths),
    st.tuples(st.just("list"), paths),
    st.tuples(st.just("open"), paths),
    st.tuples(st.just("read"), st.integers(0, 5), offsets),
    st.tuples(st.just("write"), st.integers(0, 5), data, offsets),
    st.tuples(st.just("resize"), st.integers(0, 5), offsets),
    st.tuples(st.just("close"), st.integers(0, 5)),
    st.tuples(st.just("forget"), paths),
)


class Model:
    """The operations on a plain directory, never through a link."""

    def __init__(self, path):
        self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.files = []

    @contextlib.contextmanager
    def parent(self, path):
        *above, name = path.split("/")
        fd = os.dup(self.root)
        try:
            for step in above:
                new = os.open(step, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = new
            yield fd, name
        finally:
            os.close(fd)

    def mkdir(self, path, mode):
        with self.parent(path) as (fd, name):
            os.mkdir(name, dir_fd=fd)
            self.chmod(path, mode)

    def rmdir(self, path):
        with self.parent(path) as (fd, name):
            os.rmdir(name, dir_fd=fd)

    def regular(self, fd, name):
        kind = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, "")
        if not stat.S_ISREG(kind):
            raise OSError(errno.ENXIO, "")

    def create(self, path, text):
        with self.parent(path) as (fd, name):
            try:
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
            except FileExistsError:
                self.regular(fd, name)
                file = os.open(name, os.O_WRONLY | os.O_TRUNC, dir_fd=fd)
            os.write(file, text)
            os.close(file)

    def exclusive(self, path):
        with self.parent(path) as (fd, name):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd))

    def mkfifo(self, path):
        with self.parent(path) as (fd, name):
            os.mkfifo(name, 0o600, dir_fd=fd)

    def symlink(self, path):
        with self.parent(path) as (fd, name):
            os.symlink("../outside", name, dir_fd=fd)

    def unlink(self, path):
        with self.parent(path) as (fd, name):
            os.unlink(name, dir_fd=fd)

    def link(self, path, new):
        self.stat(path)
        with self.parent(path) as (fd, name), self.parent(new) as (other, new_name):
            os.link(name, new_name, src_dir_fd=fd, dst_dir_fd=other, follow_symlinks=False)

    def rename(self, path, new, flags):
        with self.parent(path) as (fd, name), self.parent(new) as (other, new_name):
            calls.rename(fd, name.encode(), other, new_name.encode(), flags)

    def truncate(self, path, size):
        with self.parent(path) as (fd, name):
            kind = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            if not stat.S_ISREG(kind):
                raise OSError(errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL, "")
            file = os.open(name, os.O_WRONLY, dir_fd=fd)
            os.truncate(file, size)
            os.close(file)

    def chmod(self, path, mode):
        with self.parent(path) as (fd, name):
            if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise OSError(errno.EOPNOTSUPP, "")
            os.chmod(name, mode, dir_fd=fd)

    def stat(self, path):
        with self.parent(path) as (fd, name):
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            return st.st_mode, st.st_nlink, st.st_uid, 0 if stat.S_ISDIR(st.st_mode) else st.st_size

    def readlink(self, path):
        with self.parent(path) as (fd, name):
            return os.readlink(name, dir_fd=fd).encode()

    def list(self, path):
        with self.parent(path) as (fd, name):
            if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise OSError(errno.ENOTDIR, "")
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            found = sorted(os.listdir(directory))
            os.close(directory)
            return found

    def open(self, path):
        with self.parent(path) as (fd, name):
            self.regular(fd, name)
            self.files.append(os.open(name, os.O_RDWR, dir_fd=fd))

    def file(self, number):
        if number >= len(self.files):
            raise OSError(errno.EBADF, "")
        return self.files[number]

    def read(self, number, offset):
        return os.pread(self.file(number), 30, offset)

    def write(self, number, text, offset):
        return os.pwrite(self.file(number), text, offset)

    def resize(self, number, size):
        os.ftruncate(self.file(number), size)

    def close(self, number):
        os.close(self.file(number))
        del self.files[number]

    def forget(self, path):
        pass


class Guest:
    """The same through the server."""

    def __init__(self, server):
        self.client = Client(direct(server))
        self.files = []
        self.counts = {}

    def walk(self, path):
        node = ROOT
        for name in path.split("/") if path else ():
            node = self.client.lookup(name, node).node
        return node

    def parent(self, path):
        above, _, name = path.rpartition("/")
        node = self.walk(above)
        if not stat.S_ISDIR(self.client.getattr(node).mode):
            raise OSError(errno.ENOTDIR, "")
        return node, name

    def mkdir(self, path, mode):
        node, name = self.parent(path)
        self.client.mkdir(name, mode, node)

    def rmdir(self, path):
        node, name = self.parent(path)
        self.client.rmdir(name, node)

    def create(self, path, text):
        node, name = self.parent(path)
        entry, handle = self.client.create(name, os.O_WRONLY | os.O_TRUNC, 0o644, node)
        self.client.write(entry.node, handle, text)
        self.client.release(entry.node, handle)

    def exclusive(self, path):
        node, name = self.parent(path)
        entry, handle = self.client.create(name, os.O_WRONLY | os.O_EXCL, 0o644, node)
        self.client.release(entry.node, handle)

    def mkfifo(self, path):
        node, name = self.parent(path)
        self.client.mknod(name, stat.S_IFIFO | 0o600, node)

    def symlink(self, path):
        node, name = self.parent(path)
        self.client.symlink(name, "../outside", node)

    def unlink(self, path):
        node, name = self.parent(path)
        self.client.unlink(name, node)

    def link(self, path, new):
        old = self.walk(path)
        node, name = self.parent(new)
        self.client.link(old, name, node)

    def rename(self, path, new, flags):
        node, name = self.parent(path)
        other, new_name = self.parent(new)
        self.client.rename(name, new_name, node, other, flags)

    def truncate(self, path, size):
        self.client.setattr(self.walk(path), size=size)

    def chmod(self, path, mode):
        self.client.setattr(self.walk(path), mode=mode)

    def stat(self, path):
        node = self.walk(path)
        attr = self.client.getattr(node)
        return attr.mode, attr.nlink, attr.uid, 0 if stat.S_ISDIR(attr.mode) else attr.size

    def readlink(self, path):
        return self.client.readlink(self.walk(path))

    def list(self, path):
        node = self.walk(path)
        plus = [one.name.decode() for one in self.client.list(node, 400, plus=True)]
        assert sorted(plus) == sorted(one.name.decode() for one in self.client.list(node, 200))
        return sorted(plus)

    def open(self, path):
        node = self.walk(path)
        self.files.append((node, self.client.open(node, os.O_RDWR)))

    def file(self, number):
        if number >= len(self.files):
            raise OSError(errno.EBADF, "")
        return self.files[number]

    def read(self, number, offset):
        return self.client.read(*self.file(number), 30, offset)

    def write(self, number, text, offset):
        return self.client.write(*self.file(number), text, offset)

    def resize(self, number, size):
        node, _ = self.file(number)
        assert self.client.setattr(node, size=size).size == size == self.client.getattr(node).size

    def close(self, number):
        self.client.release(*self.file(number))
        del self.files[number]

    def forget(self, path):
        """As Linux: not what is open, nor a directory that is on the way to it."""
        with contextlib.suppress(FuseError):
            node = self.walk(path)
            if node not in [file for file, _ in self.files]:
                self.client.forget(node, 1000)


def outcome(call, arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return "error", error.errno


def tree(path):
    """Everything below a directory."""
    found = {}
    for one in sorted(Path(path).rglob("*")):
        st = one.lstat()
        content = os.readlink(one) if one.is_symlink() else one.read_bytes() if one.is_file() else b""
        found[str(one.relative_to(path))] = st.st_mode, st.st_nlink, content
    return found


@settings(max_examples=100)
@given(st.lists(operations, max_size=40), st.sampled_from((12, 15, 1000)))
def test_server_and_directory_agree(sequence, limit):
    with tempfile.TemporaryDirectory() as place, patch.object(descriptors, "limit", lambda: limit):
        for name in ("shared", "plain"):
            Path(place, name).mkdir()
        Path(place, "outside").write_bytes(b"outside")
        server = Server(str(Path(place, "shared")), writable=True)
        model, guest = Model(Path(place, "plain")), Guest(server)
        before = os.umask(0)
        try:
            for number, (name, *arguments) in enumerate(sequence):
                if name == "open" and len(model.files) >= limit // 3:
                    continue
                wanted = outcome(getattr(model, name), arguments)
                got = outcome(getattr(guest, name), arguments)
                assert got == wanted, (number, name, arguments)
            assert tree(Path(place, "shared")) == tree(Path(place, "plain"))
            for node in list(server.tree.nodes):
                guest.client.forget(node, 1 << 40)
            for file in guest.files:
                guest.client.release(*file)
            assert server.tree.held == 0 and len(server.tree.nodes) == 1
        finally:
            os.umask(before)
            server.close()
            for fd in (*model.files, model.root):
                os.close(fd)
        assert Path(place, "outside").read_bytes() == b"outside"
