"""Accesses of any width and alignment to registers of 32 bits."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def read_words(word: Callable[[int], int], offset: int, size: int) -> int:
    """`size` bytes at `offset`, little-endian, where `word(index)` gives register `index`."""
    value = done = 0
    while done < size:
        index, lane = divmod(offset + done, 4)
        step = min(4 - lane, size - done)
        value |= (word(index) >> 8 * lane & (1 << 8 * step) - 1) << 8 * done
        done += step
    return value


def write_words(store: Callable[[int, int, int], None], offset: int, size: int, value: int) -> None:
    """Cut a write up: `store(index, bits, lanes)` replaces the bits of register `index` that `lanes` has set."""
    done = 0
    while done < size:
        index, lane = divmod(offset + done, 4)
        step = min(4 - lane, size - done)
        mask = (1 << 8 * step) - 1
        store(index, (value >> 8 * done & mask) << 8 * lane, mask << 8 * lane)
        done += step
