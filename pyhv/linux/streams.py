"""The streams of a command in a guest, as ports of its console: where its output goes, and what it reads."""

from __future__ import annotations

import errno

from pyhv._types import TYPE_CHECKING
from pyhv.errors import HostError
from pyhv.virtio.console_port import VirtioPort
from pyhv.virtio.console_stream import PortStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.events import HostEvents

CAPTURE_LIMIT = 256 << 20
"""Bytes of output that are kept in memory; a command that prints more ends the run as an error."""
FEED = 1 << 15


class Outlet:
    """A port whose output goes to a descriptor, or is kept in `captured`.

    `settled()` is called whenever it may be that nothing waits any more, `broken()` once the descriptor's reader has gone.
    """

    def __init__(
        self, name: str, *, title: str, sink: int | None, settled: Callable[[], None], broken: Callable[[], None]
    ) -> None:
        self.port = OutputPort(name, settled)
        self.captured = bytearray()
        self.passed = 0
        self.gone = False
        self._title = title
        self._settled = settled
        self._broken = broken
        self._stream = None if sink is None else PortStream(self.port, sink=sink, on_error=self._failed)
        self._deliver = self._keep if self._stream is None else self.port.output
        self.port.output = self._take

    @property
    def waiting(self) -> int:
        """Bytes that the descriptor has not taken yet."""
        return 0 if self._stream is None else self._stream.waiting

    def start(self, events: HostEvents) -> None:
        if self._stream is not None:
            self._stream.start(events)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def complete(self, size: int) -> bool:
        """Whether `size` bytes came and are where they belong; of a reader that has gone nothing is asked."""
        return self.gone or (self.passed == size and not self.waiting)

    def _take(self, data: bytes) -> None:
        self.passed += len(data)
        if not self.gone and self._deliver is not None:
            self._deliver(data)
        self._settled()

    def _keep(self, data: bytes) -> None:
        if len(self.captured) + len(data) > CAPTURE_LIMIT:
            raise HostError(f"{self._title}: the command printed more than {CAPTURE_LIMIT >> 20} MiB, which is not kept")
        self.captured += data

    def _failed(self, error: OSError) -> None:
        if error.errno != errno.EPIPE:
            raise HostError(f"{self._title} cannot be written: {error.strerror}") from None
        self.gone = True
        self._broken()


class OutputPort(VirtioPort):
    """It tells when what waited has gone: that is when the stream lets it take more.

    A terminal's is its input as well, of which the guest gets what `filter` makes of it.
    """

    filter: Callable[[bytes], bytes] | None = None

    def __init__(self, name: str, settled: Callable[[], None]) -> None:
        super().__init__(name)
        self._settled = settled

    def resume(self) -> None:
        super().resume()
        self._settled()

    def input(self, data: bytes | bytearray | memoryview) -> int:
        if self.filter is None:
            return super().input(data)
        typed = bytes(data[: self.room])
        super().input(self.filter(typed))
        return len(typed)

    def close(self) -> None:
        """The host's terminal has hung up, and its process will hear of that."""


class InputPort(VirtioPort):
    """What the command reads. Its end is said by the number of bytes before it, not by hanging up.

    A guest that finds a port closed does not know whether it has been open before.
    """

    def __init__(self, name: str, *, at_end: Callable[[int], None]) -> None:
        super().__init__(name)
        self.passed = 0
        self._at_end = at_end

    def input(self, data: bytes | bytearray | memoryview) -> int:
        taken = super().input(data)
        self.passed += taken
        return taken

    def close(self) -> None:
        self._at_end(self.passed)


class Inlet:
    """A port that is fed from a descriptor, or from bytes."""

    def __init__(self, port: VirtioPort, source: bytes | int) -> None:
        self._port = port
        self._stream = PortStream(port, source=source) if isinstance(source, int) else None
        self._left = memoryview(b"" if isinstance(source, int) else source)
        self._ended = False
        if self._stream is None:
            port.on_room = self._feed

    def start(self, events: HostEvents) -> None:
        if self._stream is not None:
            self._stream.start(events)
        else:
            self._feed()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _feed(self) -> None:
        while self._left:
            taken = self._port.input(self._left[:FEED])
            self._left = self._left[taken:]
            if taken < FEED and self._left:
                self._port.want_room()
                return
        if not self._ended:
            self._ended = True
            self._port.close()
