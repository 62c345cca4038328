"""A guest's page tables, read from outside (APM vol. 2, chapter 5): no faults, no accessed bits."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import GuestMemoryError

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory

PRESENT, LARGE = 1, 0x80
ADDRESS = 0x000F_FFFF_FFFF_F000
CR0_PG, CR4_PSE, CR4_PAE, CR4_LA57, EFER_LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 1 << 10


def levels(cr0: int, cr4: int, efer: int) -> int:
    """Levels of tables: 0 without paging, 2 for 32-bit, 3 for PAE, 4 or 5 for long mode."""
    if not cr0 & CR0_PG:
        return 0
    if efer & EFER_LMA:
        return 5 if cr4 & CR4_LA57 else 4
    return 3 if cr4 & CR4_PAE else 2


def translate(memory: GuestMemory, linear: int, *, cr0: int, cr3: int, cr4: int, efer: int) -> int | None:
    """The guest physical address of a linear one; None where it is not mapped or the tables are not in memory."""
    depth = levels(cr0, cr4, efer)
    if depth < 4:
        linear &= 0xFFFF_FFFF
    if depth == 0:
        return linear
    bits, size = (10, 4) if depth == 2 else (9, 8)
    table = cr3 & (0xFFFF_F000 if depth == 2 else 0xFFFF_FFE0 if depth == 3 else ADDRESS)
    for level in range(depth, 0, -1):
        shift = 12 + bits * (level - 1)
        index = linear >> shift & (3 if depth == 3 and level == 3 else (1 << bits) - 1)
        try:
            entry = memory.read_uint(table + index * size, size)
        except GuestMemoryError:
            return None
        if not entry & PRESENT:
            return None
        large = 1 < level < 4 and entry & LARGE and not (depth == 3 and level == 3) and (depth > 2 or cr4 & CR4_PSE)
        if level == 1 or large:
            if depth == 2 and large:
                frame = entry & 0xFFC0_0000 | (entry & 0x1F_E000) << 19
            else:
                frame = entry & (ADDRESS if size == 8 else 0xFFFF_F000) & -(1 << shift)
            return frame | linear & (1 << shift) - 1
        table = entry & (0xFFFF_F000 if depth == 2 else ADDRESS)
    return None
