"""Copying segments and modules into guest memory, each checked against the memory that there is."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot.elf import PT_LOAD
from pyhv.errors import BootError
from pyhv.memory.layout import MMIO_GAP_START
from pyhv.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.elf import ProgramHeader
    from pyhv.boot.image import Image
    from pyhv.boot.placer import Placer
    from pyhv.boot.request import Module
    from pyhv.memory import GuestMemory

LOW = 1 << 20
CHUNK = bytes(64 << 10)


class Piece:
    """`filesz` bytes of the file from `offset` go to `address`, zeros follow up to `memsz`; `label` is for messages."""

    __slots__ = ("address", "filesz", "label", "memsz", "offset")

    def __init__(self, label: str, offset: int, filesz: int, address: int, memsz: int) -> None:
        self.label = label
        self.offset = offset
        self.filesz = filesz
        self.address = address
        self.memsz = memsz

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + self.memsz


def pieces_of(image: Image, headers: tuple[ProgramHeader, ...]) -> list[Piece]:
    """The loadable segments of an ELF file. Raises BootError when there are none, or when they overlap."""
    pieces = []
    for index, h in enumerate(headers):
        if h.type != PT_LOAD or h.memsz == 0:
            if h.type == PT_LOAD and h.filesz:
                raise BootError(f"{image}: program header {index}: p_filesz {h.filesz} is larger than p_memsz 0")
            continue
        if h.filesz > h.memsz:
            raise BootError(f"{image}: program header {index}: p_filesz {h.filesz} is larger than p_memsz {h.memsz}")
        pieces.append(Piece(f"program header {index}", h.offset, h.filesz, h.paddr, h.memsz))
    if not pieces:
        raise BootError(f"{image}: no loadable segments")
    return pieces


def place(memory: GuestMemory, image: Image, pieces: Sequence[Piece], *, zeroed: bool) -> tuple[int, int]:
    """Load all pieces, or none: every one is checked first. Gives the image's first and last address.

    With `zeroed`, memory above 1 MiB is known to be zero, and needs no clearing (low memory holds the firmware's data).
    """
    end = -1
    for piece in sorted(pieces, key=lambda p: p.address):
        if not memory.contains(piece.address, piece.memsz):
            hint = "; give it more (--memory)" if piece.end <= MMIO_GAP_START else ""
            raise BootError(
                f"{image}: {piece.label}: [{piece.address:#x}, {piece.end:#x}) is not in the machine's memory "
                f"({format_size(memory.size)}){hint}"
            )
        if piece.address < end:
            raise BootError(f"{image}: {piece.label}: [{piece.address:#x}, {piece.end:#x}) overlaps another segment")
        end = piece.end
    view = memoryview(image.data)
    try:
        for piece in pieces:
            if piece.filesz:
                memory.load(piece.address, view[piece.offset : piece.offset + piece.filesz])
            start = piece.address + piece.filesz
            clear(memory, start, min(piece.end, LOW) if zeroed else piece.end)
    finally:
        view.release()
    return min(p.address for p in pieces), end


def clear(memory: GuestMemory, start: int, end: int) -> None:
    """Zero [start, end) of memory; nothing when it is empty."""
    while start < end:
        size = min(end - start, len(CHUNK))
        memory.load(start, CHUNK if size == len(CHUNK) else bytes(size))
        start += size


def load_modules(memory: GuestMemory, placer: Placer, modules: Sequence[Module], start: int) -> list[tuple[int, int]]:
    """(start, end) of each module, the first one not below `start` if there is room. Raises BootError."""
    places = []
    for module in modules:
        size = len(module.image.data)
        address = placer.above(start, max(size, 1), f"module {module.image.name}")
        memory.load(address, memoryview(module.image.data))
        places.append((address, address + size))
        start = address + size
    return places
