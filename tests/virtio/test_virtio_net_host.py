"""The network device over the real thing: a tap, libslirp, a switch between two machines, the echo host."""

import socket
from struct import pack

import pytest
from virtio_net_driver import GUEST, GUEST_IP, datagram, net_bench, ping

from pyhv.errors import HostError
from pyhv.net import EchoHost, Switch, ids, user
from pyhv.net.forward import parse_forward
from pyhv.net.frames import BROADCAST, Arp, Ipv4, ethernet, icmp, parse_arp, parse_ipv4_packet, parse_udp
from pyhv.net.namespace import inside
from pyhv.net.peer import PeerBackend
from pyhv.net.tap import TapBackend
from pyhv.net.user import UserBackend
from pyhv.virtio.net import RECEIVE, VirtioNet

HOST = bytes((10, 0, 0, 1))
LONGEST = 65535


@pytest.fixture
def tap(namespace):
    """A driver whose device is over a tap, with 10.0.0.1 on the host's side."""
    backend = TapBackend(name="guest0", namespace=namespace, address="10.0.0.1/24")
    driver = net_bench(backend, memory=8 << 20)
    yield driver
    driver.device.close()


def arp(sender_ip, target_ip, mac=GUEST):
    return ethernet(BROADCAST, mac, 0x0806, Arp(1, mac, sender_ip, bytes(6), target_ip).pack())


def address_of(driver, sender_ip, target_ip):
    """Ask for an Ethernet address."""
    driver.send(arp(sender_ip, target_ip))
    for _ in range(20):
        for frame in driver.wait_frames():
            found = parse_arp(frame[14:]) if frame[12:14] == b"\x08\x06" else None
            if found and found.operation == 2:
                return found.sender_mac
    raise AssertionError("no answer")


def ip_of(driver, protocol):
    """The next IPv4 packet of this protocol."""
    for _ in range(20):
        for frame in driver.wait_frames():
            packet = parse_ipv4_packet(frame[14:]) if frame[12:14] == b"\x08\x00" else None
            if packet and packet.protocol == protocol:
                return packet
    raise AssertionError("no packet")


def test_a_guest_pings_its_host_through_a_tap(tap):
    tap.post(32, 2048)
    host = address_of(tap, GUEST_IP, HOST)
    tap.send(ping(host, GUEST_IP, HOST))
    assert ip_of(tap, 1).payload == icmp(0, pack(">HH", 7, 1) + b"hello")


def test_the_host_sums_up_what_the_guest_left_to_it(tap, namespace):
    """A datagram with only the pseudo header's checksum arrives whole."""

    def listen():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("10.0.0.1", 9))
        listener.settimeout(20)
        return listener

    with inside(namespace, listen) as listener:
        tap.post(32, 2048)
        host = address_of(tap, GUEST_IP, HOST)
        frame = bytearray(datagram(host, GUEST_IP, HOST, 5000, 9, b"partial" * 10))
        length = len(b"partial" * 10) + 8
        total = sum(int.from_bytes(part, "big") for part in (GUEST_IP[:2], GUEST_IP[2:], HOST[:2], HOST[2:])) + 17 + length
        frame[40:42] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
        tap.send(bytes(frame), ids.HEADER.pack(ids.HDR_NEEDS_CSUM, 0, 0, 0, 34, 6, 0))
        assert listener.recv(1000) == b"partial" * 10
        assert tap.device.backend.dropped == 0


def segments(host, size):
    """A TCP frame for the host to cut, and its header."""
    tcp = pack(">HHIIBBHHH", 5000, 5001, 1, 1, 5 << 4, 0x10, 0xFFFF, 0, 0)
    frame = ethernet(host, GUEST, 0x0800, Ipv4(GUEST_IP, HOST, 6, tcp + bytes(size - 54)).pack())
    return frame, ids.HEADER.pack(ids.HDR_NEEDS_CSUM, ids.GSO_TCPV4, 54, 1448, 34, 16, 0)


def test_long_frames_pass_whole_both_ways(tap, namespace):
    tap.post(32, 2048)
    host = address_of(tap, GUEST_IP, HOST)
    frame, header = segments(host, LONGEST)
    tap.send(frame, header)
    assert tap.device.backend.dropped == 0

    def sender():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        made.bind(("guest0", 0))
        return made

    tap.frames()
    tap.post(100, 4096)
    with inside(namespace, sender) as made:
        made.send(header[:10] + GUEST + frame[6:])
        found = [f for f in tap.frames(5) if len(f[1]) == LONGEST]
    ((lead, arrived),) = found
    assert arrived == GUEST + frame[6:]
    assert lead[1] == ids.GSO_TCPV4
    assert 17 <= lead[ids.NUM_BUFFERS] <= 33  # of 2048 bytes those that were left, then of 4096


def test_a_tap_that_vanishes_is_a_link_that_goes_down(tap, namespace):
    def remove():
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="guest0")[0])

    tap.post(4, 2048)
    assert tap.link.read_config(6, 2) == b"\1\0"
    inside(namespace, remove)
    tap.run(5)
    assert tap.link.read_config(6, 2) == b"\0\0"
    assert tap.config_interrupts == 1
    tap.send(arp(GUEST_IP, HOST))
    assert tap.device.counters.unsent == 1
    tap.post(4, 2048)
    assert tap.device.active


def test_a_guest_that_takes_no_frames_is_not_asked_again_and_again(tap):
    tap.post(1, 2048)
    tap.send(arp(GUEST_IP, HOST))
    assert len(tap.wait_frames()) == 1
    tap.send(arp(GUEST_IP, HOST))
    tap.run(1)
    assert not tap.bench.events.readers
    tap.post(16, 2048)
    assert tap.wait_frames()
    assert tap.bench.events.readers


@pytest.fixture
def slirp():
    """A driver whose device is over libslirp, with a forwarded UDP port 7."""
    try:
        user._load()
    except HostError as error:
        pytest.skip(str(error))
    driver = net_bench(UserBackend(forwards=[parse_forward("udp:0:7")]))
    yield driver
    driver.device.close()


def test_user_mode_answers_at_once(slirp):
    here, gateway = bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
    slirp.post(16, 2048)
    slirp.send(arp(here, gateway))
    assert len(slirp.queues[RECEIVE].used()) == 1  # within the notification
    slirp.send(ping(b"\x52\x55" + gateway, here, gateway))
    assert ip_of(slirp, 1).source == gateway


def test_user_mode_forwards_a_port(slirp):
    here, gateway = bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
    slirp.post(16, 2048)
    slirp.send(arp(here, gateway))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(b"question", ("127.0.0.1", slirp.device.backend.forwards[0].host_port))
        question = parse_udp(ip_of(slirp, 17))
        assert (question.target, question.data) == (7, b"question")
        slirp.send(datagram(b"\x52\x55" + gateway, here, gateway, 7, question.source, b"answer"))
        assert client.recv(100) == b"answer"


def test_two_machines_reach_each_other_over_a_switch():
    switch = Switch()
    backends = [PeerBackend(switch.port()) for _ in range(2)]
    drivers = [net_bench(backend, device=VirtioNet(backend)) for backend in backends]
    macs = [driver.link.read_config(0, 6) for driver in drivers]
    assert macs[0] != macs[1]
    for driver in drivers:
        driver.post(16, 2048)
    drivers[0].send(arp(GUEST_IP, HOST, macs[0]))
    (question,) = drivers[1].wait_frames()
    assert parse_arp(question[14:]).sender_mac == macs[0]
    drivers[1].send(ping(macs[0], HOST, GUEST_IP, mac=macs[1]))
    (frame,) = drivers[0].wait_frames()
    assert frame[:12] == macs[0] + macs[1]
    for driver in drivers:
        driver.device.close()


def test_a_peer_that_only_answers_leaves_a_machine_deterministic():
    host = EchoHost()
    driver = net_bench(PeerBackend(host))
    assert not driver.device.live
    driver.post(4, 2048)
    driver.send(ping(host.mac, GUEST_IP, host.ip))
    assert not driver.bench.events.readers
    (frame,) = driver.wait_frames()
    assert parse_ipv4_packet(frame[14:]).payload == icmp(0, pack(">HH", 7, 1) + b"hello")
