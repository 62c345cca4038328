"""Advisory locks on image files, so that two machines do not write one image.

They are the locks that QEMU takes, understood by both: byte BASE + n stands for permission n, the byte 100 further for
"nobody else may have permission n". A holder has read locks on the bytes of what it does and of what it forbids, and gives up
when somebody has one on a byte that contradicts. The locks are those of the open file (F_OFD_SETLK), gone when it is closed.
"""

from __future__ import annotations

import errno
import fcntl
import struct

from pyhv.errors import ConfigError
from pyhv.log import event

BASE, FORBIDDEN = 100, 200
CONSISTENT_READ, WRITE, RESIZE = 0, 1, 3
"""Permissions, by QEMU's numbers."""

_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock of a 64-bit Linux: type, whence, start, length, pid."""
_SEEK_SET = 0
_UNSUPPORTED = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)


def lock(fd: int, path: str, *, writable: bool, what: str = "disk") -> None:
    """Lock an open image: others may then read it, and write it only if this one does not care, which is never.

    Where the file system has no such locks there are none (an event says so). Raises ConfigError when it is in use.
    """
    does = (CONSISTENT_READ, WRITE, RESIZE) if writable else (CONSISTENT_READ,)
    forbids = (WRITE, RESIZE)
    try:
        for byte in [BASE + n for n in does] + [FORBIDDEN + n for n in forbids]:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, _SEEK_SET, byte, 1, 0))
        for byte in [FORBIDDEN + n for n in does] + [BASE + n for n in forbids]:
            wanted = _FLOCK.pack(fcntl.F_WRLCK, _SEEK_SET, byte, 1, 0)
            if _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))[0] != fcntl.F_UNLCK:
                raise _in_use(path, writable, what)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _in_use(path, writable, what) from None
        if error.errno not in _UNSUPPORTED:
            raise
        event("block.unlocked", path=path, reason=error.strerror)


def _in_use(path: str, writable: bool, what: str) -> ConfigError:
    if writable:
        return ConfigError(
            f"{what}: path: {path!r} is in use by another disk or machine; to share it, all must be read-only"
        )
    return ConfigError(f"{what}: path: {path!r} is being written by another disk or machine")
