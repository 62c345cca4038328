"""One connection of the socket device: bytes between a guest's socket and a Unix socket of the host."""

from __future__ import annotations

import select
import socket
import time

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.log import event
from pyhv.virtio.errors import VirtioError
from pyhv.virtio.vsock_packet import (
    HEADER_SIZE,
    HOST_CID,
    OP_CREDIT_REQUEST,
    OP_CREDIT_UPDATE,
    OP_REQUEST,
    OP_RESPONSE,
    OP_RW,
    OP_SHUTDOWN,
    SHUTDOWN_BOTH,
    SHUTDOWN_RECEIVE,
    SHUTDOWN_SEND,
    Packet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from pyhv.clock import Timer
    from pyhv.events import HostEvents
    from pyhv.virtio.chain import Chain

BUF_ALLOC: Final = 1 << 18
"""Bytes from the guest that wait for a host that does not read: what the guest is told it may have under way."""
MAX_PAYLOAD: Final = 1 << 16
"""Of one packet to the guest."""
LAST_CHANCE: Final = 2.0
"""Seconds that slow host programs get at the machine's end."""
NO_SIGNAL: Final = socket.MSG_NOSIGNAL
"""The host's end may be closed, and whoever uses this library may have given SIGPIPE back its meaning."""
_MASK: Final = 0xFFFF_FFFF
_ORDER: Final = (OP_REQUEST, OP_RESPONSE, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST, OP_SHUTDOWN)


class ConnectionBroken(VirtioError):
    """The guest sent what this connection does not allow; it is to be reset, the device goes on."""


class Mux(Protocol):
    """What a connection asks of its device."""

    cid: int

    def host_events(self) -> HostEvents: ...

    def guarded(self, callback: Callable[[], None]) -> Callable[[], None]: ...

    def wants_to_speak(self, connection: Connection) -> None:
        """It has control packets, or data, for the guest."""
        ...

    def over(self, connection: Connection, *, tell_guest: bool) -> None:
        """It has ended; its socket is closed."""
        ...

    def closing(self, connection: Connection) -> None:
        """The host has closed it: the guest shall answer soon."""
        ...


class Connection:
    """A stream. `port` is the host's, `peer` the guest's; `awaiting` while the guest has not answered a REQUEST.

    Counters are those of 5.10.6.3: the guest's credit is checked against what waits here, the host's against what the guest
    says, modulo 2^32.
    """

    kind = 1

    def __init__(self, mux: Mux, sock: socket.socket, port: int, peer: int, *, awaiting: bool) -> None:
        self.mux = mux
        self.sock = sock
        self.port = port
        self.peer = peer
        self.awaiting = awaiting
        self.timer: Timer | None = None
        self.orphaned = False
        """The guest is done with it; what waits still goes to the host."""
        self._backlog = bytearray()
        self._fwd_cnt = self._told_fwd_cnt = 0
        self._tx_cnt = self._peer_fwd_cnt = self._peer_alloc = 0
        self._guest_flags = self._host_flags = 0
        self._deaf = False
        self._wants = 0
        self._readable = False
        self._watched = self._writing = False
        self._credit_asked = False
        self._closed = False

    def __repr__(self) -> str:
        return f"Connection(port={self.port}, peer={self.peer})"

    # To the guest

    def want(self, op: int) -> None:
        """Send a control packet, which may end the connection."""
        if not self._closed:
            self._wants |= 1 << op
            self.mux.wants_to_speak(self)

    @property
    def waiting(self) -> int:
        """Bytes of the guest that the host has not taken yet."""
        return len(self._backlog)

    @property
    def has_control(self) -> bool:
        """Whether a control packet waits."""
        return self._wants != 0

    @property
    def has_data(self) -> bool:
        """Whether there may be data that the guest has room for."""
        return self._readable and not self.awaiting and not self._guest_flags & SHUTDOWN_RECEIVE and self._credit() > 0

    def control(self) -> Packet:
        """The next control packet."""
        op = next(op for op in _ORDER if self._wants >> op & 1)
        self._wants &= ~(1 << op)
        return self._packet(op, flags=self._host_flags if op == OP_SHUTDOWN else 0)

    def _packet(self, op: int, size: int = 0, flags: int = 0) -> Packet:
        self._told_fwd_cnt = self._fwd_cnt
        self._wants &= ~(1 << OP_CREDIT_UPDATE)
        return Packet(
            HOST_CID, self.mux.cid, self.port, self.peer, size, self.kind, op, flags, BUF_ALLOC, self._fwd_cnt
        )

    def _credit(self) -> int:
        """Bytes that the guest takes now; 0 for what it says that makes no sense."""
        return max(0, self._peer_alloc - ((self._tx_cnt - self._peer_fwd_cnt) & _MASK))

    def transmit(self, chain: Chain) -> int:
        """Fill a buffer with a data packet; its bytes, 0 where there is no data now."""
        size = min(self._credit(), chain.writable_size - HEADER_SIZE, MAX_PAYLOAD)
        read, flags = self._fetch(chain, size)
        if not read:
            return 0
        self._tx_cnt = (self._tx_cnt + read) & _MASK
        chain.write(self._packet(OP_RW, read, flags).pack())
        self._ask_for_credit()
        return HEADER_SIZE + read

    def _ask_for_credit(self) -> None:
        if self._readable and not self._credit() and not self._credit_asked and not self._guest_flags & SHUTDOWN_RECEIVE:
            self._credit_asked = True
            self.want(OP_CREDIT_REQUEST)

    def _fetch(self, chain: Chain, size: int) -> tuple[int, int]:
        """Read up to `size` bytes from the host behind the header; how many, and the packet's flags."""
        try:
            read = self.sock.recvmsg_into(chain.writable_views(HEADER_SIZE, size))[0]
        except BlockingIOError:
            self.watch()
            return 0, 0
        except OSError:
            read = 0
        if not read:
            self._host_closed()
        return read, 0

    def watch(self) -> None:
        """Hear of data from the host."""
        self._readable = False
        if not self._watched and self.sock.fileno() >= 0:
            self._watched = True
            self.mux.host_events().add_reader(self.sock.fileno(), self.mux.guarded(self._became_readable))

    def _became_readable(self) -> None:
        self._unwatch()
        self._readable = True
        self._ask_for_credit()
        self.mux.wants_to_speak(self)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self.mux.host_events().remove_reader(self.sock.fileno())

    def _host_closed(self) -> None:
        """End of file: the host will not send; where it closed altogether, it will not receive either."""
        self._readable = False
        poll = select.poll()
        poll.register(self.sock.fileno(), 0)
        gone = any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
        self._shut(SHUTDOWN_BOTH if gone else SHUTDOWN_SEND)

    def _shut(self, flags: int) -> None:
        if self._host_flags | flags != self._host_flags and not self._closed:
            self._host_flags |= flags
            self.want(OP_SHUTDOWN)
            if self._host_flags == SHUTDOWN_BOTH:
                self.mux.closing(self)

    # From the guest

    def accept(self, request: Packet) -> None:
        """The guest's request was heard: say so."""
        self._peer_alloc, self._peer_fwd_cnt = request.buf_alloc, request.fwd_cnt
        self.want(OP_RESPONSE)
        self.watch()

    def receive(self, packet: Packet, chain: Chain) -> None:
        """Take a packet. Raises ConnectionBroken."""
        self._peer_alloc, self._peer_fwd_cnt = packet.buf_alloc, packet.fwd_cnt
        self._credit_asked = False
        op = packet.op
        if self.awaiting:
            if op != OP_RESPONSE:
                raise ConnectionBroken("it was no answer to a request")
            self._accepted()
        elif op == OP_RW:
            self._take(packet, chain)
        elif op == OP_SHUTDOWN:
            self._guest_shut(packet.flags & SHUTDOWN_BOTH)
        elif op == OP_CREDIT_REQUEST:
            self.want(OP_CREDIT_UPDATE)
        elif op != OP_CREDIT_UPDATE:
            raise ConnectionBroken(f"operation {op} is none of an open connection")
        if self.has_data:
            self.mux.wants_to_speak(self)

    def _accepted(self) -> None:
        try:
            self.sock.send(b"OK %d\n" % self.port, NO_SIGNAL)
        except OSError:
            raise ConnectionBroken("the host has gone") from None
        self.awaiting = False
        self.stop_timer()
        self.watch()

    def _take(self, packet: Packet, chain: Chain) -> None:
        if self._guest_flags & SHUTDOWN_SEND:
            raise ConnectionBroken("data after its end")
        if packet.size > BUF_ALLOC - len(self._backlog):
            raise ConnectionBroken(f"{packet.size} bytes are more than its credit")
        if self._deaf:
            self._forwarded(packet.size)
        elif packet.size:
            self._store(packet, chain)

    def _store(self, packet: Packet, chain: Chain) -> None:
        sent = 0
        if not self._backlog:
            try:
                sent = self.sock.sendmsg(chain.readable_views(HEADER_SIZE, packet.size), (), NO_SIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._host_deaf()
                self._forwarded(packet.size)
                return
            self._forwarded(sent)
        if sent < packet.size:
            self._backlog += chain.read(HEADER_SIZE + sent, packet.size - sent)
            self._await_room()

    def _await_room(self) -> None:
        if not self._writing:
            self._writing = True
            self.mux.host_events().add_writer(self.sock.fileno(), self.mux.guarded(self._became_writable))

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self.mux.host_events().remove_writer(self.sock.fileno())

    def write_on(self) -> None:
        """Give the host what it takes now."""
        self._became_writable()

    def _became_writable(self) -> None:
        try:
            self._flush()
        except BlockingIOError:
            return
        except OSError:
            self._host_deaf()
        if not self._backlog:
            self._stop_writing()
            self._drained()

    def _flush(self) -> None:
        """Write what waits. Raises OSError, BlockingIOError too."""
        sent = self.sock.send(self._backlog[:MAX_PAYLOAD], NO_SIGNAL)
        del self._backlog[:sent]
        self._forwarded(sent)

    def _forwarded(self, size: int) -> None:
        """Bytes left for the host; the guest is told once it might be waiting for that."""
        self._fwd_cnt = (self._fwd_cnt + size) & _MASK
        if not self.orphaned and (self._fwd_cnt - self._told_fwd_cnt) & _MASK >= BUF_ALLOC // 2:
            self.want(OP_CREDIT_UPDATE)

    def _host_deaf(self) -> None:
        """The host will not receive any more: what it was to get is dropped, and the guest told."""
        self._deaf = True
        waiting = len(self._backlog)
        self._backlog.clear()
        self._stop_writing()
        if not self.orphaned:
            self._forwarded(waiting)
            self._shut(SHUTDOWN_RECEIVE)

    def _guest_shut(self, flags: int) -> None:
        self._guest_flags |= flags
        if flags & SHUTDOWN_RECEIVE:
            self._readable = False
            self._unwatch()
            self._end(socket.SHUT_RD)
        if not self._backlog:
            self._drained()

    def _drained(self) -> None:
        """The host has everything: pass on the end of it."""
        if self._closed:
            return
        if self.orphaned:
            self.close()
            self.mux.over(self, tell_guest=False)
        elif self._guest_flags == SHUTDOWN_BOTH:
            self.close()
            self.mux.over(self, tell_guest=True)
        elif self._guest_flags & SHUTDOWN_SEND:
            self._end(socket.SHUT_WR)

    def _end(self, direction: int) -> None:
        try:
            self.sock.shutdown(direction)
        except OSError:  # the host has ended it
            return

    # Its end

    def reset_by_guest(self) -> bool:
        """The guest forgot it. False where bytes still wait for the host: it then lives on until they are gone."""
        self.stop_timer()
        self._unwatch()
        self._wants = 0
        self._readable = False
        self.orphaned = True
        if self._backlog and not self._deaf:
            return False
        self.close()
        return True

    def stop_timer(self) -> None:
        """Nothing is overdue any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._closed = True
        self.stop_timer()
        self._unwatch()
        self._stop_writing()
        self._wants = 0
        self._readable = False
        self._backlog.clear()
        self.sock.close()


def deliver(connections: Iterable[Connection]) -> None:
    """At the machine's end: give host programs that are slow a moment to take what the guest sent."""
    deadline = time.monotonic() + LAST_CHANCE
    while (left := deadline - time.monotonic()) > 0:
        waiting = {connection.sock.fileno(): connection for connection in connections if connection.waiting}
        if not waiting:
            return
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLOUT)
        for fd, _ in poll.poll(left * 1000):
            waiting[fd].write_on()
    event("vsock.output_lost", size=sum(connection.waiting for connection in connections))
