"""The block device with a driver that keeps the rules (virtio 1.2, 5.2)."""

import errno
import os
import struct

import pytest
from block_driver import BROKEN, CONTENTS, SIZE, BlockDriver, Memory, header, ranges
from hypothesis import given
from hypothesis import strategies as st
from virtio_driver import device_bench, mmio_bench

from pyhv.block.open import open_image
from pyhv.errors import ConfigError
from pyhv.peripherals import from_document, parse, to_document
from pyhv.peripherals.disk import Disk
from pyhv.virtio import block as b
from pyhv.virtio import ids
from pyhv.virtio.block import VirtioBlock


@pytest.mark.parametrize("join", [device_bench, mmio_bench])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("indirect", [False, True])
def test_reads_and_writes(join, packed, indirect):
    disk = BlockDriver(join=join, packed=packed)
    before = bytes(disk.image.data)
    assert disk.read(0, 512, indirect=indirect) == (b.OK, before[:512])
    assert disk.read(2047, 512, indirect=indirect) == (b.OK, before[-512:])
    assert disk.write(7, b"w" * 4096, indirect=indirect) == b.OK
    assert disk.read(6, 5120, indirect=indirect) == (b.OK, before[3072:3584] + b"w" * 4096 + before[7680:8192])
    assert disk.request(b.T_FLUSH, indirect=indirect) == (b.OK, b"")
    assert disk.image.calls == [
        ("read", 0, 512), ("read", SIZE - 512, 512), ("write", 3584, 4096), ("read", 3072, 5120), ("flush",),
    ]  # fmt: skip
    assert (disk.driver.transport.violations, disk.device.errors) == (0, 0)


def test_used_lengths():
    """What is written counts from the beginning of the writable part (2.7.8.2)."""
    disk = BlockDriver(serial="abc")
    queue = disk.driver.queues[0]

    def written(readable, writable):
        return disk.finish(queue.add(readable, writable)).written

    assert written([header(b.IN)], [512, 1]) == 513
    assert written([header(b.IN, 1 << 40)], [512, 1]) == 0
    assert written([header(b.OUT), bytes(512)], [1]) == 1
    assert written([header(b.OUT, 1 << 40), bytes(512)], [1]) == 1
    assert written([header(b.T_FLUSH)], [1]) == 1
    assert written([header(b.GET_ID)], [20, 1]) == 21
    assert written([header(b.GET_ID)], [30, 1]) == 20
    assert written([header(99)], [1]) == 1
    assert written([header(99)], [7]) == 0


def test_a_request_may_be_cut_anywhere():
    disk = BlockDriver()
    data = bytes(range(256)) * 4
    cuts = (([1] * 16, [1] * 20), ([3, 9, 4, 500], [511, 2]), ([1040], [1]), ([17], [1023]), ([1039], [1024]))
    for cut_out, cut_in in cuts:
        assert disk.write(3, data, cut_out=cut_out) == b.OK
        assert disk.read(3, 1024, cut_out=[5, 5], cut_in=cut_in) == (b.OK, data)
        disk.image.data[1536:2560] = bytes(1024)


@given(
    st.lists(st.integers(0, 700), max_size=12), st.lists(st.integers(0, 700), max_size=12), st.integers(0, 6), st.booleans()
)
def test_cuts(cut_out, cut_in, sectors, packed):
    disk = BlockDriver(Memory(1 << 16), packed=packed)
    data = bytes((n * 13) & 255 for n in range(512 * sectors))
    assert disk.write(2, data, cut_out=cut_out) == b.OK
    assert disk.read(2, len(data), cut_in=cut_in) == (b.OK, data)
    assert disk.driver.transport.violations == 0


def test_configuration():
    disk = BlockDriver(Memory(100 << 20, unit=65536), queues=3)
    assert disk.config(0, 8) == 204800
    assert (disk.config(8, 4), disk.config(12, 4)) == (0, b.QUEUE_SIZE - 2)
    assert (disk.config(16, 2), disk.config(18, 1), disk.config(19, 1)) == (203, 16, 63)
    assert disk.config(20, 4) == 512
    assert (disk.config(24, 1), disk.config(25, 1), disk.config(26, 2), disk.config(28, 4)) == (3, 0, 8, 128)
    assert (disk.config(32, 1), disk.config(33, 1), disk.config(34, 2)) == (1, 0, 3)
    assert [disk.config(n, 4) for n in range(36, 56, 4)] == [1 << 19, 16, 128, 1 << 17, 1]
    assert disk.config(56, 1) == 1
    assert disk.driver.link.read_config(57, 15) == bytes(15)
    assert len(disk.device.config()) == 72


def test_small_units_make_small_ranges():
    disk = BlockDriver(Memory(100 << 20, unit=512))
    assert disk.config(36, 4) == disk.config(48, 4) == b.MAX_UNITS


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({}, [b.SEG_MAX, b.GEOMETRY, b.BLK_SIZE, b.FLUSH, b.TOPOLOGY, b.CONFIG_WCE, b.DISCARD, b.WRITE_ZEROES], [b.RO, b.MQ]),
        ({"image": Memory(readonly=True)}, [b.RO, b.FLUSH], [b.DISCARD, b.WRITE_ZEROES, b.MQ]),
        ({"queues": 2}, [b.MQ], [b.RO]),
    ],
)
def test_features(options, present, absent):
    disk = BlockDriver(**options)
    assert all(disk.device.has(bit) for bit in present)
    assert not any(disk.device.features >> bit & 1 for bit in [*absent, 0, 1, 7, 15, 16, 17])
    assert len(disk.driver.queues) == options.get("queues", 1)


def test_read_only_disks():
    disk = BlockDriver(Memory(readonly=True))
    before = bytes(disk.image.data)
    assert disk.read(0, 512) == (b.OK, before[:512])
    assert disk.write(0, bytes(512)) == b.IOERR
    assert disk.request(b.T_DISCARD, data=ranges((0, 8)))[0] == b.UNSUPP
    assert disk.request(b.T_WRITE_ZEROES, data=ranges((0, 8)))[0] == b.UNSUPP
    assert disk.request(b.T_FLUSH)[0] == b.OK
    assert disk.image.data == before and disk.config(56, 1) == 0


@pytest.mark.parametrize(("serial", "room"), [("", 20), ("disk", 20), ("x" * 20, 20), ("abcdef", 3), ("abc", 40), ("abc", 0)])
def test_serial(serial, room):
    disk = BlockDriver(serial=serial)
    status, data = disk.request(b.GET_ID, space=room)
    assert (status, data) == (b.OK, serial.encode().ljust(20, b"\0")[:room].ljust(room, b"\0"))


def test_queues_are_independent():
    disk = BlockDriver(queues=4)
    for queue in range(4):
        assert disk.write(queue, bytes([queue]) * 512, queue=queue) == b.OK
    for queue in range(4):
        assert disk.read(3 - queue, 512, queue=queue) == (b.OK, bytes([3 - queue]) * 512)


def test_only_the_first_queue_without_multiqueue():
    disk = BlockDriver(queues=4, without=(b.MQ,))
    assert disk.read(0, 512)[0] == b.OK


def test_discard_and_zeros():
    disk = BlockDriver()
    assert disk.request(b.T_DISCARD, data=ranges((0, 8), (100, 16), (8, 0)))[0] == b.OK
    assert disk.request(b.T_WRITE_ZEROES, data=ranges((16, 8)))[0] == b.OK
    assert disk.request(b.T_WRITE_ZEROES, data=ranges((32, 8, b.UNMAP)))[0] == b.OK
    assert disk.image.calls == [
        ("discard", 0, 4096), ("discard", 51200, 8192), ("discard", 4096, 0),
        ("zero", 8192, 4096, False), ("zero", 16384, 4096, True),
    ]  # fmt: skip
    assert disk.read(16, 4096) == (b.OK, bytes(4096))


@pytest.mark.parametrize("code", BROKEN)
@pytest.mark.parametrize(
    ("what", "kind", "data", "space"),
    [
        ("read", b.IN, b"", 1024),
        ("write", b.OUT, bytes(1024), 0),
        ("flush", b.T_FLUSH, b"", 0),
        ("discard", b.T_DISCARD, ranges((0, 8)), 0),
        ("zero", b.T_WRITE_ZEROES, ranges((0, 8)), 0),
    ],
)
def test_errors_of_the_host_fail_the_request_alone(code, what, kind, data, space):
    disk = BlockDriver()
    disk.image.broken[what] = code
    assert disk.request(kind, data=data, space=space)[0] == b.IOERR
    assert disk.device.errors == 1
    disk.image.broken.clear()
    assert disk.request(kind, data=data, space=space)[0] == b.OK
    assert disk.device.active and disk.driver.transport.violations == 0


def test_writeback_is_the_default():
    disk = BlockDriver()
    assert disk.config(32, 1) == 1
    assert disk.write(0, bytes(512)) == b.OK
    assert ("flush",) not in disk.image.calls


@pytest.mark.parametrize("kind", [b.OUT, b.T_WRITE_ZEROES])
def test_write_through_when_the_driver_says_so(kind):
    disk = BlockDriver()
    data = bytes(512) if kind == b.OUT else ranges((0, 1))
    disk.driver.link.write_config(32, b"\0")
    assert disk.config(32, 1) == 0
    disk.request(kind, data=data)
    assert [call[0] for call in disk.image.calls][1:] == ["flush"]
    disk.driver.link.write_config(32, b"\1")
    disk.request(kind, data=data)
    assert disk.image.calls.count(("flush",)) == 1
    disk.driver.link.write_config(32, b"\0")
    disk.driver.start()
    assert disk.config(32, 1) == 1  # a reset


@pytest.mark.parametrize(
    ("without", "flushes"),
    [((), 0), ((b.CONFIG_WCE,), 0), ((b.FLUSH,), 1), ((b.FLUSH, b.CONFIG_WCE), 1)],
)
def test_without_flush_every_write_is_stable(without, flushes):
    """5.2.6.2, the conditions of stable writes; 5.2.5.2, the initial mode."""
    disk = BlockDriver(without=without)
    assert disk.write(0, bytes(512)) == b.OK
    assert disk.image.calls.count(("flush",)) == flushes
    if b.CONFIG_WCE not in without:
        assert disk.config(32, 1) == (not flushes)


def test_a_batch_of_stable_writes_is_one_flush():
    disk = BlockDriver(without=(b.FLUSH, b.CONFIG_WCE))
    queue = disk.driver.queues[0]
    for n in range(10):
        queue.add([header(b.OUT, n), bytes(512)], [1])
    queue.kick()
    buffers = queue.used()
    assert [buffer.space for buffer in buffers] == [b"\0"] * 10
    assert disk.image.calls.count(("flush",)) == 1 and disk.image.calls[-1] == ("flush",)


def test_a_failed_flush_fails_the_writes_that_needed_it():
    disk = BlockDriver(without=(b.FLUSH, b.CONFIG_WCE))
    disk.image.broken["flush"] = errno.EIO
    assert disk.write(0, bytes(512)) == b.IOERR
    assert disk.read(0, 512)[0] == b.OK


def test_everything_in_order_after_a_flush():
    disk = BlockDriver()
    queue = disk.driver.queues[0]
    queue.add([header(b.OUT), bytes(512)], [1])
    queue.add([header(b.T_FLUSH)], [1])
    queue.add([header(b.OUT), bytes(512)], [1])
    queue.add([header(b.T_FLUSH)], [1])
    queue.kick()
    assert [buffer.space for buffer in queue.used()] == [b"\0"] * 4
    assert [call[0] for call in disk.image.calls] == ["write", "flush", "write", "flush"]


def test_large_requests_let_others_have_their_turn(monkeypatch):
    monkeypatch.setattr(b, "BUDGET", 8192)
    disk = BlockDriver()
    queue = disk.driver.queues[0]
    for n in range(6):
        queue.add([header(b.IN, n)], [4096, 1])
    queue.kick()
    assert len(queue.used()) == 2
    disk.driver.run()
    assert len(queue.used()) == 2
    disk.driver.run()
    assert len(queue.used()) == 2


def test_zeros_and_discards_are_work_as_well():
    disk = BlockDriver(Memory(1 << 30))
    queue = disk.driver.queues[0]
    for kind, length in ((b.T_WRITE_ZEROES, b.MAX_ZEROES), (b.T_DISCARD, b.MAX_DISCARD)):
        data = ranges(*[(0, min(length, disk.image.unit * b.MAX_UNITS) // 512)] * (1 if kind == b.T_WRITE_ZEROES else 16))
        buffers = [queue.add([header(kind), data], [1]) for _ in range(20)]
        disk.image.discard = disk.image.write_zeroes = lambda *_, **__: None
        queue.kick()
        done = [len(queue.used())]
        while disk.driver.run():
            done.append(len(queue.used()))
        assert sum(done) == 20 and max(done) <= 5
        assert {buffer.space for buffer in buffers} == {b"\0"}


LONG = 5 * 8192 + 512


@pytest.fixture
def pieces(monkeypatch):
    """What is longer than 8 KiB is done in pieces."""
    monkeypatch.setattr(b, "BUDGET", 8192)


@pytest.mark.parametrize("sizes", [[LONG], [1, 20000, 511]])
def test_long_transfers_are_done_in_pieces(pieces, sizes):
    disk = BlockDriver(queues=2)
    assert disk.write(3, CONTENTS[:LONG], cut_out=[16, *sizes]) == b.OK
    assert disk.image.data[1536 : 1536 + LONG] == CONTENTS[:LONG]
    assert disk.read(3, LONG, cut_in=sizes, queue=1) == (b.OK, CONTENTS[:LONG])
    assert [call[2] for call in disk.image.calls] == [*[8192] * 5, 512] * 2
    buffer = disk.driver.queues[0].add([header(b.IN)], [LONG, 1])
    disk.driver.queues[0].kick()
    assert not disk.driver.queues[0].used()  # others have their turn
    assert disk.finish(buffer).written == LONG + 1


def test_nothing_overtakes_a_long_transfer(pieces):
    disk = BlockDriver(queues=2)
    first, second = disk.driver.queues
    sent = [first.add([header(b.OUT), bytes(512)], [1]), first.add([header(b.IN)], [LONG, 1])]
    sent += [first.add([header(b.OUT), bytes(LONG)], [1]), first.add([header(b.T_FLUSH)], [1])]
    first.kick()
    sent.append(second.add([header(b.IN)], [512, 1]))
    second.kick()
    assert [call[0] for call in disk.image.calls] == ["write"]
    while any(buffer.written < 0 for buffer in sent):
        assert disk.driver.run()
        first.used(), second.used()
    assert [buffer.space[-1] for buffer in sent] == [b.OK] * 5
    names = [call[0] for call in disk.image.calls]
    assert names[: names.index("flush")] == ["write", *["read"] * 6, *["write"] * 6]


def test_long_writes_are_stable_where_all_are(pieces):
    disk = BlockDriver(without=(b.FLUSH, b.CONFIG_WCE))
    queue = disk.driver.queues[0]
    sent = [queue.add([header(b.OUT), bytes(512)], [1]), queue.add([header(b.OUT), bytes(LONG)], [1])]
    queue.kick()
    assert disk.image.calls == [("write", 0, 512), ("flush",)]
    disk.finish(sent[1])
    assert [call[0] for call in disk.image.calls] == ["write", "flush", *["write"] * 6, "flush"]


@pytest.mark.parametrize("kind", [b.IN, b.OUT])
@pytest.mark.parametrize(("sector", "odd", "calls"), [(SIZE // 512 - 80, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_long_transfers_that_fail(pieces, kind, sector, odd, calls):
    disk = BlockDriver()
    if calls:
        disk.image.broken = {"read": errno.EIO, "write": errno.ENOSPC}
    length = LONG + odd
    got = disk.request(kind, sector, *((b"", length) if kind == b.IN else (bytes(length), 0)))
    assert got[0] == b.IOERR and len(disk.image.calls) == calls and disk.device.errors == 1
    disk.image.broken = {}
    assert disk.read(0, 512)[0] == b.OK


@pytest.mark.parametrize("end", ["driver", "machine", "close"])
def test_a_reset_in_a_long_transfer(pieces, end):
    disk = BlockDriver()
    queue = disk.driver.queues[0]
    buffer = queue.add([header(b.IN)], [LONG, 1])
    queue.kick()
    disk.driver.run()
    assert len(disk.image.calls) == 1
    if end == "close":
        disk.device.close()
        while disk.driver.run():
            pass
        assert disk.image.calls[1:] == [("close",)]
        return
    if end == "machine":
        disk.device.reset()
    disk.driver.start()
    assert disk.read(0, 512) == (b.OK, CONTENTS[:512])
    assert buffer.written == -1 and len(disk.image.calls) == 2


def test_a_real_image(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(1 << 16))
    disk = BlockDriver(open_image(str(path)))
    before = path.read_bytes()
    assert disk.read(3, 8192) == (b.OK, before[1536:9728])
    assert disk.write(3, b"new" * 1024) == b.OK
    assert disk.request(b.T_WRITE_ZEROES, data=ranges((64, 64)))[0] == b.OK
    assert disk.request(b.T_FLUSH)[0] == b.OK
    expected = before[:1536] + b"new" * 1024 + before[4608:32768] + bytes(32768)
    assert path.read_bytes() == expected
    disk.device.close()
    disk.device.close()


def test_closing_closes_the_image():
    disk = BlockDriver()
    disk.device.close()
    disk.device.close()
    assert disk.image.calls == [("close",)]


def test_more_than_a_gigabyte_of_sectors_in_the_configuration():
    disk = BlockDriver(Memory(1 << 60))
    assert disk.config(0, 8) == 1 << 51
    assert disk.config(16, 2) == 0xFFFF


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": ""}, "disk: path: '' is not a file"),
        ({"path": 3}, "disk: path: 3 is not text"),
        ({"format": "vmdk"}, "disk: format: 'vmdk' is not one of raw, qcow2"),
        ({"readonly": 1}, "disk: readonly: 1 is not true or false"),
        ({"serial": "x" * 21}, f"disk: serial: {'x' * 21!r} is not ASCII of up to 20 characters"),
        ({"serial": "é"}, "disk: serial: 'é' is not ASCII of up to 20 characters"),
        ({"serial": "a\nb"}, "disk: serial: 'a\\nb' is not ASCII of up to 20 characters"),
        ({"queues": 0}, "disk: queues: '0' is not from 1 to 256"),
        ({"queues": True}, "disk: queues: True is not a number"),
        ({"backing": True}, "disk: backing: an image of format 'raw' has no backing file"),
        ({"transport": "isa"}, "disk: transport: 'isa' is not one of pci, mmio"),
    ],
)
def test_descriptions_are_checked(fields, message):
    with pytest.raises(ConfigError) as error:
        Disk(**{"path": "disk.img"} | fields)
    assert str(error.value) == message


def test_descriptions(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 16))
    disk = Disk(path, readonly=True, serial="s1", queues=2, transport="mmio")
    assert disk.path == str(path)
    assert from_document(to_document(disk)) == disk
    assert parse("disk", f"{path},ro,serial=s1,queues=2,transport=mmio") == disk
    assert parse("disk", f"path={path},readonly=yes,serial=s1,queues=2,transport=mmio") == disk
    device = disk.build()
    assert isinstance(device, VirtioBlock)
    assert (device.queue_sizes, device.transport, device.image.readonly) == ((256, 256), "mmio", True)
    device.close()
    with pytest.raises(ConfigError, match="No such file"):
        Disk(tmp_path / "absent").build()


@pytest.mark.parametrize("fields", [{"serial": "x" * 21}, {"serial": "ä"}, {"queues": 0}, {"transport": "isa"}])
def test_the_device_checks_too(fields):
    with pytest.raises(ConfigError):
        VirtioBlock(Memory(), **fields)


def test_identity():
    disk = BlockDriver()
    assert disk.device.device_id == ids.BLOCK == 2
    assert struct.calcsize("<QIIHBBIBBHIBxHIIIIIB3x12x") == len(disk.device.config())
