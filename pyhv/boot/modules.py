"""Modules in guest memory: page-aligned, behind the boot information."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.placer import Placer
    from pyhv.boot.request import Module
    from pyhv.memory import GuestMemory


def load_modules(memory: GuestMemory, placer: Placer, modules: Sequence[Module], start: int) -> list[tuple[int, int]]:
    """(start, end) of each module, the first one not below `start` if there is room. Raises BootError."""
    places = []
    for module in modules:
        size = len(module.image.data)
        address = placer.above(start, max(size, 1), f"module {module.image.name}")
        memory.load(address, memoryview(module.image.data))
        places.append((address, address + size))
        start = address + size
    return places
