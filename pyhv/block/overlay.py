"""Copy on write in memory: what a machine writes is gone with it, and the image below stays as it is."""

from __future__ import annotations

import mmap
import os

from pyhv._types import TYPE_CHECKING
from pyhv.block.image import Image
from pyhv.block.transfer import read_into, write_from
from pyhv.block.views import Cursor, zeros
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyhv.block.image import Views

BLOCK = 4096
"""Bytes that are taken over at once."""
_MAP_NORESERVE = 0x4000
_TAKEN = b"\1"
_BELOW = b"\0"


class Overlay(Image):
    """`base` under writes that stay in an in-memory file of the same size, of which only what is written takes memory."""

    unit = BLOCK

    def __init__(self, base: Image) -> None:
        self._base = base
        self.size = base.size
        self._fd = os.memfd_create("pyhv-overlay", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self._fd, self.size)
            # One byte a block says whether it was taken over; pages of it exist once they are written.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            self._map = mmap.mmap(-1, self.size // BLOCK + 1, flags=flags)
        except (OSError, OverflowError, ValueError):
            os.close(self._fd)
            raise ConfigError(f"disk: overlay: {self.size} bytes are too many for this host's memory") from None

    def preadv(self, views: Views, offset: int, length: int) -> None:
        self.check(offset, length)
        cursor = None
        for taken, start, size in self._runs(offset, length):
            part = views
            if size != length:
                cursor = cursor or Cursor(views)
                part = cursor.take(size)
            if not taken:
                self._base.preadv(part, start, size)
            else:
                read_into(self._fd, part, start, size)

    def pwritev(self, views: Views, offset: int, length: int) -> None:
        self.check_change(offset, length)
        self._take_edges(offset, length)
        write_from(self._fd, views, offset, length)
        self._mark(offset, length)

    def flush(self) -> None:
        """Nothing of it is meant to last."""

    def discard(self, offset: int, length: int) -> None:
        self.check_change(offset, length)
        start, end = -(-offset // BLOCK) * BLOCK, (offset + length) // BLOCK * BLOCK
        if start < end:
            self._clear(start, end - start)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self.check_change(offset, length)
        self._take_edges(offset, length)
        self._clear(offset, length)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._map.close()
            self._base.close()

    def _runs(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """Cut a range where what holds it changes: whether it was taken over, its offset and length."""
        end = offset + length
        blocks, last = self._map, (end - 1) // BLOCK + 1
        while offset < end:
            block = offset // BLOCK
            taken = blocks[block] == 1
            change = blocks.find(_BELOW if taken else _TAKEN, block, last)
            stop = end if change < 0 else change * BLOCK
            yield taken, offset, stop - offset
            offset = stop

    def _take_edges(self, offset: int, length: int) -> None:
        """Copy the blocks that a change covers in part."""
        for edge in {offset, offset + length}:
            block = edge // BLOCK
            if edge % BLOCK and not self._map[block]:
                start = block * BLOCK
                view = memoryview(bytearray(min(BLOCK, self.size - start)))
                self._base.preadv([view], start, len(view))
                write_from(self._fd, [view], start, len(view))
                self._map[block : block + 1] = _TAKEN

    def _mark(self, offset: int, length: int) -> None:
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        self._map[first:last] = _TAKEN * (last - first)

    def _clear(self, offset: int, length: int) -> None:
        from pyhv.block.fallocate import punch_hole

        try:
            punch_hole(self._fd, offset, length)
        except OSError:
            write_from(self._fd, zeros(length), offset, length)
        self._mark(offset, length)
