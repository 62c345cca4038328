"""Ethernet, ARP, IPv4, ICMP and UDP, as far as peers written in Python need them."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.record import record

if TYPE_CHECKING:
    from typing import Final

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
BROADCAST: Final = b"\xff" * 6
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2
ECHO_REQUEST: Final = 8
ECHO_REPLY: Final = 0

_ARP = Struct(">HHBBH6s4s6s4s")
_IPV4 = Struct(">BBHHHBBH4s4s")
_UDP = Struct(">HHHH")
_ICMP = Struct(">BBH")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): of data with the checksum in it, 0."""
    if len(data) & 1:
        data += b"\0"
    total = sum(memoryview(data).cast("H"))
    total = (total >> 16) + (total & 0xFFFF)
    total = (total >> 16) + (total & 0xFFFF)
    swapped = ~total & 0xFFFF
    return swapped >> 8 | (swapped & 0xFF) << 8


def ethernet(target: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """A frame, padded to the 60 bytes that the wire asks for."""
    return (target + source + kind.to_bytes(2, "big") + payload).ljust(60, b"\0")


@record(frozen=True)
class Arp:
    """An ARP packet for IPv4 over Ethernet (RFC 826)."""

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes

    def pack(self) -> bytes:
        """The packet's bytes."""
        return _ARP.pack(
            1, ETHERTYPE_IPV4, 6, 4, self.operation, self.sender_mac, self.sender_ip, self.target_mac, self.target_ip
        )


def parse_arp(packet: bytes) -> Arp | None:
    """The packet, None when it is not ARP for IPv4 over Ethernet."""
    if len(packet) < _ARP.size:
        return None
    hardware, protocol, hardware_size, protocol_size, *rest = _ARP.unpack_from(packet)
    if (hardware, protocol, hardware_size, protocol_size) != (1, ETHERTYPE_IPV4, 6, 4):
        return None
    return Arp(*rest)


@record(frozen=True)
class Ipv4:
    """An IPv4 packet that is whole (RFC 791); options are dropped."""

    source: bytes
    target: bytes
    protocol: int
    payload: bytes
    ttl: int = 64

    def pack(self) -> bytes:
        """The packet's bytes, with its header's checksum."""
        fields = (0x45, 0, 20 + len(self.payload), 0, 0x4000, self.ttl, self.protocol)
        header = _IPV4.pack(*fields, 0, self.source, self.target)
        return _IPV4.pack(*fields, checksum(header), self.source, self.target) + self.payload


def parse_ipv4_packet(packet: bytes) -> Ipv4 | None:
    """The packet, None for a fragment, a wrong checksum or length, or another protocol."""
    if len(packet) < _IPV4.size:
        return None
    first, _, length, _, fragment, ttl, protocol, _, source, target = _IPV4.unpack_from(packet)
    header = 4 * (first & 15)
    if first >> 4 != 4 or not 20 <= header <= length <= len(packet) or fragment & 0x3FFF or checksum(packet[:header]):
        return None
    return Ipv4(source, target, protocol, packet[header:length], ttl)


@record(frozen=True)
class Udp:
    """A UDP datagram (RFC 768)."""

    source: int
    target: int
    data: bytes

    def pack(self, source_ip: bytes, target_ip: bytes) -> bytes:
        """The datagram's bytes, with its checksum."""
        length = _UDP.size + len(self.data)
        pseudo = source_ip + target_ip + bytes((0, UDP)) + length.to_bytes(2, "big")
        body = _UDP.pack(self.source, self.target, length, 0) + self.data
        return _UDP.pack(self.source, self.target, length, checksum(pseudo + body) or 0xFFFF) + self.data


def parse_udp(packet: Ipv4) -> Udp | None:
    """The datagram, None for a wrong checksum or length, or another protocol."""
    payload = packet.payload
    if packet.protocol != UDP or len(payload) < _UDP.size:
        return None
    source, target, length, check = _UDP.unpack_from(payload)
    if not _UDP.size <= length <= len(payload):
        return None
    pseudo = packet.source + packet.target + bytes((0, UDP)) + length.to_bytes(2, "big")
    if check and checksum(pseudo + payload[:length]):
        return None
    return Udp(source, target, payload[_UDP.size : length])


def icmp(kind: int, rest: bytes) -> bytes:
    """An ICMP message (RFC 792): type, code 0, checksum, and what follows."""
    return _ICMP.pack(kind, 0, checksum(_ICMP.pack(kind, 0, 0) + rest)) + rest
