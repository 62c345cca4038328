"""Requests that wait for the host's disk, on a machine with threads: everything else goes on meanwhile."""

import errno
import os
import threading
from contextlib import contextmanager
from struct import pack, unpack_from

import pytest
from fuse_client import ROOT, Client, request

from pyhv.fs import calls, fuse
from pyhv.loop import EventLoop
from pyhv.peripherals.share import Share
from pyhv.record import replace
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import DirectLink, DirectTransport, VirtioDriver

PATIENCE = 60
REQUESTS = 1


class Gate:
    """Stands in for os.fsync: each call waits until it is let go, and fails with `error` if there is one."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error = 0
        self.calls = []

    def __call__(self, fd):
        self.calls.append(os.fstat(fd).st_ino)
        self.entered.release()
        assert self.go.acquire(timeout=PATIENCE)
        if self.error:
            raise OSError(self.error, "broken on purpose")


@contextmanager
def threaded(folder):
    """A client of a share whose device lives on a real event loop; the test plays the vCPU, with the machine's lock."""
    lock, errors = threading.RLock(), []
    loop = EventLoop(lock, on_error=errors.append)
    bench = DeviceBench(memory=8 << 20)
    device = Share(str(folder), writable=True).build()
    device.connect(DirectTransport(device, replace(bench.platform, events=loop)))
    driver = VirtioDriver(bench, device, DirectLink(device.link))
    driver.start()
    driver.lock, driver.loop = lock, loop
    driver.client = Client(lambda message, room: finish(driver, add(driver, message, room)))
    try:
        yield driver
    finally:
        with lock:
            device.close()
        loop.close()
    assert errors == []


def add(driver, message, room=16):
    with driver.lock:
        buffer = driver.queues[REQUESTS].add([message], [room])
        driver.queues[REQUESTS].kick(force=True)
    return buffer


def finish(driver, buffer):
    for _ in range(1000):
        with driver.lock:
            driver.queues[REQUESTS].used()
            if buffer.written >= 0:
                return buffer.data
        passed = threading.Event()
        driver.loop.call_soon(passed.set)
        assert passed.wait(PATIENCE)
    raise AssertionError("a request that never came back")


def fsync(handle, unique, opcode=fuse.FSYNC):
    return request(opcode, ROOT, pack("<QII", handle, 0, 0), unique=unique)


def error_of(reply):
    length, error, _ = unpack_from("<IiQ", reply)
    assert length == len(reply) == 16
    return -error


@pytest.fixture
def gate(monkeypatch):
    gate = Gate()
    monkeypatch.setattr(os, "fsync", gate)
    return gate


def test_others_go_on_while_the_disk_is_waited_for(folder, gate):
    with threaded(folder) as driver:
        client = driver.client
        made, handle = client.create("new")
        client.write(made.node, handle, b"data")
        first = add(driver, fsync(handle, 1001))
        assert gate.entered.acquire(timeout=PATIENCE)
        second = add(driver, fsync(handle, 1003, fuse.FSYNCDIR))
        assert client.read(made.node, handle, 4) == b"data"
        assert client.lookup("hello.txt").attr.size == 6
        assert (first.written, second.written) == (-1, -1)
        gate.error = errno.EIO
        gate.go.release()
        assert unpack_from("<IiQ", finish(driver, first)) == (16, -errno.EIO, 1001)
        gate.error = 0
        gate.go.release()
        assert unpack_from("<IiQ", finish(driver, second)) == (16, 0, 1003)
        assert gate.calls == [os.stat(folder / "new").st_ino] * 2


def test_file_systems_are_synced_likewise(folder, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(calls, "syncfs", gate)
    with threaded(folder) as driver:
        driver.loop.call_soon(lambda: None)  # the loop makes its own descriptors now
        before = os.listdir("/proc/self/fd")
        buffer = add(driver, request(fuse.SYNCFS, ROOT, bytes(8)))
        assert gate.entered.acquire(timeout=PATIENCE)
        driver.client.getattr(ROOT)
        gate.go.release()
        assert error_of(finish(driver, buffer)) == 0
        assert gate.calls == [os.stat(folder).st_ino]
        assert os.listdir("/proc/self/fd") == before


def test_a_file_that_is_closed_before_its_turn(folder, gate):
    with threaded(folder) as driver:
        made, handle = driver.client.create("new")
        buffers = [add(driver, fsync(handle, 1)) for _ in range(2)]
        assert gate.entered.acquire(timeout=PATIENCE)
        driver.client.release(made.node, handle)
        gate.go.release()
        assert [error_of(finish(driver, buffer)) for buffer in buffers] == [0, errno.EBADF]
        assert error_of(finish(driver, add(driver, fsync(handle, 1)))) == errno.EBADF


@pytest.mark.parametrize("what", ["device", "queue"])
def test_a_reset_while_the_disk_is_waited_for(folder, gate, what):
    with threaded(folder) as driver:
        _, handle = driver.client.create("new")
        buffers = [add(driver, fsync(handle, 1)) for _ in range(5)]
        assert gate.entered.acquire(timeout=PATIENCE)
        with driver.lock:
            if what == "queue":
                driver.transport.reset_queue(driver.device.queues[REQUESTS])
            driver.start()
            assert len(driver.device._syncs) == 1
        gate.go.release()
        client = Client(driver.client.carry)
        made, handle = client.create("another")
        gate.go.release()
        client.fsync(made.node, handle)
        assert [buffer.written for buffer in buffers] == [-1] * 5
        assert len(gate.calls) == 2


def test_the_machines_end_while_the_disk_is_waited_for(folder, gate):
    before = os.listdir("/proc/self/fd")
    with threaded(folder) as driver:
        _, handle = driver.client.create("new")
        for _ in range(3):
            add(driver, fsync(handle, 1))
        assert gate.entered.acquire(timeout=PATIENCE)
        threading.Timer(0.05, gate.go.release).start()
    assert len(gate.calls) == 1
    assert sorted(os.listdir("/proc/self/fd")) == sorted(before)
