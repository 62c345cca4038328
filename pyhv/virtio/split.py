"""The split virtqueue: descriptor table, available ring, used ring (virtio 1.2, 2.7)."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.virtio.chain import Chain
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
from pyhv.virtio.ring import MAX_CHAIN_BYTES, RingBase, check_area

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory
    from pyhv.virtio.chain import Ranges
    from pyhv.virtio.queue import VirtQueue

_DESCRIPTOR = Struct("<QIHH")
_descriptor = _DESCRIPTOR.unpack_from
_descriptors = _DESCRIPTOR.iter_unpack


def check_split(queue: VirtQueue, memory: GuestMemory) -> None:
    """Raises VirtioError unless the queue's registers describe a split ring in memory (2.7, 2.7.1)."""
    size = queue.size
    if not 0 < size <= min(queue.max_size, MAX_QUEUE_SIZE) or size & (size - 1):
        raise VirtioError(f"size {size} is not a power of two up to {queue.max_size}")
    check_area(memory, "descriptor table", queue.descriptors, 16, DESC_SIZE * size)
    check_area(memory, "available ring", queue.driver_area, 2, 6 + 2 * size)
    check_area(memory, "used ring", queue.device_area, 4, 6 + 8 * size, write=True)


class SplitRing(RingBase):
    """The device's side of one split ring.

    `next` is the available index that is taken next, `seen` how far the driver had come when it was last looked at, `used`
    the used index as published; all count modulo 65536, as in memory. The views: `descriptors` in bytes; `avail` and `rest`
    (of the used ring: flags, index, and avail_event at its end) in 16 bits, `entries` of the used ring in 64.
    """

    __slots__ = ("armed", "avail", "descriptors", "entries", "next", "rest", "seen", "used")

    def __init__(
        self, queue: VirtQueue, memory: GuestMemory, *, indirect: bool, event_idx: bool, in_order: bool
    ) -> None:
        super().__init__(queue, memory, indirect=indirect, event_idx=event_idx, in_order=in_order)
        self.next = self.seen = self.used = 0
        self.armed = -1
        self.place()
        self.version = memory.version

    def place(self) -> None:
        queue, size = self.queue, self.size
        self.descriptors = self.piece(queue.descriptors, DESC_SIZE * size)
        self.avail = self.piece(queue.driver_area, 6 + 2 * size).cast("H")
        used = self.piece(queue.device_area, 6 + 8 * size, write=True)
        self.rest = used.cast("H")
        self.entries = used[4 : 4 + 8 * size].cast("Q")

    def pop(self) -> Chain | None:
        if self.version != self.memory.version and not self.placed():
            return None
        size = self.size
        refused = 0
        while refused < size:
            position = self.next
            if position == self.seen and not self._look():
                return None
            self.next = (position + 1) & 0xFFFF
            head = self.avail[2 + (position & size - 1)]
            if head >= size:
                self.queue.lie(f"descriptor {head} of {size} made available")
                return None
            try:
                chain = self._take(position, head)
            except VirtioError as error:
                self.refuse(position, (head, 1), str(error))
                refused += 1
                continue
            if self.order is not None:
                self.order.take(position)
            return chain
        self.queue.postpone()
        return None

    def _look(self) -> bool:
        """See whether the driver added chains; if not, have it say so when it does."""
        seen = self.avail[1]
        if seen == self.next:
            if not self.kicks or not self.event_idx or self.armed == seen:
                return False
            self.memory.announce(self.queue.device_area + 4 + 8 * self.size, 2)
            self.rest[2 + 4 * self.size] = self.armed = seen
            self.fence()
            seen = self.avail[1]
            if seen == self.next:
                return False
        if ((seen - self.next) & 0xFFFF) + ((self.next - self.used) & 0xFFFF) > self.size:
            self.queue.lie(f"available index {seen} after {self.next}, used index {self.used}, size {self.size}")
            return False
        self.seen = seen
        return True

    def _take(self, position: int, head: int) -> Chain:
        """The chain from a head. Raises VirtioError when it is malformed."""
        table: memoryview | bytes = self.descriptors
        count = left = self.size
        low, high = self.low, self.high
        index = head
        readable: Ranges = []
        writable: Ranges = []
        readable_size = writable_size = 0
        while True:
            address, length, flags, after = _descriptor(table, index << 4)
            if flags & DESC_INDIRECT:
                if table is not self.descriptors:
                    raise VirtioError("an indirect table within an indirect table")
                if not self.indirect or flags & DESC_NEXT:
                    raise VirtioError("an indirect descriptor that goes on, or without the feature")
                left += self.longest - self.size
                table = self.table(address, length)
                count, index = length >> 4, 0
                if not readable and not writable and (found := self._in_sequence(table)) is not None:
                    readable, readable_size, writable, writable_size = found
                    break
                continue
            if address < low or address + length > high:
                low, high = self.admit(address, length, flags & DESC_WRITE)
            if flags & DESC_WRITE:
                writable.append((address, length))
                writable_size += length
            else:
                if writable:
                    raise VirtioError("a readable element after a writable one")
                readable.append((address, length))
                readable_size += length
            if not flags & DESC_NEXT:
                break
            left -= 1
            if after >= count or left <= 0:
                raise VirtioError("a chain that has no end" if after < count else f"descriptor {after} of {count}")
            index = after
        if readable_size + writable_size > MAX_CHAIN_BYTES:
            raise VirtioError("a chain of 4 GiB or more")
        return Chain(self, self.memory, position, head, 1, readable, readable_size, writable, writable_size)

    def _in_sequence(self, table: memoryview | bytes) -> tuple[Ranges, int, Ranges, int] | None:
        """The elements of an indirect table whose descriptors follow one another, as they do in practice.

        None where they do not, or something else is unusual: `_take` then goes from one to the next.
        """
        low, high = self.low, self.high
        readable: Ranges = []
        writable: Ranges = []
        readable_size = writable_size = 0
        for index, (address, length, flags, after) in enumerate(_descriptors(table), 1):
            if address < low or address + length > high or flags & DESC_INDIRECT:
                return None
            if flags & DESC_WRITE:
                writable.append((address, length))
                writable_size += length
            else:
                if writable:
                    return None
                readable.append((address, length))
                readable_size += length
            if not flags & DESC_NEXT:
                return readable, readable_size, writable, writable_size
            if after != index or index == self.longest:
                return None
        return None

    def unpop(self, chain: Chain) -> None:
        if chain.ring is self and chain.position == (self.next - 1) & 0xFFFF:
            chain.ring = None
            self.next = chain.position

    def flush(self) -> bool:
        pending = self.pending
        if not pending:
            return False
        if self.version != self.memory.version and not self.placed():
            return False
        self.pending = []
        size, old = self.size, self.used
        self._announce(old, len(pending))
        new, entries = old, self.entries
        for entry, _ in pending:
            entries[new & size - 1] = entry
            new += 1
        self.rest[1] = self.used = new & 0xFFFF
        self.fence()
        if self.event_idx:
            return (new - self.avail[2 + size] - 1) & 0xFFFF < new - old
        return not self.avail[0] & AVAIL_NO_INTERRUPT

    def _announce(self, first: int, count: int) -> None:
        """Tell observers of the used ring's index, and of `count` entries."""
        memory, start = self.memory, self.queue.device_area
        memory.announce(start + 2, 2)
        index = first & self.size - 1
        ahead = min(count, self.size - index)
        memory.announce(start + 4 + 8 * index, 8 * ahead)
        if ahead < count:
            memory.announce(start + 4, 8 * (count - ahead))

    def available(self) -> int:
        if self.version != self.memory.version and not self.placed():
            return 0
        return min((self.avail[1] - self.next) & 0xFFFF, self.size)

    def want_kicks(self, wanted: bool) -> None:
        self.kicks = wanted
        if not self.event_idx and (self.version == self.memory.version or self.placed()):
            self.memory.announce(self.queue.device_area, 2)
            self.rest[0] = 0 if wanted else USED_NO_NOTIFY
