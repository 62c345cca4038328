"""A writer of "newc" cpio archives, the format of an initramfs.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Archives are the same bytes for the
same contents (no times, no owners), and need no root: a device node is only a header.
"""

from __future__ import annotations

import os
import stat

MAGIC = b"070701"
ALIGNMENT = 4
END = "TRAILER!!!"


class CpioArchive:
    """Entries in the order they were added; parents of a path are added as directories when they are missing.

    Names are relative to the archive's root ("bin/sh"). Adding a name twice, an empty one, one with an empty, "." or
    ".." part, or one with a NUL byte, is a ValueError.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._modes: dict[str, int] = {}

    def directory(self, name: str, mode: int = 0o755) -> None:
        self._add(name, stat.S_IFDIR | mode)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._add(name, stat.S_IFREG | mode, content)

    def symlink(self, name: str, target: str) -> None:
        self._add(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(name, stat.S_IFCHR | mode, device=(major, minor))

    def to_bytes(self) -> bytes:
        """The archive with its trailer, padded to 512 bytes as cpio(1) does; archives can follow one another."""
        body = b"".join([*self._chunks, _entry(0, END, 0, b"", (0, 0))])
        return body + bytes(-len(body) % 512)

    def _add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in name or name == END:
            raise ValueError(f"not a name for an archive: {name!r}")
        if name in self._modes:
            raise ValueError(f"already in the archive: {name!r}")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in self._modes:
                self.directory(parent)
            elif not stat.S_ISDIR(self._modes[parent]):
                raise ValueError(f"{name!r} is inside {parent!r}, which is no directory")
        self._modes[name] = mode
        self._chunks.append(_entry(len(self._modes), name, mode, content, device))


def _entry(inode: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    """One header, its name and its content, each padded to four bytes."""
    encoded = os.fsencode(name) + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = MAGIC + b"".join(b"%08X" % value for value in fields)
    return _pad(header + encoded) + _pad(content)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
