"""Time for devices: it comes from the machine, never from the operating system directly.

`Clock` is what devices see. `ManualClock` is the clock of tests, and the base of the simulator's virtual clock. The
real clock of KVM machines lives with the event loop (`pyhv.loop`).
"""

from __future__ import annotations

from itertools import count

from pyhv._types import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import heapq
    from collections.abc import Callable
else:
    import _heapq as heapq  # as in pyhv._builtin, but what KVM runs do without


class Timer:
    """A pending call; `cancel()` is idempotent and safe after it fired."""

    __slots__ = ("callback", "deadline_ns")

    def __init__(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.deadline_ns = deadline_ns
        self.callback: Callable[[], None] | None = callback

    @property
    def active(self) -> bool:
        """Whether the call is still to come."""
        return self.callback is not None

    def cancel(self) -> None:
        """Forget the call."""
        self.callback = None


class Clock(Protocol):
    """Machine time in nanoseconds since the machine was made, and the wall-clock time that its RTC shows."""

    def now_ns(self) -> int:
        """Nanoseconds since the machine's start; never goes back."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC, as this machine sees it."""
        ...

    def set_wall(self, wall_ns: int) -> None:
        """Make the wall clock show `wall_ns` now."""
        ...

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once when `now_ns()` reaches the deadline (at once if it has already), with the machine's lock held."""
        ...


class TimerQueue:
    """Pending timers in order of deadline, first come first served among equals.

    Cancelled timers are swept out when they might be half of the queue: a guest that rearms a far timer for ever does
    not fill memory.
    """

    __slots__ = ("_heap", "_sequence", "_sweep_at")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = count()
        self._sweep_at = 64

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Queue a call."""
        if len(self._heap) >= self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[2].active]
            heapq.heapify(self._heap)
            self._sweep_at = max(64, 2 * len(self._heap))
        timer = Timer(deadline_ns, callback)
        heapq.heappush(self._heap, (deadline_ns, next(self._sequence), timer))
        return timer

    def next_deadline(self) -> int | None:
        """When the earliest active timer is due."""
        while self._heap and not self._heap[0][2].active:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ns: int) -> Callable[[], None] | None:
        """Take the earliest timer whose deadline has come."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now_ns:
            return None
        timer = heapq.heappop(self._heap)[2]
        callback = timer.callback
        timer.cancel()
        return callback


class ManualClock:
    """A clock that moves only when it is told to; deterministic."""

    def __init__(self, wall_start_ns: int = 0) -> None:
        self._now = 0
        self._wall_start = wall_start_ns
        self._timers = TimerQueue()

    def now_ns(self) -> int:
        return self._now

    def wall_ns(self) -> int:
        return self._wall_start + self._now

    def set_wall(self, wall_ns: int) -> None:
        self._wall_start = wall_ns - self._now

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        return self._timers.add(deadline_ns, callback)

    def next_deadline(self) -> int | None:
        """When the earliest timer is due."""
        return self._timers.next_deadline()

    def advance(self, ns: int) -> None:
        """Let `ns` nanoseconds pass; timers fire in order, each at its own time."""
        self.advance_to(self._now + ns)

    def advance_to(self, target_ns: int) -> None:
        """Let time pass until `target_ns`; timers fire in order, each seeing its own deadline as now."""
        while (deadline := self._timers.next_deadline()) is not None and deadline <= target_ns:
            self._now = max(self._now, deadline)
            callback = self._timers.pop_due(self._now)
            if callback is not None:
                callback()
        self._now = max(self._now, target_ns)
