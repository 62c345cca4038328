"""A console port coupled with descriptors of the host: files, pipes, terminals, sockets."""

from __future__ import annotations

import os
import select
import time

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, HostError
from pyhv.log import event

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pyhv.events import HostEvents
    from pyhv.virtio.console_port import VirtioPort

BACKLOG: Final = 1 << 20
"""Bytes of output that wait for a slow host before the guest has to; a guest's terminal waits with its interrupts off."""
LAST_CHANCE: Final = 2.0
"""Seconds that a slow reader of the output gets at the machine's end."""
_PIPE_BUF: Final = select.PIPE_BUF


class PortStream:
    """What comes from `source` is the port's input, and end of file closes it; its output goes to `sink`.

    -1 is nothing. Nothing blocks: a slow sink makes the guest wait, a slow guest leaves bytes in the source. The
    descriptors are whoever's opened them: duplicates are used, which `close` closes, and no flag of theirs is changed.
    Raises ConfigError for one that is not open.

    An error of the sink goes to `on_error`, and the rest of the output nowhere; without one it is a HostError, which ends
    the machine. `peer`: a sink that hangs up does neither, but closes the port.
    """

    def __init__(
        self,
        port: VirtioPort,
        *,
        source: int = -1,
        sink: int = -1,
        on_error: Callable[[OSError], object] | None = None,
        peer: bool = False,
    ) -> None:
        self.port = port
        self.source = _duplicate(source, port)
        self.sink = _duplicate(sink, port)
        self._on_error = on_error
        self._peer = peer
        self._backlog = bytearray()
        self._events: HostEvents | None = None
        self._reading = self._writing = False
        if sink >= 0:
            self._poll = select.poll()
            self._poll.register(self.sink, select.POLLOUT)
            port.output = self._output
        if source >= 0:
            port.on_room = self._read_on

    @property
    def waiting(self) -> int:
        """Bytes of output that the sink has not taken yet; once it has, the port is resumed."""
        return len(self._backlog)

    def start(self, events: HostEvents) -> None:
        """Watch the source."""
        self._events = events
        if self.source >= 0:
            self._read_on()
        if self._backlog:
            self._watch_sink()

    def close(self) -> None:
        """Watch nothing any more; what waits for the sink gets a moment to go."""
        events, self._events = self._events, None
        if events is not None and self._reading:
            events.remove_reader(self.source)
        if events is not None and self._writing:
            events.remove_writer(self.sink)
        self._reading = self._writing = False
        deadline = time.monotonic() + LAST_CHANCE
        while self._backlog and (left := deadline - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self._flush()
        if self._backlog:
            event("console.output_lost", port=self.port.name, size=len(self._backlog))
        self._close_source()
        self._close_sink()

    def _close_source(self) -> None:
        fd, self.source = self.source, -1
        if fd >= 0:
            os.close(fd)

    def _close_sink(self) -> None:
        fd, self.sink = self.sink, -1
        if fd >= 0:
            os.close(fd)

    # From the host to the guest

    def _read_on(self) -> None:
        if self._events is not None and not self._reading and self.source >= 0:
            self._reading = True
            self._events.add_reader(self.source, self._readable)

    def _stop_reading(self) -> None:
        if self._reading and self._events is not None:
            self._reading = False
            self._events.remove_reader(self.source)

    def _readable(self) -> None:
        room = self.port.room
        if not room:
            self._stop_reading()
            self.port.want_room()
            return
        try:
            data = os.read(self.source, room)
        except BlockingIOError:
            return
        except OSError:  # a terminal that is gone, a peer that reset the connection
            data = b""
        if data:
            self.port.input(data)
        else:
            self._stop_reading()
            self._close_source()
            self.port.close()

    # From the guest to the host

    def _output(self, data: bytes) -> None:
        if self.sink < 0:
            return
        self._backlog += data
        self._flush()
        if self._backlog:
            self._watch_sink()
            if len(self._backlog) > BACKLOG:
                self.port.pause()

    def _watch_sink(self) -> None:
        if not self._writing and self._events is not None:
            self._writing = True
            self._events.add_writer(self.sink, self._writable)

    def _writable(self) -> None:
        self._flush()
        if not self._backlog:
            if self._writing and self._events is not None:
                self._writing = False
                self._events.remove_writer(self.sink)
            self.port.resume()

    def _flush(self) -> None:
        """Write what the sink takes without blocking."""
        try:
            while self._backlog and self._poll.poll(0):
                del self._backlog[: os.write(self.sink, self._backlog[:_PIPE_BUF])]
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(error)

    def _broken(self, error: OSError) -> None:
        self._backlog.clear()
        if self._writing and self._events is not None:
            self._writing = False
            self._events.remove_writer(self.sink)
        self._close_sink()
        if self._peer and isinstance(error, (BrokenPipeError, ConnectionError)):
            self._stop_reading()
            self._close_source()
            self.port.close()
        elif self._on_error is not None:
            self._on_error(error)
        else:
            raise HostError(f"console: {self.port.name or 'output'}: {error.strerror}") from None
        self.port.resume()


def _duplicate(fd: int, port: VirtioPort) -> int:
    """A descriptor of the same file: two streams may share one, an event loop watches each descriptor once."""
    try:
        return os.dup(fd) if fd >= 0 else -1
    except OSError:
        raise ConfigError(f"console: {port.name or 'port'}: descriptor {fd} is not open") from None
