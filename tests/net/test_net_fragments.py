"""IPv4 fragments: whole packets come out, in whatever order and however wrong the pieces are."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_wire import GUEST

from pyhv.clock import ManualClock
from pyhv.net import fragments
from pyhv.net.fragments import Reassembler, is_fragment
from pyhv.net.frames import ETHERTYPE_IPV4, UDP, Ipv4, checksum, ethernet, parse_ipv4_packet

SOURCE, TARGET = bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
SECOND = 1_000_000_000


def fragment(start, data, more, *, ident=1, flags=0, options=b"", protocol=UDP, length=None):
    """A frame with a piece of a packet."""
    packet = bytearray(Ipv4(SOURCE, TARGET, protocol, options + data).pack())
    packet[0] = 0x45 + len(options) // 4
    if length is not None:
        packet[2:4] = length.to_bytes(2, "big")
    packet[4:6] = ident.to_bytes(2, "big")
    packet[6:8] = (start // 8 | more << 13 | flags).to_bytes(2, "big")
    packet[10:12] = bytes(2)
    packet[10:12] = checksum(bytes(packet[: 20 + len(options)])).to_bytes(2, "big")
    return ethernet(GUEST, GUEST, ETHERTYPE_IPV4, bytes(packet))


def pieces(data, cuts, **how):
    """The fragments of a packet, cut at these multiples of eight."""
    edges = [0, *sorted({8 * cut for cut in cuts if 0 < 8 * cut < len(data)}), len(data)]
    return [
        fragment(start, data[start:stop], stop < len(data), **how) for start, stop in itertools.pairwise(edges)
    ]


def test_what_a_fragment_is():
    whole = ethernet(GUEST, GUEST, ETHERTYPE_IPV4, Ipv4(SOURCE, TARGET, UDP, bytes(8)).pack())
    assert not is_fragment(whole)
    assert all(map(is_fragment, pieces(bytes(100), [1])))
    assert not is_fragment(fragment(0, bytes(8), False, flags=0xC000))
    assert not is_fragment(whole[:12] + b"\x86\xdd" + pieces(bytes(100), [1])[0][14:])
    assert not any(is_fragment(pieces(bytes(100), [1])[0][:length]) for length in range(20))


@given(st.binary(min_size=9, max_size=3000), st.lists(st.integers(1, 400), min_size=1, max_size=30), st.data())
def test_packets_are_whole_in_any_order(data, cuts, draw):
    sent = pieces(data, [1, *cuts])
    sent = draw.draw(st.permutations(sent + draw.draw(st.lists(st.sampled_from(sent), max_size=3))))
    reassembler = Reassembler(ManualClock())
    found = [whole for frame in sent if (whole := reassembler.add(frame)) is not None]
    assert found
    assert {len(whole) for whole in found} == {34 + len(data)}
    for whole in found:
        packet = parse_ipv4_packet(whole[14:])
        assert (packet.source, packet.target, packet.protocol, packet.payload) == (SOURCE, TARGET, UDP, data)
        assert not is_fragment(whole)


def test_packets_are_told_apart_and_keep_their_options():
    reassembler = Reassembler(ManualClock())
    first, second = bytes(range(100)), bytes(reversed(range(100)))
    one, other = pieces(first, [5], options=bytes((1, 1, 1, 0))), pieces(second, [5], ident=2)
    assert reassembler.add(one[0]) is None
    assert reassembler.add(other[1]) is None
    whole = reassembler.add(one[1])
    assert whole[14] == 0x46
    assert parse_ipv4_packet(whole[14:]).payload == first
    assert parse_ipv4_packet(reassembler.add(other[0])[14:]).payload == second
    assert not reassembler._packets


@pytest.mark.parametrize(
    "frames",
    [
        [fragment(0, bytes(16), True), fragment(8, bytes(16), False)],
        [fragment(0, bytes(16), True), fragment(16, bytes(8), False), fragment(24, bytes(8), True)],
        [fragment(16, bytes(8), False), fragment(24, bytes(24), True)],
        [fragment(0, bytes(9), True), fragment(8, bytes(8), False)],
        [fragment(8, b"", False), fragment(0, bytes(8), True)],
        [fragment(0, bytes(8), True, length=2000), fragment(8, bytes(8), False)],
        [fragment(0, bytes(8), True, length=19), fragment(8, bytes(8), False)],
        [fragment(65528, bytes(8), False), fragment(0, bytes(65528 - 20), True)],
        [fragment(0, bytes(32768), True, options=bytes(40)), fragment(32768, bytes(32767 - 20), False)],
        [bytearray(fragment(0, bytes(8), True)), fragment(8, bytes(8), False)],
    ],
)
def test_pieces_that_do_not_join_are_no_packet(frames):
    if isinstance(frames[0], bytearray):
        frames = [bytes(frames[0][:25] + b"\1" + frames[0][26:]), frames[1]]  # its checksum is wrong
    reassembler = Reassembler(ManualClock())
    found = [whole for frame in frames if (whole := reassembler.add(frame)) is not None]
    assert [parse_ipv4_packet(whole[14:]).payload for whole in found] in ([], [bytes(24)])
    assert all(len(packet.pieces) <= 1 for packet in reassembler._packets.values())


def test_what_is_never_whole_takes_little_and_is_forgotten():
    clock = ManualClock()
    reassembler = Reassembler(clock)
    for ident in range(100):
        reassembler.add(fragment(0, bytes(8), True, ident=ident))
    assert len(reassembler._packets) == fragments.MOST_PACKETS
    for start in range(0, 4096, 8):  # each overlaps all that come after it
        reassembler.add(fragment(start, bytes(32768), True))
    held = sum(len(piece) for packet in reassembler._packets.values() for piece in packet.pieces.values())
    assert held <= fragments.MAX_PACKET + 8 * fragments.MOST_PACKETS
    data = bytes(range(50))
    one, other = pieces(data, [2], ident=7)
    reassembler.add(one)
    clock.advance(30 * SECOND)
    assert reassembler.add(other) is None
    assert parse_ipv4_packet(reassembler.add(one)[14:]).payload == data


@given(st.randoms(use_true_random=False), st.binary(max_size=200))
def test_any_bytes(rng: random.Random, more):
    reassembler = Reassembler(ManualClock())
    for _ in range(20):
        frame = bytearray(fragment(8 * rng.randrange(8192), more[: rng.randrange(201)], rng.random() < 0.5))
        for _ in range(rng.randrange(4)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        frame = bytes(frame[: rng.choice([len(frame), rng.randrange(22, len(frame) + 1)])])
        if is_fragment(frame):
            reassembler.add(frame)
