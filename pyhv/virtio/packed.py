"""The packed virtqueue: one ring of descriptors that both sides write (virtio 1.2, 2.8)."""

from __future__ import annotations

from _thread import allocate_lock

from pyhv._types import TYPE_CHECKING
from pyhv.errors import GuestMemoryError
from pyhv.virtio.chain import Chain
from pyhv.virtio.descriptors import DESCRIPTOR, MAX_CHAIN_BYTES, Collector, check_area
from pyhv.virtio.errors import VirtioError
from pyhv.virtio.ids import (
    DESC_AVAIL,
    DESC_INDIRECT,
    DESC_NEXT,
    DESC_SIZE,
    DESC_USED,
    DESC_WRITE,
    EVENTS_DESC,
    EVENTS_DISABLE,
    EVENTS_ENABLE,
    MAX_QUEUE_SIZE,
)

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory
    from pyhv.virtio.queue import VirtQueue


def check_packed(queue: VirtQueue, memory: GuestMemory) -> None:
    """Raises VirtioError unless the queue's registers describe a packed ring in memory (2.8.10.1)."""
    if not 0 < queue.size <= min(queue.max_size, MAX_QUEUE_SIZE):
        raise VirtioError(f"size {queue.size} is not one of 1 to {queue.max_size}")
    for what, address, alignment, length, write in (
        ("descriptor ring", queue.descriptors, 16, DESC_SIZE * queue.size, True),
        ("driver event suppression", queue.driver_area, 4, 4, False),
        ("device event suppression", queue.device_area, 4, 4, True),
    ):
        check_area(memory, what, address, alignment, length, write=write)


class PackedRing:
    """The device's side of one packed ring. Positions count descriptors from the beginning; a lap of the ring is `size`."""

    def __init__(self, queue: VirtQueue, memory: GuestMemory, *, indirect: bool, event_idx: bool, in_order: bool) -> None:
        self._queue = queue
        self._memory = memory
        self._size = queue.size
        self._indirect = indirect
        self._event_idx = event_idx
        self._next = 0
        self._used = 0
        self._pending: list[tuple[int, int, int]] = []
        self._kicks = True
        self._barrier = allocate_lock()

    def _is_available(self, position: int) -> bool:
        lap, index = divmod(position, self._size)
        flags = self._memory.read_uint(self._queue.descriptors + DESC_SIZE * index + 14, 2)
        mask = DESC_AVAIL | DESC_USED
        return flags & mask == (DESC_USED if lap & 1 else DESC_AVAIL)

    def pop(self) -> Chain | None:
        for _ in range(self._size):
            position = self._next
            if not self._is_available(position):
                if not self._kicks or not self._event_idx:
                    return None
                self._ask_for_kick(position)
                if not self._is_available(position):
                    return None
            try:
                chain = self._take(position)
            except VirtioError as error:
                self._queue.refuse(str(error))
                continue
            return chain
        self._queue.postpone()
        return None

    def _ask_for_kick(self, position: int) -> None:
        lap, index = divmod(position, self._size)
        event = index | (0 if lap & 1 else 0x8000)
        self._memory.write_uint(self._queue.device_area, 4, event | EVENTS_DESC << 16)
        with self._barrier:
            pass

    def _take(self, position: int) -> Chain | None:
        memory, queue, size = self._memory, self._queue, self._size
        found = Collector(memory)
        error = ""
        slots = 0
        while True:
            index = (position + slots) % size
            address, length, ident, flags = DESCRIPTOR.unpack(memory.read(queue.descriptors + DESC_SIZE * index, DESC_SIZE))
            slots += 1
            if position + slots - self._used > size:
                queue.lie(f"more than {size} descriptors are available")
                return None
            try:
                if not flags & DESC_INDIRECT:
                    found.add(address, length, flags & DESC_WRITE)
                elif not self._indirect or flags & DESC_NEXT or slots > 1:
                    raise VirtioError("an indirect descriptor that is not negotiated, or in a list")
                else:
                    found.add_table(address, length, size, linked=False)
            except VirtioError as problem:
                error = error or str(problem)
            if not flags & DESC_NEXT:
                break
        self._next = position + slots
        if found.readable_size + found.writable_size > MAX_CHAIN_BYTES:
            error = error or "a chain of more than 4 GiB"
        if error:
            self._pending.append((ident, 0, slots))
            raise VirtioError(error)
        return Chain(
            self, memory, position, ident, slots, found.readable, found.readable_size, found.writable, found.writable_size
        )

    def unpop(self, chain: Chain) -> None:
        if chain.ring is self and chain.position + chain.slots == self._next:
            chain.ring = None
            self._next = chain.position

    def push(self, chain: Chain, written: int) -> None:
        if chain.ring is self:
            chain.ring = None
            self._pending.append((chain.head, written, chain.slots))

    def flush(self) -> bool:
        pending = self._pending
        if not pending:
            return False
        self._pending = []
        memory, queue, size = self._memory, self._queue, self._size
        old = self._used
        first = 0, 0
        try:
            for ident, written, slots in pending:
                lap, index = divmod(self._used, size)
                address = queue.descriptors + DESC_SIZE * index
                flags = (0 if lap & 1 else DESC_AVAIL | DESC_USED) | (DESC_WRITE if written else 0)
                memory.write_uint(address + 8, 6, written | ident << 32)
                if self._used == old:
                    first = address + 14, flags
                else:
                    memory.write_uint(address + 14, 2, flags)
                self._used += slots
            memory.write_uint(first[0], 2, first[1])
            with self._barrier:
                pass
            event = memory.read_uint(queue.driver_area, 4)
        except GuestMemoryError as error:
            queue.lie(str(error))
            return False
        flags = event >> 16 & 3
        if flags == EVENTS_DESC and self._event_idx:
            lap = self._used // size
            if (event >> 15 & 1) == lap & 1:
                lap -= 1
            return old <= lap * size + (event & 0x7FFF) < self._used
        return flags != EVENTS_DISABLE

    def available(self) -> int:
        return int(self._is_available(self._next))

    def want_kicks(self, wanted: bool) -> None:
        self._kicks = wanted
        if not wanted or not self._event_idx:
            self._memory.write_uint(self._queue.device_area, 4, (EVENTS_ENABLE if wanted else EVENTS_DISABLE) << 16)
