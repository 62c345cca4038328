"""A descriptor chain: one buffer that the driver made available, as the device sees it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.virtio.errors import VirtioError

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory

    Ranges = list[tuple[int, int]]


READ_LIMIT = 64 << 20


class Chain:
    """Guest memory that the device may read, then memory that it may write; all of it was checked when the chain was taken.

    It may be kept until it is pushed. It holds addresses: views are made by each call, and are to be used at once.
    `head` is the descriptor's index (split ring) or the buffer's id (packed ring), `slots` the ring entries that it takes,
    `ring` the ring that it came from, None once it was given back.
    """

    __slots__ = (
        "head",
        "memory",
        "position",
        "readable",
        "readable_size",
        "ring",
        "slots",
        "writable",
        "writable_size",
    )

    def __init__(
        self,
        ring: object,
        memory: GuestMemory,
        position: int,
        head: int,
        slots: int,
        readable: Ranges,
        readable_size: int,
        writable: Ranges,
        writable_size: int,
    ) -> None:
        self.ring: object = ring
        self.memory = memory
        self.position = position
        self.head = head
        self.slots = slots
        self.readable = readable
        self.readable_size = readable_size
        self.writable = writable
        self.writable_size = writable_size

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of the readable part, fewer where it ends earlier.

        Raises VirtioError for more than 64 MiB: one element may be in a chain many times. Say a `size`, or take views.
        """
        readable = self.readable
        if size is None:
            size = max(self.readable_size - offset, 0)
            if size > READ_LIMIT:
                raise VirtioError(f"{size} bytes to read at once")
        if readable:
            address, length = readable[0]
            if offset + size <= length:
                return self.memory.read(address + offset, size)
        return b"".join(self.readable_views(offset, size))

    def write(self, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Store into the writable part. Raises VirtioError when the data does not fit."""
        writable = self.writable
        end = offset + len(data)
        if end > self.writable_size:
            raise VirtioError(f"{end} bytes do not fit a buffer of {self.writable_size}")
        if writable:
            address, length = writable[0]
            if end <= length:
                self.memory.write(address + offset, data)
                return
            address, length = writable[-1]
            start = self.writable_size - length
            if offset >= start:
                self.memory.write(address + offset - start, data)
                return
        data = memoryview(data)
        position = 0
        for view in self.writable_views(offset, len(data)):
            end = position + len(view)
            view[:] = data[position:end]
            position = end

    def readable_views(self, offset: int = 0, size: int | None = None) -> list[memoryview]:
        """The readable part from `offset`, at most `size` bytes of it, without copying."""
        if offset or size is not None:
            return self.memory.views(cut(self.readable, offset, size))
        return self.memory.views(self.readable)

    def writable_views(self, offset: int = 0, size: int | None = None) -> list[memoryview]:
        """The writable part likewise; what observes guest memory counts all of it as written."""
        if offset or size is not None:
            return self.memory.views(cut(self.writable, offset, size), write=True)
        return self.memory.views(self.writable, write=True)


def cut(ranges: Ranges, offset: int, size: int | None) -> Ranges:
    """The part of a list of (address, length) that begins at byte `offset` and has at most `size` bytes."""
    found: Ranges = []
    left = (1 << 64) if size is None else size
    for address, length in ranges:
        if offset >= length:
            offset -= length
            continue
        if left <= 0:
            break
        length = min(length - offset, left)
        found.append((address + offset, length))
        offset = 0
        left -= length
    return found
