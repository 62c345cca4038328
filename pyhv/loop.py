"""The machine's one event loop: timers on the real clock, file descriptors, and calls from other threads.

Every callback runs on the loop's own thread with the machine's lock held. Nothing is allocated before first use: a
machine that needs no timer and no descriptor has no loop thread. There is no lock but the machine's.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque

from pyhv._types import TYPE_CHECKING
from pyhv.clock import TimerQueue
from pyhv.errors import VmmError
from pyhv.realtime import RealClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.clock import Timer

BATCH = 256
"""How many timers or calls run before descriptors are looked at again: one busy source cannot starve the rest."""
BREATH = 0.000_05
"""Seconds without the lock between two turns of a loop that always has work: the vCPUs need it too."""
LOCK_POLL = 0.05
"""Seconds between looks at whether the loop was closed, while somebody else holds the machine's lock."""
SELECT_LIMIT = 1024
"""select() takes descriptors below this (FD_SETSIZE)."""

_READ = select.EPOLLIN | select.EPOLLPRI
_WRITE = select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_NEVER = 1 << 63


class EventLoop:
    """Timers, descriptors and calls of one machine.

    `lock` is the machine's RLock; `on_error(exception)` hears of an exception that a callback let out, after which the
    loop goes on. All methods may be called from any thread, with or without the lock.
    """

    def __init__(
        self,
        lock: threading.RLock,
        *,
        on_error: Callable[[BaseException], None],
        clock: RealClock | None = None,
        name: str = "pyhv-loop",
    ) -> None:
        self.clock = RealClock(lambda: self) if clock is None else clock
        self._lock = lock
        self._on_error = on_error
        self._name = name
        self._timers = TimerQueue()
        self._calls: deque[Callable[[], None]] = deque()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._always: set[int] = set()
        self._thread: threading.Thread | None = None
        self._epoll: select.epoll | None = None
        self._wake_fd = -1
        self._pid = 0
        self._sleeping_until = -1
        self._held = False
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether the loop's thread exists."""
        return self._thread is not None

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call once, soon, in order of arrival. Dropped when the loop is closed."""
        with self._lock:
            if self._closed:
                return
            self._calls.append(callback)
            self._start()
            self._wake_if_asleep()

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once when the machine's clock reaches `deadline_ns`. Never called when the loop is closed."""
        with self._lock:
            timer = self._timers.add(deadline_ns, callback)
            if not self._closed:
                self._start()
                if deadline_ns < self._sleeping_until:
                    self.wake()
            return timer

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever `fd` is readable, hung up or broken, until removed. A regular file is always ready."""
        self._watch(self._readers, fd, callback)

    def remove_reader(self, fd: int) -> None:
        """Stop watching; unknown descriptors are ignored. To be called before `fd` is closed."""
        self._unwatch(self._readers, fd)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever `fd` takes data, or is broken, until removed."""
        self._watch(self._writers, fd, callback)

    def remove_writer(self, fd: int) -> None:
        """Stop watching; unknown descriptors are ignored."""
        self._unwatch(self._writers, fd)

    def hold(self, held: bool) -> None:
        """While held, nothing is called: what becomes due or ready waits. Returns when no callback runs any more."""
        with self._lock:
            self._held = held
            self.wake()

    def wake(self) -> None:
        """Make the loop look at its work again."""
        with self._lock:
            if self._wake_fd >= 0 and not self._closed:
                self._sleeping_until = -1
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """End the thread, close the descriptors that the loop made, forget all work. Idempotent.

        From the loop's own thread it cannot wait for itself: the thread then ends when the callback returns.
        """
        with self._lock:
            self.wake()
            already, self._closed = self._closed, True
            thread = self._thread
            self._calls.clear()
            self._timers = TimerQueue()
            self._readers.clear()
            self._writers.clear()
            self._always.clear()
        if thread is None or thread is threading.current_thread():
            return
        if self._pid != os.getpid():
            if not already:
                self._release()
            return
        thread.join()

    # Inside

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _release(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            epoll.close()
        fd, self._wake_fd = self._wake_fd, -1
        if fd >= 0:
            os.close(fd)

    def _wake_if_asleep(self) -> None:
        if self._sleeping_until >= 0:
            self.wake()

    def _watch(self, table: dict[int, Callable[[], None]], fd: int, callback: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise VmmError(f"event loop: closed, cannot watch descriptor {fd}")
            self._start()
            known = fd in self._readers or fd in self._writers
            table[fd] = callback
            self._update(fd, known)
            self._wake_if_asleep()

    def _unwatch(self, table: dict[int, Callable[[], None]], fd: int) -> None:
        with self._lock:
            if table.pop(fd, None) is not None:
                self._update(fd, True)

    def _update(self, fd: int, known: bool) -> None:
        events = (_READ if fd in self._readers else 0) | (_WRITE if fd in self._writers else 0)
        if self._epoll is None:
            return
        if not events:
            self._always.discard(fd)
            try:
                self._epoll.unregister(fd)
            except OSError:  # a regular file, or closed by its owner already
                return
        elif fd in self._always:
            return
        elif known:
            self._epoll.modify(fd, events)
        else:
            try:
                self._epoll.register(fd, events)
            except PermissionError:
                self._always.add(fd)
            except OSError:
                self._readers.pop(fd, None)
                self._writers.pop(fd, None)
                raise

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._release()

    def _turn(self) -> bool:
        """Run what is due, sleep, run what became ready; False when closed."""
        if not self._acquire():
            return False
        try:
            held = self._held
            busy = not held and self._run_due()
            if self._closed:
                return False
            epoll = self._epoll
            assert epoll is not None
            timeout = BREATH if busy or self._always else self._sleep_time()
        finally:
            self._lock.release()
        ready = self._wait_for_wake() if held else self._sleep(epoll, timeout)
        if not self._acquire():
            return False
        try:
            self._sleeping_until = -1
            if self._held:
                self._dispatch(self._wake_fd, _READ)
                return not self._closed
            for fd, events in ready:
                self._dispatch(fd, events)
            for fd in tuple(self._always):
                self._dispatch(fd, _READ | _WRITE)
            return not self._closed
        finally:
            self._lock.release()

    def _acquire(self) -> bool:
        while not self._lock.acquire(timeout=LOCK_POLL):
            if self._closed:
                return False
        if self._closed:
            self._lock.release()
            return False
        return True

    def _sleep_time(self) -> float | None:
        """Seconds until the next timer, None for ever; notes it, so that an earlier timer wakes the sleeper."""
        deadline = None if self.clock.paused else self._timers.next_deadline()
        self._sleeping_until = _NEVER if deadline is None else max(deadline, 0)
        return None if deadline is None else max(0.0, (deadline - self.clock.now_ns()) / 1e9)

    @staticmethod
    def _sleep(epoll: select.epoll, timeout: float | None) -> list[tuple[int, int]]:
        # epoll_wait counts milliseconds; select on the epoll descriptor counts microseconds, which timers want.
        if timeout and epoll.fileno() < SELECT_LIMIT:
            select.select((epoll.fileno(),), (), (), min(timeout, 3600.0))
            timeout = 0.0
        return epoll.poll(timeout)

    def _wait_for_wake(self) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        return poll.poll()

    def _run_due(self) -> bool:
        """Run due timers and queued calls, a batch of each; whether there may be more."""
        calls = self._calls
        for _ in range(min(BATCH, len(calls))):
            if calls:
                self._call(calls.popleft())
        if not self.clock.paused:
            now = self.clock.now_ns()
            for _ in range(BATCH):
                callback = self._timers.pop_due(now)
                if callback is None:
                    return bool(calls)
                self._call(callback)
            return True
        return bool(calls)

    def _dispatch(self, fd: int, events: int) -> None:
        if fd == self._wake_fd:
            try:
                os.eventfd_read(fd)
            except BlockingIOError:
                return
            return
        if events & (_READ | _BROKEN) and (callback := self._readers.get(fd)) is not None:
            self._call(callback)
        if events & (_WRITE | _BROKEN) and (callback := self._writers.get(fd)) is not None:
            self._call(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException as error:
            self._on_error(error)
