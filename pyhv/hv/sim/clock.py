"""Virtual time: it comes from the instructions that the simulated processors retire, and from skipped idle time."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.clock import ManualClock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

TSC_HZ = 1_000_000_000
"""One tick of the machine is one nanosecond."""
TICKS_PER_INSTRUCTION = 32
"""31.25 million instructions a virtual second: delay loops and timer ticks do not dominate a boot."""
APIC_HZ = 1_000_000_000
DEVICE_TICKS = 1_000
"""What an access to a device takes: a microsecond, as on an ISA bus. Loops that poll a timer come to their end sooner."""
WALL_START_NS = 1_767_225_600 * 1_000_000_000
"""Midnight of 2026-01-01 UTC, unless told otherwise: runs do not depend on when they happen."""


class VirtualClock(ManualClock):
    """A machine's clock; `lock` is held around timers."""

    def __init__(self, lock: AbstractContextManager[Any] | None = None, wall_start_ns: int = WALL_START_NS) -> None:
        super().__init__(wall_start_ns)
        self._lock = lock

    def advance_to(self, target_ns: int) -> None:
        """Let time pass; timers that are due fire in order, each at its own time."""
        deadline = self._timers.next_deadline()
        if deadline is None or deadline > target_ns:
            if target_ns > self._now:
                self._now = target_ns
            return
        if self._lock is None:
            super().advance_to(target_ns)
            return
        with self._lock:
            super().advance_to(target_ns)
