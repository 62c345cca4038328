"""Guest memory: backing, regions, bounds-checked access."""

from __future__ import annotations

from pyhv.memory.backing import MemoryBacking, allocate
from pyhv.memory.guest import GuestMemory
from pyhv.memory.layout import MMIO_GAP_END, MMIO_GAP_START, PAGE_SIZE, ram_ranges
from pyhv.memory.region import MemoryRegion

__all__ = [
    "MMIO_GAP_END",
    "MMIO_GAP_START",
    "PAGE_SIZE",
    "GuestMemory",
    "MemoryBacking",
    "MemoryRegion",
    "allocate",
    "ram_ranges",
]
