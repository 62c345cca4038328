"""A driver that breaks every rule of the block device: requests fail, nothing else does."""

import struct
from functools import partial

import pytest
from block_driver import SIZE, BlockDriver, Memory, header, ranges
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_driver import Upper, device_bench

from pyhv.block.open import open_image
from pyhv.virtio import block as b
from pyhv.virtio import ids

SECTORS = SIZE // 512


def assert_usable(disk):
    disk.image.broken.clear()
    assert disk.read(0, 512) == (b.OK, bytes(disk.image.data[:512]))
    assert disk.device.active


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("readable", "writable", "status"),
    [
        ([], [1], b.IOERR),
        ([], [512, 1], b.IOERR),
        ([header(b.IN)[:15]], [512, 1], b.IOERR),
        ([b"", header(b.IN)[:7], b""], [0, 1, 0], b.IOERR),
        ([header(b.IN)], [], None),
        ([header(b.IN)], [0], None),
        ([header(b.OUT), bytes(512)], [], None),
        ([header(b.T_FLUSH)], [], None),
        ([header(b.GET_ID)], [], None),
        ([], [], None),
        ([header(b.IN)], [511, 1], b.IOERR),
        ([header(b.IN)], [513, 1], b.IOERR),
        ([header(b.OUT), bytes(511)], [1], b.IOERR),
        ([header(b.OUT), bytes(1)], [1], b.IOERR),
        ([header(b.IN)], [1], b.OK),
        ([header(b.OUT)], [1], b.OK),
        ([header(b.IN), b"useless"], [512, 1], b.OK),
        ([header(b.OUT), bytes(512)], [100, 1], b.OK),
        ([header(b.T_FLUSH, 77), bytes(512)], [512, 1], b.OK),
    ],
)
def test_shapes(packed, readable, writable, status):
    disk = BlockDriver(packed=packed)
    if readable or writable:
        buffer = disk.finish(disk.driver.queues[0].add(readable, writable))
        assert (buffer.space[-1] if buffer.space else None) == status
        assert buffer.written <= len(buffer.space)
    if status is None:
        assert disk.image.calls == []
    assert_usable(disk)


@pytest.mark.parametrize("kind", [b.IN, b.OUT])
@pytest.mark.parametrize(
    ("sector", "sectors"),
    [
        (SECTORS, 1),
        (SECTORS - 1, 2),
        (SECTORS + 1, 0),
        (1 << 54, 1),
        ((1 << 55) - 1, 1),
        (1 << 55, 1),
        ((1 << 64) - 1, 1),
        ((1 << 64) - 1, 2),
        ((1 << 64) // 512, 8),
    ],
)
def test_beyond_the_capacity(kind, sector, sectors):
    disk = BlockDriver()
    before = bytes(disk.image.data)
    if kind == b.IN:
        assert disk.read(sector, 512 * sectors) == (b.IOERR, bytes(512 * sectors))
    else:
        assert disk.write(sector, b"x" * 512 * sectors) == b.IOERR
    assert disk.image.data == before
    assert_usable(disk)


def test_the_end_of_the_disk_is_inside():
    disk = BlockDriver()
    assert disk.read(SECTORS - 1, 512)[0] == b.OK
    assert disk.read(SECTORS, 0)[0] == b.OK
    assert disk.write(SECTORS - 2, bytes(1024)) == b.OK


@pytest.mark.parametrize("kind", [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 18, 20, 22, 24, 26, 0x80000000, 0xFFFFFFFF])
def test_unknown_requests(kind):
    disk = BlockDriver()
    assert disk.request(kind, data=bytes(64), space=512) == (b.UNSUPP, bytes(512))
    assert disk.image.calls == []
    assert_usable(disk)


@pytest.mark.parametrize("kind", [b.T_DISCARD, b.T_WRITE_ZEROES])
def test_requests_that_were_not_negotiated(kind):
    disk = BlockDriver(without=(b.DISCARD, b.WRITE_ZEROES))
    assert disk.request(kind, data=ranges((0, 8)))[0] == b.UNSUPP
    assert disk.image.calls == []


MOST = b.MAX_DISCARD // 512


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (b.T_DISCARD, b"", b.IOERR),
        (b.T_DISCARD, bytes(15), b.IOERR),
        (b.T_DISCARD, bytes(17), b.IOERR),
        (b.T_DISCARD, ranges((0, 8)) + b"x", b.IOERR),
        (b.T_DISCARD, ranges(*[(0, 1)] * 16), b.OK),
        (b.T_DISCARD, ranges(*[(0, 1)] * 17), b.IOERR),
        (b.T_DISCARD, bytes(1 << 18), b.IOERR),
        (b.T_DISCARD, ranges((SECTORS, 1)), b.IOERR),
        (b.T_DISCARD, ranges((0, 1), (SECTORS - 1, 2)), b.IOERR),
        (b.T_DISCARD, ranges(((1 << 64) - 1, 1)), b.IOERR),
        (b.T_DISCARD, ranges(((1 << 64) - 1, 0xFFFFFFFF)), b.IOERR),
        (b.T_DISCARD, ranges((0, 0xFFFFFFFF)), b.IOERR),
        (b.T_DISCARD, ranges((0, 8, 1)), b.UNSUPP),
        (b.T_DISCARD, ranges((0, 8), (0, 8, 1)), b.UNSUPP),
        (b.T_DISCARD, ranges((0, 8, 0x80000000)), b.UNSUPP),
        (b.T_WRITE_ZEROES, ranges((0, 8, 2)), b.UNSUPP),
        (b.T_WRITE_ZEROES, ranges((0, 8, 0xFFFFFFFF)), b.UNSUPP),
        (b.T_WRITE_ZEROES, ranges((0, 8), (0, 8)), b.IOERR),
        (b.T_WRITE_ZEROES, ranges((SECTORS - 1, 2)), b.IOERR),
        (b.T_WRITE_ZEROES, ranges((0, MOST + 1)), b.IOERR),
        (b.T_WRITE_ZEROES, ranges((SECTORS, 0)), b.OK),
        (b.T_WRITE_ZEROES, b"", b.IOERR),
    ],
)
def test_ranges(kind, data, status):
    disk = BlockDriver()
    assert disk.request(kind, data=data)[0] == status
    if status != b.OK:
        assert disk.image.calls == []
    assert_usable(disk)


def test_a_range_longer_than_the_limit_on_a_large_disk():
    disk = BlockDriver(Memory(1 << 50))
    assert disk.request(b.T_DISCARD, data=ranges((0, disk.config(36, 4) + 1)))[0] == b.IOERR
    assert disk.request(b.T_WRITE_ZEROES, data=ranges((0, disk.config(48, 4) + 1)))[0] == b.IOERR
    assert disk.image.calls == []


@pytest.mark.parametrize(
    ("offset", "data"), [(0, b"\xff" * 8), (31, b"\0"), (33, b"\0"), (34, b"\0\0"), (71, b"\0"), (36, bytes(4))]
)
def test_fields_that_are_not_for_the_driver(offset, data):
    disk = BlockDriver()
    before = disk.device.config()
    disk.driver.link.write_config(offset, data)
    assert disk.device.config() == before
    assert_usable(disk)


def test_writes_around_the_writeback_field():
    disk = BlockDriver()
    disk.driver.link.write_config(28, bytes(8))
    assert disk.config(32, 1) == 0
    disk.driver.link.write_config(32, b"\xff")
    assert disk.config(32, 1) == 1


def test_the_writeback_field_without_its_feature():
    disk = BlockDriver(without=(b.CONFIG_WCE,))
    disk.driver.link.write_config(32, b"\0")
    assert disk.config(32, 1) == 1
    assert disk.write(0, bytes(512)) == b.OK
    assert ("flush",) not in disk.image.calls


def test_buffers_outside_memory_come_back_and_the_disk_goes_on():
    disk = BlockDriver()
    queue = disk.driver.queues[0]
    at = disk.driver.place(header(b.IN))
    status = disk.driver.allocate(1)
    for where in (1 << 40, (1 << 64) - 256, disk.driver.memory.regions[0].end - 100):
        queue.expose([(at, 16, 0), (where, 512, ids.DESC_WRITE), (status, 1, ids.DESC_WRITE)])
    queue.kick()
    assert [queue.take_used() for _ in range(4)][3] is None
    assert disk.driver.transport.violations == 3 and disk.image.calls == []
    assert disk.device.active


def test_data_over_its_own_header_and_status():
    """What is written where the device just read, or will write: any outcome, no harm."""
    disk = BlockDriver()
    queue = disk.driver.queues[0]
    at = disk.driver.place(header(b.IN) + bytes(600))
    queue.expose([(at, 16, 0), (at, 512, ids.DESC_WRITE), (at + 100, 1, ids.DESC_WRITE)])
    queue.expose([(at, 528, 0), (at + 20, 1, ids.DESC_WRITE)])
    queue.kick()
    assert queue.take_used() is not None and queue.take_used() is not None
    assert disk.device.active


def test_the_same_memory_many_times_in_one_request():
    disk = BlockDriver(Memory(256 << 20))
    disk.image.preadv = lambda views, offset, length: disk.image.note("read", offset, length)
    queue = disk.driver.queues[0]
    at, where, status = disk.driver.place(header(b.IN)), disk.driver.allocate(1 << 20), disk.driver.allocate(1)
    table = queue.table([(at, 16, 0), *[(where, 1 << 20, ids.DESC_WRITE)] * 200, (status, 1, ids.DESC_WRITE)])
    for _ in range(4):
        queue.expose([(disk.driver.place(table, 16), len(table), ids.DESC_INDIRECT)])
    queue.kick()
    for turn in range(4):  # others have theirs in between
        assert len(disk.image.calls) == turn
        disk.driver.run()
    assert [length >> 20 for _, _, length in disk.image.calls] == [64, 64, 64, 8]
    assert queue.take_used() == (0, (200 << 20) + 1)


KINDS = [b.IN, b.OUT, b.T_FLUSH, b.GET_ID, b.T_DISCARD, b.T_WRITE_ZEROES]
DATA = [ranges((0, 8)), ranges((1, 2), (120, 16)), bytes(512), bytes(4096)]
REQUESTS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(KINDS), st.integers(0, (1 << 32) - 1)),
        st.one_of(st.integers(0, 130), st.integers(0, (1 << 64) - 1)),
        st.one_of(st.binary(max_size=600), st.sampled_from(DATA)),
        st.lists(st.sampled_from([0, 1, 15, 16, 20, 511, 512, 513, 4096]), max_size=6),
        st.lists(st.integers(0, 600), max_size=6),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=150)
@given(
    REQUESTS,
    st.booleans(),
    st.sampled_from(["raw", "overlay", "readonly"]),
    st.sampled_from([(), (b.FLUSH, b.CONFIG_WCE)]),
)
def test_any_requests(tmp_path_factory, requests, packed, kind, without):
    path = tmp_path_factory.mktemp("any") / "disk"
    path.write_bytes(bytes(range(256)) * 256)
    image = open_image(str(path), readonly=kind == "readonly", overlay=kind == "overlay")
    disk = BlockDriver(image, packed=packed, without=without)
    queue = disk.driver.queues[0]
    for request, sector, data, writable, cuts, shorter, indirect in requests:
        whole = struct.pack("<IIQ", request, 7, sector) + data
        whole = whole[: len(whole) - shorter]
        readable = []
        for size in cuts:
            readable.append(whole[:size])
            whole = whole[size:]
        readable.append(whole)
        if not writable and not b"".join(readable):
            continue
        buffer = disk.finish(queue.add(readable, writable, indirect=indirect))
        if buffer.space:
            assert buffer.space[-1] in (b.OK, b.IOERR, b.UNSUPP)
        assert buffer.written <= len(buffer.space)
    assert disk.driver.transport.violations == 0
    assert disk.read(0, 512) == (b.OK, image.read(0, 512))
    disk.device.close()
    assert path.stat().st_size == 1 << 16
    if kind != "raw":
        assert path.read_bytes() == bytes(range(256)) * 256


def test_other_devices_are_not_held_up():
    """A disk that is never idle shares the machine: its queue is left after each turn."""
    disk = BlockDriver()
    bench = disk.driver.bench
    other = device_bench(Upper())
    other.bench.events = bench.events
    queue = disk.driver.queues[0]
    at, status = disk.driver.place(header(b.IN)), disk.driver.allocate(513)
    elements = [(at, 16, 0), (status, 513, ids.DESC_WRITE)]
    read = type(disk.image).preadv
    added = []

    def endless(image, views, offset, length):
        read(image, views, offset, length)
        added.append(1)
        assert len(added) < 5000, "the queue was never left"
        queue.expose(elements)
        queue.free += queue._chains.pop(min(queue._chains))

    disk.image.preadv = partial(endless, disk.image)
    queue.expose(elements)
    queue.kick(force=True)
    assert len(added) <= queue.size
    assert other.queues[0].request([b"abc"], [3]) == b"ABC"
