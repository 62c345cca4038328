"""Memory that a guest does not need, given back to the host."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyhv.memory.guest import GuestMemory


def discard(memory: GuestMemory, address: int, length: int) -> int:
    """Give back what whole pages of the host lie in a range; they read as zeros. How many bytes that were.

    Parts that are no memory, read-only, or a file's are passed over. Observers of writes are told.
    """
    given = 0
    end = address + length
    for region in memory.regions:
        start, stop = max(address, region.address), min(end, region.end)
        if start < stop and region.discardable:
            first, size = region.whole_pages(start - region.address, stop - start)
            if size:
                memory.view(region.address + first, size, write=True)
                given += region.discard_range(first, size)
    return given


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, count) for each run of consecutive numbers; repeated ones count once."""
    first = count = 0
    for number in sorted(numbers):
        if count and number == first + count:
            count += 1
        elif not count or number > first + count:
            if count:
                yield first, count
            first, count = number, 1
    if count:
        yield first, count
