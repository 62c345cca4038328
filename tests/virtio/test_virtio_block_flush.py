"""Flushes on a machine with threads: away from the machine's lock, and nothing overtakes them on the same disk."""

import errno
import threading
from contextlib import contextmanager

import pytest
from block_driver import BlockDriver, Memory, header
from virtio_driver import DirectLink, DirectTransport, VirtioDriver

from pyhv.loop import EventLoop
from pyhv.record import replace
from pyhv.testing import DeviceBench
from pyhv.virtio import block as b

PATIENCE = 60


class Gate(Memory):
    """An image whose flushes wait until they are let go."""

    def __init__(self):
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.threads = set()

    def flush(self):
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        assert self.go.acquire(timeout=PATIENCE)
        super().flush()


class Told(DirectTransport):
    """Tells another thread of interrupts."""

    def __init__(self, device, platform):
        super().__init__(device, platform)
        self.interrupted = threading.Semaphore(0)

    def interrupt_queue(self, queue):
        super().interrupt_queue(queue)
        self.interrupted.release()


@contextmanager
def threaded(image, **options):
    """A disk whose device lives on a real event loop; the test plays the vCPU, with the machine's lock."""
    lock, errors = threading.RLock(), []
    loop = EventLoop(lock, on_error=errors.append)

    def join(device, *, memory, **rest):
        bench = DeviceBench(memory=memory)
        transport = Told(device, replace(bench.platform, events=loop))
        device.connect(transport)
        driver = VirtioDriver(bench, device, DirectLink(transport))
        driver.start(**rest)
        return driver

    disk = BlockDriver(image, join=join, **options)
    disk.lock, disk.loop = lock, loop
    try:
        yield disk
    finally:
        loop.close()
    assert errors == []


def add(disk, *requests, queue=0):
    with disk.lock:
        buffers = [disk.driver.queues[queue].add(readable, writable) for readable, writable in requests]
        disk.driver.queues[queue].kick(force=True)
    return buffers


def wait(disk, buffers):
    for _ in range(100):
        with disk.lock:
            for queue in disk.driver.queues:
                queue.used()
            if all(buffer.written >= 0 for buffer in buffers):
                return [buffer.space[-1] for buffer in buffers]
        assert disk.driver.transport.interrupted.acquire(timeout=PATIENCE)
    raise AssertionError("requests that never came back")


FLUSH = ([header(b.T_FLUSH)], [1])
READ = ([header(b.IN)], [512, 1])
WRITE = ([header(b.OUT), b"new" + bytes(509)], [1])


def test_others_go_on_while_a_disk_is_flushed():
    with threaded(Gate(), queues=2) as disk:
        flush = add(disk, FLUSH)
        assert disk.image.entered.acquire(timeout=PATIENCE)
        ran = threading.Event()
        disk.loop.call_soon(ran.set)
        assert ran.wait(PATIENCE)  # the event loop, and whoever wants the lock
        later = add(disk, READ, WRITE) + add(disk, READ, queue=1)
        assert disk.image.calls == []  # but this disk rests
        disk.image.go.release()
        assert wait(disk, flush + later) == [b.OK] * 4
        assert disk.image.calls[0] == ("flush",)
        assert threading.current_thread().name not in disk.image.threads


def test_flush_after_flush():
    with threaded(Gate()) as disk:
        buffers = add(disk, FLUSH, WRITE, FLUSH, FLUSH)
        for _ in range(3):
            assert disk.image.entered.acquire(timeout=PATIENCE)
            disk.image.go.release()
        assert wait(disk, buffers) == [b.OK] * 4
        assert [call[0] for call in disk.image.calls] == ["flush", "write", "flush", "flush"]


def test_stable_writes():
    with threaded(Gate(), without=(b.FLUSH, b.CONFIG_WCE)) as disk:
        disk.image.go.release()
        buffers = add(disk, WRITE, WRITE, READ)
        assert wait(disk, buffers) == [b.OK] * 3
        assert disk.image.calls.count(("flush",)) == 1


def test_a_flush_that_fails():
    with threaded(Gate()) as disk:
        disk.image.broken["flush"] = errno.EIO
        buffers = add(disk, FLUSH, READ)
        disk.image.go.release()
        assert wait(disk, buffers) == [b.IOERR, b.OK]


def test_a_host_without_threads_to_spare(monkeypatch):
    def start(thread):
        if thread.name == "pyhv-storage":
            raise RuntimeError("can't start new thread")
        real(thread)

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    with threaded(Gate()) as disk:
        disk.image.go.release()
        assert wait(disk, add(disk, FLUSH, READ)) == [b.OK] * 2


def test_a_reset_while_a_disk_is_flushed():
    with threaded(Gate()) as disk:
        [lost] = add(disk, FLUSH)
        assert disk.image.entered.acquire(timeout=PATIENCE)
        with disk.lock:
            status_at = lost.writable[0][0]
            disk.driver.start()
            disk.driver.memory.write(status_at, b"\xaa")
        kept = disk.driver.memory.read(status_at, 1)
        again = add(disk, READ)
        assert disk.image.calls == []
        disk.image.go.release()
        assert wait(disk, again) == [b.OK]
        assert kept == disk.driver.memory.read(status_at, 1) == b"\xaa"
        assert lost.written == -1


@pytest.mark.parametrize("what", ["reset", "fail"])
def test_a_device_that_is_gone_when_the_flush_ends(what):
    with threaded(Gate()) as disk:
        add(disk, FLUSH)
        assert disk.image.entered.acquire(timeout=PATIENCE)
        with disk.lock:
            disk.driver.link.set_status(0) if what == "reset" else disk.device.fail("a test")
        disk.image.go.release()
        ended = threading.Event()
        disk.device._aside.wait()
        disk.loop.call_soon(ended.set)
        assert ended.wait(PATIENCE)
        with disk.lock:
            disk.driver.start()
        assert wait(disk, add(disk, READ)) == [b.OK]


def test_closing_waits_for_the_flush(monkeypatch):
    with threaded(Gate()) as disk:
        add(disk, FLUSH)
        assert disk.image.entered.acquire(timeout=PATIENCE)
        wait_for_it = disk.device._aside.wait
        monkeypatch.setattr(disk.device._aside, "wait", lambda: (disk.image.go.release(), wait_for_it()))
        with disk.lock:  # as a machine does that ends
            disk.device.close()
        assert disk.image.calls == [("flush",), ("close",)]


def test_a_bug_in_a_flush_is_the_machines_error_and_its_end_waits_for_nothing():
    class Buggy(Memory):
        def flush(self):
            raise RuntimeError("a bug")

    heard = []
    told = threading.Semaphore(0)

    def hear(error):
        heard.append(str(error))
        told.release()

    loop = EventLoop(threading.RLock(), on_error=hear)
    bench = DeviceBench(memory=1 << 20)
    device = b.VirtioBlock(Buggy())
    device.connect(DirectTransport(device, replace(bench.platform, events=loop)))
    driver = VirtioDriver(bench, device, DirectLink(device.link))
    driver.start()
    driver.queues[0].add([header(b.T_FLUSH)], [1])
    driver.queues[0].kick()
    assert told.acquire(timeout=PATIENCE)
    assert heard == ["a bug"]
    device.close()
    loop.close()
