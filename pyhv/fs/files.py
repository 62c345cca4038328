"""Operations on open files."""

from __future__ import annotations

import errno
import os
from stat import S_ISGID, S_ISUID, S_IXGRP

from pyhv._types import TYPE_CHECKING
from pyhv.fs import calls, fuse
from pyhv.fs.fuse import (
    COPY_FILE_RANGE_IN,
    FALLOCATE_IN,
    FSYNC_IN,
    IO_IN,
    LSEEK_IN,
    OPEN_IN,
    OPEN_OUT,
    UINT64,
    WRITE_OUT,
)
from pyhv.fs.sync import Sync
from pyhv.fs.tree import PROC, failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyhv.fs.handles import Handle
    from pyhv.fs.message import Message, Operation, Reply
    from pyhv.fs.server import Server
    from pyhv.fs.tree import Node, Tree

MAX_IO = 1 << 20
MAX_COPY = 1 << 24
"""Bytes that one COPY_FILE_RANGE copies at most: the guest asks again."""
KEPT_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
"""What reaches the host of the guest's open flags: O_APPEND comes with each WRITE, caching is the guest's."""

_REPLY = fuse.OUT_HEADER.size
_DATA = fuse.IN_HEADER.size + IO_IN.size
_VECTORS = 1024
"""IOV_MAX."""


def open_(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """OPEN of a regular file, by its node."""
    flags, extra = OPEN_IN.unpack_from(body)
    if not server.writable:
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            raise failure(errno.EROFS)
        if server.negotiated & fuse.NO_OPEN_SUPPORT:
            raise failure(errno.ENOSYS)  # the guest then opens no file at all
    return open_node(server, node, flags, extra)


def open_node(server: Server, node: Node, flags: int, extra: int) -> bytes:
    """Open a file for OPEN or CREATE: struct fuse_open_out."""
    handle = server.handles.open_node(node, flags & KEPT_FLAGS)
    if flags & os.O_TRUNC and extra & fuse.OPEN_KILL_SUIDGID:
        drop_privileges(handle.fd)
    return OPEN_OUT.pack(handle.id, open_flags(server, node, handle), 0)


def open_flags(server: Server, node: Node, handle: Handle) -> int:
    """What the guest may do with the data that it has of this file."""
    data = server.policy.data
    if data == "always":
        return fuse.FOPEN_KEEP_CACHE
    if data == "none":
        return fuse.FOPEN_DIRECT_IO
    st = os.fstat(handle.fd)
    stamp = (st.st_mtime_ns, st.st_size)
    same = node.stamp == stamp
    node.stamp = stamp
    return fuse.FOPEN_KEEP_CACHE if same else 0


def drop_privileges(fd: int) -> None:
    """Clear set-user-ID, and set-group-ID of what the group may execute, as a write by an ordinary user does."""
    mode = os.fstat(fd).st_mode
    new = without_privileges(mode)
    if new != mode:
        os.fchmod(fd, new & 0o7777)


def without_privileges(mode: int) -> int:
    """A mode without these bits."""
    return mode & ~(S_ISUID | S_ISGID if mode & S_IXGRP else S_ISUID)


def _handle(server: Server, node: Node, number: int) -> Handle:
    """The handle of a request; where the guest does not open files, the node's own."""
    handle = server.handles.open.get(number)
    if handle is None:
        if number or not server.negotiated & fuse.NO_OPEN_SUPPORT:
            raise failure(errno.EBADF)
        handle = node.handle or server.handles.kept(node)
    return handle


def _rest(views: list[memoryview], offset: int) -> list[memoryview]:
    """What is left of views beyond `offset` bytes: quickly, as Linux puts each part of a message into memory of its own."""
    skipped = 0
    while offset and skipped < len(views):
        view = views[skipped]
        if offset < len(view):
            views[skipped] = view[offset:]
            break
        offset -= len(view)
        skipped += 1
    return views[skipped:]


def read(server: Server, node: Node, body: bytes, message: Message) -> int:
    """READ, straight into the guest's memory."""
    number, offset, size, _, _, _, _ = IO_IN.unpack_from(body)
    handle = server.handles.open.get(number) or _handle(server, node, number)
    room = message.writable_size - _REPLY
    if size > MAX_IO or size > room:
        raise failure(errno.EINVAL)
    views = _rest(message.writable_views(), _REPLY) if size == room else message.writable_views(_REPLY, size)
    if len(views) <= _VECTORS:
        return os.preadv(handle.fd, views, offset)
    done = 0
    for start in range(0, len(views), _VECTORS):
        part = views[start : start + _VECTORS]
        got = os.preadv(handle.fd, part, offset + done)
        done += got
        if got < sum(map(len, part)):
            break
    return done


def write(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """WRITE, straight from the guest's memory."""
    number, offset, size, extra, _, flags, _ = IO_IN.unpack_from(body)
    handle = server.handles.get(number)
    given = message.readable_size - _DATA
    if size > MAX_IO or size > given:
        raise failure(errno.EINVAL)
    if extra & fuse.WRITE_KILL_SUIDGID:
        drop_privileges(handle.fd)
    append = os.RWF_APPEND if flags & os.O_APPEND else 0
    views = _rest(message.readable_views(), _DATA) if size == given else message.readable_views(_DATA, size)
    done = 0
    for start in range(0, len(views), _VECTORS):
        part = views[start : start + _VECTORS]
        got = os.pwritev(handle.fd, part, offset + done, append)
        done += got
        if got < sum(map(len, part)):
            break
    return WRITE_OUT.pack(done, 0)


def flush(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """FLUSH, at each close by the guest: where the host's file system tells of errors at a close, they are told."""
    os.close(os.dup(server.handles.get(UINT64.unpack_from(body)[0]).fd))
    return b""


def release(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """RELEASE."""
    server.handles.close(UINT64.unpack_from(body)[0])
    return b""


def fsync(server: Server, node: Node, body: bytes, message: Message) -> Reply:
    """FSYNC and FSYNCDIR."""
    number, flags, _ = FSYNC_IN.unpack_from(body)
    if server.handles.get(number).fd < 0:
        return b""
    return Sync(
        lambda: [os.dup(server.handles.get(number).fd)], os.fdatasync if flags & fuse.FSYNC_FDATASYNC else os.fsync
    )


def lseek(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """LSEEK to data or to a hole; everything else is the guest's own work."""
    number, offset, whence, _ = LSEEK_IN.unpack_from(body)
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise failure(errno.EINVAL)
    return UINT64.pack(os.lseek(_handle(server, node, number).fd, offset, whence))


def fallocate(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """FALLOCATE."""
    number, offset, length, mode, _ = FALLOCATE_IN.unpack_from(body)
    calls.fallocate(server.handles.get(number).fd, mode, offset, length)
    return b""


def copy_file_range(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """COPY_FILE_RANGE, a part of it."""
    source, source_offset, _, target, target_offset, length, flags = COPY_FILE_RANGE_IN.unpack_from(body)
    if flags:
        raise failure(errno.EINVAL)
    done = os.copy_file_range(
        server.handles.get(source).fd,
        server.handles.get(target).fd,
        min(length, MAX_COPY),
        source_offset,
        target_offset,
    )
    return WRITE_OUT.pack(done, 0)


def syncfs(server: Server, node: Node, body: bytes, message: Message) -> Reply:
    """SYNCFS, of the folder's file system and of those mounted below that the guest was in."""
    return Sync(lambda: _mounted(server.tree), calls.syncfs)


def _mounted(tree: Tree) -> Iterator[int]:
    for place in (tree.root, *tree.mounts.values()):
        try:
            pinned = tree.pin(place)
        except OSError:  # no longer mounted
            continue
        yield tree.retried(lambda: os.open(PROC % pinned, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), pinned)  # noqa: B023


OPERATIONS: dict[int, Operation] = {
    fuse.OPEN: (open_, OPEN_IN.size, OPEN_OUT.size),
    fuse.READ: (read, IO_IN.size, 0),
    fuse.WRITE: (write, IO_IN.size, WRITE_OUT.size),
    fuse.FLUSH: (flush, UINT64.size, 0),
    fuse.RELEASE: (release, UINT64.size, 0),
    fuse.FSYNC: (fsync, FSYNC_IN.size, 0),
    fuse.LSEEK: (lseek, LSEEK_IN.size, UINT64.size),
    fuse.FALLOCATE: (fallocate, FALLOCATE_IN.size, 0),
    fuse.COPY_FILE_RANGE: (copy_file_range, COPY_FILE_RANGE_IN.size, WRITE_OUT.size),
    fuse.SYNCFS: (syncfs, 0, 0),
}
WRITES = (fuse.WRITE, fuse.FALLOCATE, fuse.COPY_FILE_RANGE)
