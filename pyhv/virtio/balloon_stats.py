"""What a guest says about its memory through the balloon's statistics queue (virtio 1.2, 5.5.6.3)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

NAMES: Final = (
    "swapped_in",
    "swapped_out",
    "major_faults",
    "minor_faults",
    "free",
    "total",
    "available",
    "caches",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kills",
    "allocation_stalls",
    "pages_scanned_async",
    "pages_scanned_direct",
    "pages_reclaimed_async",
    "pages_reclaimed_direct",
)
"""By tag. Memory is in bytes; tags from 10 are those of virtio 1.4 and Linux 6.12."""

ENTRY: Final = struct.Struct("<HQ")
MAX_STATISTICS: Final = 256 * ENTRY.size


def parse_statistics(data: bytes) -> dict[str, int]:
    """Values by name; tags that are not known, and a torn entry at the end, are ignored."""
    whole = memoryview(data)[: len(data) // ENTRY.size * ENTRY.size]
    return {NAMES[tag]: value for tag, value in ENTRY.iter_unpack(whole) if tag < len(NAMES)}
