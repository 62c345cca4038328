"""Peers written in Python, the switch, and the host that echoes."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_wire import GUEST, Wire, arp_request, datagram

from pyhv.errors import ConfigError
from pyhv.net import EchoHost, Peer, Switch
from pyhv.net.backend import gather, scatter
from pyhv.net.frames import BROADCAST, ICMP, Ipv4, ethernet, icmp, parse_arp, parse_ipv4_packet, parse_udp
from pyhv.net.peer import MOST_WAITING, PeerBackend
from pyhv.net.switch import MOST_ADDRESSES

HERE = bytes((10, 0, 0, 2))
FRAME = BROADCAST + GUEST + b"\x08\x00" + bytes(50)


class Recorder(Peer):
    def __init__(self):
        self.seen = []
        self.life = []

    def connected(self):
        self.life.append("connected")

    def disconnected(self):
        self.life.append("disconnected")

    def receive(self, frame):
        self.seen.append(frame)


def test_a_peer_sees_frames_and_sends_some():
    peer = Recorder()
    assert not peer.send(FRAME)
    wire = Wire(PeerBackend(peer))
    assert peer.clock is wire.clock
    wire.send(FRAME)
    assert peer.seen == [FRAME]
    assert peer.send(FRAME)
    assert wire.told == 0  # never from within the call
    assert wire.frames() == [FRAME]
    assert wire.told == 1
    wire.close()
    wire.close()
    assert peer.life == ["connected", "disconnected"]
    assert not peer.send(FRAME)


def test_a_peer_belongs_to_one_machine_at_a_time():
    peer = Recorder()
    wire = Wire(PeerBackend(peer))
    with pytest.raises(ConfigError, match=r"^net: peer: it is connected to a machine already$"):
        Wire(PeerBackend(peer))
    wire.close()
    Wire(PeerBackend(peer)).close()


def test_what_is_no_frame_is_not_sent():
    peer = Recorder()
    wire = Wire(PeerBackend(peer))
    assert not peer.send(FRAME[:13])
    assert not peer.send(bytes(70000))
    assert peer.send(bytes(14))
    assert wire.frames() == [bytes(14)]


def test_a_guest_that_takes_nothing_loses_frames_after_a_while():
    peer = Recorder()
    wire = Wire(PeerBackend(peer), resume=False)
    assert sum(peer.send(FRAME) for _ in range(MOST_WAITING + 10)) == MOST_WAITING
    assert wire.backend.missed == 10
    wire.events.run()
    assert wire.told == 0
    wire.backend.resume()
    assert len(wire.frames()) == MOST_WAITING


def test_a_frame_that_is_too_long_for_its_pieces_says_so():
    peer = Recorder()
    wire = Wire(PeerBackend(peer))
    peer.send(FRAME)
    assert wire.backend.receive([memoryview(bytearray(20))]) == len(FRAME)


@given(st.binary(max_size=60), st.lists(st.integers(0, 20), max_size=8), st.integers(0, 70), st.integers(0, 20))
def test_scatter_and_gather(data, sizes, start, size):
    pieces = [memoryview(bytearray(length)) for length in sizes]
    assert scatter(data, pieces) == len(data)
    whole = b"".join(pieces)
    assert whole == data[: len(whole)].ljust(len(whole), b"\0")
    assert gather(pieces, start, size) == whole[start : start + size]


def test_a_live_peer_sends_from_any_thread():
    class Talker(Recorder):
        live = True

    peer = Talker()
    wire = Wire(PeerBackend(peer))
    assert wire.backend.live
    threads = [threading.Thread(target=lambda: [peer.send(FRAME) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    found = []
    for _ in range(1000):
        found += wire.frames(0.05)
        if len(found) == 400:
            break
    assert found == [FRAME] * 400
    wire.close()


def test_machines_on_a_switch_reach_each_other():
    switch = Switch()
    wires = [Wire(PeerBackend(switch.port())) for _ in range(3)]
    assert len({wire.backend.identity for wire in wires}) == 3
    address = [b"\x02\0\0\0\0" + bytes([n]) for n in range(3)]

    def send(source, target):
        wires[source].send(target + address[source] + b"\x08\x00" + bytes(46))
        return [len(wire.frames()) for wire in wires]

    assert send(0, BROADCAST) == [0, 1, 1]
    assert send(1, address[0]) == [1, 0, 0]
    assert send(0, address[1]) == [0, 1, 0]
    assert send(0, address[2]) == [0, 1, 1]  # not heard of yet
    assert send(2, b"\x01" + bytes(5)) == [1, 1, 0]
    assert send(0, address[0]) == [0, 0, 0]
    assert switch.forwarded == 8
    wires[1].close()
    assert send(2, address[1]) == [0, 0, 0]
    for wire in wires[::2]:
        wire.close()


def test_a_switch_remembers_no_more_than_so_many_addresses():
    switch = Switch()
    wire = Wire(PeerBackend(switch.port()))
    for number in range(3 * MOST_ADDRESSES):
        wire.send(BROADCAST + b"\x02" + number.to_bytes(5, "big") + b"\x08\x00" + bytes(46))
    assert len(switch._homes) <= MOST_ADDRESSES
    wire.close()


def test_machines_of_two_threads_send_to_each_other_at_once():
    switch = Switch()
    wires = [Wire(PeerBackend(switch.port())) for _ in range(2)]
    found = [0, 0]

    def run(mine):
        for _ in range(500):
            wires[mine].send(FRAME)
            found[mine] += len(wires[mine].frames())

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = [found[n] + len(wires[n].frames()) for n in range(2)]
    assert found == [500 - wires[n].backend.missed for n in range(2)]
    for wire in wires:
        wire.close()


@pytest.fixture
def echo():
    host = EchoHost("10.0.0.1")
    wire = Wire(PeerBackend(host))
    yield host, wire
    wire.close()


def test_the_echo_host_answers_arp(echo):
    host, wire = echo
    wire.send(arp_request(HERE, host.ip))
    (frame,) = wire.frames()
    answer = parse_arp(frame[14:])
    assert (answer.operation, answer.sender_mac, answer.sender_ip) == (2, host.mac, host.ip)
    assert (frame[:6], answer.target_mac, answer.target_ip) == (GUEST, GUEST, HERE)
    wire.send(arp_request(HERE, bytes((10, 0, 0, 3))))
    assert wire.frames() == []


def test_the_echo_host_answers_pings(echo):
    host, wire = echo
    message = icmp(8, b"\x12\x34\0\1" + bytes(range(200)))
    frame = ethernet(host.mac, GUEST, 0x0800, Ipv4(HERE, host.ip, ICMP, message).pack())
    wire.send(frame)
    (answer,) = wire.frames()
    assert parse_ipv4_packet(answer[14:]) == Ipv4(host.ip, HERE, ICMP, icmp(0, message[4:]))
    damaged = bytearray(message)
    damaged[9] ^= 1
    wire.send(ethernet(host.mac, GUEST, 0x0800, Ipv4(HERE, host.ip, ICMP, bytes(damaged)).pack()))
    wire.send(ethernet(BROADCAST, GUEST, 0x0800, Ipv4(HERE, host.ip, ICMP, message).pack()))
    wire.send(ethernet(host.mac, GUEST, 0x0800, Ipv4(HERE, HERE, ICMP, message).pack()))
    assert wire.frames() == []


def test_the_echo_host_answers_datagrams():
    class Port7(EchoHost):
        def datagram(self, source, data, port):
            return data.upper() if port == 7 else None

    host = Port7()
    wire = Wire(PeerBackend(host))
    wire.send(datagram(host.mac, HERE, host.ip, 5000, 7, b"hello"))
    wire.send(datagram(host.mac, HERE, host.ip, 5000, 8, b"hello"))
    (frame,) = wire.frames()
    answer = parse_udp(parse_ipv4_packet(frame[14:]))
    assert (answer.source, answer.target, answer.data) == (7, 5000, b"HELLO")
    wire.close()


@given(st.lists(st.binary(min_size=14, max_size=100), max_size=10))
def test_the_echo_host_survives_anything(frames):
    host = EchoHost()
    wire = Wire(PeerBackend(host))
    for frame in frames:
        wire.send(frame)
        wire.send(host.mac + GUEST + b"\x08\x00" + frame)
        wire.send(BROADCAST + GUEST + b"\x08\x06" + frame)
    wire.frames()
    wire.close()


def test_an_echo_hosts_addresses_are_checked():
    with pytest.raises(ConfigError, match=r"'10\.0\.0' is not an IPv4 address"):
        EchoHost("10.0.0")
    with pytest.raises(ConfigError, match="net: peer: '1' is not an address"):
        EchoHost(mac="1")
