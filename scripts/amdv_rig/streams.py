"""Byte streams that come out of the machine, each over its own socket."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

Sink = Callable[[bytes], None]


class MarkedStream:
    """Passes on what arrives until the end marker, which it keeps back; nothing after it counts.

    Only bytes that may be the start of the marker wait for more, so that live output is live.
    """

    def __init__(self, marker: bytes, sink: Sink) -> None:
        if not marker:
            raise ValueError("an end marker is needed")
        self.marker = marker
        self.sink = sink
        self.ended = False
        self._held = b""

    def feed(self, data: bytes) -> None:
        if self.ended:
            return
        data = self._held + data
        self._held = b""
        before, found, _ = data.partition(self.marker)
        if found:
            self.ended = True
            self._pass(before)
            return
        keep = next(
            (n for n in range(min(len(data), len(self.marker) - 1), 0, -1) if data.endswith(self.marker[:n])), 0
        )
        self._held = data[len(data) - keep :]
        self._pass(data[: len(data) - keep])

    def close(self) -> None:
        """The machine ended: what was held was no marker."""
        self._pass(self._held)
        self._held = b""

    def _pass(self, data: bytes) -> None:
        if data:
            self.sink(data)


class LineStream:
    """Calls back with every whole line of text."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self.sink = sink
        self._held = b""

    def feed(self, data: bytes) -> None:
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self.sink(line.decode(errors="replace").rstrip("\r"))


@dataclass(slots=True)
class Tail:
    """Keeps the last `limit` bytes, for a message; passes everything on to another sink, if there is one."""

    limit: int = 8192
    sink: Sink | None = None
    data: bytes = field(default=b"")

    def feed(self, data: bytes) -> None:
        self.data = (self.data + data)[-self.limit :]
        if self.sink is not None:
            self.sink(data)

    def lines(self, count: int) -> str:
        return "\n".join(self.data.decode(errors="replace").replace("\r", "").splitlines()[-count:])


def file_sink(descriptor: int) -> Sink:
    """Writes all to a file descriptor; a reader that has gone away loses the rest silently, like a closed pager."""
    broken = False

    def write(data: bytes) -> None:
        nonlocal broken
        view = memoryview(data)
        while view and not broken:
            try:
                view = view[os.write(descriptor, view) :]
            except (BrokenPipeError, ConnectionResetError):
                broken = True

    return write
