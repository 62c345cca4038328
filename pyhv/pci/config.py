"""A function's configuration space: what is fixed, what software may change, and who hears of it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.pci.registers import CONFIG_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable


class ConfigSpace:
    """256 bytes as 64 registers. Offsets and sizes of an access lie within one register; the bus sees to that.

    The extended space above reads zero: no extended capabilities (PCI Express 3.0, 7.9.1).
    """

    __slots__ = ("_initial", "_readers", "_words", "_writable", "_writers")

    def __init__(self) -> None:
        self._words = [0] * (CONFIG_SIZE // 4)
        self._initial = list(self._words)
        self._writable = list(self._words)
        self._readers: dict[int, Callable[[], int]] = {}
        self._writers: dict[int, Callable[[], None]] = {}

    def define(self, offset: int, size: int, value: int, writable: int = 0) -> None:
        """Give a field its value after reset, and the bits of it that software can change."""
        self.put(offset, size, value)
        index, shift, mask = _place(offset, size)
        self._initial[index] = self._words[index]
        self._writable[index] = self._writable[index] & ~mask | writable << shift & mask

    def get(self, offset: int, size: int) -> int:
        """A field's value."""
        index, shift, mask = _place(offset, size)
        return (self._words[index] & mask) >> shift

    def put(self, offset: int, size: int, value: int) -> None:
        """Change a field, whatever software may do with it."""
        index, shift, mask = _place(offset, size)
        self._words[index] = self._words[index] & ~mask | value << shift & mask

    def on_read(self, offset: int, value: Callable[[], int]) -> None:
        """Have `value()` answer reads of the whole register at `offset`."""
        self._readers[offset >> 2] = value

    def on_write(self, offset: int, written: Callable[[], None]) -> None:
        """Have `written()` called after software wrote any byte of the register at `offset`."""
        self._writers[offset >> 2] = written

    def reset(self) -> None:
        """All fields as after reset; nobody is told."""
        self._words[:] = self._initial

    def read(self, offset: int, size: int) -> int:
        """Software reads."""
        if offset >= CONFIG_SIZE:
            return 0
        index, shift, mask = _place(offset, size)
        reader = self._readers.get(index)
        return ((self._words[index] if reader is None else reader()) & mask) >> shift

    def write(self, offset: int, size: int, value: int) -> None:
        """Software writes; what it cannot change stays."""
        if offset >= CONFIG_SIZE:
            return
        index, shift, mask = _place(offset, size)
        mask &= self._writable[index]
        self._words[index] = self._words[index] & ~mask | value << shift & mask
        written = self._writers.get(index)
        if written is not None:
            written()


def _place(offset: int, size: int) -> tuple[int, int, int]:
    """A field's register, its shift in it, and its bits there."""
    shift = (offset & 3) << 3
    return offset >> 2, shift, ((1 << (size << 3)) - 1) << shift
