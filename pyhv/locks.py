"""Locks without `threading`, which a machine that runs in its caller's thread never needs to import."""

from __future__ import annotations

from _thread import RLock, allocate_lock

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Condition, Lock


def condition(lock: Lock) -> Condition:
    """A condition variable on an existing lock."""
    from threading import Condition

    return Condition(lock)


_LONGEST = 3600.0


class Wakeup:
    """What one thread waits for and others bring about; it stays set until that one thread clears it."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = allocate_lock()
        self._gate.acquire()

    def set(self) -> None:
        """Let the waiting thread go on, now or when it next waits. Any thread."""
        try:
            self._gate.release()
        except RuntimeError:
            return  # it was set

    def clear(self) -> None:
        """Forget what came before."""
        self._gate.acquire(blocking=False)

    def wait(self, seconds: float = -1) -> None:
        """Return once it is set, or after so many seconds. A signal's handler may raise out of this."""
        if self._gate.acquire(timeout=min(seconds, _LONGEST)):
            self.set()


__all__ = ["RLock", "Wakeup", "allocate_lock", "condition"]
