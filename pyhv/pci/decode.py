"""Which ranges answer: software may place them anywhere, also on one another, on memory, or on fixed devices.

What is fixed always wins; among ranges the first in order of slot, function and register does. A range that loses answers
nowhere until what it lost to has gone. So nothing that software writes to a base address register is an error.
"""

from __future__ import annotations

from bisect import bisect_left

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import KVM_IDENTITY_MAP, KVM_TSS_END, LAPIC_BASE, LAPIC_REGION
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.memory import GuestMemory
    from pyhv.pci.bar import Bar

BACKEND_RANGES = ((LAPIC_BASE, LAPIC_BASE + LAPIC_REGION), (KVM_IDENTITY_MAP, KVM_TSS_END))
"""What a backend answers itself, before any device."""


class _Ranges:
    """Ranges that do not overlap, by rising address."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def gap(self, start: int, end: int) -> int | None:
        """Where [start, end) belongs; None when it overlaps another."""
        at = bisect_left(self._starts, end)
        return None if at and self._ends[at - 1] > start else at

    def insert(self, at: int, start: int, end: int) -> None:
        """Add one that belongs there."""
        self._starts.insert(at, start)
        self._ends.insert(at, end)


class Decoder:
    """Keeps the claims of all ranges in `ports` and `mmio` as software wants them."""

    def __init__(self, ports: AddressSpace, mmio: AddressSpace, memory: GuestMemory) -> None:
        self._ports = ports
        self._mmio = mmio
        self._memory = memory

    def update(self, bars: list[Bar]) -> None:
        """Bring all claims up to date; `bars` are those that can have one, the best claim first."""
        winners: list[tuple[int, Bar]] = []
        ports, memory = _Ranges(), _Ranges()
        for bar in bars:
            start = bar.address
            if start is None:
                continue
            end, claimed = start + bar.size, ports if bar.is_io else memory
            at = claimed.gap(start, end)
            if at is not None and (bar.is_io or not self._taken(start, end)):
                claimed.insert(at, start, end)
                winners.append((start, bar))
        answering = {id(bar): start for start, bar in winners}
        for bar in bars:
            if bar.mapping is not None and bar.mapping.base != answering.get(id(bar)):
                self._space(bar).unmap(bar.mapping)
                bar.mapping = None
                bar.moved(None)
        for start, bar in winners:
            if bar.mapping is None:
                self._map(bar, start)

    def _map(self, bar: Bar, start: int) -> None:
        try:
            bar.mapping = self._space(bar).map(start, bar.size, bar.handler, bar.name, bar.width)
        except ConfigError:  # a fixed device is there, or the space ends before the range does
            return
        bar.moved(start)

    def _space(self, bar: Bar) -> AddressSpace:
        return self._ports if bar.is_io else self._mmio

    def _taken(self, start: int, end: int) -> bool:
        return any(low < end and start < high for low, high in BACKEND_RANGES) or any(
            region.address < end and start < region.end for region in self._memory.regions
        )
