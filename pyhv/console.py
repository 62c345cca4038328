"""A machine's console: everything that the guest printed, and what was expected of it.

The record is lossless up to `limit` bytes in memory; older output is then dropped from memory (counted in `dropped`),
while sinks have had all of it. Text is UTF-8; each byte that is not becomes one U+FFFD.
"""

from __future__ import annotations

import time

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, GuestError, GuestFailed, GuestPanic, VmmError, VmTimeout
from pyhv.locks import allocate_lock, condition
from pyhv.log import event
from pyhv.units import check_timeout

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence
    from threading import Condition
    from typing import Any

    from pyhv.errors import PyhvError
    from pyhv.expect import Search

    Sink = Callable[[bytes], object]
    ErrorSource = PyhvError | Callable[[str], BaseException]

DEFAULT_LIMIT = 64 << 20
TAIL_LINES = 12
TAIL_BYTES = 4096
LINUX_PANIC_MARK = b"Kernel panic - not syncing"
LINUX_PANIC = rb"(?m:^|\[[ \d.]+\](?:\[[^\]]*\])? )Kernel panic - not syncing[^\r\n]*"
"""At the start of a line, or after printk's time stamp: which may follow a prompt that a program left on the line."""
STREAMING = 0.001
"""Seconds between looks at output that keeps coming."""
QUIET = 0.02
"""Seconds without output after which a full search is worth it."""

_INVALID = dict.fromkeys(range(0xDC80, 0xDD00), "\N{REPLACEMENT CHARACTER}")


def decode(data: bytes | bytearray) -> str:
    """UTF-8 to text; each undecodable byte becomes one U+FFFD."""
    return replace_invalid(data.decode("utf-8", "surrogateescape"))


def replace_invalid(text: str) -> str:
    """Each byte that "surrogateescape" carried along becomes one U+FFFD, so that positions stay."""
    return text if text.isascii() else text.translate(_INVALID)


class Console:
    """What the guest prints, and a way to type.

    - `send_input(data)` takes typed bytes; it does its own locking.
    - A sink that blocks holds up who prints, not who expects; one that raises is dropped and told to `on_sink_error`.
    - `panic_patterns`: bytes regular expressions, matched in each complete line; a match makes `expect` fail at once
      and calls `on_panic(line)` (from `feed`, once).
    - `limit`: bytes kept in memory.
    """

    def __init__(
        self,
        send_input: Callable[[bytes], object] | None = None,
        *,
        on_panic: Callable[[str], object] | None = None,
        panic_patterns: Sequence[bytes] = (LINUX_PANIC,),
        on_sink_error: Callable[[BaseException], object] | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        if limit < 1:
            raise ConfigError(f"console limit: {limit} is not a positive number of bytes")
        self._send_input = send_input
        self._on_panic = on_panic
        self._on_sink_error = on_sink_error
        self._panic_patterns = tuple(panic_patterns)
        self._watch: re.Pattern[bytes] | None = None
        self._limit = limit
        self._order = allocate_lock()
        self._lock = allocate_lock()
        self._changed: Condition | None = None
        self._data = bytearray()
        self._dropped = 0
        self._position = 0
        self._line_start = 0
        self._waiting = 0
        self._sinks: list[Sink] = []
        self._panic: str | None = None
        self._end: ErrorSource | None = None

    # Output

    def feed(self, data: bytes) -> None:
        """Record output of the guest and pass it to the sinks, in order."""
        panic: str | None = None
        failed: Sequence[BaseException] = ()
        with self._order:
            with self._lock:
                buffer = self._data
                buffer += data
                if b"\n" in data:
                    panic = self._check_lines()
                if len(buffer) > self._limit:
                    self._drop(len(buffer) - self._limit + (self._limit >> 3))
                if self._waiting and self._changed is not None:
                    self._changed.notify_all()
            if self._sinks:
                failed = self._copy(data)
        for error in failed:
            event("console.sink_failed", error=f"{type(error).__name__}: {error}")
            if self._on_sink_error is not None:
                self._on_sink_error(error)
        if panic is not None and self._on_panic is not None:
            self._on_panic(panic)

    def add_sink(self, sink: Sink, *, replay: bool = False) -> None:
        """Copy output to `sink(data)` from now on; with `replay`, first what memory still holds."""
        with self._order:
            self._sinks.append(sink)
            if replay and self._data:
                sink(bytes(self._data))

    def remove_sink(self, sink: Sink) -> None:
        """Stop copying; unknown sinks are ignored."""
        with self._order:
            if sink in self._sinks:
                self._sinks.remove(sink)

    @property
    def data(self) -> bytes:
        """All output in memory."""
        with self._lock:
            return bytes(self._data)

    @property
    def text(self) -> str:
        """All output in memory, as text."""
        return decode(self.data)

    @property
    def dropped(self) -> int:
        """Bytes of the oldest output that memory no longer holds."""
        return self._dropped

    @property
    def panic(self) -> str | None:
        """The line that said that the guest panicked."""
        return self._panic

    @property
    def closed(self) -> bool:
        """Whether the guest has ended."""
        return self._end is not None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines."""
        with self._lock:
            start = len(self._data)
            for _ in range(lines + 1):
                start = self._data.rfind(b"\n", 0, start)
                if start < 0:
                    break
            recent = bytes(self._data[max(start, 0) :])
        return "\n".join(decode(recent).splitlines()[-lines:]) if lines > 0 else ""

    def close(self, error: ErrorSource = GuestFailed) -> None:
        """The guest has ended: `expect` that finds nothing raises. The first close counts.

        `error` is an exception, whose text then says how the guest ended, or a function that makes one of a message.
        """
        with self._lock:
            if self._end is None:
                self._end = error
            if self._changed is not None:
                self._changed.notify_all()

    # Input

    def send(self, data: str | bytes) -> None:
        """Type; text goes as UTF-8. Raises ConfigError when the machine has no console input."""
        if self._send_input is None:
            raise ConfigError("console: this machine takes no input")
        self._send_input(data.encode() if isinstance(data, str) else bytes(data))

    # Expectations

    def expect(self, pattern: str | bytes | re.Pattern[Any], timeout: float | None = None) -> re.Match[Any]:
        """Wait until the output after the last match has a match; later calls search after its end.

        A str pattern searches text and gives text, a bytes pattern bytes. Raises the error of `close` when the
        guest ended without it, GuestPanic when it panicked, VmTimeout after `timeout` seconds of the host's time, ConfigError
        for what is no regular expression.
        """
        import re

        from pyhv.expect import Search

        try:
            compiled: re.Pattern[Any] = re.compile(pattern) if isinstance(pattern, (str, bytes)) else pattern
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"expect: {pattern!r} is not a regular expression: {error}") from None
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            if self._changed is None:
                self._changed = condition(self._lock)
            search = Search(compiled, self._position)
            self._waiting += 1
            try:
                return self._wait_for(search, timeout, deadline)
            finally:
                self._waiting -= 1

    def _wait_for(self, search: Search, timeout: float | None, deadline: float | None) -> re.Match[Any]:
        quick = True
        while True:
            ending = self._end is not None or self._panic is not None
            now = time.monotonic()
            late = deadline is not None and now >= deadline
            match = search.look(self._data, self._dropped, full=ending or late or not quick)
            if match is not None:
                self._position = search.end
                return match
            if ending:
                raise self._ended(search.pattern)
            if late:
                raise VmTimeout(self._message(f"no match for {search.pattern.pattern!r} within {timeout:g} s"))
            wait = None if deadline is None else deadline - now
            if search.behind:
                wait = QUIET if wait is None else min(wait, QUIET)
            woken = self._wait_change(wait)
            quick = woken
            if woken and time.monotonic() - now < STREAMING:
                self._lock.release()
                try:
                    time.sleep(STREAMING / 2)
                finally:
                    self._lock.acquire()

    def _wait_change(self, timeout: float | None) -> bool:
        """Wait for output or the guest's end; False when there was none in time."""
        size = self._dropped + len(self._data)
        assert self._changed is not None
        return self._changed.wait_for(
            lambda: self._dropped + len(self._data) != size or self._end is not None or self._panic is not None, timeout
        )

    def _ended(self, pattern: re.Pattern[Any]) -> BaseException:
        sought = f"no match for {pattern.pattern!r}"
        if self._panic is not None:
            return GuestPanic(self._message(f"{self._panic}: {sought}"))
        end = self._end
        if isinstance(end, (GuestError, VmmError, VmTimeout)):
            return type(end)(self._message(f"{end}: {sought}"), end.result)
        if isinstance(end, BaseException):
            return end
        return (end or GuestFailed)(self._message(f"the guest ended: {sought}"))

    def _message(self, reason: str) -> str:
        recent = decode(self._data[-TAIL_BYTES:]).splitlines()[-TAIL_LINES:]
        return "\n".join([reason, "console (tail):", *("  " + line for line in recent or ["(nothing)"])])

    # Inside

    def _copy(self, data: bytes) -> list[BaseException]:
        """Pass output on, in order (with `_order` held); gives the errors of the sinks that failed and are dropped."""
        failed: list[BaseException] = []
        for sink in tuple(self._sinks):
            try:
                sink(data)
            except Exception as error:
                self._sinks.remove(sink)
                failed.append(error)
        return failed

    def _check_lines(self) -> str | None:
        """Look for a panic in the lines completed since the last time."""
        start = self._line_start - self._dropped
        stop = self._data.rfind(b"\n") + 1
        self._line_start = self._dropped + stop
        if self._panic is not None or not self._panic_patterns:
            return None
        lines = bytes(self._data[max(start, 0) : stop])
        if self._panic_patterns == (LINUX_PANIC,) and LINUX_PANIC_MARK not in lines:
            return None
        if self._watch is None:
            import re

            self._watch = re.compile(b"|".join(b"(?:%b)" % pattern for pattern in self._panic_patterns))
        match = self._watch.search(lines)
        if match is None:
            return None
        self._panic = decode(match.group())
        return self._panic

    def _drop(self, count: int) -> None:
        count = min(count, len(self._data) - 1)
        del self._data[:count]
        self._dropped += count
        self._line_start = max(self._line_start, self._dropped)
