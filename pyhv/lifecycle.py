"""A machine's life: whether its vCPUs go on, stand still, are reset, or have ended and with what verdict."""

from __future__ import annotations

import time

from pyhv._types import TYPE_CHECKING
from pyhv.errors import VmTimeout
from pyhv.locks import allocate_lock, condition
from pyhv.result import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Condition


class Lifecycle:
    """Every method may be called from any thread; the machine's lock, where it is held, comes before this one's.

    - `kick()` makes every vCPU leave the guest; `reset()` resets the machine while all of them stand still;
      `ended()` is told once that the verdict is fixed.
    - `runners` is the number of threads that call `running`.
    - `panic` is what the console said of a panic: from then on, no other end of the guest counts.
    """

    def __init__(
        self, *, kick: Callable[[], None], reset: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self.outcome: Outcome | None = None
        self.detail = ""
        self.status: int | None = None
        self.error: BaseException | None = None
        self.panic = ""
        self.started = False
        self.runners = 0
        self.began = self.ended_at = 0.0
        self._kick = kick
        self._reset = reset
        self._ended = ended
        self._state = allocate_lock()
        self._changed: Condition | None = None
        self._attention = False
        self._paused = False
        self._reset_pending = self._resetting = False
        self._parked = 0

    def begin(self) -> None:
        """The run starts now."""
        self.started = True
        self.began = time.monotonic()

    def running(self) -> bool:
        """For vCPU loops: whether to go on; parks the caller while the machine is paused or being reset."""
        return self._park() if self._attention else True

    def _condition(self) -> Condition:
        """The condition variable; made when somebody first waits."""
        if self._changed is None:
            self._changed = condition(self._state)
        return self._changed

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.notify_all()

    def _park(self) -> bool:
        with self._state:
            if self.outcome is not None:
                return False
            changed = self._condition()
            self._parked += 1
            changed.notify_all()
            while self.outcome is None and (self._paused or self._reset_pending):
                if self._reset_pending and not self._resetting and self._parked == self.runners:
                    self._resetting = True
                    self._state.release()  # devices are reset under the machine's lock, which comes before this one
                    try:
                        self._reset()
                    finally:
                        self._state.acquire()
                        self._reset_done()
                else:
                    changed.wait()
            self._parked -= 1
            return self.outcome is None

    def pause(self, timeout: float) -> None:
        """Stop every vCPU between two instructions; returns when all are. Raises VmTimeout."""
        with self._state:
            self._paused = self._attention = True
            self._kick()
            if not self._condition().wait_for(
                lambda: self.outcome is not None or self._parked == self.runners, timeout
            ):
                raise VmTimeout(f"vCPUs did not pause within {timeout} s")

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._state:
            self._paused = False
            self._attention = self.outcome is not None or self._reset_pending
            self._notify()

    def request_reset(self) -> None:
        """Reset as soon as every vCPU stands still; at once where none runs."""
        with self._state:
            self._reset_pending = self._attention = True
            self._kick()
            self._notify()
            if self.runners:
                return
        self._reset()
        with self._state:
            self._reset_done()

    def _reset_done(self) -> None:
        self._reset_pending = self._resetting = False
        self._attention = self._paused or self.outcome is not None
        self._notify()

    def end(
        self, outcome: Outcome, detail: str = "", status: int | None = None, error: BaseException | None = None
    ) -> None:
        """Fix the verdict; the first one stands. Stops every vCPU."""
        with self._state:
            if self.outcome is not None:
                return
            if self.panic and outcome not in (Outcome.STOPPED, Outcome.ERROR):
                outcome, detail, status = Outcome.PANIC, self.panic, None
            self.ended_at = time.monotonic()
            self.outcome = outcome
            self.detail = detail
            self.status = status
            self.error = error
            self._attention = True
            self._kick()
            self._notify()
            self._ended()

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end; False when it has not come after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._state:
            changed = self._condition()
            while self.outcome is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                changed.wait(left)
        return True


class VerdictControl:
    """What devices ask for, as verdicts (a `pyhv.control.MachineControl`); `on_reset` is `Machine.on_reset`."""

    __slots__ = ("_life", "_on_reset")

    def __init__(self, life: Lifecycle, on_reset: str) -> None:
        self._life = life
        self._on_reset = on_reset

    def debug_exit(self, value: int) -> None:
        self._life.end(Outcome.FAILED if value else Outcome.PASSED, f"debug exit {value:#x}", value)

    def power_off(self, source: str) -> None:
        self._life.end(Outcome.POWER_OFF, source)

    def reset(self, source: str) -> None:
        if self._on_reset == "exit":
            self._life.end(Outcome.RESET, source)
        else:
            self._life.request_reset()

    def panic(self, source: str, detail: str = "") -> None:
        self._life.end(Outcome.PANIC, f"{source}: {detail}" if detail else source)
