"""Peers: Python objects at the other end of a machine's network cable.

    from pyhv.net import Peer

    class Counter(Peer):
        seen = 0

        def receive(self, frame):
            self.seen += 1
            self.send(frame[6:12] + frame[:6] + frame[12:])     # back to where it came from

    machine = pyhv.Machine("vmlinuz", devices=[pyhv.Net.peer(Counter())])

A peer that only answers is part of the machine: a simulated run with it stays deterministic.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections import deque

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.net.backend import NetBackend, scatter
from pyhv.net.ids import ETHERNET_HEADER, MAX_FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from pyhv.clock import Clock
    from pyhv.events import HostEvents
    from pyhv.net.backend import Listener

MOST_WAITING: Final = 1024
"""Frames to a guest that does not take them; more are dropped."""


class Peer:
    """The base: override `receive`, call `send`.

    `live`: it sends at times of its own, from any thread. One that is not sends only from within `receive` and from timers
    of `clock`, the machine's; all of that happens with the machine's lock held. `identity` tells peers of one program from
    each other, where default addresses are made of it.
    """

    live: bool = False
    identity: str = "peer"
    clock: Clock
    _port: PeerBackend | None = None

    def connected(self) -> None:
        """The machine is there, its guest perhaps not yet."""

    def disconnected(self) -> None:
        """The machine has ended."""

    def receive(self, frame: bytes) -> None:
        """The guest sent a frame: an Ethernet header and what follows it, without the checksum at its end."""

    def send(self, frame: bytes) -> bool:
        """Send a frame to the guest; False when it was dropped: no machine, too many frames waiting, or no frame at all."""
        port = self._port
        return port is not None and port.deliver(frame)


class PeerBackend(NetBackend):
    """A cable to a Python object."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.live = peer.live  # type: ignore[misc]
        self.identity = f"peer {peer.identity}"
        self._waiting: deque[bytes] = deque()
        self._resumed = False
        self._called = False
        self._wake = -1
        self._lock = allocate_lock()

    def open(self, events: HostEvents, clock: Clock, listener: Listener) -> None:
        if self._peer._port is not None:
            raise ConfigError("net: peer: it is connected to a machine already")
        self._events = events
        self._listener = listener
        if self.live:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            events.add_reader(self._wake, self._woken)
        self._peer.clock = clock
        self._peer._port = self
        self._peer.connected()

    def deliver(self, frame: bytes) -> bool:
        """A frame to the guest, from any thread where the peer is live."""
        if not ETHERNET_HEADER <= len(frame) <= MAX_FRAME:
            return False
        if len(self._waiting) >= MOST_WAITING:
            self.missed += 1
            return False
        self._waiting.append(bytes(frame))
        if not self._called:
            self._called = True
            if self.live:
                self._wake_up()
            else:
                self._events.call_soon(self._tell)
        return True

    def _wake_up(self) -> None:
        """Not by call_soon: that may wait for the machine's lock, whose holder may wait for what this thread holds."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _woken(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return
        self._tell()

    def _tell(self) -> None:
        self._called = False
        if self._resumed and self._waiting:
            self._listener.frames_waiting()

    def resume(self) -> None:
        self._resumed = True

    def pause(self) -> None:
        self._resumed = False

    def send(self, header: bytes, frame: Sequence[memoryview]) -> None:
        self._peer.receive(b"".join(frame))

    def receive(self, into: Sequence[memoryview]) -> int:
        return scatter(self._waiting.popleft(), into) if self._waiting else 0

    def close(self) -> None:
        if self._peer._port is not self:
            return
        self._peer._port = None
        with self._lock:
            wake, self._wake = self._wake, -1
        if wake >= 0:
            self._events.remove_reader(wake)
            os.close(wake)
        self._peer.disconnected()
