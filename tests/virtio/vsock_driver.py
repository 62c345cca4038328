"""A socket driver that says exactly what a test has it say, and hears everything."""

import socket
import struct
from types import SimpleNamespace

from virtio_driver import device_bench

from pyhv.virtio import vsock as vv
from pyhv.virtio import vsock_packet as vp
from pyhv.virtio.vsock import VirtioVsock

BUFFER = 4096 + vp.HEADER_SIZE
FIELDS = "source_cid target_cid source_port target_port size kind op flags buf_alloc fwd_cnt".split()


class VsockDriver:
    """`send` a packet; `packets()` gives those that came. Buffers are given back when they were used."""

    def __init__(self, path, *, buffers=16, size=BUFFER, join=device_bench, memory=8 << 20, start=None, **options):
        self.path = str(path)
        self.device = VirtioVsock(path=self.path, transport="mmio", **options)
        self.driver = join(self.device, memory=memory, **(start or {}))
        self.cid = self.device.cid
        self.size = size
        self.heard = []
        self.give(buffers)

    @property
    def rx(self):
        return self.driver.queues[vv.RECEIVE]

    @property
    def tx(self):
        return self.driver.queues[vv.TRANSMIT]

    def give(self, count, size=None):
        for _ in range(count):
            self.rx.add([], [size or self.size])
        self.rx.kick()

    def turns(self):
        while self.driver.run():
            pass

    def send(self, op, port, peer, data=b"", *, kind=1, flags=0, alloc=1 << 18, fwd=0, size=None, cid=None, to=2, take=True):
        """A packet from the guest's `peer` to the host's `port`."""
        size = len(data) if size is None else size
        header = struct.pack("<QQIIIHHIII", cid or self.cid, to, peer, port, size, kind, op, flags, alloc, fwd)
        buffer = self.tx.add([header, data] if data else [header])
        self.tx.kick()
        if take:
            self.tx.used()
        return buffer

    def packets(self, *, recycle=True):
        """What came since the last call."""
        self.turns()
        found = []
        while buffers := self.rx.used():
            for buffer in buffers:
                if buffer.written:
                    values = struct.unpack_from("<QQIIIHHIII", buffer.data)
                    packet = SimpleNamespace(**dict(zip(FIELDS, values, strict=True)), data=buffer.data[vp.HEADER_SIZE :])
                    assert len(packet.data) == packet.size
                    assert (packet.source_cid & ~0xFFFF_FFFF, packet.target_cid) == (0, self.cid)
                    found.append(packet)
            if recycle:
                self.give(len(buffers))
            self.turns()
        self.heard += found
        return found

    def ops(self):
        return [packet.op for packet in self.packets()]

    def listen(self, port, kind=socket.SOCK_STREAM, backlog=128):
        """A host program that listens for the guest."""
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(f"{self.path}_{port}")
        listener.listen(backlog)
        return listener

    def connect(self, listener, port, peer, *, kind=1, **options):
        """A connection of the guest's to the host; gives the host's end."""
        self.send(vp.OP_REQUEST, port, peer, kind=kind, **options)
        assert [p.op for p in self.packets() if (p.source_port, p.target_port) == (port, peer)] == [vp.OP_RESPONSE]
        return listener.accept()[0]

    def call(self, peer, *, answer=True):
        """A host program connects to the guest; gives its end, and its port once the guest was asked."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.send(b"CONNECT %d\n" % peer)
        requests = [p for p in self.packets() if p.op == vp.OP_REQUEST]
        if not answer:
            return sock, requests
        [request] = requests
        assert (request.target_port, request.kind) == (peer, 1) and request.buf_alloc > 0
        self.send(vp.OP_RESPONSE, request.source_port, peer)
        self.turns()
        assert sock.recv(100) == b"OK %d\n" % request.source_port
        return sock, request.source_port


def received(packets):
    """The bytes of a stream that came in packets."""
    return b"".join(packet.data for packet in packets if packet.op == vp.OP_RW)
