"""Which kernel an image holds: its release, as `uname -r` would print it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot.image import read_image
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.boot.image import Buffer, Source

SETUP = 0x200
KERNEL_VERSION = 0x20E
"""Offset of the version string, less 0x200 (Documentation/arch/x86/boot.rst)."""
LONGEST = 200
"""More than a release can be: __NEW_UTS_LEN is 64."""


def kernel_release(kernel: Source) -> str:
    """Such as "6.1.0-56-cloud-amd64"; empty where the image does not say. Raises ConfigError for what is no Linux kernel."""
    image = read_image(kernel)
    data = image.data
    if data[0x202:0x206] == b"HdrS":
        return _of_bzimage(data)
    if data[:4] == b"\x7fELF":
        found = _of_vmlinux(data)
        if found is not None:
            return found
    raise ConfigError(f"{image}: not a Linux kernel: a command needs a bzImage or a vmlinux")


def _of_bzimage(data: Buffer) -> str:
    offset = int.from_bytes(data[KERNEL_VERSION : KERNEL_VERSION + 2], "little")
    if not offset:
        return ""
    words = data[offset + SETUP : offset + SETUP + LONGEST].split(b"\0")[0].split()
    return _checked(words[0]) if words else ""


def _of_vmlinux(data: Buffer) -> str | None:
    """From the banner (init/version.c): "Linux version RELEASE (who built it) ..."."""
    import re

    found = re.search(rb"Linux version ([0-9][^ \0]{0,99}) \(", data)
    return None if found is None else _checked(found[1])


def _checked(text: bytes) -> str:
    """It becomes part of a path."""
    release = text.decode("ascii", "replace")
    return release if release.isprintable() and "/" not in release and release.strip(".") else ""
