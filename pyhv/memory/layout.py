"""Where RAM lies: split around the hole below 4 GiB that PCI, the I/O APIC and the local APICs use."""

from __future__ import annotations

PAGE_SIZE = 4096
MMIO_GAP_START = 0xC000_0000
"""RAM below 4 GiB ends here at the latest (PCI memory, ECAM, APICs and firmware follow)."""
MMIO_GAP_END = 0x1_0000_0000


def ram_ranges(size: int) -> tuple[tuple[int, int], ...]:
    """(address, length) of each RAM range for `size` bytes of memory."""
    low = min(size, MMIO_GAP_START)
    if size == low:
        return ((0, low),)
    return ((0, low), (MMIO_GAP_END, size - low))
