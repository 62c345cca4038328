"""Nothing outside of the folder is reached: links, races with the host, mounts."""

import os
import stat
import threading
import traceback

import pytest
from fuse_client import ROOT, FuseError, error_of

from pyhv.fs import calls, descriptors

ROUNDS = 3000
SECRET = b"a file that is not shared"


@pytest.fixture
def swapper(folder, outside):
    """Exchange an entry of the folder with an evil one in another thread for as long as `with` lasts."""

    class Swapper:
        def __init__(self, name, evil):
            self.paths = os.fsencode(folder / name), os.fsencode(folder / evil)
            self.stop = threading.Event()
            self.thread = threading.Thread(target=self.run)
            self.swaps = 0

        def run(self):
            while not self.stop.is_set():
                calls.rename(-100, self.paths[0], -100, self.paths[1], calls.RENAME_EXCHANGE)
                self.swaps += 1

        def __enter__(self):
            self.thread.start()
            return self

        def __exit__(self, *_):
            self.stop.set()
            self.thread.join()
            assert self.swaps > 0

    (outside / "secret").write_bytes(SECRET)
    (outside / "inner.txt").write_bytes(SECRET)
    (outside / "sub").mkdir()
    (outside / "sub/deep").write_bytes(SECRET)
    (folder / "evil-dir").symlink_to(outside)
    (folder / "evil-file").symlink_to("../outside/secret")
    return Swapper


@pytest.fixture
def few_descriptors(monkeypatch):
    """Every node loses its descriptor soon, and is found again by its path."""
    monkeypatch.setattr(descriptors, "limit", lambda: 3)


def test_links_lead_nowhere(serve):
    client = serve(writable=True)
    for name in ("out", "etc", "outdir"):
        node = client.lookup(name).node
        assert error_of(client.lookup, "secret", node) == "ENOTDIR"
        assert error_of(client.opendir, node) == "ENOTDIR"
        assert error_of(client.open, node) == "ENXIO"
        assert error_of(client.create, "x", node=node) == "ENOTDIR"
        assert error_of(client.mkdir, "x", node=node) == "ENOTDIR"
        assert error_of(client.rename, "empty", "x", ROOT, node) == "ENOTDIR"
        assert error_of(client.unlink, "secret", node) == "ENOTDIR"


@pytest.mark.parametrize("options", [{}, {"cache": "always"}, {"submounts": False}])
@pytest.mark.parametrize("evicting", [False, True])
def test_a_directory_that_becomes_a_link(serve, swapper, outside, options, evicting, monkeypatch):
    if evicting:
        monkeypatch.setattr(descriptors, "limit", lambda: 3)
    client = serve(offered=0, **options)
    read = 0
    with swapper("dir", "evil-dir"):
        for _ in range(ROUNDS):
            try:
                sub = client.walk("dir/sub")
                node = client.lookup("deep", sub).node
                client.forget(sub, 1)
                handle = client.open(node)
                data = client.read(node, handle, 100)
                client.release(node, handle)
            except FuseError:
                continue
            assert data != SECRET and data == bytes(range(100))
            read += 1
    assert read


def test_a_file_that_becomes_a_link(serve, swapper, few_descriptors):
    client = serve()
    with swapper("hello.txt", "evil-file"):
        for _ in range(ROUNDS // 10):
            for name in ("hello.txt", "evil-file"):
                try:
                    node = client.lookup(name).node
                    handle = client.open(node)
                except FuseError:
                    continue
                assert client.read(node, handle, 100) == b"hello\n"
                client.release(node, handle)
            for one in client.list(plus=True):
                assert one.entry is None or one.entry.attr.size != len(SECRET)


def test_a_file_that_becomes_a_fifo(serve, swapper, folder, few_descriptors):
    """Opening a FIFO would wait for its other end, for ever."""
    os.mkfifo(folder / "evil-fifo")
    client = serve(writable=True)
    opened = 0
    with swapper("hello.txt", "evil-fifo"):
        for _ in range(ROUNDS):
            try:
                node = client.lookup("hello.txt").node
                client.release(node, client.open(node, os.O_RDONLY))
                client.release(node, client.open(node, os.O_WRONLY))
            except FuseError:
                continue
            opened += 1
    assert opened


def test_changes_in_a_directory_that_becomes_a_link(serve, swapper, folder, outside, few_descriptors):
    client = serve(writable=True, xattr="write")
    before = sorted(str(path) for path in outside.rglob("*")), (outside / "inner.txt").stat()
    with swapper("dir", "evil-dir"):
        for _ in range(ROUNDS // 3):
            for change in (
                lambda node: client.create("created", node=node),
                lambda node: client.mkdir("made", node=node),
                lambda node: client.unlink("inner.txt", node),
                lambda node: client.setattr(client.lookup("sub", node).node, mode=0o700, mtime_now=True),
                lambda node: client.rename("sub", "bus", node, node),
                lambda node: client.rename("bus", "sub", node, node),
                lambda node: client.symlink("inner.txt", "x", node),
            ):
                try:
                    change(client.lookup("dir").node)
                except FuseError:
                    continue
    assert sorted(str(path) for path in outside.rglob("*")) == before[0]
    assert (outside / "inner.txt").stat() == before[1] and (outside / "inner.txt").read_bytes() == SECRET


def test_a_parent_that_moved_is_found_by_no_old_path(serve, folder, outside, few_descriptors):
    (folder / "a/b/c").mkdir(parents=True)
    client = serve()
    deep = client.walk("dir/sub/deep")
    client.list(client.walk("a/b/c"))
    (folder / "dir").rename(outside / "taken")
    assert error_of(client.getattr, deep) == "ESTALE"
    assert error_of(client.open, deep) == "ESTALE"


def test_directories_that_changed_places(serve, folder, few_descriptors):
    """What the guest remembers of them then forms a circle."""
    (folder / "a/b").mkdir(parents=True)
    client = serve()
    a = client.lookup("a").node
    b = client.lookup("b", a).node
    handle = client.opendir(b)
    (folder / "a/b").rename(folder / "b")
    (folder / "a").rename(folder / "b/a")
    assert client.lookup("a", b).node == a
    client.releasedir(b, handle)
    client.statfs(client.walk("dir/sub/deep"))  # now three others have descriptors
    assert error_of(client.getattr, a) == "ESTALE"
    assert client.lookup("a", client.lookup("b").node).node == a


def in_namespace(work):
    """Run `work` in a child process that has mounts of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):  # private, all of it
                os._exit(77)

            def mount(kind, where, source=b"none", flags=0):
                done = libc.mount(source, os.fsencode(where), kind, flags, None)
                assert done == 0, os.strerror(ctypes.get_errno())

            work(mount)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 77:
        pytest.skip("needs mounts in a namespace of its own (CAP_SYS_ADMIN)")
    assert status == 0


BIND = 4096


def test_mounts_below_are_entered(serve, folder, as_root):
    def work(mount):
        mount(b"tmpfs", folder / "dir")
        (folder / "dir/file").write_text("in memory")
        (folder / "dir/again").mkdir()
        mount(b"ramfs", folder / "dir/again")
        (folder / "dir/again/file").write_text("deeper")
        client = serve(writable=True)
        numbers = {client.lookup(name).attr.ino for name in ("dir", "hello.txt", "empty", "fifo")}
        for path, text in (("dir/file", b"in memory"), ("dir/again/file", b"deeper")):
            node = client.walk(path)
            assert client.read(node, client.open(node), 99) == text
            numbers.add(client.getattr(node).ino)
        assert len(numbers) == 6  # each file system counts anew
        listed = {one.name: one.ino for one in client.list(client.lookup("dir").node)}
        assert listed[b"file"] == client.getattr(client.walk("dir/file")).ino
        assert error_of(client.link, client.walk("dir/file"), "x") == "EXDEV"
        assert error_of(client.rename, "file", "x", client.walk("dir"), ROOT) == "EXDEV"
        assert error_of(client.rmdir, "dir") == "EBUSY"
        assert client.statfs(client.walk("dir/again"))[0] == 0 != client.statfs()[0]  # ramfs has no size
        client.call(50, ROOT, bytes(8))
        client.destroy()
        client.init()
        os.system(f"umount {folder}/dir/again")
        client.call(50, ROOT, bytes(8))

    in_namespace(work)


def test_mounts_below_are_not_entered(serve, folder, outside, as_root):
    def work(mount):
        mount(b"tmpfs", folder / "dir")
        (folder / "bound").mkdir()
        mount(None, folder / "bound", os.fsencode(outside), BIND)  # of the same device
        mount(None, folder / "empty", os.fsencode(outside / "secret"), BIND)
        (folder / "dir/file").write_text("in memory")
        for options in ({}, {"cache": "always"}):
            client = serve(writable=not options, submounts=False, **options)
            for name in ("dir", "bound"):
                node = client.lookup(name).node
                assert client.getattr(node).mode & stat.S_IFDIR
                for inner in ("file", "secret"):
                    try:
                        assert client.lookup(inner, node).node == 0
                    except FuseError as error:
                        assert error.strerror == "No such file or directory"
                if not options:
                    assert client.list(node) == []
                    assert [one.name for one in client.readdir(node, client.opendir(node), plus=True)] == [b".", b".."]
                    handle = client.opendir(node)
                    client.fsync(node, handle, opcode=30)
                    client.releasedir(node, handle)
                    assert error_of(client.mkdir, "x", node=node) == "EXDEV"
                    assert error_of(client.create, "x", node=node) == "EXDEV"
                    assert error_of(client.open, client.lookup("empty").node) == "EXDEV"
                else:
                    assert [one.name for one in client.readdir(node, 0)] == [b".", b".."]
            node = client.walk("hello.txt")
            assert client.getattr(node).size == 6

    in_namespace(work)


def test_the_kernels_own_file_systems_are_never_entered(serve, folder, as_root):
    def work(mount):
        mount(b"proc", folder / "dir")
        mount(None, folder / "empty", b"/proc/version", BIND)
        client = serve()
        assert client.lookup("dir").attr.mode & stat.S_IFDIR
        assert client.list(client.lookup("dir").node) == []
        assert error_of(client.lookup, "self", client.lookup("dir").node) == "ENOENT"
        assert error_of(client.open, client.lookup("empty").node) == "EXDEV"

    in_namespace(work)


def test_a_whole_root():
    """The host's own root: what is there depends on the host, that proc and sys are empty does not."""
    from fuse_client import Client, direct

    from pyhv.fs.server import Server

    server = Server("/", cache="always")
    try:
        client = Client(direct(server), offered=0)
        for name in ("proc", "sys"):
            assert client.list(client.lookup(name).node) == []
        assert b"passwd" in [one.name for one in client.list(client.lookup("etc").node)]
    finally:
        server.close()
