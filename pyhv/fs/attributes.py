"""Attributes of files as the guest gets them."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.fs.fuse import ATTR_OUT, ENTRY_OUT

if TYPE_CHECKING:
    from typing import Any

_U32 = 0xFFFF_FFFF
_U64 = (1 << 64) - 1
_INODE_BITS = 48
_NS = 1_000_000_000


def encode_device(device: int) -> int:
    """A device number as Linux passes it in 32 bits (new_encode_dev)."""
    major, minor = os.major(device), os.minor(device)
    return ((minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12) & _U32


def decode_device(encoded: int) -> int:
    """The inverse of `encode_device`."""
    return os.makedev(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00)


class Attributes:
    """Makes entries and attributes; `entry_valid` and `attr_valid` say for how many seconds the guest may keep them.

    Inode numbers are the host's on the shared folder's own device. Elsewhere, since the guest sees one file system, their
    upper bits say which device: two files never have one number by chance of coming from two devices.
    """

    def __init__(self, device: int, entry_valid: int, attr_valid: int) -> None:
        self.device = device
        self.entry_valid = entry_valid
        self.attr_valid = attr_valid
        self.negative = ENTRY_OUT.pack(0, 0, entry_valid, *(0,) * 19)
        self._indices: dict[int, int] = {}

    def number(self, device: int, inode: int) -> int:
        """The guest's inode number."""
        if device == self.device:
            return inode
        index = self._indices.setdefault(device, len(self._indices) + 1)
        if inode >> _INODE_BITS or index >> 15:
            return ((inode * 0x9E3779B97F4A7C15 ^ device * 0xC2B2AE3D27D4EB4F) | 1 << 63) & _U64
        return index << _INODE_BITS | inode

    def entry(self, node_id: int, st: os.stat_result) -> bytes:
        """struct fuse_entry_out."""
        return ENTRY_OUT.pack(node_id, 0, self.entry_valid, self.attr_valid, 0, 0, *self._values(st))

    def attr(self, st: os.stat_result) -> bytes:
        """struct fuse_attr_out."""
        return ATTR_OUT.pack(self.attr_valid, 0, 0, *self._values(st))

    def _values(self, st: os.stat_result) -> tuple[int, ...]:
        """The fields of struct fuse_attr."""
        whole_seconds: Any = st
        mode, inode, device, nlink, uid, gid, size, atime, mtime, ctime = whole_seconds
        return (
            inode if device == self.device else self.number(device, inode),
            size,
            st.st_blocks,
            atime & _U64,
            mtime & _U64,
            ctime & _U64,
            st.st_atime_ns - atime * _NS,
            st.st_mtime_ns - mtime * _NS,
            st.st_ctime_ns - ctime * _NS,
            mode,
            nlink & _U32,
            uid & _U32,
            gid & _U32,
            encode_device(st.st_rdev) if st.st_rdev else 0,
            st.st_blksize & _U32,
            0,
        )
