"""The interface of all images."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Views = Sequence[memoryview]
    """Buffers that a transfer goes into or comes from, in order."""

SECTOR = 512
"""Bytes; the size of an image is a multiple of it."""


class Image:
    """A disk's contents: `size` bytes.

    Offsets and lengths are bytes, at any alignment; `length` is what the views hold in all. Every method but `close`
    raises OSError: EINVAL outside the image, EROFS for changes of a read-only one, and whatever the host or a damaged
    file (EIO) is to blame for. A transfer that failed may have happened in part; the image goes on afterwards.
    Changes are on stable storage once a later `flush` has returned. One call at a time.
    """

    size: int
    readonly: bool = False
    unit: int = 4096
    """The smallest range that discarding gives back, a power of two; larger transfers should be multiples of it."""

    def preadv(self, views: Views, offset: int, length: int) -> None:
        """Fill the views."""
        raise NotImplementedError

    def pwritev(self, views: Views, offset: int, length: int) -> None:
        """Store what the views hold."""
        self.check_change(offset, length)
        raise NotImplementedError

    def flush(self) -> None:
        """Return when all that was changed before is on stable storage."""
        raise NotImplementedError

    def discard(self, offset: int, length: int) -> None:
        """Nobody needs this range any more: give its storage back as far as that is possible. It reads as anything."""
        self.check_change(offset, length)
        raise NotImplementedError

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make the range read as zeros; with `unmap` its storage may be given back."""
        self.check_change(offset, length)
        raise NotImplementedError

    def close(self) -> None:
        """Flush, and release what the host lent; idempotent. Raises OSError when flushing failed, after the release."""
        raise NotImplementedError

    def check(self, offset: int, length: int) -> None:
        """Raises OSError (EINVAL) unless the range lies in the image."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OSError(errno.EINVAL, f"[{offset:#x}, {offset + length:#x}) is outside an image of {self.size:#x} bytes")

    def check_change(self, offset: int, length: int) -> None:
        """As `check`, for what changes the image: raises OSError (EROFS) when it is read-only."""
        if self.readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.check(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """A copy of a range."""
        data = bytearray(length)
        self.preadv([memoryview(data)], offset, length)
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        self.pwritev([memoryview(data)], offset, len(data))
