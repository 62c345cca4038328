"""Drivers of the socket device that break its rules: what they get, and that nobody else suffers."""

import os

import pytest
from vsock_driver import VsockDriver, received

from pyhv.virtio import vsock as vv
from pyhv.virtio import vsock_packet as vp

REQUEST, RESPONSE, RST, SHUTDOWN = vp.OP_REQUEST, vp.OP_RESPONSE, vp.OP_RST, vp.OP_SHUTDOWN
RW, UPDATE, ASK = vp.OP_RW, vp.OP_CREDIT_UPDATE, vp.OP_CREDIT_REQUEST


@pytest.fixture
def guest(vsock_guest):
    return vsock_guest



@pytest.mark.parametrize("op", [RESPONSE, SHUTDOWN, RW, UPDATE, ASK, 0, 8, 0xFFFF])
def test_packets_for_no_connection_are_reset(guest, op):
    guest.send(op, 52, 1000)
    [packet] = guest.packets()
    assert (packet.op, packet.source_port, packet.target_port) == (RST, 52, 1000)


def test_a_reset_is_never_answered(guest):
    guest.send(RST, 52, 1000)
    guest.send(RST, 52, 1000, kind=77)
    guest.send(RST, 52, 1000, to=7)
    assert guest.packets() == []


@pytest.mark.parametrize("op", [REQUEST, RESPONSE, 0, 8])
def test_what_an_open_connection_does_not_know_resets_it(guest, host, op):
    guest.send(op, 52, 1000)
    assert guest.ops() == [RST] and guest.device.connections == 0
    assert host.recv(10) == b""


def test_a_packet_longer_than_its_buffer_resets_its_connection(guest, host):
    guest.send(RW, 52, 1000, b"short", size=6)
    assert guest.ops() == [RST] and guest.device.connections == 0


def test_a_buffer_longer_than_its_packet_is_cut(guest, host):
    guest.send(RW, 52, 1000, b"data and more", size=4)
    assert host.recv(100) == b"data"


def test_a_packet_of_another_type_resets_its_connection(guest, host):
    guest.send(RW, 52, 1000, b"x", kind=2)
    [packet] = guest.packets()
    assert (packet.op, packet.kind) == (RST, 1)


def test_unknown_types_are_reset(guest):
    guest.send(REQUEST, 52, 1000, kind=3)
    [packet] = guest.packets()
    assert (packet.op, packet.kind) == (RST, 3)


def test_streams_can_be_left_out(tmp_path):
    guest = VsockDriver(tmp_path / "v", start={"without": (vv.F_STREAM,)})
    with guest.listen(52):
        guest.send(REQUEST, 52, 1000)
        assert guest.ops() == [RST]
    guest.device.close()


def test_a_driver_without_any_feature_means_streams(tmp_path):
    guest = VsockDriver(tmp_path / "v", start={"without": (vv.F_STREAM, vv.F_SEQPACKET, vv.F_NO_IMPLIED_STREAM)})
    with guest.listen(52) as listener:
        guest.connect(listener, 52, 1000).close()
    guest.device.close()


def test_other_senders_are_dropped_and_other_targets_reset(guest, listener):
    guest.send(REQUEST, 52, 1000, cid=4)
    guest.send(REQUEST, 52, 1000, cid=1 << 32 | 3)
    assert guest.packets() == [] and guest.device.dropped == 2
    guest.send(REQUEST, 52, 1000, to=9)
    [packet] = guest.packets()
    assert (packet.op, packet.source_cid) == (RST, 9)


def test_half_a_header_is_dropped(guest):
    guest.tx.request([bytes(vp.HEADER_SIZE - 1)])
    guest.tx.request([], [100])
    assert guest.device.dropped == 2 and guest.device.active


def test_a_driver_without_buffers_makes_its_own_packets_wait(tmp_path):
    guest = VsockDriver(tmp_path / "v", buffers=0)
    for n in range(vv.MAX_RESETS + 50):
        if not guest.tx.free:
            guest.tx.used()
        guest.send(RW, 1, n, take=False)
        guest.tx.used()
    assert len(guest.device._resets) == vv.MAX_RESETS
    assert len(guest.tx.outstanding) == 50
    guest.give(100)
    assert len(guest.packets()) == vv.MAX_RESETS + 50
    guest.tx.used()
    assert not guest.tx.outstanding
    guest.device.close()


def test_buffers_too_small_for_a_header_come_back_empty(tmp_path):
    guest = VsockDriver(tmp_path / "v", buffers=0)
    guest.give(3, size=vp.HEADER_SIZE - 1)
    guest.give(1)
    guest.send(RW, 1, 1)
    assert guest.ops() == [RST]
    guest.device.close()


def test_data_waits_for_buffers(tmp_path):
    guest = VsockDriver(tmp_path / "v", buffers=2)
    with guest.listen(52) as listener:
        sock = guest.connect(listener, 52, 1000)
        data = os.urandom(20000)
        sock.send(data)
        guest.turns()
        first = guest.packets(recycle=False)
        assert len(received(first)) == 2 * 4096
        guest.give(8)
        assert received(first) + received(guest.packets()) == data
        sock.close()
    guest.device.close()


def test_no_descriptor_left_is_a_reset(guest, listener, monkeypatch):
    def fail(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(vv.socket, "socket", fail)
    guest.send(REQUEST, 52, 1000)
    assert guest.ops() == [RST] and guest.device.active
