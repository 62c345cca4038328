"""The header that a driver puts before each frame it sends (virtio 1.2, 5.1.6.2), and what the host is told instead.

A header is a promise about the frame behind it, and guests lie. What leaves here is made anew from what was checked: fields
that are not used are zero, and the header's length is counted in the frame.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.net.ids import (
    ETHERNET_HEADER,
    F_CSUM,
    F_HOST_ECN,
    F_HOST_TSO4,
    F_HOST_TSO6,
    F_HOST_USO,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HDR_NEEDS_CSUM,
    HEADER,
    HEADER_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PLAIN: Final = bytes(HEADER_SIZE)
"""The header of a frame that is complete as it is."""
HEAD_SIZE: Final = 256
"""Bytes of a frame within which the headers of a segmented one must end."""
MIN_GSO_SIZE: Final = 8
"""Bytes in a segment; Linux takes no less of TCP either (TCP_MIN_GSO_SIZE), and one of a byte each would be a flood."""

_IPV4, _IPV6, _TCP, _UDP = 0x0800, 0x86DD, 6, 17
_VLAN_TYPES = (0x8100, 0x88A8)
_FEATURES = {GSO_TCPV4: F_HOST_TSO4, GSO_TCPV6: F_HOST_TSO6, GSO_UDP_L4: F_HOST_USO}
_TCP_CHECKSUM, _UDP_CHECKSUM = 16, 6
_IPV6_OPTIONS = (0, 43, 60)
"""Hop-by-hop options, routing, destination options (RFC 8200, 4.1)."""


class BadHeader(Exception):
    """The header does not fit the frame, or asks for what was not negotiated; the text says which."""


def clean(header: bytes, size: int, features: int, read: Callable[[int, int], bytes]) -> bytes:
    """The header to send on, for a frame of `size` bytes of a driver with these negotiated features.

    `read(offset, size)` gives bytes of header and frame; it is asked only about frames to be segmented. Raises BadHeader.
    """
    if header[0] & HDR_NEEDS_CSUM == 0 and header[1] & ~GSO_ECN == GSO_NONE:
        return PLAIN
    flags, gso_type, _, gso_size, start, offset, _ = HEADER.unpack(header)
    if not features >> F_CSUM & 1:
        raise BadHeader("an offload that was not negotiated")
    if not flags & HDR_NEEDS_CSUM:
        raise BadHeader("segmentation without a checksum")
    if start < ETHERNET_HEADER or start + offset + 2 > size:
        raise BadHeader(f"a checksum at {start}+{offset} of {size} bytes")
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        return HEADER.pack(HDR_NEEDS_CSUM, GSO_NONE, 0, 0, start, offset, 0)
    needed = _FEATURES.get(kind)
    if needed is None or not features >> needed & 1:
        raise BadHeader(f"segmentation of kind {kind}")
    if gso_type & GSO_ECN and (kind == GSO_UDP_L4 or not features >> F_HOST_ECN & 1):
        raise BadHeader("ECN that was not negotiated")
    if gso_size < MIN_GSO_SIZE:
        raise BadHeader(f"segments of {gso_size} bytes")
    length = _headers_length(kind, read(HEADER_SIZE, HEAD_SIZE), start, offset)
    if length >= size:
        raise BadHeader(f"headers of {length} bytes in a frame of {size}")
    return HEADER.pack(HDR_NEEDS_CSUM, gso_type, length, gso_size, start, offset, 0)


def _headers_length(kind: int, head: bytes, start: int, offset: int) -> int:
    """Bytes up to the payload of a frame to be segmented, whose transport header is said to begin at `start`."""
    try:
        version, protocol, transport = _transport(head)
        data_offset = head[start + 12] >> 4 if kind != GSO_UDP_L4 else 0
    except IndexError:
        raise BadHeader("segmentation of a frame whose headers do not end") from None
    if start != transport or (kind == GSO_TCPV4 and version != 4) or (kind == GSO_TCPV6 and version != 6):
        raise BadHeader(f"segmentation of kind {kind} from {start} of IPv{version} with its payload at {transport}")
    if kind == GSO_UDP_L4:
        if protocol != _UDP or offset != _UDP_CHECKSUM:
            raise BadHeader(f"UDP segmentation of protocol {protocol}, checksum at {offset}")
        return start + 8
    if protocol != _TCP or offset != _TCP_CHECKSUM or data_offset < 5:
        raise BadHeader(f"TCP segmentation of protocol {protocol}, checksum at {offset}, header of {data_offset} words")
    return start + 4 * data_offset


def _transport(head: bytes) -> tuple[int, int, int]:
    """IP version, transport protocol, and where its header begins. Raises BadHeader, IndexError where the bytes end."""
    at = 12
    kind = head[at] << 8 | head[at + 1]
    if kind in _VLAN_TYPES:
        at += 4
        kind = head[at] << 8 | head[at + 1]
    at += 2
    if kind == _IPV4 and head[at] >> 4 == 4 and head[at] & 15 >= 5:
        return 4, head[at + 9], at + 4 * (head[at] & 15)
    if kind == _IPV6 and head[at] >> 4 == 6:
        protocol, at = head[at + 6], at + 40
        while protocol in _IPV6_OPTIONS:
            protocol, at = head[at], at + 8 * (head[at + 1] + 1)
        return 6, protocol, at
    raise BadHeader("segmentation of what is not IP")
