"""The pages in a balloon, and when the host can have them back."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.memory.discard import discard
from pyhv.record import record

if TYPE_CHECKING:
    from typing import Final

    from pyhv.memory import GuestMemory, MemoryRegion

PAGE: Final = 4096


@record
class Given:
    """How many of the pages are RAM, and how many bytes the host got back."""

    pages: int
    released: int


class HeldPages:
    """Pages of 4096 bytes by number.

    Where the host's pages are larger, one is given back once all of its parts are in the balloon; which of them are is kept
    in a bit for each, and only for large pages of which some are.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._parts: dict[int, int] = {}

    def clear(self) -> None:
        """The driver is gone: nothing is in the balloon."""
        self._parts.clear()

    def give(self, first: int, count: int, *, whole: bool) -> Given:
        """Pages come in. `whole`: the driver says before it uses a page again, so that parts can wait for each other."""
        pages = released = 0
        for region, start, stop in self._within(first, count):
            pages += stop - start
            if region.page_size == PAGE:
                released += discard(self._memory, start * PAGE, (stop - start) * PAGE)
            elif whole:
                released += self._give_parts(region, start, stop)
        return Given(pages, released)

    def take(self, first: int, count: int) -> None:
        """Pages go out; memory comes back by itself where it is touched."""
        for region, start, stop in self._within(first, count):
            if region.page_size > PAGE:
                for large, mask in _parts(region, start, stop):
                    left = self._parts.get(large, 0) & ~mask
                    if left:
                        self._parts[large] = left
                    else:
                        self._parts.pop(large, None)

    def _give_parts(self, region: MemoryRegion, start: int, stop: int) -> int:
        released = 0
        full = (1 << region.page_size // PAGE) - 1
        for large, mask in _parts(region, start, stop):
            held = self._parts.get(large, 0)
            if held | mask == full and held != full:
                released += discard(self._memory, large, region.page_size)
            self._parts[large] = held | mask
        return released

    def _within(self, first: int, count: int) -> list[tuple[MemoryRegion, int, int]]:
        """The parts of a run of pages that are the guest's RAM, which the host can take back."""
        found = []
        for region in self._memory.regions:
            start, stop = max(first, -(-region.address // PAGE)), min(first + count, region.end // PAGE)
            if start < stop and region.discardable:
                found.append((region, start, stop))
        return found


def _parts(region: MemoryRegion, start: int, stop: int) -> list[tuple[int, int]]:
    """(guest address, bits) of each large page that holds some of the pages from `start` to before `stop`."""
    each = region.page_size // PAGE
    base = region.address // PAGE
    found = []
    page = start
    while page < stop:
        part = (page - base) % each
        length = min(each - part, stop - page)
        found.append(((page - part) * PAGE, ((1 << length) - 1) << part))
        page += length
    return found
