"""Sockets that keep messages apart, over the socket device."""

import os
import socket

import pytest
from vsock_driver import VsockDriver

from pyhv.virtio import vsock as vv
from pyhv.virtio import vsock_packet as vp
from pyhv.virtio.vsock_connection import BUF_ALLOC

RW, EOM = vp.OP_RW, vp.SEQ_EOM


@pytest.fixture
def guest(vsock_guest):
    return vsock_guest


@pytest.fixture
def host(guest):
    with guest.listen(52, socket.SOCK_SEQPACKET) as listener, guest.connect(listener, 52, 1000, kind=2) as sock:
        sock.setblocking(False)
        yield sock


def send(guest, data, flags=EOM, **options):
    guest.send(RW, 52, 1000, data, kind=2, flags=flags, **options)


def test_messages_from_the_guest(guest, host):
    send(guest, b"one")
    send(guest, b"tw", 0)
    send(guest, b"o", 0)
    with pytest.raises(BlockingIOError):
        assert host.recv(100) == b"one" and host.recv(100)
    send(guest, b"!")
    assert host.recv(100) == b"two!"


def test_messages_from_the_host(guest, host):
    long = os.urandom(10000)
    for message in (b"one", b"two", long):
        host.send(message)
    messages, open_ = [], b""
    for packet in guest.packets():
        assert (packet.op, packet.kind) == (RW, 2)
        open_ += packet.data
        if packet.flags & EOM:
            messages.append(open_)
            open_ = b""
    assert messages == [b"one", b"two", long] and open_ == b""


def test_a_message_waits_for_credit_in_pieces(guest, host):
    guest.send(vp.OP_CREDIT_UPDATE, 52, 1000, kind=2, alloc=100)
    host.send(bytes(range(100)))
    host.send(b"next")
    [packet, ask] = guest.packets()
    assert packet.data == bytes(range(100)) and packet.flags == EOM and ask.op == vp.OP_CREDIT_REQUEST
    guest.send(vp.OP_CREDIT_UPDATE, 52, 1000, kind=2, alloc=100, fwd=2)
    [first, ask] = guest.packets()
    assert (first.data, first.flags) == (b"ne", 0)
    guest.send(vp.OP_CREDIT_UPDATE, 52, 1000, kind=2, alloc=100, fwd=102)
    [last] = guest.packets()
    assert (last.data, last.flags) == (b"xt", EOM)


def test_a_message_that_the_guest_can_never_take_resets(guest, host):
    guest.send(vp.OP_CREDIT_UPDATE, 52, 1000, kind=2, alloc=100)
    host.send(bytes(101))
    assert guest.ops() == [vp.OP_RST]


def test_a_slow_host_gets_every_message(guest, host):
    [connection] = guest.device._table.values()
    sent = []
    while len(connection._lengths) < 50:
        sent.append(b"%d" % len(sent) * 100)
        send(guest, sent[-1])
    send(guest, b"half", 0)
    guest.send(vp.OP_SHUTDOWN, 52, 1000, kind=2, flags=vp.SHUTDOWN_BOTH)
    got = []
    while message := host.recv(1000):
        got.append(message)
        guest.turns()
    assert got == sent and guest.ops()[-1] == vp.OP_RST
    assert guest.device.connections == 0


def test_resets_by_the_guest_lose_no_whole_message(guest, host):
    [connection] = guest.device._table.values()
    sent = []
    while not connection._lengths:
        sent.append(os.urandom(500))
        send(guest, sent[-1])
    send(guest, b"half", 0)
    guest.send(vp.OP_RST, 52, 1000, kind=2)
    got = []
    while message := host.recv(1000):
        got.append(message)
        guest.turns()
    assert got == sent and guest.device.connections == 0


def test_empty_messages_are_passed_over(guest, host):
    for _ in range(20):
        send(guest, b"")
    send(guest, b"x", 0)
    send(guest, b"")
    assert host.recv(10) == b"x"
    with pytest.raises(BlockingIOError):
        host.recv(10)


def test_many_small_messages_for_a_stalled_host_take_little(guest, host):
    [connection] = guest.device._table.values()
    for _ in range(3000):
        send(guest, b"x")
    guest.packets()
    assert connection._lengths.itemsize * len(connection._lengths) < 4 * BUF_ALLOC
    for _ in range(3000):
        assert host.recv(10) == b"x"
        guest.turns()
    send(guest, b"end")
    assert host.recv(10) == b"end" and len(connection._lengths) == 0


def test_a_message_longer_than_all_credit_resets(guest, host):
    for _ in range(BUF_ALLOC // (1 << 15)):
        send(guest, bytes(1 << 15), 0)
    assert vp.OP_RST not in guest.ops()
    send(guest, b"x", 0)
    assert guest.ops() == [vp.OP_RST]


def test_a_message_that_no_unix_socket_carries_ends_what_the_host_hears(guest, host):
    """Larger than the host's send buffer, which its administrator decides: it is dropped, and the guest told."""
    [connection] = guest.device._table.values()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(4):
        send(guest, bytes(1 << 15), 0)
    send(guest, b"!")
    [shutdown] = [packet for packet in guest.packets() if packet.op == vp.OP_SHUTDOWN]
    assert shutdown.flags == vp.SHUTDOWN_RECEIVE


def test_a_stream_that_listens_is_nobody(guest):
    with guest.listen(53):
        guest.send(vp.OP_REQUEST, 53, 1000, kind=2)
        assert guest.ops() == [vp.OP_RST]


def test_only_where_negotiated(tmp_path):
    guest = VsockDriver(tmp_path / "v", start={"without": (vv.F_SEQPACKET,)})
    with guest.listen(52, socket.SOCK_SEQPACKET):
        guest.send(vp.OP_REQUEST, 52, 1000, kind=2)
        assert guest.ops() == [vp.OP_RST]
    guest.device.close()


def test_the_host_closes(guest, host):
    host.send(b"last")
    host.close()
    packets = guest.packets()
    assert [packet.op for packet in packets] == [RW, vp.OP_SHUTDOWN]
    assert packets[1].flags == vp.SHUTDOWN_BOTH


def test_a_connection_that_ends_while_its_host_reads_on_says_no_more(guest, host):
    while guest.device.connections and len(guest.device._table[52, 1000]._backlog) < BUF_ALLOC * 3 // 4:
        send(guest, bytes(4000), alloc=100)
        guest.packets()
    while guest.device.queues[vv.RECEIVE].pop() is not None:  # the guest has no buffers
        pass
    host.send(bytes(200))  # more than it can take
    guest.turns()
    for _ in range(8):
        guest.rx.add([], [guest.size])
    while guest.device.connections:
        host.recv(1 << 16)
        guest.driver.run()
    assert [packet.op for packet in guest.packets()][-1] == vp.OP_RST
    assert guest.ops() == []
