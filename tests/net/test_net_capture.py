"""Capture files, read back by a reader made from the format's description."""

import os
import struct

import pytest

from pyhv import log
from pyhv.errors import ConfigError
from pyhv.net.pcap import Capture


def read_capture(data):
    """[(nanoseconds, frame)] of a capture file, which must be whole."""
    magic, major, minor, zone, accuracy, snap, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, zone, accuracy, link) == (0xA1B23C4D, 2, 4, 0, 0, 1)
    found, at = [], 24
    while at < len(data):
        seconds, nanoseconds, kept, length = struct.unpack_from("<IIII", data, at)
        assert kept == length <= snap
        assert nanoseconds < 1_000_000_000
        found.append((seconds * 1_000_000_000 + nanoseconds, data[at + 16 : at + 16 + kept]))
        at += 16 + kept
    assert at == len(data)
    return found


def test_a_capture_is_whole_after_each_frame(tmp_path):
    path = tmp_path / "net.pcap"
    capture = Capture(str(path))
    assert read_capture(path.read_bytes()) == []
    capture.write(1_700_000_000_123_456_789, [b"first", memoryview(b" frame")])
    assert read_capture(path.read_bytes()) == [(1_700_000_000_123_456_789, b"first frame")]
    capture.write(5, [bytes(1)] * 3000)
    assert read_capture(path.read_bytes())[1] == (5, bytes(3000))
    capture.close()
    capture.close()
    capture.write(6, [b"late"])
    assert len(read_capture(path.read_bytes())) == 2


def test_a_capture_that_cannot_be_made_is_a_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"^net: pcap: '.*/no/where' cannot be written: No such file or directory$"):
        Capture(str(tmp_path / "no" / "where"))


def test_a_full_disk_ends_the_capture_only():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with pytest.raises(ConfigError, match="No space left"):
        Capture("/dev/full")


def test_a_file_that_cannot_be_written_any_more_ends_the_capture_only(tmp_path):
    events = []
    stop = log.listen(lambda name, **values: events.append((name, values["error"])))
    try:
        capture = Capture(str(tmp_path / "net.pcap"))
        os.close(capture._fd)
        capture._fd = os.open("/dev/full", os.O_WRONLY)
        capture.write(1, [b"frame"])
        capture.write(2, [b"frame"])
    finally:
        stop()
    assert events == [("net_capture_ended", "No space left on device")]


def test_a_fifo_is_written_while_somebody_reads_and_waited_for_by_nobody(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="cannot be written: No such device or address"):
        Capture(str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    capture = Capture(str(path))
    capture.write(1, [b"frame"])
    assert read_capture(os.read(reader, 1000)) == [(1, b"frame")]
    for _ in range(100):
        capture.write(1, [bytes(60000)])
    assert capture._fd < 0
    os.close(reader)


def test_a_capture_that_cannot_be_begun_leaves_no_descriptor_open():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ConfigError):
        Capture("/dev/full")
    assert os.listdir("/proc/self/fd") == before
