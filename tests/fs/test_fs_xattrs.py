"""Extended attributes."""

import os
from struct import pack, unpack

import pytest
from fuse_client import ROOT, error_of

from pyhv.fs import fuse


@pytest.fixture
def marked(folder):
    """The folder, where hello.txt has an attribute."""
    try:
        os.setxattr(folder / "hello.txt", "user.color", b"blue")
    except OSError as error:
        pytest.skip(f"the file system of {folder} has no user attributes: {error}")
    return folder


def test_reading(serve, marked):
    client = serve()
    node = client.lookup("hello.txt").node
    assert client.getxattr(node, b"user.color") == b"blue"
    assert unpack("<II", client.getxattr(node, b"user.color", 0)) == (4, 0)
    assert client.getxattr(node, b"user.color", 4) == b"blue"
    assert error_of(client.getxattr, node, b"user.color", 3) == "ERANGE"
    assert error_of(client.getxattr, node, b"user.none") == "ENODATA"
    assert b"user.color" in client.listxattr(node).split(b"\0")
    assert unpack("<II", client.listxattr(node, 0)) == (len(client.listxattr(node)), 0)
    assert error_of(client.listxattr, node, 1) == "ERANGE"


def test_names_that_are_none(serve, marked):
    client = serve(writable=True, xattr="write")
    node = client.lookup("hello.txt").node
    for name in (b"", b"user.color\0more", b"user." + b"n" * 300):
        assert error_of(client.getxattr, node, name) in ("EINVAL", "ERANGE")
        assert error_of(client.removexattr, node, name) in ("EINVAL", "ERANGE")
    assert error_of(client.call, fuse.GETXATTR, node, pack("<II", 9, 0) + b"user.color") == "EINVAL"
    assert error_of(client.call, fuse.SETXATTR, node, pack("<II", 9, 0) + b"user.color") == "EINVAL"
    assert error_of(client.call, fuse.SETXATTR, node, pack("<II", 9, 0) + b"user.color\0four") == "EINVAL"


def test_writing(serve, marked):
    client = serve(writable=True, xattr="write")
    node = client.lookup("hello.txt").node
    client.setxattr(node, b"user.color", b"red")
    client.setxattr(node, b"user.void", b"")
    assert os.getxattr(marked / "hello.txt", "user.color") == b"red"
    assert os.getxattr(marked / "hello.txt", "user.void") == b""
    assert error_of(client.setxattr, node, b"user.color", b"x", os.XATTR_CREATE) == "EEXIST"
    assert error_of(client.setxattr, node, b"user.none", b"x", os.XATTR_REPLACE) == "ENODATA"
    client.removexattr(node, b"user.color")
    assert error_of(client.getxattr, node, b"user.color") == "ENODATA"


def test_large_values(serve, marked):
    client = serve(writable=True, xattr="write")
    value = bytes(range(256)) * 10
    client.setxattr(ROOT, b"user.large", value)
    assert client.getxattr(ROOT, b"user.large") == value
    assert error_of(client.setxattr, ROOT, b"user.large", bytes((1 << 16) + 1)) in ("ENOSPC", "E2BIG")
    assert error_of(client.setxattr, ROOT, b"user.large", bytes(1 << 18)) == "EINVAL"


def test_links_have_their_own(serve, folder, outside):
    client = serve(writable=True, xattr="write")
    link = client.lookup("out").node
    assert client.listxattr(link).find(b"user.") < 0
    assert error_of(client.setxattr, link, b"user.x", b"y") in ("EPERM", "EOPNOTSUPP")
    assert os.listxattr(outside / "secret") == []


def test_writing_must_be_asked_for(serve, marked):
    for options, wanted in (
        ({"writable": True}, "EOPNOTSUPP"),
        ({"xattr": "write"}, "EROFS"),
        ({}, "EROFS"),
        ({"writable": True, "xattr": "none"}, "ENOSYS"),
    ):
        client = serve(**options)
        node = client.lookup("hello.txt").node
        assert error_of(client.setxattr, node, b"user.color", b"red") == wanted
        assert error_of(client.removexattr, node, b"user.color") == wanted
    assert os.getxattr(marked / "hello.txt", "user.color") == b"blue"


def test_none_at_all(serve, marked):
    client = serve(xattr="none")
    node = client.lookup("hello.txt").node
    assert error_of(client.getxattr, node, b"user.color") == "ENOSYS"
    assert error_of(client.listxattr, node) == "ENOSYS"
    assert error_of(client.setxattr, node, b"user.color", b"x") in ("ENOSYS", "EROFS")
