"""The socket device (virtio 1.2, 5.10): a guest's AF_VSOCK sockets, joined to Unix sockets of the host.

They are mapped as Firecracker does. A host program connects to `path` and says "CONNECT 1234\\n": once the guest's port 1234
took the connection it reads "OK 1073741824\\n", with the port that it has itself. What the guest connects to on the host (CID
2), port 1234, is the Unix socket `path_1234`. Where there is nobody, the connection is reset.
"""

from __future__ import annotations

import socket

from pyhv._builtin import partial
from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.vsock_connection import Connection, ConnectionBroken, deliver
from pyhv.virtio.vsock_listener import Listener
from pyhv.virtio.vsock_packet import (
    EVENT_TRANSPORT_RESET,
    FIRST_CID,
    HEADER_SIZE,
    HOST_CID,
    LAST_CID,
    OP_REQUEST,
    OP_RST,
    TYPE_SEQPACKET,
    TYPE_STREAM,
    Packet,
    reset_of,
    unpack,
)
from pyhv.virtio.vsock_seqpacket import SeqpacketConnection

if TYPE_CHECKING:
    from typing import Final

    from pyhv.events import HostEvents
    from pyhv.virtio.chain import Chain
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

F_STREAM, F_SEQPACKET, F_NO_IMPLIED_STREAM = 0, 1, 2

RECEIVE, TRANSMIT, EVENT = range(3)
QUEUE_SIZES: Final = (128, 128, 4)
MAX_CONNECTIONS: Final = 256
MAX_RESETS: Final = 256
"""Answers that wait for a buffer of the guest's before no more packets are taken from it (5.10.6.1)."""
FIRST_PORT: Final = 1 << 30
"""Of the host's ends of connections that the host began; ports below are for services."""
PORTS: Final = 1 << 31
ANSWER_NS: Final = 10_000_000_000
"""What the guest gets to answer a request, and the end of a connection."""


class VirtioVsock(VirtioDevice):
    """`cid` is the guest's address; `path` that of the listening Unix socket, which is made, and removed at the end.

    `max_connections` at once, those included that the guest has ended and the host still reads from. Raises ConfigError.
    """

    name = "vsock"
    device_id = 19
    queue_sizes = QUEUE_SIZES
    features = 1 << F_STREAM | 1 << F_SEQPACKET | 1 << F_NO_IMPLIED_STREAM
    live = True

    def __init__(
        self, *, path: str, cid: int = FIRST_CID, max_connections: int = MAX_CONNECTIONS, transport: str = "pci"
    ) -> None:
        super().__init__(transport=transport)
        if not FIRST_CID <= cid <= LAST_CID:
            raise ConfigError(f"vsock: cid: '{cid}' is not from {FIRST_CID} to {LAST_CID}")
        self.cid = cid
        self.path = path
        self.max_connections = max_connections
        self.dropped = 0
        """Packets without a meaning: too short, with another sender than the guest, or to what is no address."""
        self._table: dict[tuple[int, int], Connection] = {}
        self._orphans: set[Connection] = set()
        self._resets: dict[tuple[int, int, int], Packet] = {}
        self._speaking: dict[Connection, None] = {}
        self._next_port = FIRST_PORT
        self._blocked = False
        self._reset_pending = False
        self._filling = False
        self._listener: Listener | None = None

    def connect(self, link: Transport) -> None:
        self.active = False
        super().connect(link)
        self._listener = Listener(self)

    def close(self) -> None:
        super().close()
        self._orphan_all()
        deliver(self._orphans)
        self._close_all()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def config(self) -> bytes:
        return self.cid.to_bytes(8, "little")

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._table) + len(self._orphans)

    def reset_connections(self) -> None:
        """Break everything that is connected, and tell the guest so (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)."""
        self._close_all()
        if self.active:
            self._reset_pending = True
            self._tell_events()

    def _tell_events(self) -> None:
        queue = self.queues[EVENT]
        while self._reset_pending and (chain := queue.pop()) is not None:
            message = EVENT_TRANSPORT_RESET.to_bytes(4, "little")
            if chain.writable_size >= len(message):
                chain.write(message)
                self._reset_pending = False
                queue.push(chain, len(message))
            else:
                queue.push(chain)
        queue.flush()

    # What connections and the listener ask for

    def host_events(self) -> HostEvents:
        """Where descriptors are watched."""
        return self.platform.events

    def wants_to_speak(self, connection: Connection) -> None:
        """It has control packets, or data, for the guest."""
        self._speaking.setdefault(connection)
        self._fill()

    def over(self, connection: Connection, *, tell_guest: bool) -> None:
        """It has ended; its socket is closed."""
        self._forget(connection)
        if tell_guest:
            self._answer(Packet(HOST_CID, self.cid, connection.port, connection.peer, 0, connection.kind, OP_RST, 0, 0, 0))

    def closing(self, connection: Connection) -> None:
        """The host has closed it: the guest shall answer soon."""
        connection.stop_timer()
        self._expect_answer(connection)

    def _expect_answer(self, connection: Connection) -> None:
        clock = self.platform.clock
        connection.timer = clock.call_at(clock.now_ns() + ANSWER_NS, partial(self._overdue, connection))

    def _overdue(self, connection: Connection) -> None:
        self.guarded(partial(self._kill, connection))()

    def begin(self, sock: socket.socket, peer: int) -> bool:
        """A host program wants port `peer` of the guest; whether that can be tried."""
        if not self.active or self.connections >= self.max_connections:
            return False
        while (self._next_port, peer) in self._table:
            self._next_port = FIRST_PORT + (self._next_port + 1 - FIRST_PORT) % PORTS
        port = self._next_port
        self._next_port = FIRST_PORT + (port + 1 - FIRST_PORT) % PORTS
        connection = self._table[port, peer] = Connection(self, sock, port, peer, awaiting=True)
        self._expect_answer(connection)
        connection.want(OP_REQUEST)
        return True

    def _forget(self, connection: Connection) -> None:
        self._speaking.pop(connection, None)
        self._orphans.discard(connection)
        if self._table.get((connection.port, connection.peer)) is connection:
            del self._table[connection.port, connection.peer]

    def _kill(self, connection: Connection) -> None:
        connection.close()
        self.over(connection, tell_guest=True)

    def _close_all(self) -> None:
        for connection in [*self._table.values(), *self._orphans]:
            connection.close()
        self._table.clear()
        self._orphans.clear()
        self._resets.clear()
        self._speaking.clear()

    # Driver

    def deactivate(self) -> None:
        self._orphan_all()
        self._resets.clear()
        self._blocked = self._reset_pending = False

    def _orphan_all(self) -> None:
        """The guest forgot its connections; what it had sent still goes to the host."""
        for connection in list(self._table.values()):
            self._reset_by_guest(connection)

    def handle(self, queue: VirtQueue) -> None:
        if queue.index == RECEIVE:
            self._fill()
        elif queue.index == EVENT:
            self._tell_events()
        elif queue.index == TRANSMIT:
            self._filling = True  # all of the answers afterwards
            try:
                self._take_packets(queue)
            finally:
                self._filling = False
            self._fill()

    def _take_packets(self, queue: VirtQueue) -> None:
        for chain in queue.chains():
            if len(self._resets) >= MAX_RESETS:
                queue.unpop(chain)
                self._blocked = True
                return
            self._receive(chain)
            queue.push(chain)

    def _receive(self, chain: Chain) -> None:
        packet = unpack(chain.read(0, HEADER_SIZE))
        if packet is None or packet.source_cid != self.cid or packet.target_cid >> 32:
            self.dropped += 1
            event("vsock.dropped", size=chain.readable_size)
            return
        connection = self._table.get((packet.target_port, packet.source_port))
        if packet.target_cid != HOST_CID or not self._knows(packet.kind):
            self._refuse(packet)
        elif connection is None:
            if packet.op == OP_REQUEST:
                self._connect_to_host(packet)
            else:
                self._refuse(packet)
        elif packet.op == OP_RST:
            self._reset_by_guest(connection)
        elif packet.kind != connection.kind or packet.size > chain.readable_size - HEADER_SIZE:
            self._kill(connection)
        else:
            try:
                connection.receive(packet, chain)
            except ConnectionBroken as error:
                event("vsock.reset", port=connection.port, peer=connection.peer, reason=str(error))
                self._kill(connection)

    def _knows(self, kind: int) -> bool:
        if kind == TYPE_STREAM:
            return self.has(F_STREAM) or not self.has(F_NO_IMPLIED_STREAM)
        return kind == TYPE_SEQPACKET and self.has(F_SEQPACKET)

    def _refuse(self, packet: Packet) -> None:
        if packet.op != OP_RST:
            self._answer(reset_of(packet))

    def _answer(self, packet: Packet) -> None:
        self._resets[packet.source_cid, packet.source_port, packet.target_port] = packet
        self._fill()

    def _reset_by_guest(self, connection: Connection) -> None:
        self._forget(connection)
        if not connection.reset_by_guest():
            self._orphans.add(connection)

    def _connect_to_host(self, packet: Packet) -> None:
        if self.connections >= self.max_connections:
            self._refuse(packet)
            return
        seqpacket = packet.kind == TYPE_SEQPACKET
        sock = _dial(f"{self.path}_{packet.target_port}", socket.SOCK_SEQPACKET if seqpacket else socket.SOCK_STREAM)
        if sock is None:
            self._refuse(packet)
            return
        cls = SeqpacketConnection if seqpacket else Connection
        connection = cls(self, sock, packet.target_port, packet.source_port, awaiting=False)
        self._table[packet.target_port, packet.source_port] = connection
        connection.accept(packet)

    # To the guest

    def _fill(self) -> None:
        """Give the guest what waits for it, as far as it has buffers."""
        if self._filling or not self.active:
            return
        self._filling = True
        try:
            queue = self.queues[RECEIVE]
            for _ in range(queue.size):
                if not self._anything():
                    break
                chain = queue.pop()
                if chain is None:
                    break
                written = self._next_packet(chain) if chain.writable_size > HEADER_SIZE else 0
                if written or chain.writable_size <= HEADER_SIZE:
                    queue.push(chain, written)
                else:
                    queue.unpop(chain)
            else:
                queue.postpone()
            queue.flush()
        finally:
            self._filling = False
        if self._blocked and len(self._resets) < MAX_RESETS:
            self._blocked = False
            self.queues[TRANSMIT].postpone()

    def _anything(self) -> bool:
        """Whether somebody has something; forgets who has nothing any more."""
        while not self._resets and self._speaking:
            connection = next(iter(self._speaking))
            if connection.has_control or connection.has_data:
                return True
            del self._speaking[connection]
        return bool(self._resets)

    def _next_packet(self, chain: Chain) -> int:
        """The next packet, one of each connection in turn; its size, 0 where there was none after all."""
        if self._resets:
            chain.write(self._resets.pop(next(iter(self._resets))).pack())
            return HEADER_SIZE
        connection = next(iter(self._speaking))
        del self._speaking[connection]
        self._speaking[connection] = None
        if connection.has_control:
            chain.write(connection.control().pack())
            return HEADER_SIZE
        try:
            return connection.transmit(chain)
        except ConnectionBroken as error:
            event("vsock.reset", port=connection.port, peer=connection.peer, reason=str(error))
            self._kill(connection)
            return 0


def _dial(path: str, kind: int) -> socket.socket | None:
    """A connection to a Unix socket; None where nobody listens, has time for one more, or no descriptor is left."""
    try:
        sock = socket.socket(socket.AF_UNIX, kind)
    except OSError as error:
        event("vsock.connect_failed", path=path, error=error.strerror)
        return None
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock
