"""Flat images: bytes at an address, entered in real mode, like a boot sector."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot import modes
from pyhv.boot.segments import Piece, place
from pyhv.boot.state import BootState
from pyhv.errors import BootError, ConfigError

if TYPE_CHECKING:
    from pyhv.boot.request import Request

BOOT_DRIVE = 0x80
"""What a BIOS leaves in DL for its first hard disk."""


def load(request: Request, load_address: int, entry: int | None) -> BootState:
    """Load the whole file at `load_address`; `entry` is a linear address, the load address unless given."""
    image = request.kernel
    request.no_modules("flat")
    if request.initrd is not None:
        raise ConfigError("initrd: flat images take none")
    if not len(image.data):
        raise BootError(f"{image}: empty file")
    start = load_address if entry is None else entry
    size = len(image.data)
    if not load_address <= start < load_address + size:
        raise BootError(f"{image}: entry {start:#x} is outside the image [{load_address:#x}, {load_address + size:#x})")
    first, end = place(request.memory, image, [Piece("flat image", 0, size, load_address, size)], zeroed=True)
    general, system = modes.real(start)
    general.rdx = BOOT_DRIVE
    general.rsp = modes.SCRATCH_STACK
    return BootState("flat", general, system, start, (first, end))
