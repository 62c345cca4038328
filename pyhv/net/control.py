"""Commands of the control queue (virtio 1.2, 5.1.6.5)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.net import ids

if TYPE_CHECKING:
    from typing import Final

    from pyhv.net.filter import ReceiveFilter

MAX_COMMAND: Final = 1 << 16
"""Bytes of a command; the longest that makes sense is a table of addresses."""

_MODES = {
    ids.CTRL_RX_PROMISC: ("promiscuous", ids.F_CTRL_RX),
    ids.CTRL_RX_ALLMULTI: ("all_multicast", ids.F_CTRL_RX),
    ids.CTRL_RX_ALLUNI: ("all_unicast", ids.F_CTRL_RX_EXTRA),
    ids.CTRL_RX_NOMULTI: ("no_multicast", ids.F_CTRL_RX_EXTRA),
    ids.CTRL_RX_NOUNI: ("no_unicast", ids.F_CTRL_RX_EXTRA),
    ids.CTRL_RX_NOBCAST: ("no_broadcast", ids.F_CTRL_RX_EXTRA),
}


class Controlled(Protocol):
    """The device, as commands see it."""

    filter: ReceiveFilter

    def acknowledge_announcement(self) -> None:
        """The driver has told the network where it is."""
        ...

    def set_guest_offloads(self, offloads: int) -> None:
        """The driver takes these offloads from now on, a part of those that were negotiated."""
        ...


class BadCommand(Exception):
    """The command is malformed, unknown, or not negotiated."""


def execute(device: Controlled, features: int, command: bytes) -> int:
    """Do one command of a driver with these negotiated features; what it gets as `ack`, CTRL_OK or CTRL_ERR."""
    try:
        if len(command) < 2:
            raise BadCommand
        handler = _HANDLERS.get(command[0])
        if handler is None:
            raise BadCommand
        handler(device, features, command[1], command[2:])
    except BadCommand:
        return ids.CTRL_ERR
    return ids.CTRL_OK


def _need(features: int, number: int) -> None:
    if not features >> number & 1:
        raise BadCommand


def _receive_mode(device: Controlled, features: int, command: int, data: bytes) -> None:
    name, feature = _MODES.get(command, ("", 63))
    _need(features, feature)
    if not name or len(data) != 1 or data[0] > 1:
        raise BadCommand
    setattr(device.filter, name, bool(data[0]))


def _addresses(device: Controlled, features: int, command: int, data: bytes) -> None:
    if command == ids.CTRL_MAC_TABLE_SET:
        _need(features, ids.F_CTRL_RX)
        unicast, rest = _table(data)
        multicast, rest = _table(rest)
        if rest:
            raise BadCommand
        device.filter.set_addresses(unicast, multicast)
    elif command == ids.CTRL_MAC_ADDR_SET:
        _need(features, ids.F_CTRL_MAC_ADDR)
        if len(data) != 6 or data[0] & 1:
            raise BadCommand
        device.filter.address = data
    else:
        raise BadCommand


def _table(data: bytes) -> tuple[list[bytes], bytes]:
    """One table of addresses (struct virtio_net_ctrl_mac), and what follows it."""
    count = int.from_bytes(data[:4], "little")
    end = 4 + 6 * count
    if len(data) < 4 or len(data) < end:
        raise BadCommand
    return [data[at : at + 6] for at in range(4, end, 6)], data[end:]


def _vlan(device: Controlled, features: int, command: int, data: bytes) -> None:
    _need(features, ids.F_CTRL_VLAN)
    number = int.from_bytes(data, "little")
    vlans = device.filter.vlans
    if len(data) != 2 or number > 0xFFF or vlans is None:
        raise BadCommand
    if command == ids.CTRL_VLAN_ADD:
        vlans.add(number)
    elif command == ids.CTRL_VLAN_DEL:
        vlans.discard(number)
    else:
        raise BadCommand


def _announce(device: Controlled, features: int, command: int, data: bytes) -> None:
    _need(features, ids.F_GUEST_ANNOUNCE)
    if command != ids.CTRL_ANNOUNCE_ACK or data:
        raise BadCommand
    device.acknowledge_announcement()


def _offloads(device: Controlled, features: int, command: int, data: bytes) -> None:
    _need(features, ids.F_CTRL_GUEST_OFFLOADS)
    offloads = int.from_bytes(data, "little")
    if command != ids.CTRL_GUEST_OFFLOADS_SET or len(data) != 8 or offloads & ~(features & ids.GUEST_OFFLOADS):
        raise BadCommand
    device.set_guest_offloads(ids.usable(offloads) & ids.GUEST_OFFLOADS)


_HANDLERS = {
    ids.CTRL_RX: _receive_mode,
    ids.CTRL_MAC: _addresses,
    ids.CTRL_VLAN: _vlan,
    ids.CTRL_ANNOUNCE: _announce,
    ids.CTRL_GUEST_OFFLOADS: _offloads,
}
