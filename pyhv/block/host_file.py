"""A file or block device of the host that holds an image."""

from __future__ import annotations

import errno
import os
import stat

from pyhv._types import TYPE_CHECKING
from pyhv.block.lock import lock
from pyhv.block.transfer import read_into, write_from
from pyhv.block.views import zeros
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY)


class HostFile:
    """An open and locked regular file or block device. `size` is its length in bytes when it was opened, `end` what it must
    be since: that, or up to where it was written.

    Methods raise OSError. `what` begins the messages of ConfigErrors.
    """

    def __init__(self, path: str, *, writable: bool, what: str = "disk") -> None:
        self.path = path
        self.writable = writable
        self._failed: OSError | None = None
        self._missing: set[Callable[[int, int, int], None]] = set()
        try:
            flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            self.fd = os.open(path, flags)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            readable = isinstance(error, PermissionError) and writable and os.access(path, os.R_OK, effective_ids=True)
            hint = "; it may be read: with readonly it is not written" if readable else ""
            raise ConfigError(f"{what}: path: {path!r} cannot be opened: {reason}{hint}") from None
        try:
            status = os.fstat(self.fd)
            self.regular = stat.S_ISREG(status.st_mode)
            if not self.regular and not stat.S_ISBLK(status.st_mode):
                raise ConfigError(f"{what}: path: {path!r} is neither a file nor a block device")
            self.identity = (status.st_dev, status.st_ino, status.st_rdev)
            self.size = self.end = os.lseek(self.fd, 0, os.SEEK_END)
            lock(self.fd, path, writable=writable, what=what)
        except OSError as error:
            self.close()
            raise ConfigError(f"{what}: path: {path!r} cannot be used: {error.strerror}") from None
        except ConfigError:
            self.close()
            raise

    def preadv(self, views: Sequence[memoryview], offset: int, length: int) -> int:
        """Fill the views, `length` bytes in all, up to the file's end; how many bytes there were. EIO where it was longer."""
        done = read_into(self.fd, views, offset, length)
        if done < length and offset + done < self.end:
            raise OSError(errno.EIO, f"{self.path}: the file ends at {offset + done:#x}, it was longer")
        return done

    def pwritev(self, views: Sequence[memoryview], offset: int, length: int) -> None:
        """Store what the views hold, `length` bytes in all."""
        write_from(self.fd, views, offset, length)
        if offset + length > self.end:
            self.end = offset + length

    def read(self, offset: int, length: int) -> bytes:
        """A copy of a range; zeros where the file has ended."""
        data = bytearray(length)
        self.preadv([memoryview(data)], offset, length)
        return bytes(data)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Store bytes."""
        self.pwritev([memoryview(data)], offset, len(data))

    def sync(self) -> None:
        """Return when all that was written is on stable storage.

        Once this has failed it fails for ever: the kernel reports a lost page only once and then takes it for clean.
        """
        if self._failed is not None:
            raise OSError(self._failed.errno, f"{self.path}: lost data before: {self._failed.strerror}")
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self._failed = error
            raise

    def set_aside(self) -> None:
        """Have storage for all of it, where the file takes that: no later write then finds the host full."""
        from pyhv.block.fallocate import allocate

        if self.regular:
            self._try(allocate, 0, self.size)

    def punch(self, offset: int, length: int) -> bool:
        """Give the storage of a range back, so that it reads as zeros; whether the file takes that."""
        from pyhv.block.fallocate import punch_hole

        return self._try(punch_hole, offset, length)

    def zero(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make a range read as zeros, quickly where the file takes that. With `unmap` its storage may be given back."""
        from pyhv.block.fallocate import zero_range

        if length <= 0 or (unmap and self.punch(offset, length)) or self._try(zero_range, offset, length):
            return
        for start in range(0, length, 1 << 26):
            piece = min(1 << 26, length - start)
            self.pwritev(zeros(piece), offset + start, piece)

    def _try(self, function: Callable[[int, int, int], None], offset: int, length: int) -> bool:
        if function in self._missing or length <= 0:
            return length <= 0
        try:
            function(self.fd, offset, length)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            if error.errno != errno.EINVAL:  # which a block device says to what is not made of its blocks
                self._missing.add(function)
            return False
        return True

    def close(self) -> None:
        """Close it, which also unlocks it; idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
