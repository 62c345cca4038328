"""Commands of the control queue, and the filter that they set."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.net import ids
from pyhv.net.control import execute
from pyhv.net.filter import MAX_ADDRESSES, ReceiveFilter

ME, OTHER, GROUP, ALL = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2", b"\x01\0\x5e\0\0\1", b"\xff" * 6
EVERYTHING = (1 << 64) - 1
CONTROL = ids.usable(EVERYTHING)
OK, ERR = ids.CTRL_OK, ids.CTRL_ERR


class Device:
    def __init__(self):
        self.filter = ReceiveFilter()
        self.filter.address = ME
        self.acknowledged = 0
        self.offloads = None

    def acknowledge_announcement(self):
        self.acknowledged += 1

    def set_guest_offloads(self, offloads):
        self.offloads = offloads


@pytest.fixture
def device():
    return Device()


def do(device, kind, command, data=b"", features=EVERYTHING):
    return execute(device, features, bytes((kind, command)) + data)


def passing(device, vlan=None):
    """Which of the four kinds of address pass."""
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    names = {"me": ME, "other": OTHER, "group": GROUP, "all": ALL}
    return {name for name, target in names.items() if device.filter.passes((target + OTHER + tag + b"\x08\0\0\0")[:16])}


def table(unicast, multicast):
    return b"".join(pack("<I", len(part)) + b"".join(part) for part in (unicast, multicast))


def test_everything_passes_until_the_driver_says_otherwise(device):
    assert passing(device) == {"me", "other", "group", "all"}
    assert device.filter.open


def test_receive_modes(device):
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0") == OK
    assert not device.filter.open
    assert passing(device) == {"me", "all"}
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_ALLMULTI, b"\1") == OK
    assert passing(device) == {"me", "group", "all"}
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_ALLUNI, b"\1") == OK
    assert passing(device) == {"me", "other", "group", "all"}
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_NOMULTI, b"\1") == OK
    assert passing(device) == {"me", "other", "all"}
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_NOUNI, b"\1") == OK
    assert passing(device) == {"all"}
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_NOBCAST, b"\1") == OK
    assert passing(device) == set()
    assert do(device, ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\1") == OK
    assert passing(device) == {"me", "other", "group", "all"}


def test_the_table_of_addresses(device):
    do(device, ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0")
    assert do(device, ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, table([OTHER], [GROUP])) == OK
    assert passing(device) == {"me", "other", "group", "all"}
    assert do(device, ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, table([], [])) == OK
    assert passing(device) == {"me", "all"}
    many = [b"\x02" + pack(">BI", 0, n) for n in range(MAX_ADDRESSES + 1)]
    assert do(device, ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, table(many, [])) == OK
    assert passing(device) == {"me", "other", "all"}
    assert not device.filter.unicast


def test_the_devices_own_address(device):
    do(device, ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0")
    assert do(device, ids.CTRL_MAC, ids.CTRL_MAC_ADDR_SET, OTHER) == OK
    assert passing(device) == {"other", "all"}
    assert do(device, ids.CTRL_MAC, ids.CTRL_MAC_ADDR_SET, GROUP) == ERR
    assert device.filter.address == OTHER


def test_vlans(device):
    assert do(device, ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, pack("<H", 5)) == ERR  # not filtered
    device.filter.vlans = set()
    assert passing(device) == {"me", "other", "group", "all"}
    assert passing(device, vlan=5) == set()
    assert do(device, ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, pack("<H", 5)) == OK
    assert passing(device, vlan=0xE005) == {"me", "other", "group", "all"}
    assert passing(device, vlan=6) == set()
    assert do(device, ids.CTRL_VLAN, ids.CTRL_VLAN_DEL, pack("<H", 5)) == OK
    assert passing(device, vlan=5) == set()
    for number in range(0x1000):
        assert do(device, ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, pack("<H", number)) == OK
    assert do(device, ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, pack("<H", 0x1000)) == ERR


def test_an_announcement_is_acknowledged(device):
    assert do(device, ids.CTRL_ANNOUNCE, ids.CTRL_ANNOUNCE_ACK) == OK
    assert device.acknowledged == 1


def test_guest_offloads_are_a_part_of_what_was_negotiated(device):
    some = ids.bits(ids.F_GUEST_CSUM, ids.F_GUEST_TSO4)
    assert do(device, ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, pack("<Q", some)) == OK
    assert device.offloads == some
    alone = ids.bits(ids.F_GUEST_TSO4)
    assert do(device, ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, pack("<Q", alone)) == OK
    assert device.offloads == 0
    features = EVERYTHING & ~ids.bits(ids.F_GUEST_TSO6)
    more = ids.bits(ids.F_GUEST_CSUM, ids.F_GUEST_TSO6)
    assert do(device, ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, pack("<Q", more), features) == ERR
    assert do(device, ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, pack("<Q", 1 << 3)) == ERR
    assert device.offloads == 0


@pytest.mark.parametrize(
    ("kind", "command", "data"),
    [
        (ids.CTRL_RX, ids.CTRL_RX_PROMISC, b""),
        (ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0\0"),
        (ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\2"),
        (ids.CTRL_RX, 6, b"\1"),
        (ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, b""),
        (ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, pack("<I", 0)),
        (ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, pack("<II", 0, 1) + bytes(5)),
        (ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, pack("<II", 0, 0xFFFF_FFFF) + bytes(6)),
        (ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, pack("<III", 0, 0, 0)),
        (ids.CTRL_MAC, ids.CTRL_MAC_ADDR_SET, ME[:5]),
        (ids.CTRL_MAC, 2, ME),
        (ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, b"\1"),
        (ids.CTRL_VLAN, 2, b"\1\0"),
        (ids.CTRL_ANNOUNCE, 1, b""),
        (ids.CTRL_ANNOUNCE, 0, b"\0"),
        (4, 0, b"\1\0"),
        (ids.CTRL_GUEST_OFFLOADS, 0, bytes(7)),
        (ids.CTRL_GUEST_OFFLOADS, 1, bytes(8)),
        (6, 0, b""),
        (255, 255, b""),
    ],
)
def test_malformed_commands_are_errors(device, kind, command, data):
    device.filter.vlans = set()
    assert do(device, kind, command, data) == ERR


@pytest.mark.parametrize(
    ("kind", "command", "data", "number"),
    [
        (ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0", ids.F_CTRL_RX),
        (ids.CTRL_RX, ids.CTRL_RX_NOUNI, b"\0", ids.F_CTRL_RX_EXTRA),
        (ids.CTRL_MAC, ids.CTRL_MAC_TABLE_SET, bytes(8), ids.F_CTRL_RX),
        (ids.CTRL_MAC, ids.CTRL_MAC_ADDR_SET, OTHER, ids.F_CTRL_MAC_ADDR),
        (ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, bytes(2), ids.F_CTRL_VLAN),
        (ids.CTRL_ANNOUNCE, ids.CTRL_ANNOUNCE_ACK, b"", ids.F_GUEST_ANNOUNCE),
        (ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, bytes(8), ids.F_CTRL_GUEST_OFFLOADS),
    ],
)
def test_commands_need_their_feature(device, kind, command, data, number):
    device.filter.vlans = set()
    assert do(device, kind, command, data, CONTROL & ~(1 << number)) == ERR
    assert do(device, kind, command, data, CONTROL) == OK


@given(st.lists(st.binary(max_size=40) | st.builds(
    lambda kind, command, data: bytes((kind, command)) + data, st.integers(0, 6), st.integers(0, 6), st.binary(max_size=30)
), max_size=20), st.integers(0, EVERYTHING), st.binary(max_size=20))
def test_no_command_does_more_than_it_may(commands, features, frame):
    device = Device()
    device.filter.vlans = set() if features & 1 else None
    for command in commands:
        assert execute(device, features, command) in (OK, ERR)
    assert device.filter.passes(frame) in (True, False)
    assert len(device.filter.address) == 6
    assert not device.filter.address[0] & 1
    assert device.offloads is None or not device.offloads & ~ids.GUEST_OFFLOADS
