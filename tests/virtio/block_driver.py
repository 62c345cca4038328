"""A block driver over the model driver, and an image in memory that can be made to fail."""

import errno
import random
import struct

from virtio_driver import device_bench

from pyhv.block.image import Image
from pyhv.virtio import block as b
from pyhv.virtio.block import VirtioBlock

SIZE = 1 << 20
CONTENTS = random.Random(0).randbytes(SIZE)


class Memory(Image):
    """A disk in memory. `calls` are the names of what was done; those in `broken` fail, after `delay` more calls."""

    def __init__(self, size=SIZE, *, readonly=False, unit=4096):
        self.size = size
        self.readonly = readonly
        self.unit = unit
        self.data = bytearray(CONTENTS[:size])
        self.calls = []
        self.broken = {}

    def note(self, *call):
        self.calls.append(call)
        code = self.broken.get(call[0])
        if code:
            raise OSError(code, "broken on purpose")

    def preadv(self, views, offset, length):
        self.check(offset, length)
        self.note("read", offset, length)
        assert sum(map(len, views)) == length
        for view in views:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def pwritev(self, views, offset, length):
        self.check_change(offset, length)
        self.note("write", offset, length)
        assert sum(map(len, views)) == length
        self.data[offset : offset + length] = b"".join(views)

    def flush(self):
        self.note("flush")

    def discard(self, offset, length):
        self.check_change(offset, length)
        self.note("discard", offset, length)
        self.data[offset : offset + length] = b"\xdd" * length

    def write_zeroes(self, offset, length, *, unmap):
        self.check_change(offset, length)
        self.note("zero", offset, length, unmap)
        self.data[offset : offset + length] = bytes(length)

    def close(self):
        self.note("close")


def header(kind, sector=0, reserved=0):
    return struct.pack("<IIQ", kind, reserved, sector)


def ranges(*items):
    """Ranges of a discard or of zeros: (sector, sectors) or (sector, sectors, flags)."""
    return b"".join(struct.pack("<QII", *item, *(0,) * (3 - len(item))) for item in items)


class BlockDriver:
    """Requests as a Linux driver makes them, or cut in other ways."""

    def __init__(self, image=None, *, queues=1, serial="", memory=4 << 20, join=device_bench, **options):
        self.image = Memory() if image is None else image
        device = VirtioBlock(self.image, queues=queues, serial=serial, transport="mmio")
        self.driver = join(device, memory=memory, **options)
        self.device = device

    def request(self, kind, sector=0, data=b"", space=0, *, queue=0, cut_out=None, cut_in=None, indirect=False):
        """The status and the data of one request. `cut_out`, `cut_in`: sizes of the buffers, not as usual."""
        readable = pieces(header(kind, sector) + data, cut_out or [16])
        writable = cut(space + 1, cut_in or ([space] if space else []))
        buffer = self.driver.queues[queue].add(readable, writable, indirect=indirect)
        self.finish(buffer, queue)
        return buffer.space[-1], buffer.space[:-1]

    def finish(self, buffer, queue=0):
        self.driver.queues[queue].kick()
        for _ in range(1000):
            self.driver.queues[queue].used()
            if buffer.written >= 0:
                return buffer
            self.driver.run(0.05)
        raise AssertionError("a request that never came back")

    def read(self, sector, length, **how):
        return self.request(b.IN, sector, space=length, **how)

    def write(self, sector, data, **how):
        return self.request(b.OUT, sector, data, **how)[0]

    def config(self, offset, size):
        return int.from_bytes(self.driver.link.read_config(offset, size), "little")


def pieces(data, sizes):
    found, start = [], 0
    for size in cut(len(data), sizes):
        found.append(data[start : start + size])
        start += size
    return found


def cut(length, sizes):
    """`length` in pieces of these sizes, the last one taking what is left."""
    found = []
    for size in sizes:
        size = min(size, length)
        found.append(size)
        length -= size
    return [*found, length] if length else found


BROKEN = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
