"""System calls that the standard library does not offer; they raise OSError, as its own do."""

from __future__ import annotations

import os

from pyhv.errors import HostError

try:
    from pyhv.fs._calls import ffi, lib  # type: ignore[import-not-found]
except ImportError as error:
    raise HostError(f"pyhv.fs._calls is not built ({error}); mend it with: pip install -e .") from error

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_DENTS_SIZE = 1 << 13
_INT64 = 1 << 63


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def open_here(directory: int, name: bytes, flags: int) -> int:
    """An O_PATH descriptor of a directory's entry; EXDEV where something is mounted on it."""
    return _checked(lib.pyhv_fs_open_here(directory, name, flags))


def rename(source: int, name: bytes, target: int, new_name: bytes, flags: int) -> None:
    """renameat2."""
    _checked(lib.pyhv_fs_rename(source, name, target, new_name, flags))


def getdents(directory: int) -> bytes:
    """The next linux_dirent64 records of an open directory; empty at its end."""
    buffer = ffi.new("char[]", _DENTS_SIZE)
    size = _checked(lib.pyhv_fs_getdents(directory, buffer, _DENTS_SIZE))
    return bytes(ffi.buffer(buffer, size))


def filesystem_type(fd: int) -> int:
    """The magic number of a file's file system (linux/magic.h)."""
    return _checked(lib.pyhv_fs_type(fd))


def utimens(path: bytes, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """utimensat: seconds and nanoseconds (or UTIME_NOW, UTIME_OMIT) each. Follows `path`."""
    _checked(lib.pyhv_fs_utimens(path, *_time(atime), *_time(mtime)))


def _time(time: tuple[int, int]) -> tuple[int, int]:
    """Seconds as the signed number that their 64 bits are."""
    seconds, nanoseconds = time
    return seconds - (1 << 64) if seconds >= _INT64 else seconds, nanoseconds


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _checked(lib.pyhv_fs_fallocate(fd, mode, offset, length))


def syncfs(fd: int) -> None:
    """syncfs(2); `fd` must be open for more than its path."""
    _checked(lib.pyhv_fs_syncfs(fd))
