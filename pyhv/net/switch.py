"""A switch in this process, to connect machines with each other.

    from pyhv.net import Switch

    switch = Switch()
    left = pyhv.Machine("vmlinuz", devices=[pyhv.Net.peer(switch.port())])
    right = pyhv.Machine("vmlinuz", devices=[pyhv.Net.peer(switch.port())])
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.net.peer import Peer

if TYPE_CHECKING:
    from typing import Final

MOST_ADDRESSES: Final = 1024
"""Addresses that are remembered; guests can make up any number of them."""


class SwitchPort(Peer):
    """A socket of the switch."""

    live = True

    def __init__(self, switch: Switch, number: int) -> None:
        self.number = number
        self.identity = f"switch port {number}"
        self._switch = switch

    def receive(self, frame: bytes) -> None:
        self._switch.forward(self, frame)


class Switch:
    """Learns where addresses are, and sends frames there; to all other ports what it does not know, and what is for all.

    Machines may run in different threads.
    """

    def __init__(self) -> None:
        self.ports: tuple[SwitchPort, ...] = ()
        self.forwarded = 0
        """Frames that were handed to a port that took them."""
        self._homes: dict[bytes, SwitchPort] = {}

    def port(self) -> SwitchPort:
        """One more port, for one machine's network device."""
        port = SwitchPort(self, len(self.ports) + 1)
        self.ports = (*self.ports, port)
        return port

    def forward(self, source: SwitchPort, frame: bytes) -> None:
        """A frame that came in at a port."""
        target, sender = frame[:6], frame[6:12]
        if not sender[0] & 1:
            # Single operations on a dict and a tuple: machines of several threads need no lock.
            if len(self._homes) >= MOST_ADDRESSES and sender not in self._homes:
                self._homes.clear()
            self._homes[sender] = source
        home = None if target[0] & 1 else self._homes.get(target)
        for port in self.ports if home is None else (home,):
            if port is not source and port.send(frame):
                self.forwarded += 1
