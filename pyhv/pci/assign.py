"""Addresses for ranges, as PC firmware gives them before it starts what it boots."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import PCI_IO_BASE, PCI_IO_END, PCI_MEMORY_BASE, PCI_MEMORY_END

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.pci.bar import Bar

LARGE = 64 << 20
"""Wide ranges from this size on go above RAM, where there is a window."""


class Window:
    """Addresses from `base` up to `end` that are given out one after the other, past what `space` has claims on."""

    def __init__(self, space: AddressSpace, base: int, end: int) -> None:
        self._space = space
        self._next = base
        self._end = end

    def take(self, size: int) -> int | None:
        """A free range of `size` bytes, at a multiple of that; None when there is none left."""
        start = (self._next + size - 1) & -size
        while start + size <= self._end:
            obstacle = self._space.obstacle(start, size)
            if obstacle is None:
                self._next = start + size
                return start
            start = (obstacle[1] + size - 1) & -size
        return None


def assign(bars: list[Bar], ports: AddressSpace, mmio: AddressSpace, memory64: tuple[int, int]) -> set[Bar]:
    """Place all ranges, the largest first; `memory64` are the base and the end of the window above RAM.

    Gives those that found no room.
    """
    io = Window(ports, PCI_IO_BASE, PCI_IO_END)
    low = Window(mmio, PCI_MEMORY_BASE, PCI_MEMORY_END)
    high = Window(mmio, *memory64)
    homeless: set[Bar] = set()
    for bar in sorted(bars, key=lambda bar: -bar.size):
        windows = [io] if bar.is_io else [low, high] if bar.is_wide and bar.size < LARGE else [low]
        if bar.is_wide and bar.size >= LARGE:
            windows = [high, low]
        for window in windows:
            address = window.take(bar.size)
            if address is not None:
                bar.place(address)
                break
        else:
            homeless.add(bar)
    return homeless
