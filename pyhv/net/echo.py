"""A host for tests: it answers ARP, pings and UDP, without any network."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.net.forward import parse_ipv4
from pyhv.net.frames import (
    ARP_REPLY,
    ARP_REQUEST,
    ECHO_REPLY,
    ECHO_REQUEST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ICMP,
    Arp,
    Ipv4,
    Udp,
    checksum,
    ethernet,
    icmp,
    parse_arp,
    parse_ipv4_packet,
    parse_udp,
)
from pyhv.net.mac import parse_mac
from pyhv.net.peer import Peer

if TYPE_CHECKING:
    from typing import Final

DEFAULT_MAC: Final = "02:76:00:00:00:01"


class EchoHost(Peer):
    """The host `ip`: ARP requests for it are answered, and so are echo requests; `datagram` decides about UDP.

    Deterministic: it answers at once and never speaks first. Raises ConfigError.
    """

    def __init__(self, ip: str = "10.0.0.1", mac: str = DEFAULT_MAC) -> None:
        try:
            self.ip = parse_ipv4(ip).to_bytes(4, "big")
        except ValueError:
            raise ConfigError(f"net: peer: {ip!r} is not an IPv4 address") from None
        self.mac = parse_mac(mac, "net: peer")
        self.identity = f"echo {ip}"

    def datagram(self, source: bytes, data: bytes, port: int) -> bytes | None:
        """The answer to a UDP datagram for `port` of this host: the same again. None: no answer."""
        return data

    def receive(self, frame: bytes) -> None:
        kind = frame[12] << 8 | frame[13]
        if kind == ETHERTYPE_ARP:
            self._arp(frame[14:])
        elif kind == ETHERTYPE_IPV4 and frame[:6] == self.mac:
            packet = parse_ipv4_packet(frame[14:])
            if packet is not None and packet.target == self.ip:
                self._packet(frame[6:12], packet)

    def _arp(self, data: bytes) -> None:
        request = parse_arp(data)
        if request is None or request.operation != ARP_REQUEST or request.target_ip != self.ip:
            return
        answer = Arp(ARP_REPLY, self.mac, self.ip, request.sender_mac, request.sender_ip)
        self.send(ethernet(request.sender_mac, self.mac, ETHERTYPE_ARP, answer.pack()))

    def _packet(self, sender: bytes, packet: Ipv4) -> None:
        payload = packet.payload
        if packet.protocol == ICMP:
            if len(payload) >= 8 and payload[0] == ECHO_REQUEST and not checksum(payload):
                self._answer(sender, packet, ICMP, icmp(ECHO_REPLY, payload[4:]))
            return
        datagram = parse_udp(packet)
        if datagram is None:
            return
        answer = self.datagram(packet.source, datagram.data, datagram.target)
        if answer is not None:
            back = Udp(datagram.target, datagram.source, answer).pack(self.ip, packet.source)
            self._answer(sender, packet, packet.protocol, back)

    def _answer(self, sender: bytes, packet: Ipv4, protocol: int, payload: bytes) -> None:
        answer = Ipv4(self.ip, packet.source, protocol, payload)
        self.send(ethernet(sender, self.mac, ETHERTYPE_IPV4, answer.pack()))
