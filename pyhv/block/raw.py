"""Raw images: the file is the disk."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.block.image import SECTOR, Image
from pyhv.block.transfer import MAX_VIEWS
from pyhv.block.views import Cursor, clear

if TYPE_CHECKING:
    from pyhv.block.host_file import HostFile
    from pyhv.block.image import Views


class RawImage(Image):
    """A regular file or a block device as it is.

    A file whose length is no multiple of 512 ends with zeros up to the next one; it grows when they are written.
    """

    def __init__(self, file: HostFile) -> None:
        self._file = file
        self._fd = file.fd
        self._end = file.size
        self._changed = False
        self.size = (file.size + SECTOR - 1) & -SECTOR
        self.readonly = not file.writable

    def preadv(self, views: Views, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            self.check(offset, length)
        if len(views) > MAX_VIEWS or os.preadv(self._fd, views, offset) != length:
            self._read_rest(views, offset, length)

    def _read_rest(self, views: Views, offset: int, length: int) -> None:
        done = self._file.preadv(views, offset, length)
        if done == length:
            return
        if offset + done < self._end:
            raise OSError(errno.EIO, f"{self._file.path}: the file ends at {offset + done:#x}, it was longer")
        cursor = Cursor(views)
        cursor.take(done)
        clear(cursor.take(length - done))

    def pwritev(self, views: Views, offset: int, length: int) -> None:
        self.check_change(offset, length)
        self._changed = True
        if len(views) > MAX_VIEWS or os.pwritev(self._fd, views, offset) != length:
            self._file.pwritev(views, offset, length)
        if length and offset + length > self._end:
            self._end = offset + length

    def flush(self) -> None:
        if not self.readonly:
            self._file.sync()
            self._changed = False

    def discard(self, offset: int, length: int) -> None:
        self.check_change(offset, length)
        self._changed = True
        self._file.punch(offset, min(length, self._end - offset))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self.check_change(offset, length)
        self._changed = True
        self._file.zero(offset, min(length, self._end - offset), unmap=unmap)

    def close(self) -> None:
        try:
            if self._changed and self._fd >= 0:
                self.flush()
        finally:
            self._fd = -1
            self._file.close()
