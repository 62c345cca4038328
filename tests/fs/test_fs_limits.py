"""Nothing grows without bound: descriptors, nodes, handles; what is evicted is found again."""

import os
import resource

import pytest
from fuse_client import ROOT, FuseError, error_of

from pyhv.fs import descriptors


@pytest.fixture
def limit(monkeypatch):
    def set_limit(count):
        monkeypatch.setattr(descriptors, "limit", lambda: count)

    return set_limit


@pytest.fixture
def tree(folder):
    for outer in range(12):
        for inner in range(4):
            path = folder / f"d{outer}/e{inner}"
            path.mkdir(parents=True)
            (path / "file").write_text(f"{outer} {inner}")
    return folder


def open_now():
    return len(os.listdir("/proc/self/fd"))


def test_nodes_that_are_evicted_are_found_again(serve, tree, limit):
    limit(8)
    client = serve(writable=True)
    before = open_now()
    nodes = {
        (outer, inner): client.walk(f"d{outer}/e{inner}/file") for _ in range(3) for outer in range(12) for inner in range(4)
    }
    assert client.server.tree.held <= 8 and open_now() <= before + 8
    for (outer, inner), node in nodes.items():
        handle = client.open(node)
        assert client.read(node, handle, 99) == f"{outer} {inner}".encode()
        client.release(node, handle)
        assert client.setattr(node, mode=0o640).mode & 0o777 == 0o640
        client.statfs(node)
    assert client.server.tree.held <= 8 and open_now() <= before + 8


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_operations_on_two_directories_with_hardly_a_descriptor(serve, tree, limit, count):
    client = serve(writable=True)
    one, two = client.walk("d1/e1"), client.walk("d2/e2")
    file = client.walk("d3/e3/file")
    limit(count)
    for turn in range(6):
        client.link(file, f"link{turn}", one)
        client.rename(f"link{turn}", f"moved{turn}", one, two)
        client.rename("file", "file", one, two, flags=2)
        client.walk("d5/e1/file")
    assert (tree / "d1/e1/file").read_text() == "1 1" and (tree / "d2/e2/moved5").read_text() == "3 3"


def test_open_files_are_bounded(serve, tree, limit):
    limit(30)
    client = serve()
    node = client.walk("d1/e1/file")
    handles = []
    with pytest.raises(FuseError, match="Too many open files"):
        while len(handles) < 100:
            handles.append(client.open(node))
    assert len(handles) == 10
    assert error_of(client.opendir, ROOT) == "EMFILE"
    client.walk("d2/e2/file")  # looking goes on
    client.release(node, handles.pop())
    client.opendir(ROOT)


def test_files_created_are_bounded_as_well(serve, folder, limit):
    limit(30)
    client = serve(writable=True)
    with pytest.raises(FuseError, match="Too many open files"):
        for number in range(100):
            client.create(f"n{number}")
    assert not (folder / f"n{number}").exists()


def test_files_read_without_opening_are_bounded(serve, tree, limit):
    limit(30)
    client = serve(cache="always")
    for _ in range(2):
        for outer in range(12):
            for inner in range(4):
                node = client.walk(f"d{outer}/e{inner}/file")
                assert client.read(node, 0, 99) == f"{outer} {inner}".encode()
                client.readdir(client.walk(f"d{outer}/e{inner}"), 0)
        assert client.server.tree.held <= 30


def test_nodes_are_bounded(serve, tree):
    client = serve(writable=True, max_nodes=8)
    handle = client.opendir()
    listed = [one.entry.node for one in client.readdir(ROOT, handle, size=1 << 16, plus=True)]
    assert len(listed) > 8 and sum(map(bool, listed)) == 7  # the others are listed without
    for number in range(12):
        if not any(node.name == b"d%d" % number for node in client.server.tree.nodes.values()):
            assert error_of(client.lookup, f"d{number}") == "ENFILE"
    for change, more in ((client.mkdir, ()), (client.create, ()), (client.mknod, (0o600,)), (client.symlink, ("x",))):
        assert error_of(change, "new", *more) == "ENFILE"
        assert not (tree / "new").exists()
    client.forget(next(node for node in listed if node))
    client.mkdir("new")


def test_a_process_without_descriptors(serve, tree):
    client = serve()
    for outer in range(12):
        client.walk(f"d{outer}/e1/file")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 2, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        node = client.walk("d11/e3/file")
        assert client.read(node, client.open(node), 99) == b"11 3"
        client.list(client.walk("d3/e3"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_a_process_without_descriptors_and_none_to_give_back(serve, tree):
    client = serve()
    node = client.walk("hello.txt")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        assert error_of(client.open, node) == "EMFILE"
        assert client.lookup("hello.txt").node == node
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert client.read(node, client.open(node), 99) == b"hello\n"


def test_the_budget_is_shared(serve):
    serve()
    alone = descriptors.limit()
    others = [serve() for _ in range(3)]
    assert descriptors.limit() == max(alone // 4, descriptors.MIN_LIMIT)
    for other in others:
        other.server.close()
    assert descriptors.limit() == alone == descriptors.budget() <= descriptors.MAX_BUDGET


def test_deep_paths(serve, folder, limit):
    limit(4)
    client = serve(writable=True)
    node = ROOT
    for _ in range(300):
        node = client.mkdir("d", 0o700, node).node
    client.walk("dir/sub/deep")
    entry, handle = client.create("bottom", node=node)
    client.write(entry.node, handle, b"deep")
    client.release(entry.node, handle)
    client.walk("dir/sub/deep")
    assert client.read(entry.node, client.open(entry.node), 9) == b"deep"
