"""What a network device asks of the host: to send frames, to hand out those that came, to say when there are some.

Everything is called with the machine's lock held, and nothing blocks. A frame that cannot be sent at once is dropped and
counted: networks lose frames, a machine must not stand still.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

    from pyhv.clock import Clock
    from pyhv.events import HostEvents


class Listener(Protocol):
    """The device, as its backend sees it."""

    def frames_waiting(self) -> None:
        """`receive` has something."""
        ...

    def link_changed(self) -> None:
        """`link_up` is another."""
        ...


class NetBackend:
    """The base: a cable that leads nowhere.

    - `header`: frames have a virtio-net header (12 bytes) before them, both ways. Without it no offload can be asked for.
    - `offloads`: the feature bits, of those in `pyhv.net.ids`, that it takes (HOST_OFFLOADS) and gives (GUEST_OFFLOADS).
    - `live`: frames come at times that the machine does not decide.
    - `identity`: what tells it from another of the same machine, or of its neighbour; a default address is made of it.
    - `dropped`: frames of the guest that could not be sent; `missed`: frames to the guest that were lost here.
    """

    live: ClassVar[bool] = False
    header: bool = False
    offloads: int = 0
    link_up: bool = True
    identity: str = "none"
    dropped: int = 0
    missed: int = 0

    def open(self, events: HostEvents, clock: Clock, listener: Listener) -> None:
        """Take what it needs of the host. Raises HostError or ConfigError."""

    def resume(self) -> None:
        """Call `listener.frames_waiting` from now on whenever there are frames. Idempotent."""

    def pause(self) -> None:
        """Stop that: nobody wants frames now. Idempotent."""

    def set_guest_offloads(self, offloads: int) -> None:
        """The driver takes frames with these offloads, a part of `offloads`."""

    def send(self, header: bytes, frame: Sequence[memoryview]) -> None:
        """Send a frame in pieces, or drop and count it; `header` goes before it where `self.header` says so.

        The pieces are only good during the call.
        """
        self.dropped += 1

    def flush(self) -> None:
        """No further frame is sent for the moment."""

    def receive(self, into: Sequence[memoryview]) -> int:
        """Put the next frame into these pieces; its length, which is more than their room where it was cut. 0: no frame."""
        return 0

    def close(self) -> None:
        """Give everything back. Idempotent."""


def gather(pieces: Sequence[memoryview], start: int, size: int) -> bytes:
    """`size` bytes from `start` on of what lies in pieces, fewer where they end."""
    found = b""
    for piece in pieces:
        if start >= len(piece):
            start -= len(piece)
            continue
        found += piece[start : start + size - len(found)]
        start = 0
        if len(found) >= size:
            break
    return found


def scatter(frame: bytes | memoryview, into: Sequence[memoryview]) -> int:
    """Copy a frame into pieces, as far as they go; its length."""
    length, at = len(frame), 0
    for piece in into:
        end = at + len(piece)
        if end >= length:
            piece[: length - at] = frame[at:]
            break
        piece[:] = frame[at:end]
        at = end
    return length
