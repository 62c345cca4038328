"""Flow and end of connections of the socket device: credit both ways, hosts that stall, half-closed ends, nothing lost."""

import os
import socket
import threading

import pytest
from vsock_driver import received

from pyhv import log
from pyhv.virtio import vsock as vv
from pyhv.virtio import vsock_connection
from pyhv.virtio import vsock_packet as vp
from pyhv.virtio.vsock_connection import BUF_ALLOC

RST, SHUTDOWN, REQUEST = vp.OP_RST, vp.OP_SHUTDOWN, vp.OP_REQUEST
RW, UPDATE, ASK = vp.OP_RW, vp.OP_CREDIT_UPDATE, vp.OP_CREDIT_REQUEST


@pytest.fixture
def guest(vsock_guest):
    return vsock_guest


# Credit


def test_the_guests_credit_is_kept_to(guest, listener):
    guest.send(REQUEST, 52, 1000, alloc=5000)
    guest.packets()
    sock = listener.accept()[0]
    data = os.urandom(12000)
    sock.send(data)
    packets = guest.packets()
    assert received(packets) == data[:5000] and packets[-1].op == ASK
    assert guest.packets() == []
    guest.send(UPDATE, 52, 1000, alloc=5000, fwd=3000)
    assert received(guest.packets()) == data[5000:8000]
    guest.send(UPDATE, 52, 1000, alloc=9000, fwd=8000)
    assert received(guest.packets()) == data[8000:]
    sock.close()


@pytest.mark.parametrize(("alloc", "fwd"), [(0, 0), (100, 101), (100, 0x8000_0000), (100, 0xFFFF_FF00)])
def test_credit_that_makes_no_sense_is_none(guest, listener, alloc, fwd):
    guest.send(REQUEST, 52, 1000, alloc=alloc, fwd=fwd)
    guest.packets()
    sock = listener.accept()[0]
    sock.send(b"data")
    assert received(guest.packets()) == b""
    guest.send(UPDATE, 52, 1000, alloc=100, fwd=0)
    assert received(guest.packets()) == b"data"
    sock.close()


def test_counters_wrap(guest, host):
    [connection] = guest.device._table.values()
    connection._tx_cnt = connection._fwd_cnt = connection._told_fwd_cnt = 0xFFFF_FFF0
    guest.send(UPDATE, 52, 1000, alloc=64, fwd=0xFFFF_FFF0)
    host.send(bytes(100))
    assert len(received(guest.packets())) == 64
    guest.send(RW, 52, 1000, bytes(100), alloc=64, fwd=0x30)
    assert host.recv(1000) == bytes(100)
    [packet] = guest.packets()
    assert (packet.op, len(packet.data), packet.fwd_cnt) == (RW, 36, 0x54)


def test_the_guest_learns_that_there_is_room_again(guest, host):
    data = os.urandom(BUF_ALLOC)
    for at in range(0, len(data), 1 << 15):
        guest.send(RW, 52, 1000, data[at : at + (1 << 15)])
    got = bytearray()
    while len(got) < len(data):
        got += host.recv(1 << 20)
        guest.turns()
    assert got == data
    updates = [packet for packet in guest.packets() if packet.op == UPDATE]
    assert updates and updates[-1].fwd_cnt >= BUF_ALLOC // 2


def test_a_credit_request_is_answered(guest, host):
    guest.send(RW, 52, 1000, b"12345")
    guest.send(ASK, 52, 1000)
    [packet] = guest.packets()
    assert (packet.op, packet.fwd_cnt, packet.buf_alloc) == (UPDATE, 5, BUF_ALLOC)


def test_a_guest_that_sends_more_than_its_credit_is_reset(guest, host):
    sent = 0
    while RST not in guest.ops():
        assert sent <= BUF_ALLOC + (1 << 20)
        guest.send(RW, 52, 1000, bytes(1 << 15))
        sent += 1 << 15
    assert guest.device.connections == 0


def test_a_stalled_host_holds_up_nobody_else(guest, listener, host):
    [connection] = guest.device._table.values()
    while len(connection._backlog) + (1 << 15) <= BUF_ALLOC:
        guest.send(RW, 52, 1000, bytes(1 << 15))
    other = guest.connect(listener, 52, 1001)
    guest.send(RW, 52, 1001, b"through")
    assert other.recv(100) == b"through"
    other.close()


# Ends


def test_the_guest_closes_when_the_host_has_everything(guest, host):
    guest.send(RW, 52, 1000, b"the last")
    guest.send(SHUTDOWN, 52, 1000, flags=3)
    assert guest.ops() == [RST] and guest.device.connections == 0
    assert host.recv(100) == b"the last" and host.recv(100) == b""


def test_a_slow_host_gets_all_before_the_end(guest, host):
    [connection] = guest.device._table.values()
    data = bytearray()
    while not connection._backlog:
        guest.send(RW, 52, 1000, piece := os.urandom(1 << 15))
        data += piece
    guest.send(SHUTDOWN, 52, 1000, flags=3)
    assert RST not in guest.ops()
    got = bytearray()
    while piece := host.recv(1 << 16):
        got += piece
        guest.turns()
    assert got == data and guest.ops()[-1] == RST


def test_a_guest_that_resets_at_its_end_loses_nothing_that_it_sent(guest, host):
    [connection] = guest.device._table.values()
    data = bytearray()
    while not connection._backlog:
        guest.send(RW, 52, 1000, piece := os.urandom(1 << 15))
        data += piece
    guest.packets()
    guest.send(RST, 52, 1000)
    assert guest.device.connections == 1 and guest.ops() == []
    got = bytearray()
    while piece := host.recv(1 << 16):
        got += piece
        guest.turns()
    assert got == data and guest.device.connections == 0


def test_half_closed_by_the_guest(guest, host):
    guest.send(SHUTDOWN, 52, 1000, flags=vp.SHUTDOWN_SEND)
    guest.turns()
    assert host.recv(10) == b""
    host.send(b"still here")
    assert received(guest.packets()) == b"still here"
    guest.send(RW, 52, 1000, b"after the end")
    assert guest.ops() == [RST]


def test_the_guest_stops_receiving(guest, host):
    guest.send(SHUTDOWN, 52, 1000, flags=vp.SHUTDOWN_RECEIVE)
    with pytest.raises(BrokenPipeError):
        host.send(b"for nobody")
    assert guest.packets() == []
    guest.send(RW, 52, 1000, b"still here")
    assert host.recv(100) == b"still here"
    guest.send(SHUTDOWN, 52, 1000, flags=vp.SHUTDOWN_SEND)  # with the one before: both
    assert guest.ops() == [RST] and host.recv(10) == b""


def test_half_closed_by_the_host(guest, host):
    host.send(b"the last")
    host.shutdown(socket.SHUT_WR)
    packets = guest.packets()
    assert received(packets) == b"the last"
    assert [(p.op, p.flags) for p in packets[1:]] == [(SHUTDOWN, vp.SHUTDOWN_SEND)]
    guest.send(RW, 52, 1000, b"answer")
    assert host.recv(10) == b"answer"
    assert not guest.driver.bench.events.readers.get(-1) and guest.driver.bench.clock.next_deadline() is None


def test_the_host_closes_and_the_guest_answers(guest, host):
    host.send(b"the last")
    host.close()
    packets = guest.packets()
    assert received(packets) == b"the last"
    assert [(p.op, p.flags) for p in packets[1:]] == [(SHUTDOWN, vp.SHUTDOWN_BOTH)]
    guest.send(RST, 52, 1000)
    assert guest.device.connections == 0 and guest.packets() == []
    guest.driver.bench.clock.advance(vv.ANSWER_NS)
    assert guest.packets() == []


def test_the_host_closes_and_the_guest_does_not_answer(guest, host):
    host.close()
    assert guest.ops() == [SHUTDOWN]
    guest.driver.bench.clock.advance(vv.ANSWER_NS)
    assert guest.ops() == [RST] and guest.device.connections == 0


def test_data_for_a_host_that_has_gone_is_told_and_dropped(guest, host):
    host.send(b"unread by the guest")
    guest.turns()
    guest.heard.clear()
    host.close()
    guest.send(RW, 52, 1000, b"too late")
    packets = guest.packets()
    assert received(packets) == b"unread by the guest"
    assert [p.flags for p in packets if p.op == SHUTDOWN][-1] == vp.SHUTDOWN_BOTH
    assert packets[-1].fwd_cnt == len(b"too late")


def fill(guest, kind):
    """What the guest sends to a host that does not read, until some of it waits in the device."""
    sent = b""
    while not (waiting := sum(connection.waiting for connection in guest.device._table.values())) > 100_000:
        data = bytes((len(sent) & 0xFF,)) * 4000
        guest.send(vp.OP_RW, 52, 1000, data, kind=kind, flags=vp.SEQ_EOM)
        guest.packets()
        sent += data
    assert waiting < len(sent)
    return sent


def read_all(sock):
    sock.setblocking(True)
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    return data


KINDS = {1: socket.SOCK_STREAM, 2: socket.SOCK_SEQPACKET}


@pytest.mark.parametrize("kind", [1, 2])
def test_what_the_guest_sent_before_its_reset_reaches_the_host(guest, kind):
    with guest.listen(52, KINDS[kind]) as listener, guest.connect(listener, 52, 1000, kind=kind) as sock:
        sent = fill(guest, kind)
        guest.driver.link.set_status(0)
        reader = Reader(sock)
        while guest.device.connections:
            guest.driver.run(0.05)
        assert reader.result() == sent


@pytest.mark.parametrize("kind", [1, 2])
def test_the_machines_end_waits_a_moment_for_hosts_that_read(guest, kind):
    with guest.listen(52, KINDS[kind]) as listener, guest.connect(listener, 52, 1000, kind=kind) as sock:
        sent = fill(guest, kind)
        guest.send(vp.OP_RW, 52, 1000, b"no end", kind=kind)
        reader = Reader(sock)
        guest.device.close()
        assert reader.result() == sent + (b"no end" if kind == 1 else b"")


def test_a_host_that_never_reads_is_waited_for_no_longer(guest, monkeypatch):
    monkeypatch.setattr(vsock_connection, "LAST_CHANCE", 0.05)
    heard = []
    stop = log.listen(lambda name, **values: heard.append((name, values)))
    with guest.listen(52) as listener, guest.connect(listener, 52, 1000):
        fill(guest, 1)
        waiting = guest.device._table[52, 1000].waiting
        guest.device.close()
    stop()
    assert ("vsock.output_lost", {"size": waiting}) in heard
    assert guest.device.connections == 0


class Reader(threading.Thread):
    """Reads all of a socket in a thread of its own."""

    def __init__(self, sock):
        super().__init__()
        self.sock = sock
        self.start()

    def run(self):
        self.data = read_all(self.sock)

    def result(self):
        self.join(60)
        return self.data
