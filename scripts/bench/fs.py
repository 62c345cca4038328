"""Rows about shared folders: requests a second through a prepared queue of the virtio-fs device, as Linux lays them out.

The driver's part is outside of what is measured: it is the processor time from an available buffer to a used one.
"""

import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

from bench.measure import Row, interleaved, rate
from pyhv.fs import fuse
from pyhv.peripherals.share import Share
from pyhv.testing.virtio import Buffer, device_bench
from pyhv.virtio.ids import DESC_INDIRECT, DESC_WRITE

REQUESTS = 256
"""In each notification."""
REPEAT = 8
PAGE = 4096
QUEUE = 1
SMALL, LARGE = 40_000, 10_000
"""Requests a second that are asked for: those that move little, and those of 128 KiB."""


class Setup:
    """A folder with a directory and a file in it, its device, and a driver with requests prepared."""

    def __init__(self, place: str) -> None:
        Path(place, "directory").mkdir()
        Path(place, "directory/file").write_bytes(os.urandom(1 << 20))
        device = Share(place, writable=True).build()
        self.device = device
        self.driver = device_bench(device, memory=16 << 20)
        self.queue = self.driver.queues[QUEUE]
        self.call(fuse.INIT, 0, pack("<5I44x", 7, 38, 1 << 17, fuse.INIT_EXT - 1, 0), [64])
        self.directory = self.node(fuse.ROOT_ID, b"directory")
        self.file = self.node(self.directory, b"file")
        opened = self.call(fuse.OPEN, self.file, pack("<II", os.O_RDWR, 0), [16])
        self.handle = int.from_bytes(opened[:8], "little")

    def call(self, opcode: int, node: int, body: bytes, room: list[int]) -> bytes:
        """A reply's body."""
        head = fuse.IN_HEADER.pack(40 + len(body), opcode, 1, node, 0, 0, 0, 0, 0)
        reply = self.queue.request([head, body], [16, *room], indirect=True)
        if int.from_bytes(reply[4:8], "little"):
            raise AssertionError(f"request {opcode} failed: {reply[:16].hex()}")
        return reply[16:]

    def page(self) -> int:
        """A page of guest memory that is one of the host's as well, as a machine's are: copying depends on it."""
        address = self.driver.allocate(2 * PAGE)
        host = ctypes.addressof(ctypes.c_char.from_buffer(self.driver.memory.view(address, PAGE)[0]))
        return address + -host % PAGE

    def node(self, parent: int, name: bytes) -> int:
        return int.from_bytes(self.call(fuse.LOOKUP, parent, name + b"\0", [128])[:8], "little")

    def task(self, opcode: int, node: int, body: bytes, room: list[int], data: int = 0) -> Callable[[], float]:
        """Requests of one kind in a second; `data` bytes follow the body, in pages."""
        driver, queue = self.driver, self.queue
        head = fuse.IN_HEADER.pack(40 + len(body) + data, opcode, 1, node, 0, 0, 0, 0, 0)
        pieces = [(driver.place(part), len(part), 0) for part in (head, body)]
        pieces += [(self.page(), PAGE, 0) for _ in range(data // PAGE)]
        pieces += [
            (self.page() if size == PAGE else driver.allocate(size, 8), size, DESC_WRITE) for size in (16, *room)
        ]
        table = queue.table(pieces)
        element = (driver.place(table, 16), len(table), DESC_INDIRECT)

        def measured() -> float:
            spent = 0.0
            for _ in range(REPEAT):
                for _ in range(REQUESTS):
                    head = queue.expose([element])
                    queue.outstanding[head] = Buffer(driver, head, 1, [], [])
                began = time.thread_time()
                queue.kick()
                spent += time.thread_time() - began
                if len(queue.used()) != REQUESTS:
                    raise AssertionError("requests were not answered")
            return REPEAT * REQUESTS / spent

        self.call(opcode, node, body + bytes(data), room)
        return measured


def requests(rounds: int) -> Iterator[Row]:
    """Requests a second of each kind that decides how fast a root is served."""
    with tempfile.TemporaryDirectory() as place:
        setup = Setup(place)
        io = [pack("<QQIIQII", setup.handle, 0, size, 0, 0, 0, 0) for size in (PAGE, 32 * PAGE)]
        kinds = {
            "LOOKUP": (setup.task(fuse.LOOKUP, setup.directory, b"file\0", [128]), SMALL),
            "GETATTR": (setup.task(fuse.GETATTR, setup.file, bytes(16), [104]), SMALL),
            "READ of 4 KiB": (setup.task(fuse.READ, setup.file, io[0], [PAGE]), SMALL),
            "READ of 128 KiB": (setup.task(fuse.READ, setup.file, io[1], [PAGE] * 32), LARGE),
            "WRITE of 4 KiB": (setup.task(fuse.WRITE, setup.file, io[0], [8], PAGE), SMALL),
        }
        try:
            for name, found in zip(kinds, interleaved([task for task, _ in kinds.values()], rounds), strict=True):
                yield Row(
                    f"shared folder: {name}",
                    rate(found),
                    "",
                    found,
                    at_least=kinds[name][1],
                    unit="/s",
                )
        finally:
            setup.device.close()
