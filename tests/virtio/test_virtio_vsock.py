"""The socket device: who connects to whom, how many, and the device's own life."""

import signal
import socket
import struct

import pytest
from virtio_driver import mmio_bench
from vsock_driver import VsockDriver, received

from pyhv.errors import ConfigError
from pyhv.peripherals.vsock import Vsock
from pyhv.virtio import vsock as vv
from pyhv.virtio import vsock_packet as vp
from pyhv.virtio.vsock import VirtioVsock
from pyhv.virtio.vsock_connection import BUF_ALLOC

SECOND = 1_000_000_000
REQUEST, RESPONSE, RST, SHUTDOWN = vp.OP_REQUEST, vp.OP_RESPONSE, vp.OP_RST, vp.OP_SHUTDOWN
RW, UPDATE, ASK = vp.OP_RW, vp.OP_CREDIT_UPDATE, vp.OP_CREDIT_REQUEST


@pytest.fixture
def guest(vsock_guest):
    return vsock_guest


# Connections


@pytest.mark.parametrize("packed", [False, True])
def test_guest_to_host(tmp_path, packed):
    guest = VsockDriver(tmp_path / "v", join=mmio_bench, start={"packed": packed})
    assert guest.driver.link.read_config(0, 8) == struct.pack("<Q", 3)
    with guest.listen(52) as listener:
        sock = guest.connect(listener, 52, 1000)
        guest.send(RW, 52, 1000, b"from the guest")
        assert sock.recv(100) == b"from the guest"
        sock.send(b"from the host")
        [packet] = guest.packets()
        assert (packet.op, packet.data, packet.source_port, packet.target_port) == (RW, b"from the host", 52, 1000)
        assert packet.fwd_cnt == len(b"from the guest") and packet.buf_alloc == BUF_ALLOC
        sock.close()
    guest.device.close()
    assert guest.driver.transport.violations == 0


def test_host_to_guest(guest):
    sock, port = guest.call(1234)
    assert port >= 1 << 30
    sock.send(b"question")
    assert received(guest.packets()) == b"question"
    guest.send(RW, port, 1234, b"answer")
    assert sock.recv(100) == b"answer"
    second, other = guest.call(1234)
    assert other != port
    sock.close()
    second.close()


def test_what_a_host_program_sends_with_its_request_is_data(guest):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(guest.path)
    for piece in (b"CON", b"NECT 7", b"7\nand the first", b" data"):
        sock.send(piece)
        guest.turns()
    [request] = guest.packets()
    assert request.target_port == 77
    guest.send(RESPONSE, request.source_port, 77)
    assert received(guest.packets()) == b"and the first data"
    sock.close()


@pytest.mark.parametrize(
    "line", [b"\n", b"CONNECT\n", b"CONNECT x\n", b"CONNECT -1\n", b"CONNECT 4294967296\n", b"GET / HTTP/1.1\r\n", b"x" * 40]
)
def test_host_programs_that_ask_for_nothing_are_hung_up_on(guest, line):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(guest.path)
    sock.send(line)
    assert guest.packets() == []
    try:
        assert sock.recv(10) == b""
    except ConnectionResetError:  # with bytes that nobody read
        assert len(line) > 19
    sock.close()


def test_a_guest_that_does_not_listen_resets_the_host_program(guest):
    sock, [request] = guest.call(9, answer=False)
    guest.send(RST, request.source_port, 9)
    guest.turns()
    assert sock.recv(10) == b"" and guest.device.connections == 0
    sock.close()


def test_where_nobody_listens_on_the_host_the_guest_is_reset(guest):
    guest.send(REQUEST, 53, 1000)
    [packet] = guest.packets()
    assert (packet.op, packet.source_port, packet.target_port) == (RST, 53, 1000)


def test_a_host_program_that_gives_up_resets_the_guest(guest):
    sock, [request] = guest.call(9, answer=False)
    sock.close()
    guest.send(RESPONSE, request.source_port, 9)
    assert guest.ops() == [RST] and guest.device.connections == 0


def test_a_guest_that_never_answers_is_given_up(guest):
    sock, _ = guest.call(9, answer=False)
    guest.driver.bench.clock.advance(vv.ANSWER_NS)
    assert guest.ops() == [RST] and guest.device.connections == 0
    assert sock.recv(10) == b""
    sock.close()


def test_a_host_program_that_never_asks_is_hung_up_on(guest):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(guest.path)
    sock.send(b"CONN")
    guest.turns()
    guest.driver.bench.clock.advance(10 * SECOND)
    assert sock.recv(10) == b""
    sock.close()


def test_many_host_programs_that_say_nothing_do_not_fill_the_device(guest):
    stalled = []
    for _ in range(100):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(guest.path)
        guest.turns()
        stalled.append(sock)
    assert len(guest.driver.bench.events.readers) == 64
    guest.driver.bench.clock.advance(10 * SECOND)
    guest.turns()
    assert len(guest.driver.bench.events.readers) == 100 - 64 + 1
    for sock in stalled:
        sock.close()
    guest.turns()
    sock, _ = guest.call(5)
    sock.close()


def test_without_a_driver_host_programs_are_hung_up_on(tmp_path):
    guest = VsockDriver(tmp_path / "v")
    guest.driver.link.set_status(0)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(guest.path)
        guest.turns()
        assert sock.recv(10) == b""
    guest.device.close()


def test_connections_are_limited(tmp_path):
    guest = VsockDriver(tmp_path / "v", max_connections=3)
    with guest.listen(52) as listener:
        ends = [guest.connect(listener, 52, 1000 + n) for n in range(3)]
        guest.send(REQUEST, 52, 2000)
        assert guest.ops() == [RST]
        sock, requests = guest.call(5, answer=False)
        assert requests == [] and sock.recv(10) == b""
        guest.send(RST, 52, 1000)
        ends.append(guest.connect(listener, 52, 2000))
        for end in (*ends, sock):
            end.close()
    guest.device.close()


def test_many_connections_at_once(guest, listener):
    ends = {peer: guest.connect(listener, 52, peer) for peer in range(100, 200)}
    for peer, sock in ends.items():
        sock.send(b"to %d" % peer)
        guest.send(RW, 52, peer, b"from %d" % peer)
    answers = {packet.target_port: packet.data for packet in guest.packets()}
    assert answers == {peer: b"to %d" % peer for peer in ends}
    assert all(sock.recv(100) == b"from %d" % peer for peer, sock in ends.items())
    for sock in ends.values():
        sock.close()


# The device's own life


def test_a_reset_closes_all_connections(guest, host):
    guest.driver.link.set_status(0)
    assert host.recv(10) == b"" and guest.device.connections == 0
    guest.driver.start()
    guest.give(4)
    sock, _ = guest.call(5)
    sock.close()


def test_a_transport_reset_is_told(guest, host):
    events = guest.driver.queues[vv.EVENT]
    guest.device.reset_connections()
    assert host.recv(10) == b""
    small, buffer = events.add([], [3]), events.add([], [8])
    events.kick()
    events.used()
    assert small.written == 0 and buffer.data == struct.pack("<I", vp.EVENT_TRANSPORT_RESET)
    later = events.add([], [8])
    events.kick()
    events.used()
    assert later.written == -1
    guest.device.reset_connections()
    events.used()
    assert later.written == 4


def test_the_socket_is_removed_at_the_end(tmp_path):
    path = tmp_path / "v"
    guest = VsockDriver(path)
    assert path.is_socket()
    guest.device.close()
    guest.device.close()
    assert not path.exists() and not guest.driver.bench.events.readers


def test_another_socket_in_its_place_stays(tmp_path):
    path = tmp_path / "v"
    guest = VsockDriver(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        guest.device.close()
        assert path.is_socket()


def test_a_stale_socket_is_replaced_and_a_live_one_refused(tmp_path):
    path = tmp_path / "v"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
        with pytest.raises(ConfigError, match=r"vsock: path: '.*' cannot be listened at: Address already in use"):
            VsockDriver(path)
    guest = VsockDriver(path)
    guest.device.close()
    path.write_text("a file")
    with pytest.raises(ConfigError, match="vsock: path: "):
        VsockDriver(path)
    assert path.read_text() == "a file"


def test_no_descriptor_left_is_no_busy_loop(guest, monkeypatch):
    def fail(*_):
        raise OSError(24, "Too many open files")

    listener = guest.device._listener
    real = listener._socket

    class Broken:
        fileno, close = real.fileno, real.close
        accept = fail

    listener._socket = Broken()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(guest.path)
        guest.turns()
        assert not guest.driver.bench.events.readers
        listener._socket = real
        guest.driver.bench.clock.advance(SECOND)
        assert guest.driver.bench.events.readers
        sock.send(b"CONNECT 5\n")
        assert guest.ops() == [REQUEST]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": ""}, "vsock: path: '' is not a path of 1 to 96 bytes"),
        ({"path": "x" * 97}, f"vsock: path: '{'x' * 97}' is not a path of 1 to 96 bytes"),
        ({"path": "v", "cid": 2}, "vsock: cid: '2' is not from 3 to 4294967294"),
        ({"path": "v", "cid": "3"}, "vsock: cid: '3' is not a number"),
        ({"path": "v", "max_connections": 0}, "vsock: max_connections: '0' is not from 1 to 65536"),
    ],
)
def test_descriptions_are_checked(fields, message):
    with pytest.raises(ConfigError) as error:
        Vsock(**fields)
    assert str(error.value) == message


def test_descriptions_build_the_device():
    device = Vsock("v", cid=7).build()
    assert isinstance(device, VirtioVsock) and device.live and device.config() == struct.pack("<Q", 7)
    with pytest.raises(ConfigError):
        VirtioVsock(path="v", cid=0xFFFF_FFFF)


@pytest.mark.parametrize("kind", [1, 2])
def test_a_host_program_that_is_gone_signals_nothing(guest, kind):
    heard = []
    old = signal.signal(signal.SIGPIPE, lambda *_: heard.append("SIGPIPE"))
    try:
        with guest.listen(52, {1: socket.SOCK_STREAM, 2: socket.SOCK_SEQPACKET}[kind]) as listener:
            guest.connect(listener, 52, 1000, kind=kind).close()
        guest.send(vp.OP_RW, 52, 1000, b"for nobody", kind=kind, flags=vp.SEQ_EOM)
        asking, [request] = guest.call(7, answer=False)
        asking.close()
        guest.send(vp.OP_RESPONSE, request.source_port, 7)
        guest.turns()
    finally:
        signal.signal(signal.SIGPIPE, old)
    assert heard == []
