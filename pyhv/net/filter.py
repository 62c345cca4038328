"""Which received frames a driver wants: by address and by VLAN (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

MAX_ADDRESSES: Final = 256
"""Addresses in the table, of each kind; with more, all of that kind are let through."""
HEAD_SIZE: Final = 16
"""Bytes of a frame that decide."""

_BROADCAST = b"\xff" * 6
_VLAN_TYPE = b"\x81\x00"


class ReceiveFilter:
    """Lets everything through until the driver says otherwise; `vlans` is None where VLANs are not filtered."""

    def __init__(self) -> None:
        self.address = bytes(6)
        self.reset()

    def reset(self) -> None:
        """As after a reset of the device; the address stays."""
        self.promiscuous = True
        self.all_multicast = False
        self.all_unicast = False
        self.no_multicast = False
        self.no_unicast = False
        self.no_broadcast = False
        self.unicast: frozenset[bytes] = frozenset()
        self.multicast: frozenset[bytes] = frozenset()
        self.any_unicast = False
        self.any_multicast = False
        self.vlans: set[int] | None = None

    @property
    def open(self) -> bool:
        """Whether every frame passes."""
        return self.promiscuous and self.vlans is None

    def set_addresses(self, unicast: Iterable[bytes], multicast: Iterable[bytes]) -> None:
        """The table of addresses besides the device's own."""
        self.unicast, self.multicast = frozenset(unicast), frozenset(multicast)
        self.any_unicast = len(self.unicast) > MAX_ADDRESSES
        self.any_multicast = len(self.multicast) > MAX_ADDRESSES
        if self.any_unicast:
            self.unicast = frozenset()
        if self.any_multicast:
            self.multicast = frozenset()

    def passes(self, head: bytes) -> bool:
        """Whether the driver gets a frame that begins with these HEAD_SIZE bytes (fewer where it is shorter)."""
        if self.vlans is not None and head[12:14] == _VLAN_TYPE and _tag(head) not in self.vlans:
            return False
        if self.promiscuous:
            return True
        target = head[:6]
        if target == _BROADCAST:
            return not self.no_broadcast
        if target and target[0] & 1:
            return not self.no_multicast and (self.all_multicast or self.any_multicast or target in self.multicast)
        return not self.no_unicast and (
            target == self.address or self.all_unicast or self.any_unicast or target in self.unicast
        )


def _tag(head: bytes) -> int:
    return (head[14] << 8 | head[15]) & 0xFFF if len(head) >= HEAD_SIZE else 0
