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


__all__ = ["RLock", "allocate_lock", "condition"]
