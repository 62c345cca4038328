"""Taps, in namespaces that the tests make."""

import os
import socket
import subprocess
import sys

import pytest
from net_wire import GUEST, Wire, arp_request

from pyhv.errors import ConfigError, HostError
from pyhv.net import ids
from pyhv.net.frames import BROADCAST, parse_arp
from pyhv.net.namespace import inside, namespace_path
from pyhv.net.tap import TapBackend

HERE, HOST = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 1))


@pytest.fixture
def tap(namespace):
    """Makes wires to taps in it."""
    wires = []

    def make(**options):
        wire = Wire(TapBackend(namespace=namespace, **options))
        wires.append(wire)
        return wire

    yield make
    for wire in wires:
        wire.close()


def link(name, command, **options):
    """Change an interface of the namespace that this runs in."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link(command, index=ip.link_lookup(ifname=name)[0], **options)


def host_mac(wire):
    """Ask the host's side for its address."""
    wire.send(arp_request(HERE, HOST))

    def answer(frame):
        found = parse_arp(frame[ids.HEADER_SIZE + 14 :]) if frame[24:26] == b"\x08\x06" else None
        return found and found.operation == 2 and found.sender_mac

    return wire.wait(answer)


def test_frames_pass_with_a_header(tap):
    wire = tap(name="guest0", address="10.0.0.1/24")
    assert wire.backend.name == "guest0"
    assert host_mac(wire)[0] & 1 == 0
    assert wire.backend.dropped == 0


def test_the_kernel_names_a_tap_that_has_no_name(tap):
    first, second = tap(), tap()
    assert {first.backend.name, second.backend.name} == {"tap0", "tap1"}
    assert first.backend.identity != second.backend.identity


def test_offloads_are_what_the_kernel_takes(tap):
    offloads = tap().backend.offloads
    wanted = ids.bits(ids.F_CSUM, ids.F_HOST_TSO4, ids.F_HOST_TSO6, ids.F_GUEST_CSUM, ids.F_GUEST_TSO4, ids.F_GUEST_TSO6)
    assert offloads & wanted == wanted
    assert not offloads & ~(ids.HOST_OFFLOADS | ids.GUEST_OFFLOADS)


def udp_from_the_host(namespace, data):
    """Have the host send a datagram to the guest, with a neighbour entry that saves the question for its address."""

    def send():
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            index = ip.link_lookup(ifname="guest0")[0]
            address = ":".join(f"{byte:02x}" for byte in GUEST)
            ip.neigh("replace", dst="10.0.0.2", lladdr=address, ifindex=index, state=0x80)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, ("10.0.0.2", 9))

    inside(namespace, send)


def test_a_guest_without_offloads_gets_whole_checksums(tap, namespace):
    wire = tap(name="guest0", address="10.0.0.1/24")

    def header(frame):
        return frame[:10] if frame[12:18] == GUEST and frame[35] == 17 else None

    udp_from_the_host(namespace, b"x")
    assert wire.wait(header)[0] == 0
    wire.backend.set_guest_offloads(wire.backend.offloads & ids.GUEST_OFFLOADS)
    udp_from_the_host(namespace, b"x")
    flags, _, _, _, start, offset = ids.HEADER.unpack(wire.wait(header) + b"\0\0")[:6]
    assert (flags, start, offset) == (ids.HDR_NEEDS_CSUM, 34, 6)


@pytest.mark.parametrize("offloads", range(64))
def test_any_choice_of_offloads_is_taken(tap, offloads):
    """Every subset of what the driver may take; those that the kernel refuses would be told."""
    from pyhv import log

    wire = tap()
    numbers = (ids.F_GUEST_CSUM, ids.F_GUEST_TSO4, ids.F_GUEST_TSO6, ids.F_GUEST_ECN, ids.F_GUEST_USO4, ids.F_GUEST_USO6)
    chosen = ids.usable(sum(1 << number for i, number in enumerate(numbers) if offloads >> i & 1))
    events = []
    stop = log.listen(lambda name, **values: events.append(name))
    try:
        wire.backend.set_guest_offloads(chosen & wire.backend.offloads)
    finally:
        stop()
    assert not events


def test_a_tap_that_vanishes_takes_the_link_along(tap, namespace):
    wire = tap(name="guest0")
    inside(namespace, lambda: link("guest0", "del"))
    wire.events.run(5)
    assert wire.told == 1  # the device then reads, and learns
    assert wire.frames() == []
    assert wire.links == [False]
    assert not wire.events.readers
    wire.send(bytes(60))
    assert wire.backend.dropped == 1
    wire.backend.resume()
    assert not wire.events.readers
    assert wire.links == [False]


def test_a_tap_that_vanishes_is_noticed_by_sending(tap, namespace):
    wire = tap(name="guest0")
    wire.backend.pause()
    inside(namespace, lambda: link("guest0", "del"))
    wire.send(bytes(60))
    assert wire.links == [False]


def test_a_tap_that_is_down_drops_frames(tap, namespace):
    wire = tap(name="guest0")
    inside(namespace, lambda: link("guest0", "set", state="down"))
    wire.send(bytes(60))
    assert wire.backend.dropped == 1
    inside(namespace, lambda: link("guest0", "set", state="up"))
    wire.send(bytes(60))
    assert wire.backend.dropped == 1
    assert wire.links == []


def test_frames_that_the_kernel_does_not_like_are_dropped(tap):
    wire = tap()
    wire.send(bytes(5))
    wire.send(bytes(60), ids.HEADER.pack(1, 0, 0, 0, 70, 0, 0))
    wire.send(bytes(60), ids.HEADER.pack(1, 1, 0xFFFF, 0, 34, 16, 0))
    assert wire.backend.dropped == 3
    wire.backend.send(bytes(12), [memoryview(bytes(1))] * 3000)
    assert wire.backend.dropped == 3
    assert wire.backend.link_up


def test_a_frame_in_many_small_pieces(tap):
    wire = tap(address="10.0.0.1/24")
    question = arp_request(HERE, HOST)
    wire.backend.send(bytes(12), [memoryview(question)[at : at + 1] for at in range(len(question))])
    assert wire.wait(lambda frame: frame[24:26] == b"\x08\x06")


def test_mtu_bridge_and_address(tap, namespace):
    def make_bridge():
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            ip.link("add", ifname="br0", kind="bridge")

    def attributes():
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            bridge = ip.link_lookup(ifname="br0")[0]
            (found,) = ip.get_links(ip.link_lookup(ifname="guest0")[0])
            (address,) = ip.get_addr(label="guest0")
            return found.get("mtu"), found.get("master") == bridge, address.get("address"), address["prefixlen"]

    inside(namespace, make_bridge)
    tap(name="guest0", mtu=9000, bridge="br0", address="10.0.0.1/20")
    assert inside(namespace, attributes) == (9000, True, "10.0.0.1", 20)


def test_a_tap_made_for_several_queues_is_taken_as_well(tap, namespace):
    subprocess.run(
        ["ip", "netns", "exec", namespace, "ip", "tuntap", "add", "guest0", "mode", "tap", "multi_queue"], check=True
    )
    wire = tap(name="guest0", address="10.0.0.1/24")
    assert host_mac(wire)


def test_two_machines_cannot_have_one_tap(tap):
    tap(name="guest0")
    with pytest.raises(HostError, match=r"^net: tap 'guest0': somebody else uses it$"):
        tap(name="guest0")


def test_mistakes_about_taps(tap):
    with pytest.raises(ConfigError, match=r"^net: bridge: 'br9' is not there$"):
        tap(name="guest0", bridge="br9")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=r"^net: namespace: 'not-there' is not there .* ip netns add not-there$"):
        Wire(TapBackend(namespace="not-there"))
    with pytest.raises(ConfigError, match=r"^net: namespace: '/not/there' is not there \(No such file or directory\)$"):
        Wire(TapBackend(namespace="/not/there"))
    with pytest.raises(ConfigError, match=r"^net: namespace: '/proc/self/cmdline' is not a network namespace$"):
        Wire(TapBackend(namespace="/proc/self/cmdline"))
    with pytest.raises(ConfigError, match=r"^net: name: 'lo' is an interface that is no tap$"):
        tap(name="lo")
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_privileges_the_error_says_what_it_takes():
    if os.geteuid() or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, to give privileges up, and /dev/net/tun")
    code = "import os\nfrom pyhv.net.tap import TapBackend\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    code += "try:\n TapBackend(name='guest0').open(None, None, None)\nexcept Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("net: tap 'guest0': ")
    openable = os.stat("/dev/net/tun").st_mode & 0o006 == 0o006
    assert ("CAP_NET_ADMIN" if openable else "may not open /dev/net/tun") in done.stdout
    assert done.stdout.count("\n") == 1


def test_the_thread_that_asks_stays_in_its_namespace(namespace):
    def where():
        return os.readlink("/proc/thread-self/ns/net")

    mine = where()
    assert inside(namespace, where) != mine
    assert inside(namespace_path(namespace), where) == inside(namespace, where)
    assert where() == mine
    with pytest.raises(ZeroDivisionError):
        inside(namespace, lambda: 1 // 0)


def test_nothing_arrives_that_nobody_wants(tap, namespace):
    wire = tap(name="guest0", address="10.0.0.1/24")
    wire.backend.pause()
    wire.send(BROADCAST + arp_request(HERE, HOST)[6:])
    wire.events.run(0.05)
    assert wire.told == 0
    wire.backend.resume()
    assert wire.frames(5)
