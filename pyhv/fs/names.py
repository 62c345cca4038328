"""Operations on names and attributes that change nothing."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.fs import fuse
from pyhv.fs.fuse import ACCESS_IN, BATCH_FORGET_IN, FORGET_ONE, GETATTR_IN, STATFS_OUT
from pyhv.fs.tree import failure

if TYPE_CHECKING:
    from pyhv.fs.message import Message, Operation
    from pyhv.fs.server import Server
    from pyhv.fs.tree import Node

_REFUSED = (b"", b".", b"..")
_U32 = 0xFFFF_FFFF


def one_name(body: bytes) -> bytes:
    """A request's only name. Raises EINVAL unless it is one component that ends with the request."""
    name = body[:-1]
    if name in _REFUSED or b"/" in name or body[-1] or b"\0" in name:
        raise failure(errno.EINVAL)
    return name


def two_names(body: bytes) -> tuple[bytes, bytes]:
    """Two strings, each up to a NUL, the first a name as of `one_name`."""
    first, separator, second = body.partition(b"\0")
    if not separator:
        raise failure(errno.EINVAL)
    return one_name(first + b"\0"), second


def lookup(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """LOOKUP: the node of a directory's entry."""
    name = body[:-1]
    if name in _REFUSED or b"/" in name or body[-1]:
        raise failure(errno.EINVAL)
    tree = server.tree
    try:
        found, st = tree.lookup(node, name)
    except FileNotFoundError:
        if server.policy.data == "always":
            return server.attributes.negative
        raise
    except OSError as error:
        if error.errno == errno.EXDEV:  # what is mounted and not entered is empty
            raise failure(errno.ENOENT) from None
        raise
    return server.attributes.entry(found.id, st)


def batch_forget(server: Server, body: bytes) -> None:
    """BATCH_FORGET: as many pairs as there are, at most as many as are said to be."""
    if len(body) < BATCH_FORGET_IN.size:
        return
    count, _ = BATCH_FORGET_IN.unpack_from(body)
    for index in range(min(count, (len(body) - BATCH_FORGET_IN.size) // FORGET_ONE.size)):
        server.forget(*FORGET_ONE.unpack_from(body, BATCH_FORGET_IN.size + index * FORGET_ONE.size))


def getattr_(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """GETATTR, of the file that is open where the guest says which."""
    flags, _, number = GETATTR_IN.unpack_from(body)
    if flags & fuse.GETATTR_FH:
        handle = server.handles.open.get(number)
        if handle is not None and handle.fd >= 0:
            return server.attributes.attr(os.fstat(handle.fd))
    return server.attributes.attr(server.tree.stat(node))


def readlink(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """READLINK: a link's text, which the guest resolves."""
    return server.tree.readlink(node)


def statfs(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """STATFS of the file system that the node is on."""
    st = os.statvfs(server.tree.pin(node))
    return STATFS_OUT.pack(
        st.f_blocks,
        st.f_bfree,
        st.f_bavail,
        st.f_files,
        st.f_ffree,
        st.f_bsize & _U32,
        st.f_namemax & _U32,
        st.f_frsize & _U32,
        0,
    )


def access(server: Server, node: Node, body: bytes, message: Message) -> bytes:
    """ACCESS: what the host allows this process. Linux does not ask, it judges by the mode."""
    mask, _ = ACCESS_IN.unpack_from(body)
    if mask & os.W_OK and not server.writable:
        raise failure(errno.EROFS)
    if not os.access(server.tree.path(node), mask & 7, effective_ids=os.access in os.supports_effective_ids):
        raise failure(errno.EACCES)
    return b""


OPERATIONS: dict[int, Operation] = {
    fuse.LOOKUP: (lookup, 2, fuse.ENTRY_OUT.size),
    fuse.GETATTR: (getattr_, GETATTR_IN.size, fuse.ATTR_OUT.size),
    fuse.READLINK: (readlink, 0, 0),
    fuse.STATFS: (statfs, 0, STATFS_OUT.size),
    fuse.ACCESS: (access, ACCESS_IN.size, 0),
}
