"""Opening images by what their user says they are."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.block.host_file import HostFile
from pyhv.errors import ConfigError
from pyhv.log import event

if TYPE_CHECKING:
    from pyhv.block.image import Image

FORMATS = ("raw", "qcow2")
MAX_CHAIN = 32
"""Backing files below an image."""
_MAX_HEADER = 2 << 20


def open_image(
    path: str, format: str = "raw", *, readonly: bool = False, overlay: bool = False, backing: bool = False
) -> Image:
    """The image in a file or block device, locked against other machines that write it.

    With `overlay` it is only read, and changes stay in memory. With `backing` a qcow2 image may say which other files it
    stands on; they are only read. Raises ConfigError for a file that cannot be used, and for one that is in use.
    """
    image = _open(path, format, writable=not (readonly or overlay), backing=backing, chain=())
    if not image.size:
        image.close()
        raise ConfigError(f"disk: path: {path!r} is empty: a disk has at least a sector, as of truncate -s 1G FILE")
    if not overlay or readonly:
        return image
    from pyhv.block.overlay import Overlay

    try:
        return Overlay(image)
    except BaseException:
        image.close()
        raise


def _open(path: str, format: str, *, writable: bool, backing: bool, chain: tuple[object, ...]) -> Image:
    if format not in FORMATS:
        raise ConfigError(f"disk: format: {format!r} is not one of {', '.join(FORMATS)}")
    file = HostFile(path, writable=writable)
    try:
        if file.identity in chain:
            raise ConfigError(f"disk: {path!r}: its backing files form a loop")
        if format == "raw":
            from pyhv.block.raw import RawImage

            if path.endswith((".qcow2", ".qcow")):
                event("block.raw", path=path, hint="read as raw; say format=qcow2 if it is one")
            return RawImage(file)
        return _open_qcow2(file, backing, (*chain, file.identity))
    except OSError as error:
        file.close()
        raise ConfigError(f"disk: path: {path!r} cannot be read: {error.strerror}") from None
    except BaseException:
        file.close()
        raise


def _open_qcow2(file: HostFile, backing: bool, chain: tuple[object, ...]) -> Image:
    from pyhv.block.qcow2.header import parse

    header = parse(file.read(0, min(file.size, _MAX_HEADER)), file.size, file.path)
    below = None
    if header.backing:
        if not backing:
            raise ConfigError(
                f"disk: {file.path!r}: it stands on a backing file, {header.backing!r}; allow that with backing=yes"
            )
        if len(chain) > MAX_CHAIN:
            raise ConfigError(f"disk: {file.path!r}: more than {MAX_CHAIN} backing files")
        below = _open(
            _backing_path(file.path, header.backing),
            _backing_format(file.path, header.backing_format),
            writable=False,
            backing=True,
            chain=chain,
        )
    try:
        if file.writable:
            from pyhv.block.qcow2.writer import Qcow2Writer

            return Qcow2Writer(file, header, below)
        from pyhv.block.qcow2.reader import Qcow2Reader

        return Qcow2Reader(file, header, below)
    except BaseException:
        if below is not None:
            below.close()
        raise


def _backing_path(path: str, name: str) -> str:
    """A backing file's path; a relative one begins where the image is."""
    if ":" in name.partition("/")[0]:
        raise ConfigError(f"disk: {path!r}: its backing file {name!r} is not a file's path")
    return os.path.join(os.path.dirname(path), name)


def _backing_format(path: str, name: str) -> str:
    if name not in FORMATS:
        said = f"is of format {name!r}, which is not one of {', '.join(FORMATS)}" if name else "has no format"
        raise ConfigError(
            f"disk: {path!r}: its backing file {said}; say it with: qemu-img rebase -u -F FORMAT -b FILE {path}"
        )
    return name
