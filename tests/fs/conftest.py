"""A scratch folder with one of everything, what lies outside of it, and servers for it."""

import os
import socket
from pathlib import Path

import pytest
from fuse_client import OFFERED, Client, direct

from pyhv.fs.server import Server


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_bytes(b"secret")
    return place


@pytest.fixture
def folder(tmp_path: Path, outside: Path) -> Path:
    shared = tmp_path / "shared"
    (shared / "dir/sub").mkdir(parents=True)
    (shared / "hello.txt").write_bytes(b"hello\n")
    (shared / "empty").touch()
    (shared / "dir/inner.txt").write_bytes(b"inner")
    (shared / "dir/sub/deep").write_bytes(bytes(range(256)) * 64)
    (shared / "link").symlink_to("hello.txt")
    (shared / "out").symlink_to("../outside/secret")
    (shared / "outdir").symlink_to(outside)
    (shared / "etc").symlink_to("/etc/passwd")
    os.mkfifo(shared / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(shared)  # a socket's path must be short
        listener.bind("sock")
        os.chdir(here)
    return shared


@pytest.fixture
def serve(folder: Path):
    """Make a client of a server for the folder; `client.server` is it."""
    servers = []

    def make(path=folder, *, uid=0, gid=0, shape=None, init=True, offered=OFFERED, **options):
        server = Server(str(path), **options)
        servers.append(server)
        client = Client(direct(server, shape), uid=uid, gid=gid, init=init, offered=offered)
        client.server = server
        return client

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: device nodes, other owners and mounts are made")
