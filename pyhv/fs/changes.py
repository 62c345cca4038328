"""Operations that change names and attributes.

What is made belongs to the user and group of the guest's process where the host lets this process give files away, and to
this process's own otherwise.
"""

from __future__ import annotations

import errno
import os
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID

from pyhv._types import TYPE_CHECKING
from pyhv.fs import calls, files, fuse
from pyhv.fs.attributes import decode_device
from pyhv.fs.fuse import CREATE_IN, MKDIR_IN, MKNOD_IN, OPEN_OUT, RENAME2_IN, SETATTR_IN, UINT64
from pyhv.fs.names import one_name, two_names
from pyhv.fs.tree import PROC, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.fs.message import Message, Operation
    from pyhv.fs.server import Server
    from pyhv.fs.tree import Node

PERMISSIONS = 0o7777
_ENTRY = fuse.ENTRY_OUT.size
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def setattr_(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """SETATTR: mode, owner, size and times, each if it is said to be valid."""
    (valid, _, number, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _) = SETATTR_IN.unpack_from(body)
    path = server.tree.path(node)
    if valid & fuse.FATTR_MODE:
        os.chmod(path, mode & PERMISSIONS)
    if valid & (fuse.FATTR_UID | fuse.FATTR_GID):
        os.chown(path, uid if valid & fuse.FATTR_UID else -1, gid if valid & fuse.FATTR_GID else -1)
    if valid & fuse.FATTR_SIZE:
        _truncate(server, node, path, number if valid & fuse.FATTR_FH else 0, size, bool(valid & fuse.FATTR_KILL_SUIDGID))
    if valid & (fuse.FATTR_ATIME | fuse.FATTR_MTIME):
        calls.utimens(
            path,
            _time(valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, atime, atime_ns),
            _time(valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, mtime, mtime_ns),
        )
    return server.attributes.attr(server.tree.stat(node))


def _time(valid: int, given: int, now: int, seconds: int, nanoseconds: int) -> tuple[int, int]:
    if not valid & given:
        return 0, calls.UTIME_OMIT
    if valid & now:
        return 0, calls.UTIME_NOW
    if nanoseconds >= 1_000_000_000:
        raise failure(errno.EINVAL)
    return seconds, nanoseconds


def _truncate(server: Server, node: Node, path: bytes, number: int, size: int, drop: bool) -> None:
    if node.kind != S_IFREG:
        raise failure(errno.EISDIR if node.kind == S_IFDIR else errno.EINVAL)
    handle = server.handles.open.get(number)
    if handle is not None and handle.node is node:
        os.ftruncate(handle.fd, size)
    else:
        os.truncate(path, size)
    if drop:
        _drop_privileges(path)


def _drop_privileges(path: bytes) -> None:
    mode = os.stat(path).st_mode
    new = files.without_privileges(mode)
    if new != mode:
        os.chmod(path, new & PERMISSIONS)


def _finish(server: Server, parent: Node, directory: int, name: bytes, kind: int, mode: int | None) -> bytes:
    """Give a new file its owner and mode, and the guest its node."""
    fd = server.tree.open_new(directory, name)
    try:
        st = os.fstat(fd)
        if S_IFMT(st.st_mode) != kind:
            raise failure(errno.ESTALE)
        path = PROC % fd
        if st.st_uid == os.geteuid():  # else somebody on the host has put another in its place
            _give_away(server, path, directory)
            if mode is not None:
                os.chmod(path, mode & PERMISSIONS | (st.st_mode & S_ISGID))
            st = os.fstat(fd)
    except OSError:
        os.close(fd)
        raise
    return server.attributes.entry(server.tree.adopt_opened(parent, name, fd, st).id, st)


def _give_away(server: Server, file: bytes | int, directory: int) -> None:
    """Make the caller the owner; the group is the directory's where that says so."""
    if server.privileged:
        uid, gid = server.caller
        if os.fstat(directory).st_mode & S_ISGID:
            gid = -1
        try:
            os.chown(file, uid, gid)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise


def mkdir(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """MKDIR."""
    mode, _ = MKDIR_IN.unpack_from(body)
    name = one_name(body[MKDIR_IN.size :])
    server.tree.reserve()
    directory = server.tree.pin(node)
    os.mkdir(name, 0o700, dir_fd=directory)
    return _finish(server, node, directory, name, S_IFDIR, mode)


def symlink(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """SYMLINK: the name, then what the link says."""
    name, target = two_names(body)
    target, end, rest = target.partition(b"\0")
    if not end or rest:
        raise failure(errno.EINVAL)
    server.tree.reserve()
    directory = server.tree.pin(node)
    os.symlink(target, name, dir_fd=directory)
    return _finish(server, node, directory, name, S_IFLNK, None)


def mknod(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """MKNOD: a regular file, FIFO or socket; a device only if that was asked for."""
    mode, device, _, _ = MKNOD_IN.unpack_from(body)
    name = one_name(body[MKNOD_IN.size :])
    kind = S_IFMT(mode) or S_IFREG
    if kind in (S_IFCHR, S_IFBLK):
        if not server.devices:
            raise failure(errno.EPERM)
    elif kind in (S_IFREG, S_IFIFO, S_IFSOCK):
        device = 0
    else:
        raise failure(errno.EINVAL)
    server.tree.reserve()
    directory = server.tree.pin(node)
    os.mknod(name, kind | 0o600, decode_device(device), dir_fd=directory)
    return _finish(server, node, directory, name, kind, mode)


def create(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """CREATE: open a file, made if it is not there."""
    flags, mode, _, extra = CREATE_IN.unpack_from(body)
    name = one_name(body[CREATE_IN.size :])
    tree, handles = server.tree, server.handles
    handles.reserve()
    tree.reserve()
    directory = tree.pin(node)
    try:
        fd = tree.retried(
            lambda: os.open(name, flags & files.KEPT_FLAGS | _NEW, mode & 0o700, dir_fd=directory), directory
        )
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return _open_existing(server, node, name, flags, extra)
    try:
        _give_away(server, fd, directory)
        os.fchmod(fd, mode & PERMISSIONS)
        st = os.fstat(fd)
        pinned = tree.retried(lambda: os.open(PROC % fd, os.O_PATH | os.O_CLOEXEC), fd)
        made = tree.adopt_opened(node, name, pinned, st)
    except OSError:
        os.close(fd)
        raise
    handle = handles.add(made, fd)
    return server.attributes.entry(made.id, st) + OPEN_OUT.pack(handle.id, files.open_flags(server, made, handle), 0)


def _open_existing(server: Server, parent: Node, name: bytes, flags: int, extra: int) -> bytes:
    node, st = server.tree.lookup(parent, name)
    try:
        opened = files.open_node(server, node, flags, extra)
    except OSError:
        server.forget(node.id, 1)
        raise
    if flags & os.O_TRUNC:
        st = server.tree.stat(node)
    return server.attributes.entry(node.id, st) + opened


def link(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """LINK: one more name for a node."""
    (number,) = UINT64.unpack_from(body)
    name = one_name(body[UINT64.size :])
    old = server.tree.nodes.get(number)
    if old is None:
        raise failure(errno.ESTALE)
    fd, directory = server.tree.pin_both(old, node)
    os.link(PROC % fd, name, dst_dir_fd=directory, follow_symlinks=True)
    found, st = server.tree.lookup(node, name)
    return server.attributes.entry(found.id, st)


def unlink(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """UNLINK."""
    return _remove(server, node, body, os.unlink)


def rmdir(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """RMDIR."""
    return _remove(server, node, body, os.rmdir)


def _remove(server: Server, node: Node, body: bytes, remove: Callable[..., None]) -> bytes:
    name = one_name(body)
    directory = server.tree.pin(node)
    st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    remove(name, dir_fd=directory)
    server.tree.removed(st)
    return b""


def rename(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """RENAME."""
    (number,) = UINT64.unpack_from(body)
    return _rename(server, node, number, 0, body[UINT64.size :])


def rename2(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """RENAME2: never over another file, or exchanging the two. There is no whiteout: that is a device."""
    number, flags, _ = RENAME2_IN.unpack_from(body)
    if flags & ~(calls.RENAME_NOREPLACE | calls.RENAME_EXCHANGE):
        raise failure(errno.EINVAL)
    return _rename(server, node, number, flags, body[RENAME2_IN.size :])


def _rename(server: Server, parent: Node, number: int, flags: int, names: bytes) -> bytes:
    name, new_name = two_names(names)
    new_name = one_name(new_name)
    new_parent = server.tree.nodes.get(number)
    if new_parent is None:
        raise failure(errno.ESTALE)
    tree = server.tree
    source, target = tree.pin_both(parent, new_parent)
    st = os.stat(name, dir_fd=source, follow_symlinks=False)
    try:
        other = os.stat(new_name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        other = None
    calls.rename(source, name, target, new_name, flags)
    if other is not None and (other.st_dev, other.st_ino) != (st.st_dev, st.st_ino):
        if flags & calls.RENAME_EXCHANGE:
            tree.moved(other, parent, name)
        else:
            tree.removed(other)
    tree.moved(st, new_parent, new_name)
    return b""


OPERATIONS: dict[int, Operation] = {
    fuse.SETATTR: (setattr_, SETATTR_IN.size, fuse.ATTR_OUT.size),
    fuse.SYMLINK: (symlink, 4, _ENTRY),
    fuse.MKNOD: (mknod, MKNOD_IN.size + 2, _ENTRY),
    fuse.MKDIR: (mkdir, MKDIR_IN.size + 2, _ENTRY),
    fuse.UNLINK: (unlink, 2, 0),
    fuse.RMDIR: (rmdir, 2, 0),
    fuse.RENAME: (rename, UINT64.size + 4, 0),
    fuse.RENAME2: (rename2, RENAME2_IN.size + 4, 0),
    fuse.LINK: (link, UINT64.size + 2, _ENTRY),
    fuse.CREATE: (create, CREATE_IN.size + 2, _ENTRY + OPEN_OUT.size),
}
