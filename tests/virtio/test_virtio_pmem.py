"""Persistent memory (virtio 1.2, 5.19), as a copy of its file and as the file itself."""

import errno
import os
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_driver import DirectLink, DirectTransport, VirtioDriver, device_bench, mmio_bench

from pyhv.block import fallocate
from pyhv.block.host_file import HostFile
from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.hv.select import Selection
from pyhv.loop import EventLoop
from pyhv.memory import MemoryRegion
from pyhv.memory.backing import map_file
from pyhv.peripherals import from_document, parse, to_document
from pyhv.peripherals.pmem import Pmem
from pyhv.record import replace
from pyhv.testing import DeviceBench
from pyhv.virtio import ids
from pyhv.virtio.pmem import PIECE, VirtioPmem

SIZE = 4 << 20
FLUSH = struct.pack("<I", 0)
OK, FAILED = bytes(4), b"\xff" * 4


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "pmem"
    with open(file, "wb") as out:
        out.write(b"first")
        out.truncate(SIZE)
    return file


def opened(path, *, writable=True, overlay=False):
    return VirtioPmem(HostFile(str(path), writable=writable, what="pmem"), overlay=overlay, transport="mmio")


def shared(path, events=None, join=DirectTransport):
    """A device whose memory is the file's, as on KVM."""
    bench = DeviceBench()

    def map_memory(size, *, alignment, fd, readonly, name):
        buffer = map_file(fd, size)[0]
        region = MemoryRegion(1 << 32, buffer, name=name, readonly=readonly, fd=fd)
        bench.memory.add(region)
        return region

    platform = replace(bench.platform, map_memory=map_memory, **({} if events is None else {"events": events}))
    device = opened(path)
    device.connect(join(device, platform))
    driver = VirtioDriver(bench, device, DirectLink(device.link))
    driver.start()
    return driver


def flush(driver):
    return driver.queues[0].request([FLUSH], [4])


@pytest.mark.parametrize("join", [device_bench, mmio_bench])
def test_the_file_is_memory(path, join):
    driver = join(opened(path))
    start, size = struct.unpack("<QQ", driver.link.read_config(0, 16))
    assert size == SIZE and start % (2 << 20) == 0
    assert driver.memory.read(start, 6) == b"first\0"
    driver.memory.write(start + SIZE - 4, b"last")
    assert path.read_bytes()[-4:] == bytes(4)
    assert flush(driver) == OK
    assert path.read_bytes()[-4:] == b"last"
    assert driver.transport.violations == driver.device.errors == 0
    driver.device.close()
    driver.device.close()


def test_identity(path):
    device = opened(path)
    assert device.device_id == ids.PMEM == 27
    assert device.features == 0
    device.close()


def test_what_was_not_flushed_is_written_at_the_end(path):
    driver = device_bench(opened(path))
    driver.memory.write(driver.device.region.address + PIECE + 5, b"late")
    driver.device.close()
    assert path.read_bytes()[PIECE + 5 : PIECE + 9] == b"late"


def test_only_what_changed_is_written(path, monkeypatch):
    driver = device_bench(opened(path))
    written = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: written.append(offset) or real(fd, views, offset))
    assert flush(driver) == OK
    driver.memory.write(driver.device.region.address + 2 * PIECE, b"x")
    assert flush(driver) == OK
    assert written == [2 * PIECE]


def test_shared_memory_is_the_file(path, monkeypatch):
    driver = shared(path)
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    driver.memory.write((1 << 32) + 100, b"at once")
    assert path.read_bytes()[100:107] == b"at once"
    assert synced == []
    assert flush(driver) == OK
    assert synced == [driver.device.file.fd]
    driver.device.close()


@pytest.mark.parametrize("overlay", [False, True])
def test_files_that_are_not_to_be_written(path, overlay):
    before = path.read_bytes()
    driver = device_bench(opened(path, writable=False, overlay=overlay))
    start = driver.device.region.address
    assert driver.memory.read(start, 5) == b"first"
    if overlay:
        driver.memory.write(start, b"other")
        assert driver.memory.read(start, 5) == b"other"
    else:
        with pytest.raises(GuestMemoryError):
            driver.memory.write(start, b"other")
    assert flush(driver) == OK
    driver.device.close()
    assert path.read_bytes() == before


def test_a_reset_keeps_the_memory(path):
    driver = device_bench(opened(path))
    start = driver.device.region.address
    driver.memory.write(start, b"still")
    driver.device.reset()
    driver.start()
    assert driver.memory.read(start, 5) == b"still"
    assert driver.device.config() == struct.pack("<QQ", start, SIZE)
    assert flush(driver) == OK


@pytest.mark.parametrize(
    ("readable", "writable", "answer"),
    [
        ([FLUSH], [4], OK),
        ([FLUSH[:1], FLUSH[1:]], [1, 1, 2], OK),
        ([FLUSH + b"more"], [8], OK),
        ([struct.pack("<I", 1)], [4], FAILED),
        ([b"\xff" * 4], [4], FAILED),
        ([b"\0\0\0"], [4], FAILED),
        ([], [4], FAILED),
        ([FLUSH], [3], b""),
        ([FLUSH], [], b""),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_requests(path, readable, writable, answer, packed):
    driver = device_bench(opened(path), packed=packed)
    assert driver.queues[0].request(readable, writable) == answer
    assert driver.device.active
    assert flush(driver) == OK


@given(st.lists(st.tuples(st.binary(max_size=9), st.lists(st.integers(0, 6), max_size=3)), max_size=6))
def test_any_requests(tmp_path_factory, requests):
    file = tmp_path_factory.mktemp("any") / "pmem"
    with open(file, "wb") as out:
        out.truncate(2 << 20)
    driver = device_bench(opened(file))
    for data, spaces in requests:
        if data or spaces:
            answer = driver.queues[0].request([data], spaces)
            assert answer in (OK, FAILED, b"")
            assert answer != OK or data[:4] == FLUSH
    assert flush(driver) == OK
    driver.device.close()


def test_a_flush_that_fails(path, monkeypatch):
    driver = device_bench(opened(path))

    def fail(fd):
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fdatasync", fail)
    assert flush(driver) == FAILED
    assert driver.device.errors == 1 and driver.device.active
    with pytest.raises(OSError, match="lost"):
        driver.device.close()
    assert driver.device.file.fd == -1


def test_flushes_leave_the_machine_s_lock(path, monkeypatch):
    lock, errors = threading.RLock(), []
    loop = EventLoop(lock, on_error=errors.append)
    entered, go, answered = threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)

    def sync(fd):
        entered.release()
        assert go.acquire(timeout=60)

    class Told(DirectTransport):
        def interrupt_queue(self, queue):
            answered.release()

    monkeypatch.setattr(os, "fdatasync", sync)
    driver = shared(path, loop, Told)
    with lock:
        first = driver.queues[0].add([FLUSH], [4])
        driver.queues[0].kick()
    assert entered.acquire(timeout=60)
    ran = threading.Event()
    loop.call_soon(ran.set)
    assert ran.wait(60)
    with lock:
        second = driver.queues[0].add([FLUSH], [4])
        driver.queues[0].kick(force=True)
        assert driver.queues[0].used() == []
    go.release()
    assert answered.acquire(timeout=60)
    assert entered.acquire(timeout=60)
    with lock:
        assert driver.queues[0].used() == [first] and first.data == OK
    go.release()
    assert answered.acquire(timeout=60)
    with lock:
        assert driver.queues[0].used() == [second] and second.data == OK
    for _ in range(2):
        go.release()
    with lock:
        driver.device.close()
    loop.close()
    assert errors == []


def test_storage_is_set_aside(path):
    before = os.stat(path).st_blocks
    opened(path, writable=False).close()
    assert os.stat(path).st_blocks == before
    device = opened(path)
    if os.stat(path).st_blocks == before:
        pytest.skip(f"the file system of {path.parent} has no fallocate")
    assert os.stat(path).st_blocks * 512 >= SIZE
    device.close()
    assert path.read_bytes()[:6] == b"first\0"


def test_a_full_host_is_told_at_the_start(path, monkeypatch):
    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fallocate, "allocate", full)
    with pytest.raises(ConfigError) as error:
        Pmem(path).build()
    assert str(error.value) == f"pmem: path: {str(path)!r}: 4 MiB: No space left on device"
    Pmem(path, readonly=True).build().close()


@pytest.mark.parametrize("size", [0, 4096, (2 << 20) - 1, (2 << 20) + 512])
def test_sizes(tmp_path, size):
    file = tmp_path / "pmem"
    with open(file, "wb") as out:
        out.truncate(size)
    with pytest.raises(ConfigError) as error:
        Pmem(file).build()
    assert str(error.value) == f"pmem: path: {str(file)!r} has {size} bytes, no multiple of 2 MiB"
    with open(file, "ab") as out:
        out.truncate(2 << 20)
    Pmem(file).build().close()


def test_locks(path):
    device = Pmem(path).build()
    with pytest.raises(ConfigError) as error:
        Pmem(path).build()
    says = "is in use by another disk or machine; to share it, all must be read-only"
    assert str(error.value) == f"pmem: path: {str(path)!r} {says}"
    device.close()
    readers = [Pmem(path, readonly=True).build(), Pmem(path, overlay=True).build()]
    for reader in readers:
        reader.close()


def test_descriptions(path):
    pmem = Pmem(path, readonly=True, transport="mmio")
    assert pmem.path == str(path)
    assert from_document(to_document(pmem)) == pmem == parse("pmem", f"{path},ro,transport=mmio")
    device = pmem.build()
    assert (device.transport, device.file.writable) == ("mmio", False)
    device.close()
    for fields, message in (
        ({"path": ""}, "pmem: path: '' is not a file"),
        ({"path": 1}, "pmem: path: 1 is not text"),
        ({"path": "x", "overlay": "no"}, "pmem: overlay: 'no' is not true or false"),
        ({"path": "x", "transport": "usb"}, "pmem: transport: 'usb' is not one of pci, mmio"),
    ):
        with pytest.raises(ConfigError) as error:
            Pmem(**fields)
        assert str(error.value) == message
    with pytest.raises(ConfigError, match=r"pmem: path: '/nowhere' cannot be opened"):
        Pmem("/nowhere").build()


def test_memory_of_a_real_machine(path, backend: Selection):
    """The backend's own way to map a file."""
    from pyhv.hv.config import VmConfig
    from pyhv.memory import MemoryBacking

    handle = backend.hypervisor.create_vm(VmConfig(vcpus=1))
    try:
        bench = DeviceBench()

        def map_memory(size, *, alignment, fd, readonly, name):
            return handle.add_memory(1 << 32, size, readonly=readonly, backing=MemoryBacking(file=fd), name=name)

        platform = replace(bench.platform, map_memory=map_memory, memory=handle.memory)
        device = opened(path)
        device.connect(DirectTransport(device, platform))
        assert handle.memory.read(1 << 32, 5) == b"first"
        handle.memory.write((1 << 32) + SIZE - 3, b"end")
        device.close()
        assert path.read_bytes()[-3:] == b"end"
    finally:
        handle.close()
