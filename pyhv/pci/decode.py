"""Which ranges answer: software may place them anywhere, also on one another, on memory, or on fixed devices.

What is fixed always wins; among ranges the first in order of slot, function and register does. A range that loses answers
nowhere until what it lost to has gone. So nothing that software writes to a base address register is an error.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import KVM_IDENTITY_MAP, KVM_TSS_END, LAPIC_BASE, LAPIC_REGION
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.memory import GuestMemory
    from pyhv.pci.bar import Bar

BACKEND_RANGES = ((LAPIC_BASE, LAPIC_BASE + LAPIC_REGION), (KVM_IDENTITY_MAP, KVM_TSS_END))
"""What a backend answers itself, before any device."""


class Decoder:
    """Keeps the claims of all ranges in `ports` and `mmio` as software wants them."""

    def __init__(self, ports: AddressSpace, mmio: AddressSpace, memory: GuestMemory) -> None:
        self._ports = ports
        self._mmio = mmio
        self._memory = memory

    def update(self, bars: list[Bar]) -> None:
        """Bring all claims up to date; `bars` are those that can have one, the best claim first."""
        winners: list[tuple[int, int, Bar]] = []
        for bar in bars:
            start = bar.address
            if start is None:
                continue
            end = start + bar.size
            if any(low < end and start < high and bar.is_io == other.is_io for low, high, other in winners):
                continue
            if bar.is_io or not self._taken(start, end):
                winners.append((start, end, bar))
        answering = {id(bar): start for start, _, bar in winners}
        for bar in bars:
            if bar.mapping is not None and bar.mapping.base != answering.get(id(bar)):
                self._space(bar).unmap(bar.mapping)
                bar.mapping = None
                bar.moved(None)
        for start, _, bar in winners:
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
