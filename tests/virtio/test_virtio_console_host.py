"""Console ports coupled with files, pipes and sockets of the host."""

import contextlib
import os
import socket

import pytest
from console_driver import ConsoleDriver

from pyhv.errors import ConfigError, HostError
from pyhv.peripherals.console import Console
from pyhv.testing.doubles import ManualEvents
from pyhv.virtio.console import VirtioConsole
from pyhv.virtio.console_port import VirtioPort
from pyhv.virtio.console_stream import BACKLOG, PortStream


@contextlib.contextmanager
def pipe():
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def console():
    """One port, opened by the guest."""
    return ConsoleDriver(VirtioConsole([VirtioPort("port")]), memory=8 << 20).boot()


def streamed(console, **options):
    stream = PortStream(console.device.ports[0], **options)
    stream.start(console.driver.bench.events)
    return stream


def turns(console):
    while console.driver.run():
        pass


def test_input_from_a_pipe_and_its_end(console):
    with pipe() as (source, writer):
        streamed(console, source=source)
        os.write(writer, b"hello")
        turns(console)
        console.give(count=2, size=3)
        assert console.read() == b"hello"
        os.write(writer, b"!")
        os.close(writer)
        turns(console)
        console.give()
        console.listen()
        assert console.read() == b"!" and console.hosts == {0: False}
        assert not console.driver.bench.events.readers


def test_a_guest_that_does_not_read_leaves_bytes_in_the_pipe(console):
    port = console.device.ports[0]
    port.limit = 100
    with pipe() as (source, writer):
        streamed(console, source=source)
        data = os.urandom(300)
        os.write(writer, data)
        turns(console)
        assert port.waiting == 100 and not console.driver.bench.events.readers
        received = b""
        while len(received) < 300:
            console.give(count=1, size=32)
            turns(console)
            received += console.read()
        assert received == data


def test_a_regular_file_as_input(console, tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"from a file")
    fd = os.open(path, os.O_RDONLY)
    streamed(console, source=fd)
    turns(console)
    console.give()
    console.listen()
    assert console.read() == b"from a file" and console.hosts == {0: False}
    os.close(fd)


def test_a_slow_sink_makes_the_guest_wait(console):
    port = console.device.ports[0]
    with pipe() as (reader, sink):
        stream = streamed(console, sink=sink)
        sent, block = 0, bytes(range(256)) * 128
        while not port.paused:
            console.write(block)
            sent += len(block)
        assert BACKLOG < sent < BACKLOG + (1 << 18)
        waiting = console.write(b"the last")
        assert waiting.written < 0 and BACKLOG < stream.waiting < sent
        os.set_blocking(reader, False)
        received = bytearray()
        while len(received) < sent + 8:
            received += os.read(reader, 1 << 16)
            turns(console)
        console.transmit_queue(0).used()
        assert waiting.written == 0
        assert received == block * (sent // len(block)) + b"the last" and stream.waiting == 0
        stream.close()
        assert not console.driver.bench.events.writers


def test_two_streams_may_share_a_descriptor():
    ports = [VirtioPort("out"), VirtioPort("err")]
    console = ConsoleDriver(VirtioConsole(ports), memory=8 << 20).boot()
    with pipe() as (reader, sink):
        streams = [PortStream(port, sink=sink) for port in ports]
        for stream in streams:
            stream.start(console.driver.bench.events)
        size = 0
        for number in (0, 1):
            for _ in range(4):
                console.write(bytes((65 + number,)) * (1 << 15), number)
                size += 1 << 15
        assert len(console.driver.bench.events.writers) == 2
        os.set_blocking(reader, False)
        received = bytearray()
        while len(received) < size:
            received += os.read(reader, 1 << 16)
            turns(console)
        assert received.count(b"A") == received.count(b"B") == size // 2
        for stream in streams:
            stream.close()


def test_a_descriptor_that_is_not_open_is_the_users_mistake():
    with pytest.raises(ConfigError, match="console: x: descriptor 9999 is not open"):
        PortStream(VirtioPort("x"), sink=9999)


def test_what_waits_at_the_end_is_written_while_somebody_reads(console):
    with pipe() as (reader, sink):
        stream = streamed(console, sink=sink)
        filler = bytes(1 << 16)
        console.write(filler)
        console.write(b"the end")
        os.read(reader, 1 << 15)
        stream.close()
        os.set_blocking(reader, False)
        assert os.read(reader, 1 << 17)[-7:] == b"the end"


def test_a_broken_sink_is_told_and_the_guest_goes_on(console):
    heard = []
    with pipe() as (reader, sink):
        streamed(console, sink=sink, on_error=heard.append)
        os.close(reader)
        console.write(b"lost")
        assert console.write(b"lost").written == 0
        assert len(heard) == 1 and isinstance(heard[0], BrokenPipeError)


def test_a_sink_that_nobody_answers_for_ends_the_machine(console):
    with pipe() as (reader, sink):
        streamed(console, sink=sink)
        os.close(reader)
        with pytest.raises(HostError, match=r"console: port: Broken pipe"):
            console.write(b"lost")


# Descriptions


def hosted(**fields):
    device = Console(transport="mmio", **fields).build()
    return ConsoleDriver(device).boot()


def test_output_to_a_file(tmp_path):
    path = tmp_path / "out"
    path.write_text("older, and longer than the new")
    console = hosted(output=str(path))
    console.write(b"to the file\n")
    console.transmit_queue(0).add([b"not noticed yet"])
    console.device.close()
    console.device.close()
    assert path.read_bytes() == b"to the file\nnot noticed yet"
    assert not console.device.live


def test_output_to_a_fifo_that_somebody_reads(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"console: output: .* cannot be opened for writing: nobody reads this FIFO"):
        hosted(output=str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    console = hosted(output=str(path))
    console.write(b"through")
    assert os.read(reader, 100) == b"through" and console.device.live
    console.device.close()
    os.close(reader)


def test_both_directions_through_a_socket(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        console = hosted(socket=path, name="agent").boot()
        assert console.device.live and console.names == {0: "agent"}
        peer, _ = listener.accept()
        console.write(b"hello")
        assert peer.recv(100) == b"hello"
        console.give()
        peer.send(b"answer")
        turns(console)
        assert console.read() == b"answer"
        peer.close()
        turns(console)
        console.listen()
        assert console.hosts == {0: False}
        assert console.write(b"into the void").written == 0
        console.device.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "console: output: a file, or socket: a Unix socket; one of the two is needed"),
        ({"output": "a", "socket": "b"}, "console: output: a file, or socket: a Unix socket; one of the two is needed"),
        ({"output": "a", "name": "x/y"}, "console: name: 'x/y' is not a name of at most 128 bytes without / in it"),
        ({"output": "a", "rows": 70000}, "console: rows: '70000' is not from 0 to 65535"),
        ({"output": 3}, "console: output: 3 is not text"),
    ],
)
def test_descriptions_are_checked(fields, message):
    with pytest.raises(ConfigError) as error:
        Console(**fields)
    assert str(error.value) == message


def test_what_cannot_be_opened_is_the_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"console: output: '.*' cannot be opened for writing: Is a directory"):
        hosted(output=str(tmp_path))
    with pytest.raises(ConfigError, match=r"console: socket: '.*' cannot be connected to: No such file or directory"):
        hosted(socket=str(tmp_path / "none"))


def test_a_stream_that_was_not_started_watches_nothing():
    port = VirtioPort("x")
    with pipe() as (source, _):
        stream = PortStream(port, source=source)
        stream.close()
        stream.start(ManualEvents())
        stream.close()
