"""Nested page tables (APM vol. 2, 15.25): from guest physical to host physical addresses, four levels.

Nested entries are user entries (15.25.5); the hardware sets their accessed and dirty bits, which is where the dirty log
comes from.
"""

from __future__ import annotations

from array import array

from pyhv._types import TYPE_CHECKING
from pyhv.memory import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyhv.hv.sim.frames import HostMemory

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
ADDRESS = 0x000F_FFFF_FFFF_F000
LEVELS = 4


class NestedTables:
    """One VM's tables; `root` is what its VMCBs have in nCR3, for the life of the VM."""

    def __init__(self, host: HostMemory) -> None:
        self._host = host
        self._tables: dict[int, memoryview] = {}
        self.root = self._new_table()

    def _new_table(self) -> int:
        pa = self._host.frame()
        self._tables[pa] = self._host.page(pa).cast("Q")
        return pa

    def _table(self, gpa: int, level: int) -> memoryview:
        """The table whose entries each span 2^(12 + 9 * (level - 1)) bytes, made on the way."""
        pa = self.root
        for at in range(LEVELS, level, -1):
            table = self._tables[pa]
            index = gpa >> 12 + 9 * (at - 1) & 511
            entry = table[index]
            if not entry & PRESENT:
                entry = self._new_table() | PRESENT | WRITABLE | USER
                table[index] = entry
            pa = entry & ADDRESS
        return self._tables[pa]

    def map(self, gpa: int, hpa: int, size: int, *, writable: bool = True, small: bool = False) -> None:
        """Map a range that is not mapped, with the largest pages that fit; `small` allows 4 KiB pages only."""
        end = gpa + size
        flags = PRESENT | USER | (WRITABLE if writable else 0)
        while gpa < end:
            level = 1
            if not small:
                for candidate in (3, 2):
                    span = 1 << 12 + 9 * (candidate - 1)
                    if not (gpa | hpa) & (span - 1) and end - gpa >= span:
                        level = candidate
                        break
            shift = 12 + 9 * (level - 1)
            table = self._table(gpa, level)
            index = gpa >> shift & 511
            count = min(512 - index, (end - gpa) >> shift)
            if level == 1 and not small:
                # up to where a large page may begin
                count = min(count, (-gpa % (1 << 21) or 1 << 21) >> 12)
            if level == 2:
                count = min(count, (-gpa % (1 << 30) or 1 << 30) >> 21)
            first = hpa | flags | (LARGE if level > 1 else 0)
            step = 1 << shift
            table[index : index + count] = memoryview(array("Q", range(first, first + count * step, step)))
            gpa += count * step
            hpa += count * step

    def clear(self) -> None:
        """Unmap everything; the root stays where it is."""
        for pa in self._tables:
            if pa != self.root:
                self._host.free_frame(pa)
        root = self._tables[self.root]
        root[:] = memoryview(array("Q", bytes(PAGE_SIZE)))
        self._tables = {self.root: root}

    def lookup(self, gpa: int) -> tuple[int, int, int] | None:
        """(entry, its level, host physical address of the byte), None where nothing is mapped."""
        pa = self.root
        for level in range(LEVELS, 0, -1):
            shift = 12 + 9 * (level - 1)
            entry = self._tables[pa][gpa >> shift & 511]
            if not entry & PRESENT:
                return None
            pa = entry & ADDRESS
            if level == 1 or entry & LARGE:
                return entry, level, pa & -(1 << shift) | gpa & (1 << shift) - 1
        return None

    def map_for_now(self, gpa: int, hpa: int) -> list[tuple[int, int]]:
        """Map one 4 KiB page where nothing is mapped; what `undo` takes it away with."""
        undo: list[tuple[int, int]] = []
        pa = self.root
        for level in range(LEVELS, 1, -1):
            index = gpa >> 12 + 9 * (level - 1) & 511
            entry = self._tables[pa][index]
            if not entry & PRESENT:
                entry = self._new_table() | PRESENT | WRITABLE | USER
                self._tables[pa][index] = entry
                undo.append((pa, index))
            pa = entry & ADDRESS
        index = gpa >> 12 & 511
        self._tables[pa][index] = hpa | PRESENT | WRITABLE | USER
        undo.append((pa, index))
        return undo

    def undo(self, changes: list[tuple[int, int]]) -> None:
        """Take a `map_for_now` back."""
        for pa, index in reversed(changes):
            table = self._tables.get(pa)
            if table is None:
                continue
            child = table[index] & ADDRESS
            table[index] = 0
            if self._tables.pop(child, None) is not None:
                self._host.free_frame(child)

    def take_dirty(self, gpa: int, size: int, *, clear: bool = True) -> Iterator[int]:
        """Guest physical addresses of the dirty pages of a range that is mapped by 4 KiB pages."""
        end = gpa + size
        while gpa < end:
            table = self._table(gpa, 1)
            index = gpa >> 12 & 511
            count = min(512 - index, (end - gpa) >> 12)
            for i, entry in enumerate(table[index : index + count].tolist(), index):
                if entry & DIRTY:
                    if clear:
                        table[i] = entry & ~DIRTY
                    yield gpa + (i - index) * PAGE_SIZE
            gpa += count * PAGE_SIZE
