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

    Entry = tuple[int, int, int, bytes]
    """Inode number, position after the entry, type (DT_*), name."""

HOST_DIRENT = Struct("<QqHB")
"""struct linux_dirent64: d_ino, d_off, d_reclen, d_type; the name follows."""
DT_DIR = 4
DOTS = (b".", b"..")

_U64 = (1 << 64) - 1
_NO_ENTRY = bytes(ENTRY_OUT.size)


def parse(records: bytes) -> list[Entry]:
    """The entries in the records that getdents64 gave."""
    entries: list[Entry] = []
    position = 0
    while position < len(records):
        inode, cookie, length, kind = HOST_DIRENT.unpack_from(records, position)
        start = position + HOST_DIRENT.size
        entries.append((inode, cookie, kind, records[start : records.index(0, start)]))
        position += length
    return entries


def _fill(handle: Handle) -> bool:
    """Read on; False at the end of the directory."""
    if handle.fd >= 0:
        records = calls.getdents(handle.fd)
        if not records and handle.cookie == 0:  # ext4 says so once, if its end was the first place that was looked at
            os.lseek(handle.fd, 0, os.SEEK_SET)
            records = calls.getdents(handle.fd)
        handle.entries = parse(records)
    else:
        node, at = handle.node, handle.cookie
        handle.entries = [(node.inode, n, DT_DIR, name) for n, name in enumerate(DOTS, 1) if n > at]
    handle.index = 0
    return bool(handle.entries)


def _seek(handle: Handle, cookie: int) -> None:
    if cookie == handle.cookie and (cookie or not handle.entries):
        return
    handle.entries = []
    handle.index = 0
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
        if handle.index >= len(handle.entries) and not _fill(handle):
            break
        inode, cookie, kind, name = handle.entries[handle.index]
        length = DIRENT.size + len(name)
        padded = length + 7 & ~7
        size -= padded + (ENTRY_OUT.size if plus else 0)
        if size < 0:
            if not out:
                raise failure(errno.EINVAL)
            break
        handle.index += 1
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
