"""Directory entries, from the host's records to those of READDIR and READDIRPLUS."""

from __future__ import annotations

import errno
import os
from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.fs import calls
from pyhv.fs.fuse import DIRENT, ENTRY_OUT
from pyhv.fs.tree import failure

if TYPE_CHECKING:
    from pyhv.fs.handles import Handle
    from pyhv.fs.server import Server

HOST_DIRENT = Struct("<QqHB")
"""struct linux_dirent64: d_ino, d_off (where the next one is), d_reclen, d_type; the name follows, then a NUL."""
DT_DIR = 4
DOTS = (b".", b"..")

_U64 = (1 << 64) - 1
_NO_ENTRY = bytes(ENTRY_OUT.size)


def _fill(handle: Handle) -> bool:
    """Read on; False at the end of the directory."""
    if handle.fd < 0:
        records = _dots(handle)
    else:
        records = calls.getdents(handle.fd)
        if not records and handle.cookie == 0:  # ext4 says so once, if its end was the first place that was looked at
            os.lseek(handle.fd, 0, os.SEEK_SET)
            records = calls.getdents(handle.fd)
    handle.records = records
    handle.position = 0
    return bool(records)


def _dots(handle: Handle) -> bytes:
    """The records of an empty directory, from the handle's position on."""
    records = [
        HOST_DIRENT.pack(handle.node.inode, number, 24, DT_DIR) + name.ljust(5, b"\0")
        for number, name in enumerate(DOTS, 1)
        if number > handle.cookie
    ]
    return b"".join(records)


def _seek(handle: Handle, cookie: int) -> None:
    if cookie == handle.cookie and (cookie or not handle.records):
        return
    handle.records = b""
    handle.position = 0
    handle.cookie = -1
    if handle.fd >= 0:
        os.lseek(handle.fd, cookie, os.SEEK_SET)
    handle.cookie = cookie


def entries(server: Server, handle: Handle, cookie: int, size: int, *, plus: bool) -> bytes:
    """The entries from a position on that fit `size` bytes; with `plus` each is looked up as well. Raises OSError."""
    _seek(handle, cookie)
    out: list[bytes] = []
    number, device, root = server.attributes.number, handle.node.device, server.tree.root
    while True:
        if handle.position >= len(handle.records) and not _fill(handle):
            break
        records, start = handle.records, handle.position + HOST_DIRENT.size
        inode, cookie, step, kind = HOST_DIRENT.unpack_from(records, handle.position)
        name = records[start : records.index(0, start)]
        length = DIRENT.size + len(name)
        padded = length + 7 & ~7
        size -= padded + (ENTRY_OUT.size if plus else 0)
        if size < 0:
            if not out:
                raise failure(errno.EINVAL)
            break
        handle.position += step
        handle.cookie = cookie
        if name in DOTS:
            if handle.node is root:
                inode = root.inode  # what is above is not shown
            if plus:
                out.append(_NO_ENTRY)
        elif plus:
            entry = _entry(server, handle, name)
            if entry is None:
                size += padded + ENTRY_OUT.size
                continue
            out.append(entry)
        out.append(DIRENT.pack(number(device, inode), cookie & _U64, len(name), kind))
        out.append(name)
        out.append(bytes(padded - length))
    return b"".join(out)


def _entry(server: Server, handle: Handle, name: bytes) -> bytes | None:
    """struct fuse_entry_out; without a node where the guest may know no more, None for what has gone."""
    try:
        st = os.stat(name, dir_fd=handle.fd, follow_symlinks=False)
    except OSError:
        return None
    try:
        return server.attributes.entry(server.tree.adopt(handle.node, name, st).id, st)
    except OSError:
        return _NO_ENTRY
