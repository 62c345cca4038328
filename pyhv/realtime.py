"""The clock of machines that run in real time."""

from __future__ import annotations

import time

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.clock import Timer
    from pyhv.loop import EventLoop


class RealClock:
    """A Clock on the host's monotonic time. It can be stopped and set, for a machine that is paused or restored."""

    def __init__(self, loop: Callable[[], EventLoop]) -> None:
        self._loop = loop
        self._origin = time.monotonic_ns()
        self._frozen: int | None = None
        self._wall_shift = 0

    def now_ns(self) -> int:
        """Nanoseconds since the machine's start, without the time for which it was paused."""
        if self._frozen is not None:
            return self._frozen
        return time.monotonic_ns() - self._origin

    def wall_ns(self) -> int:
        """The host's UTC time, in nanoseconds since the epoch, unless it was set to another."""
        return time.time_ns() + self._wall_shift

    def set_wall(self, wall_ns: int) -> None:
        """Make the wall clock show `wall_ns` now."""
        self._wall_shift = wall_ns - time.time_ns()

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once on the loop's thread, with the machine's lock held."""
        return self._loop().call_at(deadline_ns, callback)

    def pause(self) -> None:
        """Stop the time; timers wait. Idempotent."""
        if self._frozen is None:
            self._frozen = self.now_ns()

    def resume(self, now_ns: int | None = None) -> None:
        """Let time go on from where it stopped, or from `now_ns`."""
        if now_ns is None:
            now_ns = self.now_ns()
        self._origin = time.monotonic_ns() - now_ns
        self._frozen = None
        self._loop().wake()

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._frozen is not None
