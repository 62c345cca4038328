"""The split virtqueue: descriptor table, available ring, used ring (virtio 1.2, 2.7)."""

from __future__ import annotations

from _thread import allocate_lock

from pyhv._types import TYPE_CHECKING
from pyhv.errors import GuestMemoryError
from pyhv.virtio.chain import Chain
from pyhv.virtio.descriptors import DESCRIPTOR, MAX_CHAIN_BYTES, Collector, check_area
from pyhv.virtio.errors import VirtioError
from pyhv.virtio.ids import (
    AVAIL_NO_INTERRUPT,
    DESC_INDIRECT,
    DESC_NEXT,
    DESC_SIZE,
    DESC_WRITE,
    MAX_QUEUE_SIZE,
    USED_NO_NOTIFY,
)

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory
    from pyhv.virtio.queue import VirtQueue


def check_split(queue: VirtQueue, memory: GuestMemory) -> None:
    """Raises VirtioError unless the queue's registers describe a split ring in memory (2.7, 2.7.1)."""
    size = queue.size
    if not 0 < size <= min(queue.max_size, MAX_QUEUE_SIZE) or size & (size - 1):
        raise VirtioError(f"size {size} is not a power of two up to {queue.max_size}")
    for what, address, alignment, length, write in (
        ("descriptor table", queue.descriptors, 16, DESC_SIZE * size, False),
        ("available ring", queue.driver_area, 2, 6 + 2 * size, False),
        ("used ring", queue.device_area, 4, 6 + 8 * size, True),
    ):
        check_area(memory, what, address, alignment, length, write=write)


class SplitRing:
    """The device's side of one split ring."""

    def __init__(self, queue: VirtQueue, memory: GuestMemory, *, indirect: bool, event_idx: bool, in_order: bool) -> None:
        self._queue = queue
        self._memory = memory
        self._size = queue.size
        self._indirect = indirect
        self._event_idx = event_idx
        self._next = 0
        self._seen = 0
        self._used = 0
        self._pending: list[tuple[int, int]] = []
        self._kicks = True
        self._barrier = allocate_lock()

    def pop(self) -> Chain | None:
        memory, queue, size = self._memory, self._queue, self._size
        for _ in range(size):
            if self._next == self._seen and not self._look():
                return None
            position = self._next
            self._next = (position + 1) & 0xFFFF
            head = memory.read_uint(queue.driver_area + 4 + 2 * (position % size), 2)
            if head >= size:
                queue.lie(f"descriptor {head} of {size} made available")
                return None
            try:
                return self._take(position, head)
            except VirtioError as error:
                queue.refuse(str(error))
                self._pending.append((head, 0))
        queue.postpone()
        return None

    def _look(self) -> bool:
        memory, queue = self._memory, self._queue
        for _ in range(2):
            seen = memory.read_uint(queue.driver_area + 2, 2)
            if (seen - self._used) & 0xFFFF > self._size:
                queue.lie(f"available index {seen} is more than {self._size} ahead of the used index {self._used}")
                return False
            if seen != self._next:
                self._seen = seen
                return True
            if not self._kicks or not self._event_idx:
                return False
            memory.write_uint(queue.device_area + 4 + 8 * self._size, 2, seen)
            with self._barrier:
                pass
        return False

    def _take(self, position: int, head: int) -> Chain:
        memory, queue = self._memory, self._queue
        found = Collector(memory)
        index, left = head, self._size
        while True:
            address, length, flags, after = DESCRIPTOR.unpack(memory.read(queue.descriptors + DESC_SIZE * index, DESC_SIZE))
            left -= 1
            if flags & DESC_INDIRECT:
                if not self._indirect or flags & DESC_NEXT:
                    raise VirtioError("an indirect descriptor that is not negotiated, or goes on")
                found.add_table(address, length, left + 1, linked=True)
                break
            found.add(address, length, flags & DESC_WRITE)
            if not flags & DESC_NEXT:
                break
            index = after
            if index >= self._size or not left:
                raise VirtioError("a chain that loops or leaves the table")
        if found.readable_size + found.writable_size > MAX_CHAIN_BYTES:
            raise VirtioError("a chain of more than 4 GiB")
        return Chain(
            self, memory, position, head, 1, found.readable, found.readable_size, found.writable, found.writable_size
        )

    def unpop(self, chain: Chain) -> None:
        if chain.ring is self and chain.position == (self._next - 1) & 0xFFFF:
            chain.ring = None
            self._next = chain.position

    def push(self, chain: Chain, written: int) -> None:
        if chain.ring is self:
            chain.ring = None
            self._pending.append((chain.head, written))

    def flush(self) -> bool:
        pending = self._pending
        if not pending:
            return False
        self._pending = []
        memory, queue, size = self._memory, self._queue, self._size
        old = self._used
        try:
            for head, written in pending:
                memory.write_uint(queue.device_area + 4 + 8 * (self._used % size), 8, head | written << 32)
                self._used = (self._used + 1) & 0xFFFF
            memory.write_uint(queue.device_area + 2, 2, self._used)
            with self._barrier:
                pass
            if self._event_idx:
                event = memory.read_uint(queue.driver_area + 4 + 2 * size, 2)
                return (self._used - event - 1) & 0xFFFF < (self._used - old) & 0xFFFF
            return not memory.read_uint(queue.driver_area, 2) & AVAIL_NO_INTERRUPT
        except GuestMemoryError as error:
            queue.lie(str(error))
            return False

    def available(self) -> int:
        return (self._memory.read_uint(self._queue.driver_area + 2, 2) - self._next) & 0xFFFF

    def want_kicks(self, wanted: bool) -> None:
        self._kicks = wanted
        if not self._event_idx:
            self._memory.write_uint(self._queue.device_area, 2, 0 if wanted else USED_NO_NOTIFY)
