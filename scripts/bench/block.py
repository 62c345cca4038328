"""Rows about the block device: 4 KiB reads through a queue that was filled beforehand, on one core."""

import functools
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import BUILD, NotMeasured, Row, compiled, interleaved, output_number, rate
from pyhv.block.open import open_image
from pyhv.testing.virtio import DriverQueue, device_bench
from pyhv.virtio.block import IN, VirtioBlock

SIZE = 128 << 20
BLOCK = 4096
LAPS = 100
TARGET = 60_000
PEER_READS = 200_000


class Queue:
    """A disk's queue whose ring holds as many reads as fit; every lap makes them available once more."""

    def __init__(self, path: Path, *, format: str = "raw", overlay: bool = False, indirect: bool = False) -> None:
        self.device = VirtioBlock(open_image(str(path), format, readonly=not overlay, overlay=overlay))
        self.driver = device_bench(self.device, memory=8 << 20)
        self.queue: DriverQueue = self.driver.queues[0]
        self.count = self.queue.size if indirect else self.queue.size // 3
        rng = random.Random(1)
        for _ in range(self.count):
            sector = rng.randrange(SIZE // BLOCK) * (BLOCK // 512)
            self.queue.add([struct.pack("<IIQ", IN, 0, sector)], [BLOCK, 1], indirect=indirect)
        heads = list(self.queue.outstanding)
        for slot in range(self.queue.size):
            self.driver.memory.write_uint(self.queue.driver_area + 4 + 2 * slot, 2, heads[slot % self.count])
        self.index = 0
        self.lap()

    def lap(self) -> None:
        """Notify the device of all reads; they are done when this returns."""
        self.index = (self.index + self.count) & 0xFFFF
        self.driver.memory.write_uint(self.queue.driver_area + 2, 2, self.index)
        self.driver.link.notify(0)

    def reads_a_second(self) -> float:
        """Of processor time: the target is for one core, and others may want it meanwhile."""
        began = time.process_time()
        for _ in range(LAPS):
            self.lap()
        took = time.process_time() - began
        used = self.driver.memory.read_uint(self.queue.device_area + 2, 2)
        if used != self.index or self.device.errors or self.driver.transport.violations:
            raise NotMeasured(f"{self.device.errors} requests failed, {self.index - used} did not come back")
        return LAPS * self.count / took


def reads(rounds: int) -> Iterator[Row]:
    """Requests a second through raw and qcow2 images and an overlay, against bare preadv calls in C."""
    path = BUILD / "disk.img"
    BUILD.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_size != SIZE:
        with open(path, "wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
    kinds = {
        "raw": functools.partial(Queue, path),
        "raw, indirect descriptors": functools.partial(Queue, path, indirect=True),
        "overlay": functools.partial(Queue, path, overlay=True),
        "qcow2": functools.partial(_qcow2, path),
    }
    name = "4 KiB reads a second on one core, {} (peer: preadv in C)"
    try:
        peer = functools.partial(output_number, [compiled("preads"), path, str(PEER_READS)])
    except NotMeasured as error:
        yield Row(name.format("raw"), "", "", None, at_least=TARGET, unit="/s", note=str(error))
        return
    for kind, make in kinds.items():
        try:
            queue = make()
        except NotMeasured as error:
            yield Row(name.format(kind), "", "", None, at_least=TARGET, unit="/s", note=str(error))
            continue
        ours, theirs = interleaved([queue.reads_a_second, peer], rounds)
        queue.device.close()
        yield Row(name.format(kind), rate(ours), rate(1 / theirs), ours, at_least=TARGET, unit="/s")


def _qcow2(raw: Path) -> Queue:
    path = raw.with_suffix(".qcow2")
    if shutil.which("qemu-img") is None:
        raise NotMeasured("there is no qemu-img to make the image with (package qemu-utils)")
    if not path.exists() or path.stat().st_mtime < raw.stat().st_mtime:
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return Queue(path, format="qcow2")
