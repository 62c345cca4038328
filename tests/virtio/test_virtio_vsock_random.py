"""The socket device against random packets, and against a model of what streams must deliver."""

import contextlib
import os
import socket
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from vsock_driver import VsockDriver

from pyhv.virtio import vsock_packet as vp
from pyhv.virtio.vsock_connection import BUF_ALLOC
from pyhv.virtio.vsock_listener import MAX_LINE, parse_connect

WORD32 = st.integers(0, 0xFFFF_FFFF) | st.sampled_from((0, 1, 2, 3, 52, 1000, 0x7FFF_FFFF, 0xFFFF_FFFF))
PACKETS = st.builds(
    dict,
    op=st.integers(0, 9),
    port=st.sampled_from((52, 53, 1 << 30, (1 << 30) + 1)),
    peer=st.sampled_from((1000, 1001, 5)),
    data=st.binary(max_size=60),
    kind=st.sampled_from((1, 1, 1, 2, 3)),
    flags=st.integers(0, 3) | WORD32,
    alloc=WORD32,
    fwd=WORD32,
    size=st.none() | WORD32,
    cid=st.sampled_from((3, 3, 3, 4, 2)),
    to=st.sampled_from((2, 2, 2, 3, 1 << 40)),
)
STEPS = st.one_of(
    PACKETS,
    st.tuples(st.just("raw"), st.binary(max_size=80)),
    st.tuples(st.just("call"), st.sampled_from((5, 1000))),
    st.tuples(st.just("host"), st.binary(max_size=60)),
    st.tuples(st.just("close"), st.integers(0, 3)),
    st.tuples(st.just("time"), st.integers(0, 12)),
)


@contextlib.contextmanager
def guest_and_listeners(**options):
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        guest = VsockDriver(os.path.join(directory, "v"), **options)
        stack.callback(guest.device.close)
        listeners = [stack.enter_context(guest.listen(52)), stack.enter_context(guest.listen(53, socket.SOCK_SEQPACKET))]
        for listener in listeners:
            listener.setblocking(False)
        yield guest, listeners


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=100)
def test_whatever_both_sides_do_the_device_goes_on(steps):
    with guest_and_listeners(memory=1 << 20, max_connections=5) as (guest, listeners):
        ends = []
        for step in steps:
            if isinstance(step, dict):
                guest.send(**step)
            elif step[0] == "raw":
                guest.tx.request([step[1]] if step[1] else [], [] if step[1] else [1])
            elif step[0] == "call":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(guest.path)
                sock.send(b"CONNECT %d\n" % step[1])
                ends.append(sock)
            elif step[0] == "host":
                for end in ends:
                    with contextlib.suppress(OSError):
                        end.setblocking(False)
                        end.send(step[1])
            elif step[0] == "close" and ends:
                ends.pop(step[1] % len(ends)).close()
            elif step[0] == "time":
                guest.driver.bench.clock.advance(step[1] * 1_000_000_000)
            for listener in listeners:
                with contextlib.suppress(BlockingIOError):
                    ends.append(listener.accept()[0])
            guest.packets()
            assert guest.device.active and guest.device.connections <= 5
            assert not guest.tx.outstanding
        for end in ends:
            end.close()


class Peer:
    """One connection as both ends know it: what went in on each side, what came out on the other."""

    def __init__(self, guest, listener, peer):
        self.guest = guest
        self.peer = peer
        self.sock = guest.connect(listener, 52, peer, alloc=3000)
        self.sock.setblocking(False)
        self.to_host, self.at_host = bytearray(), bytearray()
        self.to_guest, self.at_guest = bytearray(), bytearray()
        self.read = 0
        self.device_fwd = 0

    def credit(self):
        return {"alloc": 3000, "fwd": self.read & 0xFFFF_FFFF}

    def hear(self, packet):
        self.device_fwd = packet.fwd_cnt
        self.at_guest += packet.data
        assert len(self.at_guest) - self.read <= 3000, "more than the guest's credit"


@given(
    st.lists(
        st.tuples(st.sampled_from(("guest", "host", "read_guest", "read_host")), st.integers(0, 2), st.integers(1, 60_000)),
        max_size=60,
    )
)
@settings(max_examples=40)
def test_streams_deliver_everything_in_order_and_keep_to_credit(steps):
    with guest_and_listeners(buffers=3, size=700 + vp.HEADER_SIZE) as (guest, [listener, _]):
        listener.setblocking(True)
        peers = [Peer(guest, listener, 1000 + n) for n in range(3)]

        def hear():
            for packet in guest.packets():
                assert packet.op in (vp.OP_RW, vp.OP_CREDIT_UPDATE, vp.OP_CREDIT_REQUEST)
                peers[packet.target_port - 1000].hear(packet)

        def from_guest(peer, size):
            room = BUF_ALLOC - (len(peer.to_host) - peer.device_fwd)
            data = os.urandom(min(size, room))
            if data:
                peer.to_host += data
                guest.send(vp.OP_RW, 52, peer.peer, data, **peer.credit())

        def from_host(peer, size):
            data = os.urandom(size)
            with contextlib.suppress(BlockingIOError):
                peer.to_guest += data[: peer.sock.send(data)]

        def read_guest(peer, size):
            peer.read = min(peer.read + size, len(peer.at_guest))
            guest.send(vp.OP_CREDIT_UPDATE, 52, peer.peer, **peer.credit())

        def read_host(peer, size):
            with contextlib.suppress(BlockingIOError):
                peer.at_host += peer.sock.recv(size)

        actions = {"guest": from_guest, "host": from_host, "read_guest": read_guest, "read_host": read_host}
        for action, number, size in steps:
            actions[action](peers[number], size)
            hear()
        for peer in peers:
            while len(peer.at_guest) < len(peer.to_guest) or len(peer.at_host) < len(peer.to_host):
                before = len(peer.at_guest), len(peer.at_host)
                read_guest(peer, 1 << 20)
                read_host(peer, 1 << 20)
                hear()
                assert (len(peer.at_guest), len(peer.at_host)) > before or peer.read < len(peer.at_guest), "stalled"
            assert peer.at_guest == peer.to_guest and peer.at_host == peer.to_host
        for peer in peers:
            peer.sock.close()


@given(st.binary(max_size=30))
def test_any_line_is_a_port_or_nothing(line):
    port = parse_connect(line)
    assert port is None or 0 <= port <= 0xFFFF_FFFF


@given(WORD32)
def test_every_port_can_be_asked_for(port):
    line = b"CONNECT %d\r\n" % port
    assert parse_connect(line) == port and len(line) <= MAX_LINE
