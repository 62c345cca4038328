"""The Unix socket at which host programs ask for ports of the guest."""

from __future__ import annotations

from pyhv._builtin import partial
from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.net.unix import listen, remove

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Final

    from pyhv.clock import Timer
    from pyhv.device import Platform

BACKLOG: Final = 128
MAX_ASKING: Final = 64
"""Host programs at once that have not said yet which port they want."""
MAX_LINE: Final = len("CONNECT 4294967295\r\n")
PATIENCE_NS: Final = 10_000_000_000
"""Time for saying it."""
RETRY_NS: Final = 1_000_000_000
"""Until the next try to accept, when this process has no descriptor left."""


class Guest(Protocol):
    """Who connects them: the device."""

    path: str
    active: bool
    platform: Platform

    def begin(self, sock: socket.socket, peer: int) -> bool: ...

    def guarded(self, callback: Callable[[], None]) -> Callable[[], None]: ...


class Listener:
    """Accepts host programs, reads "CONNECT PORT\\n" from each, and hands it to the guest. Raises ConfigError."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._asking: dict[socket.socket, tuple[bytearray, Timer]] = {}
        self._accepting = self._closed = False
        self._socket, self._identity = _listen(guest.path)
        self._accept_on()

    def close(self) -> None:
        """Hang up on everybody and remove the socket, if it still is this one."""
        self._closed = True
        self._accept_off()
        for sock in list(self._asking):
            self._leave(sock)
            sock.close()
        self._socket.close()
        remove(self._guest.path, self._identity)

    def _accept_on(self) -> None:
        if not self._accepting and not self._closed and len(self._asking) < MAX_ASKING:
            self._accepting = True
            self._guest.platform.events.add_reader(self._socket.fileno(), self._accept)

    def _accept_off(self) -> None:
        if self._accepting:
            self._accepting = False
            self._guest.platform.events.remove_reader(self._socket.fileno())

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            event("vsock.accept_failed", error=error.strerror)
            self._accept_off()
            clock = self._guest.platform.clock
            clock.call_at(clock.now_ns() + RETRY_NS, self._accept_on)
            return
        if not self._guest.active:
            sock.close()
            return
        sock.setblocking(False)
        clock = self._guest.platform.clock
        timer = clock.call_at(clock.now_ns() + PATIENCE_NS, partial(self._refuse, sock))
        self._asking[sock] = bytearray(), timer
        self._guest.platform.events.add_reader(sock.fileno(), self._guest.guarded(partial(self._read, sock)))
        if len(self._asking) >= MAX_ASKING:
            self._accept_off()

    def _read(self, sock: socket.socket) -> None:
        """Read up to the end of the line, and not a byte of what comes after it."""
        line = self._asking[sock][0]
        while not line.endswith(b"\n"):
            try:
                byte = sock.recv(1)
            except BlockingIOError:
                return
            except OSError:
                byte = b""
            line += byte
            if not byte or len(line) > MAX_LINE:
                self._refuse(sock)
                return
        port = parse_connect(bytes(line))
        self._leave(sock)
        if port is None or not self._guest.begin(sock, port):
            sock.close()

    def _refuse(self, sock: socket.socket) -> None:
        self._leave(sock)
        sock.close()

    def _leave(self, sock: socket.socket) -> None:
        self._guest.platform.events.remove_reader(sock.fileno())
        self._asking.pop(sock)[1].cancel()
        self._accept_on()


def parse_connect(line: bytes) -> int | None:
    """The port of "CONNECT 1234\\n"; None for anything else."""
    words = line.split()
    if len(words) != 2 or words[0].upper() != b"CONNECT" or not words[1].isdigit():
        return None
    port = int(words[1])
    return port if port <= 0xFFFF_FFFF else None


def _listen(path: str) -> tuple[socket.socket, tuple[int, int]]:
    try:
        return listen(path, BACKLOG)
    except OSError as error:
        raise ConfigError(f"vsock: path: '{path}' cannot be listened at: {error.strerror or error}") from None
