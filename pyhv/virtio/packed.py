"""The packed virtqueue: one ring of descriptors that both sides write (virtio 1.2, 2.8)."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.virtio.chain import Chain
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
from pyhv.virtio.ring import MAX_CHAIN_BYTES, RingBase, check_area

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory
    from pyhv.virtio.chain import Ranges
    from pyhv.virtio.queue import VirtQueue

_DESCRIPTOR = Struct("<QIHH")
_descriptor = _DESCRIPTOR.unpack_from
_descriptors = _DESCRIPTOR.iter_unpack
_STATE = DESC_AVAIL | DESC_USED
_WRITTEN = DESC_WRITE << 48


def check_packed(queue: VirtQueue, memory: GuestMemory) -> None:
    """Raises VirtioError unless the queue's registers describe a packed ring in memory (2.8.10.1)."""
    if not 0 < queue.size <= min(queue.max_size, MAX_QUEUE_SIZE):
        raise VirtioError(f"size {queue.size} is not one of 1 to {queue.max_size}")
    check_area(memory, "descriptor ring", queue.descriptors, 16, DESC_SIZE * queue.size, write=True)
    check_area(memory, "driver event suppression", queue.driver_area, 4, 4)
    check_area(memory, "device event suppression", queue.device_area, 4, 4, write=True)


class PackedRing(RingBase):
    """The device's side of one packed ring.

    `next` is the position that is taken next, `used` the one that is written next. Positions count descriptors from the
    beginning; a lap of the ring is `size` of them, and the wrap counter is 1 in laps 0, 2, 4. The views: `descriptors` in
    bytes, `words` the same in 64 bits; `driver` and `device`, the event suppression structures, in 16 and in 32.
    """

    __slots__ = ("armed", "descriptors", "device", "driver", "next", "used", "words")

    def __init__(
        self, queue: VirtQueue, memory: GuestMemory, *, indirect: bool, event_idx: bool, in_order: bool
    ) -> None:
        super().__init__(queue, memory, indirect=indirect, event_idx=event_idx, in_order=in_order)
        self.next = self.used = 0
        self.armed = -1
        self.place()
        self.version = memory.version

    def place(self) -> None:
        queue = self.queue
        self.descriptors = self.piece(queue.descriptors, DESC_SIZE * self.size, write=True)
        self.words = self.descriptors.cast("Q")
        self.driver = self.piece(queue.driver_area, 4).cast("H")
        self.device = self.piece(queue.device_area, 4, write=True).cast("I")

    def pop(self) -> Chain | None:
        if self.version != self.memory.version and not self.placed():
            return None
        size, words = self.size, self.words
        refused = 0
        while refused < size:
            position = self.next
            lap, index = divmod(position, size)
            state = (DESC_USED if lap & 1 else DESC_AVAIL) << 48
            if words[2 * index + 1] & _STATE << 48 != state:
                if not self.kicks or not self.event_idx or self.armed == position:
                    return None
                self._ask_for_kick(position)
                if words[2 * index + 1] & _STATE << 48 != state:
                    return None
            try:
                chain = self._take(position, index)
            except VirtioError as error:
                self.queue.lie(str(error))
                return None
            if chain is not None:
                return chain
            refused += 1
        self.queue.postpone()
        return None

    def _ask_for_kick(self, position: int) -> None:
        """Have the driver notify when it makes the descriptor at this position available."""
        lap, index = divmod(position, self.size)
        self._tell_driver(EVENTS_DESC << 16 | index | (0 if lap & 1 else 0x8000))
        self.armed = position
        self.fence()

    def _tell_driver(self, event: int) -> None:
        self.memory.announce(self.queue.device_area, 4)
        self.device[0] = event

    def _take(self, position: int, index: int) -> Chain | None:
        """The chain at a position; None for one that was refused. Raises VirtioError when the ring itself is inconsistent."""
        size, descriptors = self.size, self.descriptors
        left = size - (position - self.used)
        low, high = self.low, self.high
        slots = 0
        problem = ""
        readable: Ranges = []
        writable: Ranges = []
        readable_size = writable_size = 0
        while True:
            address, length, ident, flags = _descriptor(descriptors, index << 4)
            slots += 1
            if slots > left:
                raise VirtioError(f"more than {size} descriptors are available")
            try:
                if flags & DESC_INDIRECT:
                    if not self.indirect or flags & DESC_NEXT or slots > 1:
                        raise VirtioError("an indirect descriptor in a list, or without the feature")
                    readable, readable_size, writable, writable_size = self._take_table(address, length)
                    break
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
            except VirtioError as error:
                problem = problem or str(error)
            if not flags & DESC_NEXT:
                break
            index += 1
            if index == size:
                index = 0
        self.next = position + slots
        if readable_size + writable_size > MAX_CHAIN_BYTES:
            problem = problem or "a chain of 4 GiB or more"
        if problem:
            self.refuse(position, (ident, slots), problem)
            return None
        if self.order is not None:
            self.order.take(position)
        return Chain(self, self.memory, position, ident, slots, readable, readable_size, writable, writable_size)

    def _take_table(self, address: int, length: int) -> tuple[Ranges, int, Ranges, int]:
        """The elements of an indirect table: all of it, in sequence; of their flags only WRITE counts (2.8.7)."""
        if length > self.longest * DESC_SIZE:
            raise VirtioError(f"an indirect table of more than {self.longest} descriptors")
        table = self.table(address, length)
        low, high = self.low, self.high
        readable: Ranges = []
        writable: Ranges = []
        readable_size = writable_size = 0
        for address, length, _, flags in _descriptors(table):
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
        return readable, readable_size, writable, writable_size

    def unpop(self, chain: Chain) -> None:
        if chain.ring is self and chain.position + chain.slots == self.next:
            chain.ring = None
            self.next = chain.position

    def flush(self) -> bool:
        pending = self.pending
        if not pending:
            return False
        if self.version != self.memory.version and not self.placed():
            return False
        self.pending = []
        size, words, memory, start = self.size, self.words, self.memory, self.queue.descriptors
        old = position = self.used
        first = first_entry = -1
        for entry, slots in pending:
            lap, index = divmod(position, size)
            # `push` makes entries as in a split ring, id first; here the length is.
            entry = (entry >> 32) | (entry & 0xFFFF) << 32 | (_WRITTEN if entry >> 32 else 0)
            if not lap & 1:
                entry |= _STATE << 48
            memory.announce(start + 16 * index, DESC_SIZE)
            if first < 0:
                first, first_entry = 2 * index + 1, entry
            else:
                words[2 * index + 1] = entry
            position += slots
        words[first] = first_entry
        self.used = position
        self.fence()
        event, flags = self.driver[0], self.driver[1] & 3
        if flags != EVENTS_DESC or not self.event_idx:
            return flags != EVENTS_DISABLE
        lap = position // size
        if event >> 15 == lap & 1:
            lap -= 1
        return old <= lap * size + (event & 0x7FFF) < position

    def available(self) -> int:
        if self.version != self.memory.version and not self.placed():
            return 0
        lap, index = divmod(self.next, self.size)
        return int(self.words[2 * index + 1] >> 48 & _STATE == (DESC_USED if lap & 1 else DESC_AVAIL))

    def want_kicks(self, wanted: bool) -> None:
        self.kicks = wanted
        self.armed = -1
        if (not wanted or not self.event_idx) and (self.version == self.memory.version or self.placed()):
            self._tell_driver((EVENTS_ENABLE if wanted else EVENTS_DISABLE) << 16)
