"""Host descriptors and calls for devices: where their callbacks run, on backends with threads and without.

On a backend with threads the machine's event loop calls devices itself. On one without, vCPUs and devices share one thread:
the loop only tells that thread, which runs the callback between two runs of the processor, where memory and interrupts
may be touched.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from pyhv.loop import EventLoop


class HostEvents(Protocol):
    """What a device watches the host by. Every callback comes with the machine's lock held; none may block."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever `fd` is readable, hung up or broken, until removed."""
        ...

    def remove_reader(self, fd: int) -> None:
        """Stop watching; unknown descriptors are ignored. To be called before `fd` is closed."""
        ...

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever `fd` takes data, or is broken, until removed."""
        ...

    def remove_writer(self, fd: int) -> None:
        """Stop watching; unknown descriptors are ignored."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call once, soon, in order of arrival; never from within this call. May be called from any thread."""
        ...


class _Watch:
    """One direction of one descriptor; `armed` while the loop watches it."""

    __slots__ = ("armed", "callback")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback
        self.armed = True


class TurnEvents:
    """HostEvents of a backend whose vCPUs and devices take turns in one thread.

    `post(function)` has that thread call the function soon. A descriptor is watched again once its callback has run.
    """

    def __init__(
        self, loop: EventLoop, post: Callable[[Callable[[], None]], None], lock: AbstractContextManager[Any]
    ) -> None:
        self._loop = loop
        self._post = post
        self._lock = lock
        self._readers: dict[int, _Watch] = {}
        self._writers: dict[int, _Watch] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._add(self._readers, fd, callback, self._loop.add_reader, self._loop.remove_reader)

    def remove_reader(self, fd: int) -> None:
        self._remove(self._readers, fd)
        self._loop.remove_reader(fd)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self._add(self._writers, fd, callback, self._loop.add_writer, self._loop.remove_writer)

    def remove_writer(self, fd: int) -> None:
        self._remove(self._writers, fd)
        self._loop.remove_writer(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        def run() -> None:
            with self._lock:
                callback()

        self._post(run)

    @staticmethod
    def _remove(table: dict[int, _Watch], fd: int) -> None:
        watch = table.pop(fd, None)
        if watch is not None:
            watch.callback = None

    def _add(
        self,
        table: dict[int, _Watch],
        fd: int,
        callback: Callable[[], None],
        arm: Callable[[int, Callable[[], None]], None],
        disarm: Callable[[int], None],
    ) -> None:
        self._remove(table, fd)
        watch = table[fd] = _Watch(callback)

        def ready() -> None:  # on the loop's thread
            disarm(fd)
            watch.armed = False
            self._post(serve)

        def serve() -> None:  # on the machine's
            with self._lock:
                if watch.callback is not None:
                    watch.callback()
                if watch.callback is not None and not watch.armed:
                    watch.armed = True
                    arm(fd, ready)

        arm(fd, ready)
