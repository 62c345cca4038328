"""Host memory for a guest: anonymous memfd, sparse; huge pages on request."""

import ctypes
import mmap
import os
from dataclasses import dataclass

from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.memory.layout import PAGE_SIZE
from pyhv.memory.region import MemoryRegion

HUGEPAGES = ("none", "transparent", "2M", "1G")


@dataclass(frozen=True, slots=True)
class MemoryBacking:
    """How guest memory is backed: `hugepages` is one of HUGEPAGES."""

    hugepages: str = "none"

    def __post_init__(self) -> None:
        if self.hugepages not in HUGEPAGES:
            raise ConfigError(f"hugepages: {self.hugepages!r} is not one of {', '.join(HUGEPAGES)}")


def allocate(address: int, size: int, backing: MemoryBacking, *, name: str = "ram", readonly: bool = False) -> MemoryRegion:
    """Fresh zeroed host memory for [address, address + size). Raises ConfigError or CapabilityMissing."""
    raise NotImplementedError
