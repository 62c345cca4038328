"""Extended attributes."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.fs import fuse
from pyhv.fs.fuse import GETXATTR_IN, GETXATTR_OUT, SETXATTR_IN
from pyhv.fs.tree import failure

if TYPE_CHECKING:
    from pyhv.fs.message import Message, Operation
    from pyhv.fs.server import Server
    from pyhv.fs.tree import Node


def _name(body: bytes) -> bytes:
    name, end, rest = body.partition(b"\0")
    if not name or not end or rest:
        raise failure(errno.EINVAL)
    return name


def _sized(value: bytes, size: int) -> bytes:
    """A value, or how long it is if no room was given for it."""
    if size == 0:
        return GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise failure(errno.ERANGE)
    return value


def getxattr(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """GETXATTR."""
    size, _ = GETXATTR_IN.unpack_from(body)
    return _sized(os.getxattr(server.tree.path(node), _name(body[GETXATTR_IN.size :])), size)


def listxattr(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """LISTXATTR: the names, each with a NUL."""
    size, _ = GETXATTR_IN.unpack_from(body)
    names = os.listxattr(server.tree.path(node))
    return _sized(b"".join(os.fsencode(name) + b"\0" for name in names), size)


def setxattr(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """SETXATTR."""
    size, flags = SETXATTR_IN.unpack_from(body)
    name, end, value = body[SETXATTR_IN.size :].partition(b"\0")
    if not name or not end or len(value) != size:
        raise failure(errno.EINVAL)
    os.setxattr(server.tree.path(node), name, value, flags)
    return b""


def removexattr(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """REMOVEXATTR."""
    os.removexattr(server.tree.path(node), _name(body))
    return b""


OPERATIONS: dict[int, Operation] = {
    fuse.GETXATTR: (getxattr, GETXATTR_IN.size + 2, 0),
    fuse.LISTXATTR: (listxattr, GETXATTR_IN.size, 0),
    fuse.SETXATTR: (setxattr, SETXATTR_IN.size + 2, 0),
    fuse.REMOVEXATTR: (removexattr, 2, 0),
}
WRITES = (fuse.SETXATTR, fuse.REMOVEXATTR)
