"""Frames over a Unix socket, against the other side made by hand and against each other."""

import errno
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_wire import GUEST, Wire

from pyhv.errors import ConfigError
from pyhv.net.frames import BROADCAST
from pyhv.net.stream import StreamBackend

FRAME = BROADCAST + GUEST + b"\x08\x00" + bytes(range(50))


def packed(*frames):
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "net.sock")


@pytest.fixture
def connected(path):
    """A backend that connected to a socket, and that socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        wire = Wire(StreamBackend(path))
        with server.accept()[0] as other:
            other.settimeout(20)
            yield wire, other
            wire.close()


def test_frames_go_with_their_length_before_them(connected):
    wire, other = connected
    assert wire.backend.link_up
    wire.send(FRAME)
    assert other.recv(1000) == packed(FRAME)
    other.sendall(packed(FRAME, bytes(14), FRAME))
    assert wire.frames(1) == [FRAME, bytes(14), FRAME]
    assert wire.told


def test_frames_arrive_whole_however_they_come(connected):
    wire, other = connected
    found = []
    for byte in packed(FRAME, bytes(60)):
        other.sendall(bytes((byte,)))
        found += wire.frames(1)
    assert found == [FRAME, bytes(60)]


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20), st.lists(st.integers(1, 400), max_size=8))
def test_any_cut_of_any_frames(frames, cuts):
    here, there = socket.socketpair()
    with there:
        backend = StreamBackend("")
        here.setblocking(False)
        backend._socket, backend.link_up = here, True
        data, found = packed(*frames), []
        for cut in (*cuts, len(data)):
            there.sendall(data[:cut])
            data = data[cut:]
            buffer = bytearray(400)
            while length := backend.receive([memoryview(buffer)]):
                found.append(bytes(buffer[:length]))
        backend._drop()
    assert found == frames


def test_a_peer_that_stalls_loses_frames_and_stops_nobody(connected):
    wire, other = connected
    frame = FRAME.ljust(60000, b"\1")
    for _ in range(200):
        wire.send(frame)
    dropped = wire.backend.dropped
    assert dropped > 50
    assert wire.events.writers
    data = bytearray()
    while len(data) < (200 - dropped) * len(packed(frame)):
        data += other.recv(1 << 20)
        wire.events.run()
    assert bytes(data) == packed(frame) * (200 - dropped)
    assert not wire.events.writers
    wire.send(FRAME)
    assert other.recv(1000) == packed(FRAME)


def test_a_peer_that_goes_takes_the_link_along(connected):
    wire, other = connected
    other.sendall(packed(FRAME)[:-1])
    other.close()
    assert wire.frames(1) == []
    assert wire.links == [False]
    assert not wire.events.readers
    wire.send(FRAME)
    assert wire.backend.dropped == 1
    assert wire.receive() == b""


def test_a_peer_that_goes_while_it_stalls(connected):
    wire, other = connected
    while not wire.events.writers:
        wire.send(bytes(60000))
    other.close()
    wire.events.run()
    assert not wire.backend.link_up
    assert not wire.events.writers


@pytest.mark.parametrize("length", [0, 65590, 0xFFFF_FFFF])
def test_lengths_that_make_no_sense_end_the_connection(connected, length):
    wire, other = connected
    other.sendall(length.to_bytes(4, "big") + bytes(100))
    assert wire.frames(1) == []
    assert wire.links == [False]


def test_two_backends_are_one_network_and_the_listening_one_stays(path):
    listening = Wire(StreamBackend(path, listen=True))
    assert not listening.backend.link_up
    for _ in range(2):
        connecting = Wire(StreamBackend(path))
        listening.events.run(1)
        assert listening.backend.link_up
        connecting.send(FRAME)
        assert listening.frames(1) == [FRAME]
        listening.send(FRAME)
        assert connecting.frames(1) == [FRAME]
        connecting.close()
        assert listening.frames(1) == []
        assert not listening.backend.link_up
    assert listening.links == [True, False, True, False]
    listening.close()
    assert not os.path.exists(path)


def test_only_one_side_at_a_time(path):
    listening = Wire(StreamBackend(path, listen=True))
    first, second = Wire(StreamBackend(path)), Wire(StreamBackend(path))
    listening.events.run(1)
    listening.events.run(1)
    assert second.frames(1) == []
    assert not second.backend.link_up
    assert first.backend.link_up
    for wire in (first, second, listening):
        wire.close()


def test_nothing_is_read_while_nobody_wants_it(connected):
    wire, other = connected
    wire.backend.pause()
    other.sendall(packed(FRAME))
    wire.events.run()
    assert wire.told == 0
    wire.backend.resume()
    assert wire.frames(1) == [FRAME]


def test_a_socket_that_is_not_there_is_a_users_mistake(path):
    with pytest.raises(ConfigError, match=r"^net: path: '.*net\.sock' cannot be connected to: No such file or directory$"):
        Wire(StreamBackend(path))
    with pytest.raises(ConfigError, match="too long"):
        Wire(StreamBackend("/tmp/" + "x" * 200))


def test_a_socket_in_use_is_left_alone_and_one_left_behind_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(ConfigError, match="Address already in use"):
            Wire(StreamBackend(path, listen=True))
    wire = Wire(StreamBackend(path, listen=True))
    wire.close()
    assert not os.path.exists(path)


def test_what_is_no_socket_is_never_removed(tmp_path, path):
    file = tmp_path / "net.sock"
    file.write_text("a disk")
    with pytest.raises(ConfigError, match="Address already in use"):
        Wire(StreamBackend(path, listen=True))
    assert file.read_text() == "a disk"


def test_a_socket_whose_owner_is_busy_is_in_use_and_waited_for_by_nobody(path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        with pytest.raises(ConfigError, match="Address already in use"):
            Wire(StreamBackend(path, listen=True))


def test_another_socket_in_its_place_stays(path):
    wire = Wire(StreamBackend(path, listen=True))
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        wire.close()
        assert os.path.exists(path)


def test_a_frame_whose_pieces_arrive_while_it_is_read_is_there_at_once(connected):
    wire, other = connected
    real = wire.backend._socket
    pieces = [packed(FRAME)[:4], packed(FRAME)[4:30], packed(FRAME)[30:]]

    class Racing:
        fileno, close = real.fileno, real.close

        def recv(self, size):
            if pieces:
                other.sendall(pieces.pop(0))
            return real.recv(size)

    wire.backend._socket = Racing()
    assert wire.receive() == FRAME


def test_no_descriptor_left_is_no_busy_loop(path):
    wire = Wire(StreamBackend(path, listen=True))
    real = wire.backend._server

    class Broken:
        fileno, close = real.fileno, real.close

        def accept(self):
            raise OSError(errno.EMFILE, "Too many open files")

    wire.backend._server = Broken()
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(path)
        wire.events.run(1)
        assert not wire.events.readers
        wire.backend._server = real
        wire.clock.advance(1_000_000_000)
        wire.events.run(1)
        assert wire.backend.link_up
    wire.close()


def test_a_backend_that_was_closed_accepts_nobody_later(path):
    wire = Wire(StreamBackend(path, listen=True))
    wire.backend._accept_on()
    wire.close()
    wire.backend._accept_on()
    assert not wire.events.readers
