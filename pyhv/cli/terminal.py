"""This process's terminal as the guest's: raw while a guest runs, with Ctrl-a as the way out."""

from __future__ import annotations

import os
import select
from _thread import allocate_lock, start_new_thread

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Lock
    from types import TracebackType

    from pyhv.vm import Vm

ESCAPE = 0x01
HELP = b"\nCtrl-a x  end the machine\nCtrl-a h  this help\nCtrl-a Ctrl-a  send Ctrl-a\n"
CHUNK = 4096
"""At most PIPE_BUF: a pipe that polls as writable takes as much without blocking."""
OUTPUT_WAIT_MS = 100


class RawMode:
    """A terminal that passes every key on, until `restore`; `cooked_output` leaves a new line's start to it."""

    def __init__(self, fd: int, *, cooked_output: bool) -> None:
        import termios
        import tty

        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        tty.setraw(fd, termios.TCSANOW)
        if cooked_output:
            attributes = termios.tcgetattr(fd)
            attributes[1] |= termios.OPOST  # the guest's \n moves to a new line's start
            termios.tcsetattr(fd, termios.TCSANOW, attributes)

    def restore(self) -> None:
        import termios

        termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)


class Escapes:
    """Takes what begins with Ctrl-a out of what was typed, and does it: `stop()` ends the machine.

    `newline` begins a line on the terminal, where help is shown.
    """

    def __init__(self, stop: Callable[[], None], newline: bytes = b"\n") -> None:
        self._stop = stop
        self._help = HELP.replace(b"\n", newline)
        self._escaped = False

    def filter(self, data: bytes) -> bytes:
        """What of the typed bytes is for the guest."""
        out = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte in b"xX":
                    self._stop()
                elif byte in b"hH?":
                    os.write(2, self._help)
                elif byte == ESCAPE:
                    out.append(byte)
            elif byte == ESCAPE:
                self._escaped = True
            else:
                out.append(byte)
        return bytes(out)


def is_foreground(fd: int) -> bool:
    """Whether a terminal's keys are this process's; nobody else has those of one that controls no session of ours."""
    if not os.isatty(fd):
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True


class Terminal:
    """Copies the console to `output` (a file descriptor) and stdin to the guest; a context manager that restores the tty."""

    def __init__(self, vm: Vm, output: int, stdin: int = 0) -> None:
        self._vm = vm
        self._output = output
        self._stdin = stdin
        self._raw: RawMode | None = None
        self._escapes = Escapes(vm.stop)
        self._wake_read, self._wake_write = -1, -1
        self._poll_out = select.poll()
        self._poll_out.register(output, select.POLLOUT)
        self._reading: Lock | None = None

    def __enter__(self) -> Terminal:
        self._vm.console.add_sink(self._write)
        try:
            is_tty = os.isatty(self._stdin)
            os.fstat(self._stdin)
        except OSError:
            return self
        if is_tty and is_foreground(self._stdin):
            self._raw = RawMode(self._stdin, cooked_output=True)
        if is_tty or not self._at_end():
            self._start_reading()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            os.write(self._wake_write, b"x")
            self._reading.acquire()
            os.close(self._wake_read)
            os.close(self._wake_write)
        if self._raw is not None:
            self._raw.restore()

    def _at_end(self) -> bool:
        """Whether stdin, as /dev/null, has nothing to give; what it has at once is sent."""
        poll = select.poll()
        poll.register(self._stdin, select.POLLIN)
        if not poll.poll(0):
            return False
        try:
            data = os.read(self._stdin, CHUNK)
        except OSError:
            return True
        if data:
            self._vm.console.send(data)
        return not data

    def _start_reading(self) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._reading = reading = allocate_lock()
        reading.acquire()
        start_new_thread(self._read_until_woken, (reading,))

    def _read_until_woken(self, reading: Lock) -> None:
        try:
            self._read_loop()
        finally:
            reading.release()

    def _write(self, data: bytes) -> None:
        """Write all of it, but do not wait for a reader that takes nothing once the run has ended."""
        view = memoryview(data)
        while view:
            if not self._poll_out.poll(OUTPUT_WAIT_MS):
                if self._vm.outcome is not None:
                    return
                continue
            try:
                view = view[os.write(self._output, view[:CHUNK]) :]
            except BlockingIOError:
                continue

    def _read_loop(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._stdin, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                return
            try:
                data = os.read(self._stdin, CHUNK)
            except OSError:
                return
            if not data:
                return
            data = self._escapes.filter(data) if self._raw is not None else data
            if data:
                self._vm.console.send(data)
