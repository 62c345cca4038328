"""The driver's side of virtqueues, for tests of devices: it keeps the rules, and has what it takes to break them."""

from __future__ import annotations

from struct import pack, unpack

from pyhv._types import TYPE_CHECKING
from pyhv.virtio import ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.testing.virtio import VirtioDriver


class Buffer:
    """One buffer of the driver: what was added, and what the device did with it (`written` is -1 before)."""

    def __init__(
        self, driver: VirtioDriver, head: int, slots: int, readable: list[tuple[int, int]], writable: list[tuple[int, int]]
    ) -> None:
        self.head = head
        self.slots = slots
        self.readable = readable
        self.writable = writable
        self.written = -1
        self._driver = driver

    @property
    def data(self) -> bytes:
        """What the device wrote, as far as it said that it wrote."""
        whole = b"".join(self._driver.memory.read(address, length) for address, length in self.writable)
        return whole[: max(self.written, 0)]

    @property
    def space(self) -> bytes:
        """All of the writable part, whatever the device said."""
        return b"".join(self._driver.memory.read(address, length) for address, length in self.writable)


class DriverQueue:
    """One queue from the driver's side. `add` and `kick`, then `used`; or `request`, which does all three."""

    def __init__(self, driver: VirtioDriver, index: int, size: int) -> None:
        self.driver = driver
        self.memory = driver.memory
        self.index = index
        self.size = size
        self.kicks = 0
        self.outstanding: dict[int, Buffer] = {}
        self.layout()
        driver.link.set_queue(index, size, self.descriptors, self.driver_area, self.device_area)

    descriptors = driver_area = device_area = 0

    def layout(self) -> None:
        """Allocate and clear the ring."""
        raise NotImplementedError

    def expose(self, elements: list[tuple[int, int, int]]) -> int:
        """Write a chain of (address, length, flags) and make it available; gives its head."""
        raise NotImplementedError

    def wants_kick(self) -> bool:
        """Whether the device asked to be notified of what was added since the last kick."""
        raise NotImplementedError

    def take_used(self) -> tuple[int, int] | None:
        """The next used (head, written)."""
        raise NotImplementedError

    def interrupt_at(self, ahead: int) -> None:
        """With EVENT_IDX: ask for an interrupt when that many more chains are used (0: the next one)."""
        raise NotImplementedError

    def table(self, elements: list[tuple[int, int, int]]) -> bytes:
        """An indirect table in the ring's format."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """How many descriptors are free."""
        return self.size - sum(buffer.slots for buffer in self.outstanding.values())

    def add(
        self, readable: Sequence[bytes] = (), writable: Sequence[int] = (), *, indirect: bool = False
    ) -> Buffer:
        """Make a buffer available: bytes to read, then spaces to write of these sizes."""
        driver = self.driver
        to_read = [(driver.place(data), len(data)) for data in readable]
        to_write = [(driver.allocate(length), length) for length in writable]
        elements = [(a, n, 0) for a, n in to_read] + [(a, n, ids.DESC_WRITE) for a, n in to_write]
        slots = len(elements)
        if indirect:
            table = self.table(elements)
            elements, slots = [(driver.place(table, 16), len(table), ids.DESC_INDIRECT)], 1
        head = self.expose(elements)
        buffer = self.outstanding[head] = Buffer(driver, head, slots, to_read, to_write)
        return buffer

    def kick(self, *, force: bool = False) -> bool:
        """Notify the device if it wants that, or if forced; whether it was notified."""
        wanted = self.wants_kick()
        if wanted or force:
            self.kicks += 1
            self.driver.link.notify(self.index)
        return wanted or force

    def used(self) -> list[Buffer]:
        """The buffers that came back since the last call, in order."""
        found = []
        while (entry := self.take_used()) is not None:
            head, written = entry
            buffer = self.outstanding.pop(head)
            buffer.written = written
            self.recycle(buffer)
            found.append(buffer)
        return found

    def recycle(self, buffer: Buffer) -> None:
        """The buffer's descriptors are free again."""
        raise NotImplementedError

    def request(
        self, readable: Sequence[bytes] = (), writable: Sequence[int] = (), *, indirect: bool = False, turns: int = 1000
    ) -> bytes:
        """Add, notify, let the host's events happen until the buffer is used; gives what was written."""
        buffer = self.add(readable, writable, indirect=indirect)
        self.kick()
        for _ in range(turns):
            self.used()
            if buffer.written >= 0:
                return buffer.data
            self.driver.run(0.05)
        raise AssertionError(f"queue {self.index}: a buffer that the device never returned")


class SplitDriver(DriverQueue):
    """A split ring (virtio 1.2, 2.7)."""

    def layout(self) -> None:
        size = self.size
        self.descriptors = self.driver.allocate(16 * size, 16)
        self.driver_area = self.driver.allocate(6 + 2 * size, 2)
        self.device_area = self.driver.allocate(6 + 8 * size, 4)
        self.free = list(range(size))
        self.next = self.seen = self.kicked = 0
        self._chains: dict[int, list[int]] = {}

    def write_descriptor(self, index: int, address: int, length: int, flags: int, after: int) -> None:
        """One entry of the table."""
        self.memory.write(self.descriptors + 16 * index, pack("<QIHH", address, length, flags, after))

    def offer(self, head: int) -> None:
        """Put a head into the available ring, and move its index."""
        self.memory.write_uint(self.driver_area + 4 + 2 * (self.next % self.size), 2, head)
        self.next = (self.next + 1) & 0xFFFF
        self.memory.write_uint(self.driver_area + 2, 2, self.next)

    def expose(self, elements: list[tuple[int, int, int]]) -> int:
        indices = [self.free.pop(0) for _ in elements]
        for i, (address, length, flags) in enumerate(elements):
            last = i + 1 == len(elements)
            after = 0 if last else indices[i + 1]
            self.write_descriptor(indices[i], address, length, flags | (0 if last else ids.DESC_NEXT), after)
        self._chains[indices[0]] = indices
        self.offer(indices[0])
        return indices[0]

    def raw_table(self, descriptors: Sequence[tuple[int, int, int, int]]) -> bytes:
        """An indirect table of (address, length, flags, next), whatever they are."""
        return b"".join(pack("<QIHH", *descriptor) for descriptor in descriptors)

    def table(self, elements: list[tuple[int, int, int]]) -> bytes:
        last = len(elements) - 1
        return b"".join(
            pack("<QIHH", a, n, f | (ids.DESC_NEXT if i < last else 0), i + 1 if i < last else 0)
            for i, (a, n, f) in enumerate(elements)
        )

    def recycle(self, buffer: Buffer) -> None:
        self.free += self._chains.pop(buffer.head)

    def wants_kick(self) -> bool:
        old, self.kicked = self.kicked, self.next
        if self.driver.has(ids.EVENT_IDX):
            event = self.memory.read_uint(self.device_area + 4 + 8 * self.size, 2)
            return (self.next - event - 1) & 0xFFFF < (self.next - old) & 0xFFFF
        return not self.memory.read_uint(self.device_area, 2) & ids.USED_NO_NOTIFY

    def take_used(self) -> tuple[int, int] | None:
        if self.memory.read_uint(self.device_area + 2, 2) == self.seen:
            return None
        head, written = unpack("<II", self.memory.read(self.device_area + 4 + 8 * (self.seen % self.size), 8))
        self.seen = (self.seen + 1) & 0xFFFF
        if self.driver.has(ids.EVENT_IDX):
            self.interrupt_at(0)
        return head, written

    def interrupt_at(self, ahead: int) -> None:
        self.memory.write_uint(self.driver_area + 4 + 2 * self.size, 2, self.seen + ahead)

    def interrupts(self, wanted: bool) -> None:
        """Without EVENT_IDX: whether used buffers interrupt."""
        self.memory.write_uint(self.driver_area, 2, 0 if wanted else ids.AVAIL_NO_INTERRUPT)


class PackedDriver(DriverQueue):
    """A packed ring (virtio 1.2, 2.8)."""

    def layout(self) -> None:
        self.descriptors = self.driver.allocate(16 * self.size, 16)
        self.driver_area = self.driver.allocate(4, 4)
        self.device_area = self.driver.allocate(4, 4)
        self.next = self.seen = self.kicked = 0
        self.ids = list(range(self.size))

    def flags_of(self, position: int) -> int:
        """AVAIL and USED of an available descriptor at this position."""
        return ids.DESC_USED if position // self.size & 1 else ids.DESC_AVAIL

    def write_descriptor(self, position: int, address: int, length: int, ident: int, flags: int) -> None:
        """One entry of the ring; `position` counts from the queue's beginning."""
        self.memory.write(self.descriptors + 16 * (position % self.size), pack("<QIHH", address, length, ident, flags))

    def expose(self, elements: list[tuple[int, int, int]]) -> int:
        ident = self.ids.pop(0)
        for i in reversed(range(len(elements))):
            address, length, flags = elements[i]
            more = ids.DESC_NEXT if i + 1 < len(elements) else 0
            position = self.next + i
            self.write_descriptor(position, address, length, ident, flags | more | self.flags_of(position))
        self.next += len(elements)
        return ident

    def table(self, elements: list[tuple[int, int, int]]) -> bytes:
        return b"".join(pack("<QIHH", a, n, 0, f) for a, n, f in elements)

    def recycle(self, buffer: Buffer) -> None:
        self.ids.append(buffer.head)

    def wants_kick(self) -> bool:
        old, self.kicked = self.kicked, self.next
        event, flags = unpack("<HH", self.memory.read(self.device_area, 4))
        if flags == ids.EVENTS_DESC and self.driver.has(ids.EVENT_IDX):
            lap = self.next // self.size
            if event >> 15 == lap & 1:
                lap -= 1
            return bool(old <= lap * self.size + (event & 0x7FFF) < self.next)
        return bool(flags != ids.EVENTS_DISABLE)

    def take_used(self) -> tuple[int, int] | None:
        used = self.raw_used(0)
        if used is not None:
            self.seen += self.outstanding[used[0]].slots
            if self.driver.has(ids.EVENT_IDX):
                self.interrupt_at(0)
        return used

    def raw_used(self, slots: int) -> tuple[int, int] | None:
        """The next used (id, written), if there is one; the one after it is expected `slots` descriptors further."""
        _, written, ident, flags = unpack("<QIHH", self.memory.read(self.descriptors + 16 * (self.seen % self.size), 16))
        mask = ids.DESC_AVAIL | ids.DESC_USED
        if flags & mask != (0 if self.seen // self.size & 1 else mask):
            return None
        self.seen += slots
        return ident, written if flags & ids.DESC_WRITE else 0

    def interrupt_at(self, ahead: int) -> None:
        lap, index = divmod(self.seen + ahead, self.size)
        event = index | (0 if lap & 1 else 0x8000)
        self.memory.write(self.driver_area, pack("<HH", event, ids.EVENTS_DESC))

    def interrupts(self, wanted: bool) -> None:
        """Without EVENT_IDX: whether used buffers interrupt."""
        self.memory.write(self.driver_area, pack("<HH", 0, ids.EVENTS_ENABLE if wanted else ids.EVENTS_DISABLE))
