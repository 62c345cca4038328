"""A backend without a device: what goes in, what comes out, and a guest's TCP made by hand."""

import struct
from collections import deque

from pyhv.clock import ManualClock
from pyhv.net import ids
from pyhv.net.frames import BROADCAST, ETHERTYPE_IPV4, TCP, UDP, Arp, Ipv4, Udp, checksum, ethernet, parse_ipv4_packet
from pyhv.testing.doubles import ManualEvents

GUEST = b"\x02\x76\x00\x00\x00\x02"
PLAIN = bytes(ids.HEADER_SIZE)
ROOM = 70000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class Wire:
    """An open backend, and its listener: `links` holds what the link was at each change, `told` counts frames_waiting."""

    def __init__(self, backend, *, resume=True):
        self.backend = backend
        self.events = ManualEvents()
        self.clock = ManualClock()
        self.told = 0
        self.links = []
        self.backlog = deque()
        backend.open(self.events, self.clock, self)
        if resume:
            backend.resume()

    def frames_waiting(self):
        self.told += 1

    def link_changed(self):
        self.links.append(self.backend.link_up)

    def send(self, frame, header=PLAIN):
        """Send a frame in two pieces."""
        data = bytearray(frame)
        self.backend.send(header, [memoryview(data)[:20], memoryview(data)[20:]])
        self.backend.flush()

    def receive(self, room=ROOM):
        """The next frame, b"" when there is none."""
        buffer = bytearray(room)
        view = memoryview(buffer)
        length = self.backend.receive([view[:30], view[30:100], view[100:]])
        assert length <= room
        return bytes(buffer[:length])

    def frames(self, timeout=0.0):
        """All frames that are there."""
        self.events.run(timeout)
        found = []
        while frame := self.receive():
            found.append(frame)
        return found

    def wait(self, wanted, turns=400):
        """The first frame for which `wanted(frame)` is true, or rather its value. Those before it are dropped."""
        for _ in range(turns):
            while self.backlog:
                if value := wanted(self.backlog.popleft()):
                    return value
            self.backlog += self.frames(0.05)
        raise AssertionError("the frame never came")

    def close(self):
        self.backend.close()
        assert not self.events.readers
        assert not self.events.writers


def arp_request(sender_ip, target_ip, mac=GUEST):
    return ethernet(BROADCAST, mac, 0x0806, Arp(1, mac, sender_ip, bytes(6), target_ip).pack())


def datagram(target_mac, source_ip, target_ip, source, target, data, mac=GUEST):
    """UDP in a frame."""
    body = Udp(source, target, data).pack(source_ip, target_ip)
    return ethernet(target_mac, mac, ETHERTYPE_IPV4, Ipv4(source_ip, target_ip, UDP, body).pack())


def segment(source_ip, target_ip, source, target, sequence, acknowledged, flags, data=b""):
    """A TCP segment in an IPv4 packet."""
    fields = (source, target, sequence & 0xFFFF_FFFF, acknowledged & 0xFFFF_FFFF, 5 << 4, flags, 0xFFFF)
    header = struct.pack(">HHIIBBHHH", *fields, 0, 0)
    pseudo = source_ip + target_ip + struct.pack(">HH", TCP, len(header) + len(data))
    header = struct.pack(">HHIIBBHHH", *fields, checksum(pseudo + header + data), 0)
    return Ipv4(source_ip, target_ip, TCP, header + data).pack()


def parse_segment(frame):
    """(source, target, sequence, acknowledged, flags, data) of a TCP frame, else None."""
    packet = parse_ipv4_packet(frame[14:]) if frame[12:14] == b"\x08\x00" else None
    if packet is None or packet.protocol != TCP:
        return None
    source, target, sequence, acknowledged, offset, flags = struct.unpack_from(">HHIIBB", packet.payload)
    return source, target, sequence, acknowledged, flags, packet.payload[(offset >> 4) * 4 :]


class TcpGuest:
    """One TCP connection of a guest whose network is perfect: nothing is sent twice, what repeats is ignored."""

    def __init__(self, wire, mac, ip, gateway_mac, peer_ip):
        self.wire = wire
        self.mac, self.ip, self.gateway_mac, self.peer_ip = mac, ip, gateway_mac, peer_ip
        self.port = self.peer_port = 0
        self.next = 1000
        self.expected = 0
        self.received = bytearray()
        self.finished = False

    def _send(self, flags, data=b""):
        packet = segment(self.ip, self.peer_ip, self.port, self.peer_port, self.next, self.expected, flags, data)
        self.wire.send(ethernet(self.gateway_mac, self.mac, ETHERTYPE_IPV4, packet))
        self.next += len(data) + (1 if flags & (SYN | FIN) else 0)

    def _wait(self, flag):
        def mine(frame):
            found = parse_segment(frame)
            return found if found and found[4] & flag and (not self.port or found[1] == self.port) else None

        return self.wire.wait(mine)

    def connect(self, port, source=40000):
        """Open a connection; False when it was refused."""
        self.port, self.peer_port = source, port
        self._send(SYN)
        *_, sequence, _, flags, _ = self._wait(SYN | RST)
        if flags & RST:
            return False
        self.expected = sequence + 1
        self._send(ACK)
        return True

    def accept(self, port):
        """Answer a connection that comes to this port."""
        self.port = 0
        while True:
            source, target, sequence, _, flags, _ = self._wait(SYN)
            if target == port and not flags & ACK:
                break
        self.port, self.peer_port, self.expected = port, source, sequence + 1
        self._send(SYN | ACK)

    def send(self, data):
        for at in range(0, len(data), 1400):
            self._send(ACK | PSH, data[at : at + 1400])

    def receive(self, count):
        """Wait until `count` bytes came in all, or the other side closed."""
        while len(self.received) < count and not self.finished:
            _, _, sequence, _, flags, data = self._wait(ACK)
            if sequence == self.expected & 0xFFFF_FFFF and (data or flags & FIN):
                self.received += data
                self.expected += len(data) + bool(flags & FIN)
                self.finished = bool(flags & FIN)
                self._send(ACK)
        return bytes(self.received)

    def close(self):
        self._send(FIN | ACK)
