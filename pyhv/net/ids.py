"""Names and numbers of the network device (virtio 1.2, 5.1; Linux calls them VIRTIO_NET_*)."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

# Feature bits, by number [5.1.3]
F_CSUM: Final = 0
F_GUEST_CSUM: Final = 1
F_CTRL_GUEST_OFFLOADS: Final = 2
F_MTU: Final = 3
F_MAC: Final = 5
F_GUEST_TSO4: Final = 7
F_GUEST_TSO6: Final = 8
F_GUEST_ECN: Final = 9
F_HOST_TSO4: Final = 11
F_HOST_TSO6: Final = 12
F_HOST_ECN: Final = 13
F_MRG_RXBUF: Final = 15
F_STATUS: Final = 16
F_CTRL_VQ: Final = 17
F_CTRL_RX: Final = 18
F_CTRL_VLAN: Final = 19
F_CTRL_RX_EXTRA: Final = 20
F_GUEST_ANNOUNCE: Final = 21
F_CTRL_MAC_ADDR: Final = 23
F_GUEST_USO4: Final = 54
F_GUEST_USO6: Final = 55
F_HOST_USO: Final = 56

# The header before each frame, struct virtio_net_hdr [5.1.6]: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset,
# num_buffers
HEADER: Final = Struct("<BBHHHHH")
HEADER_SIZE: Final = 12
NUM_BUFFERS: Final = 10
"""Offset of num_buffers in it."""

HDR_NEEDS_CSUM: Final = 1
HDR_DATA_VALID: Final = 2

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

# Status of the configuration space [5.1.4]
S_LINK_UP: Final = 1
S_ANNOUNCE: Final = 2

# Control commands [5.1.6.5]
CTRL_RX: Final = 0
CTRL_RX_PROMISC: Final = 0
CTRL_RX_ALLMULTI: Final = 1
CTRL_RX_ALLUNI: Final = 2
CTRL_RX_NOMULTI: Final = 3
CTRL_RX_NOUNI: Final = 4
CTRL_RX_NOBCAST: Final = 5
CTRL_MAC: Final = 1
CTRL_MAC_TABLE_SET: Final = 0
CTRL_MAC_ADDR_SET: Final = 1
CTRL_VLAN: Final = 2
CTRL_VLAN_ADD: Final = 0
CTRL_VLAN_DEL: Final = 1
CTRL_ANNOUNCE: Final = 3
CTRL_ANNOUNCE_ACK: Final = 0
CTRL_GUEST_OFFLOADS: Final = 5
CTRL_GUEST_OFFLOADS_SET: Final = 0
CTRL_OK: Final = 0
CTRL_ERR: Final = 1

ETHERNET_HEADER: Final = 14
VLAN_TAG: Final = 4
MAX_FRAME: Final = 65589
"""An Ethernet header, an IPv6 header, and the longest payload [5.1.6.3]."""


def bits(*numbers: int) -> int:
    """A mask of feature bits."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


GUEST_OFFLOADS: Final = bits(F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN, F_GUEST_USO4, F_GUEST_USO6)
"""What the driver may take."""
GUEST_LARGE: Final = bits(F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4, F_GUEST_USO6)
"""Those with which frames longer than the MTU arrive."""
HOST_OFFLOADS: Final = bits(F_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN, F_HOST_USO)
"""What the driver may leave to the host."""

REQUIRES: Final = (
    (F_GUEST_TSO4, bits(F_GUEST_CSUM)),
    (F_GUEST_TSO6, bits(F_GUEST_CSUM)),
    (F_GUEST_USO4, bits(F_GUEST_CSUM)),
    (F_GUEST_USO6, bits(F_GUEST_CSUM)),
    (F_GUEST_ECN, bits(F_GUEST_TSO4, F_GUEST_TSO6)),
    (F_HOST_TSO4, bits(F_CSUM)),
    (F_HOST_TSO6, bits(F_CSUM)),
    (F_HOST_USO, bits(F_CSUM)),
    (F_HOST_ECN, bits(F_HOST_TSO4, F_HOST_TSO6)),
    (F_CTRL_RX, bits(F_CTRL_VQ)),
    (F_CTRL_VLAN, bits(F_CTRL_VQ)),
    (F_CTRL_RX_EXTRA, bits(F_CTRL_VQ)),
    (F_GUEST_ANNOUNCE, bits(F_CTRL_VQ)),
    (F_CTRL_MAC_ADDR, bits(F_CTRL_VQ)),
    (F_CTRL_GUEST_OFFLOADS, bits(F_CTRL_VQ)),
)
"""Features that count for nothing without one of others; in an order that settles all in one pass [5.1.3.1]."""


def usable(features: int) -> int:
    """The features without those whose requirements the driver did not take."""
    for number, required in REQUIRES:
        if not features & required:
            features &= ~(1 << number)
    return features
