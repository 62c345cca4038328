"""Connections that keep the boundaries of messages (virtio 1.2, 5.10.6.7), over Unix sockets that do as well."""

from __future__ import annotations

from array import array

from pyhv._types import TYPE_CHECKING
from pyhv.virtio.vsock_connection import BUF_ALLOC, NO_SIGNAL, Connection, ConnectionBroken
from pyhv.virtio.vsock_packet import HEADER_SIZE, SEQ_EOM, SHUTDOWN_SEND, TYPE_SEQPACKET

if TYPE_CHECKING:
    import socket
    from typing import Final

    from pyhv.virtio.chain import Chain
    from pyhv.virtio.vsock_connection import Mux
    from pyhv.virtio.vsock_packet import Packet

_SENT_LENGTHS: Final = 4096
"""Lengths of messages that went already, before the list of them is cut."""


class SeqpacketConnection(Connection):
    """Messages of at most the receiver's whole buffer. One without bytes is passed over: to a Unix socket it is the end."""

    kind = TYPE_SEQPACKET

    def __init__(self, mux: Mux, sock: socket.socket, port: int, peer: int, *, awaiting: bool) -> None:
        super().__init__(mux, sock, port, peer, awaiting=awaiting)
        self._lengths = array("I")
        self._first = 0
        self._open = 0
        self._message = b""
        self._sent = 0

    # From the guest: complete messages lie in the backlog one after the other, then `_open` bytes of the next one

    def _store(self, packet: Packet, chain: Chain) -> None:
        self._backlog += chain.read(HEADER_SIZE, packet.size)
        self._open += packet.size
        self._end_message(packet)

    def _take(self, packet: Packet, chain: Chain) -> None:
        super()._take(packet, chain)
        if not packet.size and not self._deaf:
            self._end_message(packet)

    def _end_message(self, packet: Packet) -> None:
        if packet.flags & SEQ_EOM and self._open:
            if self._first > _SENT_LENGTHS:
                del self._lengths[: self._first]
                self._first = 0
            self._lengths.append(self._open)
            self._open = 0
            self._became_writable()
            if len(self._lengths) > self._first:
                self._await_room()

    def _became_writable(self) -> None:
        super()._became_writable()
        if self._writing and self._first == len(self._lengths):
            self._stop_writing()

    def _flush(self) -> None:
        while self._first < len(self._lengths):
            length = self._lengths[self._first]
            self.sock.send(self._backlog[:length], NO_SIGNAL)
            del self._backlog[:length]
            self._first += 1
            self._forwarded(length)
        del self._lengths[: self._first]
        self._first = 0

    def _host_deaf(self) -> None:
        super()._host_deaf()
        del self._lengths[:]
        self._first = self._open = 0

    def _drop_open(self) -> None:
        """A message that has no end is none."""
        del self._backlog[len(self._backlog) - self._open :]
        self._open = 0

    def _guest_shut(self, flags: int) -> None:
        if flags & SHUTDOWN_SEND:
            self._drop_open()
        super()._guest_shut(flags)

    def reset_by_guest(self) -> bool:
        self._drop_open()
        return super().reset_by_guest()

    # To the guest

    def _fetch(self, chain: Chain, size: int) -> tuple[int, int]:
        if not self._message and not self._next_message():
            return 0, 0
        piece = self._message[self._sent : self._sent + size]
        chain.write(piece, HEADER_SIZE)
        self._sent += len(piece)
        if self._sent < len(self._message):
            return len(piece), 0
        self._message, self._sent = b"", 0
        return len(piece), SEQ_EOM

    def _next_message(self) -> bool:
        limit = min(self._peer_alloc, BUF_ALLOC)
        try:
            message = self.sock.recv(limit + 1)
        except BlockingIOError:
            self.watch()
            return False
        except OSError:
            message = b""
        if len(message) > limit:
            raise ConnectionBroken(f"a message of the host's has more than the {limit} bytes that the guest can take")
        if not message:
            self._host_closed()
            return False
        self._message = message
        return True
