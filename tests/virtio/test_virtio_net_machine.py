"""A guest without an operating system talks to a peer written in Python, on each backend and over each transport."""

import pytest

import pyhv
from pyhv.net import EchoHost


class Counter(EchoHost):
    """Counts what it sees."""

    def __init__(self):
        super().__init__("10.0.2.2")
        self.frames = []

    def receive(self, frame):
        self.frames.append(frame)
        super().receive(frame)


def run(guest, backend, transport, **fields):
    """The result of the guest that drives virtio devices, and its peer."""
    peer = Counter()
    net = pyhv.Net.peer(peer, transport=transport, **fields)
    machine = pyhv.Machine(guest(f"virtio-{transport}"), devices=[net], memory="64M")
    return pyhv.run(machine, backend=backend, timeout=60), peer


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_a_guest_and_a_peer(guest, backend, transport, tmp_path):
    result, peer = run(guest, backend, transport, mac="02:00:00:00:00:42", pcap=str(tmp_path / "net.pcap"))
    assert result.ok, result
    lines = result.console.splitlines()
    assert "net: address 02:00:00:00:00:42" in lines
    assert "net: 10.0.2.2 is at 02:76:00:00:00:01" in lines
    assert "net: a datagram echoed" in lines
    assert b"a datagram from a guest" in peer.frames[-1]
    capture = (tmp_path / "net.pcap").read_bytes()
    assert capture.count(b"a datagram from a guest") == 2
    assert all(frame in capture for frame in peer.frames)


def test_a_peer_that_only_answers_keeps_the_simulator_deterministic(guest, sim):
    results = [run(guest, sim, "pci")[0] for _ in range(2)]
    assert results[0].ok
    assert results[0].deterministic
    assert results[0].instructions == results[1].instructions
    assert results[0].console == results[1].console


def test_a_peer_is_free_again_when_its_machine_has_ended(guest, sim):
    peer = EchoHost("10.0.2.2")
    machine = pyhv.Machine(guest("virtio-pci"), devices=[pyhv.Net.peer(peer)], memory="64M")
    for _ in range(2):
        assert pyhv.run(machine, backend=sim, timeout=60).ok
    assert not peer.send(bytes(60))


def test_a_peer_that_fails_fails_the_run_and_not_the_guest(guest, sim):
    class Broken(pyhv.net.Peer):
        def receive(self, frame):
            raise ZeroDivisionError("broken")

    machine = pyhv.Machine(guest("virtio-pci"), devices=[pyhv.Net.peer(Broken())], memory="64M")
    result = pyhv.run(machine, backend=sim, timeout=60)
    assert result.outcome is pyhv.Outcome.ERROR
    assert "ZeroDivisionError: broken" in result.detail
