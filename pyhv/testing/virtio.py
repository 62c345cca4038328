"""A virtio driver to test devices with: it lays out rings in guest memory, adds buffers, notifies, and reads what was used.

    bench = device_bench(Upper())
    assert bench.queues[0].request([b"abc"], [16]) == b"ABC"

`device_bench` joins device and driver directly; `mmio_bench` goes through the registers of virtio-mmio.
"""

from __future__ import annotations

from struct import pack, unpack

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.chipset.layout import VIRTIO_MMIO_BASE
from pyhv.testing.bench import DeviceBench
from pyhv.virtio import ids, mmio
from pyhv.virtio.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.device import Platform
    from pyhv.virtio.device import VirtioDevice
    from pyhv.virtio.queue import VirtQueue

RINGS_AT = 0x1_0000
"""Guest physical address from which rings, tables and buffers are laid out."""


class Link(Protocol):
    """How the driver reaches the device's registers."""

    def features(self) -> int: ...

    def set_features(self, features: int) -> None: ...

    def status(self) -> int: ...

    def set_status(self, value: int) -> None: ...

    def queue_limit(self, index: int) -> int:
        """The largest size of a queue; 0 when there is none."""
        ...

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        """Tell where a queue is, and enable it."""
        ...

    def notify(self, index: int) -> None: ...

    def read_config(self, offset: int, size: int) -> bytes: ...

    def write_config(self, offset: int, data: bytes) -> None: ...


class DirectTransport(Transport):
    """A transport without registers: it counts interrupts, by queue and for the configuration."""

    def __init__(self, device: VirtioDevice, platform: Platform) -> None:
        super().__init__(device, platform)
        self.interrupts = [0] * len(self.queues)
        self.config_interrupts = 0

    def interrupt_queue(self, queue: VirtQueue) -> None:
        self.interrupts[queue.index] += 1

    def interrupt_config(self) -> None:
        self.config_interrupts += 1


class DirectLink:
    """The driver's side of a DirectTransport, or of any other, past its registers."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def features(self) -> int:
        return self.transport.offered

    def set_features(self, features: int) -> None:
        for select in range(4):
            self.transport.set_driver_features(select, features >> (32 * select) & 0xFFFF_FFFF)

    def status(self) -> int:
        return self.transport.status

    def set_status(self, value: int) -> None:
        self.transport.set_status(value)

    def queue_limit(self, index: int) -> int:
        queues = self.transport.queues
        return queues[index].max_size if index < len(queues) else 0

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        queue, everything = self.transport.queues[index], (1 << 64) - 1
        self.transport.set_queue_size(queue, size)
        self.transport.set_queue_area(queue, "descriptors", descriptors, everything)
        self.transport.set_queue_area(queue, "driver_area", driver_area, everything)
        self.transport.set_queue_area(queue, "device_area", device_area, everything)
        self.transport.enable_queue(queue)

    def notify(self, index: int) -> None:
        self.transport.notify(index)

    def read_config(self, offset: int, size: int) -> bytes:
        return self.transport.read_config(offset, size).to_bytes(size, "little")

    def write_config(self, offset: int, data: bytes) -> None:
        self.transport.write_config(offset, len(data), int.from_bytes(data, "little"))


class MmioLink:
    """The driver's side of virtio-mmio, by loads and stores on the bus."""

    def __init__(self, bench: DeviceBench, address: int = VIRTIO_MMIO_BASE) -> None:
        self.bench = bench
        self.address = address

    def get(self, register: int, size: int = 4) -> int:
        """Load a register."""
        return self.bench.mmio_read(self.address + register, size)

    def put(self, register: int, value: int, size: int = 4) -> None:
        """Store to a register."""
        self.bench.mmio_write(self.address + register, size, value)

    def features(self) -> int:
        found = 0
        for select in range(2):
            self.put(mmio.DEVICE_FEATURES_SEL, select)
            found |= self.get(mmio.DEVICE_FEATURES) << 32 * select
        return found

    def set_features(self, features: int) -> None:
        for select in range(2):
            self.put(mmio.DRIVER_FEATURES_SEL, select)
            self.put(mmio.DRIVER_FEATURES, features >> 32 * select & 0xFFFF_FFFF)

    def status(self) -> int:
        return self.get(mmio.STATUS)

    def set_status(self, value: int) -> None:
        self.put(mmio.STATUS, value)

    def queue_limit(self, index: int) -> int:
        self.put(mmio.QUEUE_SEL, index)
        return self.get(mmio.QUEUE_NUM_MAX)

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        self.put(mmio.QUEUE_SEL, index)
        self.put(mmio.QUEUE_NUM, size)
        for low, address in (
            (mmio.QUEUE_DESC_LOW, descriptors),
            (mmio.QUEUE_DRIVER_LOW, driver_area),
            (mmio.QUEUE_DEVICE_LOW, device_area),
        ):
            self.put(low, address & 0xFFFF_FFFF)
            self.put(low + 4, address >> 32)
        self.put(mmio.QUEUE_READY, 1)

    def notify(self, index: int) -> None:
        self.put(mmio.QUEUE_NOTIFY, index)

    def read_config(self, offset: int, size: int) -> bytes:
        return bytes(self.get(mmio.CONFIG + offset + i, 1) for i in range(size))

    def write_config(self, offset: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            self.put(mmio.CONFIG + offset + i, byte, 1)


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


class VirtioDriver:
    """A driver and its machine: `bench` is the DeviceBench, `device` the device, `queues` the driver's queues.

    `interrupts[i]` counts the interrupts of queue i, `config_interrupts` those of the configuration (direct links only).
    """

    def __init__(self, bench: DeviceBench, device: VirtioDevice, link: Link) -> None:
        self.bench = bench
        self.device = device
        self.link = link
        self.memory = bench.memory
        self.negotiated = 0
        self.queues: list[SplitDriver | PackedDriver] = []
        self._free = RINGS_AT

    def start(self, *, features: int | None = None, without: Sequence[int] = (), packed: bool = False, size: int = 0) -> None:
        """Reset the device, take its features (`features`, or all that it offers but for the bit numbers in `without`; a
        packed ring if so asked), set up every queue with `size` descriptors (0: as many as it takes), and set DRIVER_OK."""
        link = self.link
        link.set_status(0)
        link.set_status(ids.ACKNOWLEDGE)
        link.set_status(ids.ACKNOWLEDGE | ids.DRIVER)
        if features is None:
            features = link.features() & ~sum(1 << bit for bit in without)
        self.negotiated = features & ~(1 << ids.RING_PACKED) | packed << ids.RING_PACKED
        link.set_features(self.negotiated)
        status = ids.ACKNOWLEDGE | ids.DRIVER | ids.FEATURES_OK
        link.set_status(status)
        assert link.status() == status, f"the device refused features {self.negotiated:#x}"
        kind = PackedDriver if packed else SplitDriver
        self.queues = []
        while limit := link.queue_limit(len(self.queues)):
            self.queues.append(kind(self, len(self.queues), min(size, limit) if size else limit))
        link.set_status(status | ids.DRIVER_OK)

    def has(self, bit: int) -> bool:
        """Whether a feature was negotiated."""
        return bool(self.negotiated >> bit & 1)

    @property
    def transport(self) -> Transport:
        """The device's transport."""
        return self.device.link

    @property
    def interrupts(self) -> list[int]:
        """Interrupts by queue."""
        transport = self.transport
        assert isinstance(transport, DirectTransport)
        return transport.interrupts

    @property
    def config_interrupts(self) -> int:
        """Interrupts of the configuration."""
        transport = self.transport
        assert isinstance(transport, DirectTransport)
        return transport.config_interrupts

    def run(self, timeout: float = 0.0) -> bool:
        """Let host events happen."""
        return self.bench.events.run(timeout)

    def allocate(self, size: int, alignment: int = 1) -> int:
        """The address of zeroed guest memory. When it runs out and nothing is outstanding, buffers begin anew."""
        address = (self._free + alignment - 1) & -alignment
        if address + size > self.memory.regions[0].end:
            assert not any(queue.outstanding for queue in self.queues), "the bench's memory is full"
            address = (self._after_rings() + alignment - 1) & -alignment
        self._free = address + size
        self.memory.fill(address, size)
        return address

    def _after_rings(self) -> int:
        return max(queue.device_area + 8 * queue.size + 6 for queue in self.queues)

    def place(self, data: bytes, alignment: int = 1) -> int:
        """The address of guest memory that holds these bytes."""
        address = self.allocate(len(data), alignment)
        self.memory.write(address, data)
        return address


def device_bench(device: VirtioDevice, *, memory: int = 1 << 20, start: bool = True, **options: object) -> VirtioDriver:
    """A device joined to a driver without a transport's registers; `options` are those of `VirtioDriver.start`."""
    bench = DeviceBench(memory=memory)
    transport = DirectTransport(device, bench.platform)
    device.connect(transport)
    driver = VirtioDriver(bench, device, DirectLink(transport))
    if start:
        driver.start(**options)  # type: ignore[arg-type]
    return driver


def mmio_bench(device: VirtioDevice, *, memory: int = 1 << 20, start: bool = True, **options: object) -> VirtioDriver:
    """A device with transport="mmio" and a driver that uses its registers."""
    bench = DeviceBench(device, memory=memory)
    transport = device.link
    assert isinstance(transport, mmio.MmioTransport)
    driver = VirtioDriver(bench, device, MmioLink(bench, transport.address))
    if start:
        driver.start(**options)  # type: ignore[arg-type]
    return driver
