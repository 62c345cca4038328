"""Whole transfers between buffers and files: what one system call leaves, the next ones do."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.block.views import Cursor

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_VIEWS = 1024
"""IOV_MAX of Linux: buffers that one system call takes."""


def read_into(fd: int, views: Sequence[memoryview], offset: int, length: int) -> int:
    """Fill the views, `length` bytes in all, up to the file's end; how many bytes there were. Raises OSError."""
    done, rest = 0, views
    while True:
        got = os.preadv(fd, rest[:MAX_VIEWS], offset + done)
        done += got
        if done == length or got == 0:
            return done
        rest = _rest(views, done, length)


def write_from(fd: int, views: Sequence[memoryview], offset: int, length: int) -> None:
    """Store what the views hold, `length` bytes in all. Raises OSError."""
    done, rest = 0, views
    while done < length:
        got = os.pwritev(fd, rest[:MAX_VIEWS], offset + done)
        if got == 0:
            raise OSError(errno.EIO, "nothing was written")
        done += got
        if done < length:
            rest = _rest(views, done, length)


def _rest(views: Sequence[memoryview], done: int, length: int) -> list[memoryview]:
    cursor = Cursor(views)
    cursor.take(done)
    return cursor.take(length - done)
