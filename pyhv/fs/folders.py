"""Operations on open directories."""

from __future__ import annotations

import errno
import os
from stat import S_IFDIR

from pyhv._types import TYPE_CHECKING
from pyhv.fs import files, fuse, listing
from pyhv.fs.fuse import FSYNC_IN, IO_IN, OPEN_IN, OPEN_OUT, UINT64
from pyhv.fs.tree import failure

if TYPE_CHECKING:
    from pyhv.fs.message import Message, Operation
    from pyhv.fs.server import Server
    from pyhv.fs.tree import Node

MAX_LISTING = 1 << 17
"""Bytes of one reply: each entry may cost a look at the disk."""


def opendir(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """OPENDIR."""
    if node.kind != S_IFDIR:
        raise failure(errno.ENOTDIR)
    if server.negotiated & fuse.NO_OPENDIR_SUPPORT:
        raise failure(errno.ENOSYS)  # the guest then opens no directory at all
    handle = server.handles.open_node(node, os.O_RDONLY)
    kept = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE if server.policy.data == "always" else 0
    return OPEN_OUT.pack(handle.id, kept, 0)


def readdir(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """READDIR."""
    return _entries(server, node, body, message, plus=False)


def readdirplus(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """READDIRPLUS: every entry is a LOOKUP too."""
    return _entries(server, node, body, message, plus=True)


def _entries(server: Server, node: Node, body: bytes, message: Message, *, plus: bool) -> bytes:
    number, offset, size, _, _, _, _ = IO_IN.unpack_from(body)
    if size > message.writable_size - fuse.OUT_HEADER.size:
        raise failure(errno.EINVAL)
    handle = server.handles.open.get(number)
    if handle is None:
        if number or not server.negotiated & fuse.NO_OPENDIR_SUPPORT:
            raise failure(errno.EBADF)
        handle = node.handle or server.handles.kept(node)
    if handle.node.kind != S_IFDIR:
        raise failure(errno.ENOTDIR)
    return listing.entries(server, handle, offset, min(size, MAX_LISTING), plus=plus)


OPERATIONS: dict[int, Operation] = {
    fuse.OPENDIR: (opendir, OPEN_IN.size, OPEN_OUT.size),
    fuse.READDIR: (readdir, IO_IN.size, 0),
    fuse.READDIRPLUS: (readdirplus, IO_IN.size, 0),
    fuse.RELEASEDIR: (files.release, UINT64.size, 0),
    fuse.FSYNCDIR: (files.fsync, FSYNC_IN.size, 0),
}
