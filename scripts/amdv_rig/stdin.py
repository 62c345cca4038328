"""This program's standard input, passed on to the machine by a thread of its own."""

import os
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_READ_SIZE = 4096
_ESCAPE = b"\x01x"


def forward_stdin(port: socket.socket, escape: bool) -> None:
    """Copies file descriptor 0 to port until it ends or the machine does.

    escape: Ctrl-a x interrupts this program instead (SIGINT). The thread may wait in a read for ever: it is a daemon.
    """

    def copy() -> None:
        before = b""
        try:
            while data := os.read(0, _READ_SIZE):
                if escape and _ESCAPE in before + data:
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                before = data[-1:]
                port.sendall(data)
            if not escape:
                port.shutdown(socket.SHUT_WR)
        except OSError:
            return  # The machine is gone, or standard input is closed: nobody reads, or nothing is left to read.

    threading.Thread(target=copy, name="rig-stdin", daemon=True).start()


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Standard input's terminal hands every key on as it is, until the end; nothing to do when it is no terminal."""
    if not sys.stdin.isatty():
        yield
        return
    saved = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)
