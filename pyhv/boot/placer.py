"""Where a loader puts things: free ranges of RAM, clear of the image and of each other."""

from __future__ import annotations

from pyhv.boot.e820 import MIB, low_memory_end
from pyhv.errors import BootError

PAGE = 4096
REACH = 2 * MIB
ROOM = 256 << 10


def align_up(value: int, alignment: int) -> int:
    """The next multiple of a power of two."""
    return (value + alignment - 1) & -alignment


def align_down(value: int, alignment: int) -> int:
    """The last multiple of a power of two."""
    return value & -alignment


class Placer:
    """RAM between 1 MiB and the hole below 4 GiB; `taken` ranges are never given out.

    A kernel's boot information must lie where its first page tables reach, and where it does not at once put a heap.
    Both are unknown, so: information goes to the end of the 2 MiB page in which the image ends (mapped by anything that
    maps whole large pages), or of the next one when less than 256 KiB would stay free behind the image. Modules follow
    it: kernels that take the end of the last module for the start of free memory then spare all of it. Low memory is
    left alone altogether: interrupt vectors, BIOS data and the pages where kernels put their real-mode trampolines.
    """

    def __init__(self, ram_size: int, what: str) -> None:
        self.end = low_memory_end(ram_size)
        self.ram_size = ram_size
        self.what = what
        self.taken: list[tuple[int, int]] = []

    def take(self, start: int, end: int) -> None:
        """Mark [start, end) as used."""
        if end > start:
            self.taken.append((start, end))

    def information(self, size: int, image_end: int) -> int:
        """A page-aligned place for `size` bytes of boot information behind an image that ends at `image_end`."""
        size = align_up(size, PAGE)
        base = max(image_end, MIB)
        place = align_up(base + ROOM + size, REACH) - size
        if place + size > self.end or not self._free(place, size):
            return self.above(base, size, "boot information")
        self.take(place, place + size)
        return place

    def above(self, start: int, size: int, purpose: str, alignment: int = PAGE) -> int:
        """The first free place at or above `start`, else the first above 1 MiB. Raises BootError when there is none."""
        for base in (max(start, MIB), MIB):
            place = align_up(base, alignment)
            for taken, taken_end in sorted(self.taken):
                if place < taken_end and taken < place + size:
                    place = align_up(taken_end, alignment)
            if place + size <= self.end:
                self.take(place, place + size)
                return place
        raise self.too_small(purpose, size)

    def below(self, limit: int, size: int, purpose: str) -> int:
        """The last free page-aligned place that ends at or below `limit`. Raises BootError when there is none."""
        place = self._last_free(limit, size)
        if place < MIB:
            raise self.too_small(purpose, size)
        self.take(place, place + size)
        return place

    def fits_below(self, limit: int, size: int) -> bool:
        """Whether `below` would find a place."""
        return self._last_free(limit, size) >= MIB

    def _last_free(self, limit: int, size: int) -> int:
        place = align_down(min(limit, self.end) - size, PAGE)
        for taken, taken_end in sorted(self.taken, reverse=True):
            if place < taken_end and taken < place + size:
                place = align_down(taken - size, PAGE)
        return place

    def too_small(self, purpose: str, size: int) -> BootError:
        """The error for something that does not fit."""
        return BootError(
            f"{self.what}: no room for the {purpose} ({size} bytes) in {self.ram_size >> 10} KiB of memory; "
            "give the machine more (--memory)"
        )

    def _free(self, place: int, size: int) -> bool:
        return all(place >= end or start >= place + size for start, end in self.taken)
