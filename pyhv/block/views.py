"""Lists of buffers: taking them apart in order, and clearing them."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ZEROS = bytes(1 << 16)
"""What is copied from where zeros are wanted."""


class Cursor:
    """Takes a list of views apart from its beginning on."""

    __slots__ = ("_index", "_start", "_views")

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self._index = 0
        self._start = 0

    def take(self, length: int) -> list[memoryview]:
        """The next `length` bytes as views; fewer when that is all."""
        views, index, start = self._views, self._index, self._start
        taken = []
        while length > 0 and index < len(views):
            piece = views[index][start : start + length]
            if len(piece):
                taken.append(piece)
            length -= len(piece)
            start += len(piece)
            if start == len(views[index]):
                index, start = index + 1, 0
        self._index, self._start = index, start
        return taken


def clear(views: Sequence[memoryview]) -> None:
    """Fill with zeros."""
    for view in views:
        for start in range(0, len(view), len(ZEROS)):
            piece = view[start : start + len(ZEROS)]
            piece[:] = ZEROS[: len(piece)]


def zeros(length: int) -> list[memoryview]:
    """`length` zero bytes to write, in few views of the same memory."""
    whole, rest = divmod(length, len(ZEROS))
    view = memoryview(ZEROS)
    return [view] * whole + ([view[:rest]] if rest else [])
