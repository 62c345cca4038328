"""User-mode networking: DHCP, TCP and UDP both ways, names, forwards, and what it refuses."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from net_wire import GUEST, TcpGuest, Wire, arp_request, datagram

from pyhv.errors import ConfigError, HostError
from pyhv.net import user
from pyhv.net.forward import parse_forward
from pyhv.net.frames import BROADCAST, UDP, Ipv4, Udp, checksum, parse_arp, parse_ipv4_packet, parse_udp
from pyhv.net.user import UserBackend

GATEWAY = bytes((10, 0, 2, 2))
GATEWAY_MAC = b"\x52\x55\x0a\x00\x02\x02"
NAME_SERVER = bytes((10, 0, 2, 3))
IP = bytes((10, 0, 2, 15))


@pytest.fixture
def network():
    """Makes wires to libslirp."""
    try:
        user._load()
    except HostError as error:
        pytest.skip(str(error))
    wires = []

    def make(*forwards, **options):
        wire = Wire(UserBackend(forwards=[parse_forward(text) for text in forwards], **options))
        wires.append(wire)
        return wire

    yield make
    for wire in wires:
        wire.close()


def udp_of(frame):
    packet = parse_ipv4_packet(frame[14:]) if frame[12:14] == b"\x08\x00" else None
    return packet and parse_udp(packet)


def announce(wire):
    """Let libslirp know the guest's address."""
    wire.send(arp_request(IP, GATEWAY))
    answer = wire.wait(lambda frame: frame[12:14] == b"\x08\x06" and parse_arp(frame[14:]))
    assert (answer.operation, answer.sender_ip, answer.sender_mac) == (2, GATEWAY, GATEWAY_MAC)


def dhcp(kind, options=b""):
    head = struct.pack(">BBBBIHH4s4s4s4s", 1, 1, 6, 0, 0x1234, 0, 0, bytes(4), bytes(4), bytes(4), bytes(4))
    return head + GUEST.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + bytes((53, 1, kind)) + options + b"\xff"


def dhcp_options(data):
    found, at = {}, 240
    while data[at] != 255:
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def test_dhcp_gives_address_gateway_and_name_server(network):
    wire = network()

    def ask(message):
        wire.send(datagram(BROADCAST, bytes(4), b"\xff" * 4, 68, 67, message))
        return wire.wait(lambda frame: (found := udp_of(frame)) and found.target == 68 and found.data)

    offer = ask(dhcp(1))
    assert offer[16:20] == IP
    answer = ask(dhcp(3, bytes((50, 4)) + IP))
    options = dhcp_options(answer)
    assert options[53] == b"\x05"
    assert (options[1], options[3], options[6]) == (bytes((255, 255, 255, 0)), GATEWAY, NAME_SERVER)


def serve_once(handler):
    """A TCP server on the loopback interface for one connection; its port, and the thread."""
    server = socket.create_server(("127.0.0.1", 0))

    def run():
        with server, server.accept()[0] as connection:
            handler(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return server.getsockname()[1], thread


def test_the_guest_reaches_the_host_by_tcp(network):
    got = bytearray()

    def handler(connection):
        while data := connection.recv(65536):
            got.extend(data)
            connection.sendall(data)

    port, thread = serve_once(handler)
    wire = network()
    announce(wire)
    guest = TcpGuest(wire, GUEST, IP, GATEWAY_MAC, GATEWAY)
    assert guest.connect(port)
    payload = bytes(range(256)) * 200
    guest.send(payload)
    assert guest.receive(len(payload)) == payload
    guest.close()
    guest.receive(len(payload) + 1)
    assert guest.finished
    thread.join(10)
    assert bytes(got) == payload


def test_a_port_where_nobody_listens_refuses(network):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    wire = network()
    announce(wire)
    assert not TcpGuest(wire, GUEST, IP, GATEWAY_MAC, GATEWAY).connect(port)


@pytest.mark.parametrize("options", [{"restrict": True}, {"host_loopback": False}], ids=["restrict", "no host"])
def test_the_host_can_be_out_of_reach(network, options):
    reached = []
    port, _ = serve_once(lambda connection: reached.append(1))
    wire = network(**options)
    announce(wire)
    guest = TcpGuest(wire, GUEST, IP, GATEWAY_MAC, GATEWAY)
    guest.port, guest.peer_port = 40000, port
    guest._send(2)
    for _ in range(3):
        wire.frames(0.02)
    assert not reached
    with socket.create_connection(("127.0.0.1", port)):  # it does listen
        pass


@pytest.mark.parametrize("restrict", [False, True])
def test_a_forwarded_tcp_port_leads_to_the_guest(network, restrict):
    wire = network("tcp:0:80", restrict=restrict)
    port = wire.backend.forwards[0].host_port
    announce(wire)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        guest = TcpGuest(wire, GUEST, IP, GATEWAY_MAC, GATEWAY)
        guest.accept(80)
        client.sendall(b"question")
        assert guest.receive(8) == b"question"
        guest.send(b"answer" * 1000)
        got = b""
        while len(got) < 6000:
            wire.frames(0.01)
            client.settimeout(0.05)
            try:
                got += client.recv(65536)
            except TimeoutError:
                continue
        assert got == b"answer" * 1000


def test_a_forwarded_udp_port_leads_to_the_guest_and_back(network):
    wire = network("udp:127.0.0.1:0:10.0.2.15:7")
    announce(wire)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(b"question", ("127.0.0.1", wire.backend.forwards[0].host_port))
        question = wire.wait(udp_of)
        assert (question.target, question.data) == (7, b"question")
        wire.send(datagram(GATEWAY_MAC, IP, GATEWAY, 7, question.source, b"answer"))
        assert client.recv(100) == b"answer"


def test_forwards_are_on_the_loopback_interface_unless_said_otherwise(network):
    wire = network("tcp:0:80", "tcp:0.0.0.0:0:81")
    assert [forward.shown.rpartition(":")[0] for forward in wire.backend.forwards] == ["tcp:127.0.0.1", "tcp:0.0.0.0"]
    listening = {
        bytes.fromhex(line.split()[1][:8])[::-1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if int(line.split()[1][9:], 16) in {forward.host_port for forward in wire.backend.forwards}
    }
    assert listening == {bytes((127, 0, 0, 1)), bytes(4)}


def test_a_port_that_is_taken_is_a_users_mistake(network):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^net: forward: tcp:127\.0\.0\.1:{port} cannot be taken: Address already"):
            network(f"tcp:{port}:80")


def test_connections_are_limited(network, monkeypatch):
    monkeypatch.setattr(user, "MOST_SOCKETS", 20)
    wire = network()
    announce(wire)
    before = len(os.listdir("/proc/self/fd"))
    for port in range(100):
        wire.send(datagram(GATEWAY_MAC, IP, GATEWAY, 5000 + port, 9, b"x"))
    counters = wire.backend.counters()
    assert counters.sockets == 20
    assert counters.refused == 80
    assert len(os.listdir("/proc/self/fd")) - before == 20
    wire.backend.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_guest_that_takes_nothing_fills_no_memory(network):
    """What is read for it stays bounded, and the sender is held up."""
    wire = network("udp:0:7")
    announce(wire)
    wire.backend.pause()
    port = wire.backend.forwards[0].host_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3000):
            client.sendto(bytes(1400), ("127.0.0.1", port))
            wire.events.run()
    counters = wire.backend.counters()
    assert user.QUEUE_FULL <= counters.queued_bytes < user.QUEUE_FULL + (1 << 18)
    assert not wire.events.readers
    wire.backend.resume()
    assert wire.events.readers
    assert len(wire.frames()) > 700


def test_broken_frames_are_survived(network):
    wire = network()
    for length in range(80):
        for kind in (b"\x08\x00", b"\x08\x06", b"\x86\xdd"):
            wire.send((BROADCAST + GUEST + kind + b"\x45" + bytes(100))[:length])
    announce(wire)


def test_without_the_library_the_error_says_what_to_install():
    code = textwrap.dedent("""
        from pyhv.net import user
        user.LIBRARY = "libslirp-not-here.so.0"
        try:
            user._load()
        except Exception as error:
            print(type(error).__name__, error)
    """)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("HostError net: user: libslirp-not-here.so.0 cannot be loaded")
    assert said.rstrip().endswith("apt-get install libslirp0")


NAME_TEST = """
import socket, sys
sys.path.insert(0, {here!r})
from test_net_slirp import GATEWAY, GATEWAY_MAC, IP, NAME_SERVER, announce, udp_of
from net_wire import GUEST, Wire, datagram
from pyhv.net.user import UserBackend
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
wire = Wire(UserBackend())
announce(wire)
wire.send(datagram(GATEWAY_MAC, IP, NAME_SERVER, 5353, 53, b"who is it?"))
question, who = server.recvfrom(100)
server.sendto(question + b" me", who)
print(wire.wait(udp_of).data.decode())
wire.close()
"""


def test_names_are_asked_of_the_hosts_server(network, tmp_path):
    """In namespaces of its own, where the host's name server is this test."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("namespaces need root and unshare (util-linux)")
    network()
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    script = tmp_path / "ask.py"
    script.write_text(NAME_TEST.format(here=str(Path(__file__).parent)))
    steps = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && ip link set lo up && exec {sys.executable} {script}"
    done = subprocess.run(["unshare", "--mount", "--net", "sh", "-c", steps], capture_output=True, text=True, timeout=60)
    assert done.stdout == "who is it? me\n", done.stderr


def fragments_of(packet, ident, size):
    """The frames of a packet in pieces."""
    payload, found = packet[20:], []
    for start in range(0, len(payload), size):
        piece = payload[start : start + size]
        head = bytearray(packet[:20])
        head[2:4] = (20 + len(piece)).to_bytes(2, "big")
        head[4:6] = ident.to_bytes(2, "big")
        head[6:8] = (start // 8 | (start + size < len(payload)) << 13).to_bytes(2, "big")
        head[10:12] = bytes(2)
        head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
        found.append(GATEWAY_MAC + GUEST + b"\x08\x00" + bytes(head) + piece)
    return found


def test_packets_in_pieces_reach_the_host(network):
    wire = network()
    announce(wire)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        data = bytes(range(256)) * 20
        body = Udp(5000, server.getsockname()[1], data).pack(IP, GATEWAY)
        for frame in reversed(fragments_of(Ipv4(IP, GATEWAY, UDP, body).pack(), 7, 1480)):
            wire.send(frame)
        assert server.recv(10000) == data


def test_the_library_never_sees_a_fragment(network):
    """A last piece that comes first made libslirp 4.7 write to where the piece's bytes pointed."""
    wire = network()
    announce(wire)
    packet = Ipv4(IP, GATEWAY, UDP, b"A" * 2000).pack()
    for frame in fragments_of(packet, 9, 1480)[::-1] * 2:
        wire.send(frame)
    for frame in fragments_of(packet, 10, 1480)[::-1]:
        wire.backend._lib.pyhv_slirp_input(wire.backend._slirp, frame, len(frame))
    assert wire.backend.counters().refused == 2
    announce(wire)
