"""A file that is to be booted: read once, named in every message."""

from __future__ import annotations

import os
import stat

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    import mmap

    Buffer = bytes | mmap.mmap
    Source = str | bytes | os.PathLike[str]

MAP_FROM = 64 << 20
"""Larger files (kernels with debugging information) are mapped, not read."""


class Image:
    """`what` is the field that named it, `name` the path as the guest may see it."""

    __slots__ = ("data", "name", "what")

    def __init__(self, data: Buffer, name: str, what: str = "kernel") -> None:
        self.data = data
        self.name = name
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: {self.name!r}"


def read_image(source: Source, what: str = "kernel") -> Image:
    """The bytes behind `source`: a path, or the bytes themselves. Raises ConfigError with one line."""
    if isinstance(source, bytes):
        return Image(source, "image", what)
    path = os.fspath(source)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what}: {path!r}: {getattr(error, 'strerror', None) or error}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{what}: {path!r}: not a regular file")
        if status.st_size > MAP_FROM:
            import mmap

            return Image(mmap.mmap(fd, 0, prot=mmap.PROT_READ), path, what)
        return Image(_read(fd, status.st_size), path, what)
    except OSError as error:
        raise ConfigError(f"{what}: {path!r}: {error.strerror}") from None
    finally:
        os.close(fd)


def _read(fd: int, size: int) -> bytes:
    pieces = []
    while piece := os.read(fd, size + 1):
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
