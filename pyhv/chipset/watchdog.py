"""What every watchdog does once its time is over, whatever registers it has."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.log import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.clock import Clock, Timer
    from pyhv.control import MachineControl

ACTIONS = ("panic", "reset", "poweroff", "nothing")
"""What an expiry does. A reset or a power-off that a guest does is a pass; a watchdog's is only where it was asked for."""


def check_action(action: str) -> str:
    """The action. Raises ConfigError when there is none of that name."""
    if action not in ACTIONS:
        raise ConfigError(f"watchdog: action: {action!r} is not one of {', '.join(ACTIONS)}")
    return action


class Countdown:
    """A time that runs out unless it is started anew; `expired` is then called once."""

    def __init__(self, clock: Clock, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._timer: Timer | None = None

    @property
    def running(self) -> bool:
        """Whether time is running out."""
        return self._timer is not None

    @property
    def remaining_ns(self) -> int:
        """Nanoseconds until it expires; 0 when it does not run."""
        return 0 if self._timer is None else max(0, self._timer.deadline_ns - self._clock.now_ns())

    def start(self, duration_ns: int) -> None:
        """Run out in `duration_ns`, whatever was left before."""
        self.stop()
        self._timer = self._clock.call_at(self._clock.now_ns() + duration_ns, self._fire)

    def stop(self) -> None:
        """Never expire."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._expired()


def act(action: str, control: MachineControl, model: str) -> None:
    """The guest did not show a sign of life in time."""
    event("watchdog.expired", model=model, action=action)
    if action == "panic":
        control.panic("watchdog", f"{model}: the guest gave no sign of life in time")
    elif action == "reset":
        control.reset("watchdog")
    elif action == "poweroff":
        control.power_off("watchdog")
