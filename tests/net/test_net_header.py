"""Headers before transmitted frames: what is believed, what is made anew, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.net import ids
from pyhv.net.frames import ETHERTYPE_IPV4, TCP, UDP, Ipv4, ethernet
from pyhv.net.header import HEAD_SIZE, PLAIN, BadHeader, clean

ALL = ids.HOST_OFFLOADS
HERE, THERE = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 1))
CSUM_ONLY = ids.bits(ids.F_CSUM)


def str_of(value):
    """A parameter in a test's name."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def tcp4(size=4000, options=0):
    packet = Ipv4(HERE, THERE, TCP, bytes(12) + bytes([(5 + options) << 4]) + bytes(size - 47)).pack()
    return ethernet(bytes(6), bytes(6), ETHERTYPE_IPV4, packet)


def tcp6(size=4000, extension=b"", protocol=TCP):
    head = b"\x60\0\0\0" + (size - 54).to_bytes(2, "big") + bytes([0 if extension else protocol, 64]) + bytes(32)
    return (bytes(12) + b"\x86\xdd" + head + extension + bytes(12) + b"\x50" + bytes(size))[:size]


def udp4(size=4000):
    return ethernet(bytes(6), bytes(6), ETHERTYPE_IPV4, Ipv4(HERE, THERE, UDP, bytes(size - 34)).pack())


def cleaned(frame, flags=1, gso=0, length=0, segment=0, start=34, offset=16, buffers=0, features=ALL):
    header = ids.HEADER.pack(flags, gso, length, segment, start, offset, buffers)
    whole = header + frame
    return ids.HEADER.unpack(clean(header, len(frame), features, lambda at, size: whole[at : at + size]))


def test_a_complete_frame_gets_an_empty_header_whatever_the_rest_says():
    assert clean(ids.HEADER.pack(0, 0, 9, 9, 9, 9, 9), 60, 0, None) == PLAIN
    assert clean(ids.HEADER.pack(0xFE, 0, 0, 0, 0xFFFF, 0xFFFF, 7), 60, ALL, None) == PLAIN
    assert clean(ids.HEADER.pack(0, ids.GSO_ECN, 0, 0, 0, 0, 0), 60, ALL, None) == PLAIN


def test_a_checksum_keeps_its_place_and_nothing_else():
    found = cleaned(tcp4(100), flags=0xFF, length=0xFFFF, segment=0xFFFF, buffers=0xFFFF)
    assert found == (1, 0, 0, 0, 34, 16, 0)


@pytest.mark.parametrize(
    ("start", "offset"), [(34, 65), (99, 0), (100, 0), (0xFFFF, 0xFFFF), (0, 16), (13, 0), (34, 0xFFFE)]
)
def test_a_checksum_lies_in_the_frame(start, offset):
    with pytest.raises(BadHeader):
        cleaned(tcp4(100), start=start, offset=offset)


def test_the_last_bytes_of_a_frame_can_be_its_checksum():
    assert cleaned(tcp4(100), start=34, offset=64)[4:6] == (34, 64)


def test_segmentation_gets_the_length_that_the_headers_have():
    assert cleaned(tcp4(), gso=ids.GSO_TCPV4, length=7, segment=1448) == (1, 1, 54, 1448, 34, 16, 0)
    assert cleaned(tcp4(options=3), gso=ids.GSO_TCPV4, length=0xFFFF, segment=1448)[2] == 66
    assert cleaned(tcp4(), gso=ids.GSO_TCPV4 | ids.GSO_ECN, segment=1448)[1] == 0x81
    assert cleaned(tcp6(), gso=ids.GSO_TCPV6, segment=1440, start=54) == (1, 4, 74, 1440, 54, 16, 0)
    options = bytes([TCP, 1]) + bytes(14)
    assert cleaned(tcp6(extension=options), gso=ids.GSO_TCPV6, segment=1440, start=70)[2] == 90
    assert cleaned(udp4(), gso=ids.GSO_UDP_L4, segment=1400, offset=6) == (1, 5, 42, 1400, 34, 6, 0)
    assert cleaned(tcp6(protocol=UDP), gso=ids.GSO_UDP_L4, segment=1400, start=54, offset=6)[2] == 62


def test_a_vlan_tag_moves_the_headers():
    frame = tcp4()
    tagged = frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    assert cleaned(tagged, gso=ids.GSO_TCPV4, segment=1448, start=38)[2] == 58
    with pytest.raises(BadHeader):
        cleaned(tagged, gso=ids.GSO_TCPV4, segment=1448, start=34)


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (tcp4(), {"flags": 0}),
        (tcp4(), {"segment": 0}),
        (tcp4(), {"segment": 7}),
        (tcp4(), {"gso": 3}),
        (tcp4(), {"gso": 2}),
        (tcp4(), {"gso": 0x7F}),
        (tcp4(), {"gso": ids.GSO_TCPV6}),
        (tcp4(), {"gso": ids.GSO_UDP_L4}),
        (tcp4(), {"gso": ids.GSO_UDP_L4, "offset": 6}),
        (tcp4(), {"start": 35}),
        (tcp4(), {"start": 54}),
        (tcp4(), {"offset": 17}),
        (tcp4(54)[:54], {}),
        (tcp4(60, options=10), {}),
        (tcp4(options=-1), {}),
        (tcp6(), {}),
        (tcp6(), {"start": 54}),
        (tcp6(extension=bytes([0, 255])), {"gso": ids.GSO_TCPV6, "start": 54}),
        (udp4(), {"gso": ids.GSO_UDP_L4 | ids.GSO_ECN, "offset": 6}),
        (bytes(4000), {}),
        (bytes(12) + b"\x08\x06" + bytes(4000), {}),
        (bytes(12) + b"\x08\x00\x44" + bytes(4000), {}),
        (bytes(12) + b"\x81\x00\x00\x00\x81\x00\x00\x00\x08\x00\x45" + bytes(4000), {}),
    ],
)
def test_segmentation_that_does_not_fit_its_frame_is_refused(frame, fields):
    with pytest.raises(BadHeader):
        cleaned(frame, **{"gso": ids.GSO_TCPV4, "segment": 1448, **fields})


@pytest.mark.parametrize(
    ("missing", "frame", "fields"),
    [
        (ids.F_CSUM, tcp4(), {}),
        (ids.F_CSUM, tcp4(), {"gso": ids.GSO_TCPV4, "segment": 1448}),
        (ids.F_HOST_TSO4, tcp4(), {"gso": ids.GSO_TCPV4, "segment": 1448}),
        (ids.F_HOST_TSO6, tcp6(), {"gso": ids.GSO_TCPV6, "segment": 1448, "start": 54}),
        (ids.F_HOST_USO, udp4(), {"gso": ids.GSO_UDP_L4, "segment": 1448, "offset": 6}),
        (ids.F_HOST_ECN, tcp4(), {"gso": ids.GSO_TCPV4 | ids.GSO_ECN, "segment": 1448}),
    ],
    ids=str_of,
)
def test_what_was_not_negotiated_is_refused(missing, frame, fields):
    cleaned(frame, **fields)
    with pytest.raises(BadHeader):
        cleaned(frame, features=ALL & ~(1 << missing), **fields)


def test_features_count_only_with_what_they_require():
    assert ids.usable(ALL & ~CSUM_ONLY) == 0
    assert ids.usable(ids.bits(ids.F_GUEST_CSUM, ids.F_GUEST_ECN)) == ids.bits(ids.F_GUEST_CSUM)
    assert ids.usable(ids.bits(ids.F_CTRL_RX, ids.F_GUEST_ANNOUNCE, ids.F_MAC)) == ids.bits(ids.F_MAC)
    assert ids.usable(ALL) == ALL


frames = st.one_of(
    st.builds(tcp4, st.integers(54, 3000), st.integers(-5, 10)),
    st.builds(tcp6, st.integers(74, 3000), st.binary(max_size=24), st.sampled_from([TCP, UDP, 0, 60])),
    st.builds(udp4, st.integers(42, 3000)),
    st.binary(min_size=14, max_size=400),
)


@given(
    frames,
    st.tuples(
        st.integers(0, 255),
        st.sampled_from([0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, 0xFF]),
        *[st.integers(0, 0xFFFF) | st.integers(0, 80)] * 5,
    ),
    st.integers(0, 2**64 - 1) | st.just(ALL),
)
def test_no_header_promises_what_its_frame_does_not_hold(frame, fields, features):
    header = ids.HEADER.pack(*fields)
    whole = header + frame
    asked = []

    def read(offset, size):
        asked.append(size)
        return whole[offset : offset + size]

    try:
        flags, gso, length, segment, start, offset, buffers = ids.HEADER.unpack(clean(header, len(frame), features, read))
    except BadHeader:
        return
    assert all(size <= HEAD_SIZE for size in asked)
    assert flags in (0, 1)
    assert buffers == 0
    if not flags:
        assert (gso, length, segment, start, offset) == (0, 0, 0, 0, 0)
        return
    assert features & CSUM_ONLY
    assert start >= 14
    assert start + offset + 2 <= len(frame)
    if gso:
        assert segment >= 8
        assert start < length < len(frame)
        assert gso & 0x7F in (1, 4, 5)
    else:
        assert (length, segment) == (0, 0)
