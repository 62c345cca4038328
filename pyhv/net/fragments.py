"""Fragments of IPv4 packets (RFC 791), put together before they go on.

libslirp is given whole packets only: in its own reassembly a guest's fragments could overwrite this process's memory more
than once, and in releases that are in use they still can (4.7: a last fragment that comes first).
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.net.frames import checksum
from pyhv.net.ids import ETHERNET_HEADER

if TYPE_CHECKING:
    from typing import Final

    from pyhv.clock import Clock

MOST_PACKETS: Final = 16
"""Packets of which not all is there; the oldest makes room for one more."""
LIFETIME_NS: Final = 30_000_000_000
MAX_PACKET: Final = 0xFFFF

_LENGTH, _ID, _FLAGS, _CHECKSUM = 2, 4, 6, 10
"""Offsets in an IPv4 header."""
_MORE, _OFFSET = 0x2000, 0x1FFF


def is_fragment(frame: bytes) -> bool:
    """Whether this is a part of an IPv4 packet."""
    flags = ETHERNET_HEADER + _FLAGS
    return frame[12:14] == b"\x08\x00" and bool(int.from_bytes(frame[flags : flags + 2], "big") & (_MORE | _OFFSET))


class _Packet:
    """What is there of a packet: `pieces` by their offsets, `size` bytes in all; `end` is -1 before the last piece came."""

    __slots__ = ("began", "end", "head", "pieces", "size")

    def __init__(self, began: int) -> None:
        self.began = began
        self.pieces: dict[int, bytes] = {}
        self.size = 0
        self.end = -1
        self.head = b""


class Reassembler:
    """Fragments of one sender. Pieces that overlap, and packets that are never whole, are lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._packets: dict[bytes, _Packet] = {}

    def add(self, frame: bytes) -> bytes | None:
        """Take a fragment; the frame with the whole packet once the last piece of it is there."""
        packet = frame[ETHERNET_HEADER:]
        header = 4 * (packet[0] & 15)
        length = int.from_bytes(packet[_LENGTH : _LENGTH + 2], "big")
        if packet[0] >> 4 != 4 or not 20 <= header < length <= len(packet) or checksum(packet[:header]):
            return None
        flags = int.from_bytes(packet[_FLAGS : _FLAGS + 2], "big")
        start, data = 8 * (flags & _OFFSET), packet[header:length]
        if (flags & _MORE and len(data) % 8) or header + start + len(data) > MAX_PACKET:
            return None
        key = packet[_ID : _ID + 2] + packet[9:10] + packet[12:20]
        found = self._begin(key)
        if start in found.pieces:  # sent twice
            return None
        found.pieces[start] = data
        found.size += len(data)
        if start == 0:
            found.head = frame[: ETHERNET_HEADER + header]
        if not flags & _MORE:
            found.end = start + len(data)
        if found.size > MAX_PACKET or 0 <= found.end <= found.size:
            del self._packets[key]
            return _whole(found)
        return None

    def _begin(self, key: bytes) -> _Packet:
        now = self._clock.now_ns()
        packets = self._packets
        found = packets.get(key)
        if found is not None and now - found.began < LIFETIME_NS:
            return found
        packets.pop(key, None)
        if len(packets) >= MOST_PACKETS:
            del packets[next(iter(packets))]
        packets[key] = found = _Packet(now)
        return found


def _whole(packet: _Packet) -> bytes | None:
    """The frame, None where the pieces do not join."""
    position = 0
    for start in sorted(packet.pieces):
        if start != position:
            return None
        position += len(packet.pieces[start])
    if position != packet.end:
        return None
    head = bytearray(packet.head)
    ip = memoryview(head)[ETHERNET_HEADER:]
    if len(ip) + packet.end > MAX_PACKET:  # its options are those of the first piece
        return None
    ip[_LENGTH : _LENGTH + 2] = (len(ip) + packet.end).to_bytes(2, "big")
    ip[_FLAGS : _FLAGS + 2] = ip[_CHECKSUM : _CHECKSUM + 2] = bytes(2)
    ip[_CHECKSUM : _CHECKSUM + 2] = checksum(bytes(ip)).to_bytes(2, "big")
    return bytes(head) + b"".join(packet.pieces[start] for start in sorted(packet.pieces))
