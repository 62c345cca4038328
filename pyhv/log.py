"""Structured events of the library: nothing unless someone listens.

The command's -v sends them to structlog on stderr; a program may pass any `structlog`-like callable to `listen`.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Listener = Callable[..., Any]

_listeners: list[Listener] = []


def event(name: str, **values: Any) -> None:
    """Tell the listeners; `name` is dotted, values are plain."""
    for listener in _listeners:
        listener(name, **values)


def listen(listener: Listener) -> Callable[[], None]:
    """Add a listener; returns what removes it again."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def listen_with_structlog() -> None:
    """Show every event on stderr through structlog."""
    import sys

    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    logger = structlog.get_logger("pyhv")
    listen(logger.info)
