"""What waits for the host's disk: done by the server at once, or by its carrier where that lets nobody else wait."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Sync:
    """`sync(fd)` for each descriptor that `opened()` gives, and then the reply, which is empty, to the request `unique`.

    `begin` is to be called before `run`, with the machine's lock held; `run` needs no lock. Both raise OSError.
    """

    def __init__(self, opened: Callable[[], Iterable[int]], sync: Callable[[int], object]) -> None:
        self.unique = 0
        self._opened = opened
        self._sync = sync
        self._fds: list[int] = []

    def begin(self) -> None:
        """Have the descriptors, which belong to this."""
        try:
            for fd in self._opened():
                self._fds.append(fd)
        except OSError:
            self._close()
            raise

    def run(self) -> None:
        """Wait for the disk."""
        try:
            for fd in self._fds:
                self._sync(fd)
        finally:
            self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
