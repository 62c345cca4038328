"""fallocate(2) with its modes, which the os module does not have."""

from __future__ import annotations

import ctypes
import os

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10

_function = ctypes.CDLL(None, use_errno=True).fallocate64
_function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_function.restype = ctypes.c_int


def allocate(fd: int, offset: int, length: int) -> None:
    """Set storage aside for a range, whose contents stay. Raises OSError."""
    _call(fd, 0, offset, length)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the storage of a range back; it reads as zeros. Raises OSError."""
    _call(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros and keep its storage. Raises OSError."""
    _call(fd, ZERO_RANGE | KEEP_SIZE, offset, length)


def _call(fd: int, mode: int, offset: int, length: int) -> None:
    ctypes.set_errno(0)
    if _function(fd, mode, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
