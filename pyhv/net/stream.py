"""Frames over a Unix stream socket, each after its length in four bytes, big-endian: what QEMU's `-netdev stream` and passt
speak. One side listens, the other connects; two machines of two processes are thereby one network.
"""

from __future__ import annotations

import errno
import socket

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.net.backend import NetBackend, scatter
from pyhv.net.ids import MAX_FRAME
from pyhv.net.unix import listen, remove

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Final

    from pyhv.clock import Clock
    from pyhv.events import HostEvents
    from pyhv.net.backend import Listener

_LENGTH = 4
READ_SIZE: Final = 1 << 18
"""Bytes that are read at once, and, with an unfinished frame, kept at most."""
RETRY_NS: Final = 1_000_000_000
"""Until the next try to accept, when this process has no descriptor left."""
_AGAIN = (errno.EAGAIN, errno.EINTR, errno.ENOBUFS)


class StreamBackend(NetBackend):
    """The socket at `path`. The link is down while nobody is at its other end.

    The connecting side does not connect again; the listening one takes the next that comes, and one at a time.
    """

    live: ClassVar[bool] = True

    def __init__(self, path: str, *, listen: bool = False) -> None:
        self.path = path
        self.identity = f"socket {'listening at' if listen else 'connected to'} {path}"
        self._listen = listen
        self._server: socket.socket | None = None
        self._identity = (-1, -1)
        self._socket: socket.socket | None = None
        self._resumed = False
        self._watched = False
        self._read = bytearray()
        self._at = 0
        self._unsent = b""
        self.link_up = False

    def open(self, events: HostEvents, clock: Clock, listener: Listener) -> None:
        self._events = events
        self._clock = clock
        self._listener = listener
        try:
            if self._listen:
                self._server, self._identity = listen(self.path, 1)
            else:
                self._socket = _connect(self.path)
        except OSError as error:
            cannot = "cannot be listened at" if self._listen else "cannot be connected to"
            raise ConfigError(f"net: path: {self.path!r} {cannot}: {error.strerror or error}") from None
        self._accept_on()
        self.link_up = self._socket is not None

    def _accept_on(self) -> None:
        if self._server is not None:
            self._events.add_reader(self._server.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._server is not None
        try:
            came, _ = self._server.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            event("net_accept_failed", path=self.path, error=error.strerror)
            self._events.remove_reader(self._server.fileno())
            self._clock.call_at(self._clock.now_ns() + RETRY_NS, self._accept_on)
            return
        if self._socket is not None:
            came.close()
            return
        came.setblocking(False)
        self._socket = came
        self._set_link(True)
        self._watch()

    def resume(self) -> None:
        self._resumed = True
        self._watch()

    def pause(self) -> None:
        self._resumed = False
        self._watch()

    def _watch(self) -> None:
        wanted = self._resumed and self._socket is not None
        if wanted == self._watched or self._socket is None:
            return
        self._watched = wanted
        if wanted:
            self._events.add_reader(self._socket.fileno(), self._listener.frames_waiting)
        else:
            self._events.remove_reader(self._socket.fileno())

    def send(self, header: bytes, frame: Sequence[memoryview]) -> None:
        connection = self._socket
        if connection is None or self._unsent:
            self.dropped += 1
            return
        data = b"".join(frame)
        data = len(data).to_bytes(_LENGTH, "big") + data
        try:
            sent = connection.send(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            self.dropped += 1
            if error.errno not in _AGAIN:
                self._disconnect(str(error.strerror))
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._events.add_writer(connection.fileno(), self._go_on)

    def _go_on(self) -> None:
        """Send the rest of a frame that was begun."""
        connection = self._socket
        assert connection is not None
        try:
            self._unsent = self._unsent[connection.send(self._unsent, socket.MSG_NOSIGNAL) :]
        except OSError as error:
            if error.errno not in _AGAIN:
                self._disconnect(str(error.strerror))
            return
        if not self._unsent:
            self._events.remove_writer(connection.fileno())

    def receive(self, into: Sequence[memoryview]) -> int:
        while True:
            read, at = self._read, self._at
            if len(read) - at >= _LENGTH:
                length = int.from_bytes(read[at : at + _LENGTH], "big")
                if not 0 < length <= MAX_FRAME:
                    self._disconnect(f"a frame of {length} bytes")
                    return 0
                end = at + _LENGTH + length
                if end <= len(read):
                    self._at = end
                    with memoryview(read) as view:
                        return scatter(view[at + _LENGTH : end], into)
            if not self._fill():  # else nobody would say that the rest of a frame is here already
                return 0

    def _fill(self) -> bool:
        """Read more; False when nothing more comes now."""
        if self._socket is None:
            return False
        del self._read[: self._at]
        self._at = 0
        try:
            data = self._socket.recv(READ_SIZE)
        except OSError as error:
            if error.errno not in _AGAIN:
                self._disconnect(str(error.strerror))
            return False
        if not data:
            self._disconnect("closed")
            return False
        self._read += data
        return True

    def _disconnect(self, why: str) -> None:
        connection = self._socket
        if connection is None:
            return
        event("net_socket_closed", path=self.path, reason=why)
        self._drop()
        self._set_link(False)

    def _drop(self) -> None:
        connection = self._socket
        if connection is not None:
            if self._watched:
                self._events.remove_reader(connection.fileno())
            if self._unsent:
                self._events.remove_writer(connection.fileno())
            connection.close()
        self._socket = None
        self._watched = False
        self._unsent = b""
        self._read.clear()
        self._at = 0

    def _set_link(self, up: bool) -> None:
        self.link_up = up
        self._listener.link_changed()

    def close(self) -> None:
        self._drop()
        server, self._server = self._server, None
        if server is not None:
            self._events.remove_reader(server.fileno())
            server.close()
            remove(self.path, self._identity)


def _connect(path: str) -> socket.socket:
    """A connection that does not block. Raises OSError, also where the other side has no time for one more."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
