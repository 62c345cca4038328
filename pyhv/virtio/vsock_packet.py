"""Packets of the socket device (virtio 1.2, 5.10.6)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.record import record

if TYPE_CHECKING:
    from typing import Final

HEADER: Final = struct.Struct("<QQIIIHHIII")
HEADER_SIZE: Final = HEADER.size

HOST_CID: Final = 2
FIRST_CID, LAST_CID = 3, 0xFFFF_FFFE
"""What a guest can have: the others are reserved (5.10.4)."""

TYPE_STREAM, TYPE_SEQPACKET = 1, 2

OP_REQUEST, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST = range(1, 8)

SHUTDOWN_RECEIVE, SHUTDOWN_SEND = 1, 2
SHUTDOWN_BOTH: Final = SHUTDOWN_RECEIVE | SHUTDOWN_SEND
SEQ_EOM, SEQ_EOR = 1, 2

EVENT_TRANSPORT_RESET: Final = 0


@record
class Packet:
    """A header. `size` is that of the payload behind it."""

    source_cid: int
    target_cid: int
    source_port: int
    target_port: int
    size: int
    kind: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int

    def pack(self) -> bytes:
        """The bytes of it."""
        return HEADER.pack(
            self.source_cid,
            self.target_cid,
            self.source_port,
            self.target_port,
            self.size,
            self.kind,
            self.op,
            self.flags,
            self.buf_alloc,
            self.fwd_cnt,
        )


def unpack(data: bytes) -> Packet | None:
    """The header at the beginning; None when there is no whole one."""
    return Packet(*HEADER.unpack_from(data)) if len(data) >= HEADER_SIZE else None


def reset_of(packet: Packet) -> Packet:
    """The answer to a packet that cannot be taken."""
    return Packet(
        packet.target_cid, packet.source_cid, packet.target_port, packet.source_port, 0, packet.kind, OP_RST, 0, 0, 0
    )
