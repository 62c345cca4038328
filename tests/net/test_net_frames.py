"""Frames, addresses and forwards: as text, as bytes, and what is neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.errors import ConfigError
from pyhv.net.forward import LOOPBACK, Forward, parse_forward, parse_ipv4, show_ipv4
from pyhv.net.frames import UDP, Arp, Ipv4, Udp, checksum, ethernet, icmp, parse_arp, parse_ipv4_packet, parse_udp
from pyhv.net.mac import claim_mac, format_mac, parse_mac
from pyhv.testing.doubles import guest_memory

ip = st.binary(min_size=4, max_size=4)
mac = st.binary(min_size=6, max_size=6)


def plain_checksum(data):
    """RFC 1071, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=2000))
def test_the_checksum_is_the_internets(data):
    assert checksum(data) == plain_checksum(data)


@given(st.binary(max_size=100).filter(lambda data: len(data) % 2 == 0))
def test_data_with_its_checksum_sums_to_zero(data):
    assert checksum(data + checksum(data).to_bytes(2, "big")) == 0


@given(ip, ip, st.integers(0, 255), st.binary(max_size=200))
def test_ipv4_comes_back(source, target, protocol, payload):
    packet = Ipv4(source, target, protocol, payload)
    assert parse_ipv4_packet(packet.pack() + b"padding") == packet


@given(ip, ip, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=200))
def test_udp_comes_back(source, target, here, there, data):
    datagram = Udp(here, there, data)
    assert parse_udp(Ipv4(source, target, UDP, datagram.pack(source, target))) == datagram


@given(mac, ip, mac, ip, st.integers(0, 0xFFFF))
def test_arp_comes_back(sender, sender_ip, target, target_ip, operation):
    packet = Arp(operation, sender, sender_ip, target, target_ip)
    assert parse_arp(packet.pack()) == packet


@given(st.binary(max_size=60))
def test_other_bytes_are_nothing(data):
    for found in (parse_arp(data), parse_ipv4_packet(data)):
        assert found is None or found.pack()
    assert parse_udp(Ipv4(bytes(4), bytes(4), UDP, data)) is None or len(data) >= 8


def test_what_is_damaged_is_nothing():
    packet = bytearray(Ipv4(bytes(4), bytes(4), UDP, Udp(1, 2, b"abc").pack(bytes(4), bytes(4))).pack())
    whole = parse_ipv4_packet(bytes(packet))
    assert parse_udp(whole).data == b"abc"
    packet[-1] ^= 1
    assert parse_udp(parse_ipv4_packet(bytes(packet))) is None
    packet[8] ^= 1
    assert parse_ipv4_packet(bytes(packet)) is None
    fragment = bytearray(Ipv4(bytes(4), bytes(4), 1, b"").pack())
    fragment[6] = 0x20
    assert parse_ipv4_packet(bytes(fragment)) is None
    assert checksum(icmp(8, b"\0\1\0\1hello!")) == 0
    assert len(ethernet(bytes(6), bytes(6), 0x0800, b"")) == 60


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("tcp:2222:22", Forward("tcp", LOOPBACK, 2222, None, 22)),
        ("udp:0:53", Forward("udp", LOOPBACK, 0, None, 53)),
        ("tcp:0.0.0.0:80:8080", Forward("tcp", 0, 80, None, 8080)),
        ("tcp:80:10.0.2.16:8080", Forward("tcp", LOOPBACK, 80, 0x0A000210, 8080)),
        ("udp:127.0.0.2:1:10.0.2.15:2", Forward("udp", 0x7F000002, 1, 0x0A00020F, 2)),
    ],
)
def test_forwards(text, forward):
    assert parse_forward(text) == forward


@pytest.mark.parametrize(
    "text",
    ["", "tcp", "tcp:1", "tcp:1:0", "tcp:1:65536", "tcp:65536:1", "sctp:1:2", "tcp:1:2:3", "tcp:a:1", "tcp:1.2.3:1:2",
     "tcp:1.2.3.4.5:1:2", "tcp:256.0.0.1:1:2", "tcp:-1:2", "tcp:+1:2", "tcp: 1:2", "tcp:1:2:", "tcp:\u0661:1", ":1:2"],
)
def test_what_is_no_forward(text):
    with pytest.raises(ConfigError, match=r"^net: forward: .* is not tcp:\[HOST:\]PORT:\[GUEST:\]PORT or udp:\.\.\.$"):
        parse_forward(text)


@given(st.integers(0, 0xFFFF_FFFF))
def test_ipv4_addresses_as_text(address):
    assert parse_ipv4(show_ipv4(address)) == address


@given(mac)
def test_ethernet_addresses_as_text(address):
    if address[0] & 1 or not any(address):
        with pytest.raises(ConfigError, match="is not the address of one interface"):
            parse_mac(format_mac(address), "net: mac")
    else:
        assert parse_mac(format_mac(address), "net: mac") == address
        assert parse_mac(format_mac(address).upper().replace(":", "-"), "net: mac") == address


@pytest.mark.parametrize("text", ["", "02", "2:0:0:0:0", "2:0:0:0:0:0:0", "02:00:00:00:00:0g", "02:00:00:00:00:001"])
def test_what_is_no_ethernet_address(text):
    with pytest.raises(ConfigError, match=r"^net: mac: .* is not an address such as"):
        parse_mac(text, "net: mac")


def test_default_addresses_are_the_same_in_every_machine_and_differ_within_one():
    one, other = guest_memory(), guest_memory()
    first = [claim_mac(one, None, "user"), claim_mac(one, None, "user"), claim_mac(one, None, "tap x y")]
    again = [claim_mac(other, None, "user"), claim_mac(other, None, "user"), claim_mac(other, None, "tap x y")]
    assert first == again
    assert len(set(first)) == 3
    assert all(address[0] & 3 == 2 for address in first)  # locally administered, of one interface
    given_one = claim_mac(one, b"\x02\0\0\0\0\1", "user")
    assert given_one == b"\x02\0\0\0\0\1"
