"""What holds for both ring formats: a device and the model driver exchange buffers, in any order and shape."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_driver import Holder, Upper, device_bench, mmio_bench

from pyhv.errors import GuestMemoryError
from pyhv.memory import MemoryRegion
from pyhv.virtio import ids
from pyhv.virtio.errors import VirtioError

FORMATS = pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])


@FORMATS
@pytest.mark.parametrize("without", [(), (ids.EVENT_IDX,)], ids=["event_idx", "flags"])
@pytest.mark.parametrize("join", [device_bench, mmio_bench])
def test_requests(packed, without, join):
    driver = join(Upper(transport="mmio"), packed=packed, without=without)
    queue = driver.queues[0]
    for n in range(300):
        text = b"abc%d" % n
        assert queue.request([text[:2], text[2:]], [3, 20], indirect=n % 3 == 1) == text.upper()
    assert driver.transport.violations == 0 and driver.transport.queues[0].malformed == 0


SIZES = st.lists(st.integers(1, 40), max_size=3)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), SIZES, SIZES, st.booleans()),
        st.tuples(st.just("complete"), st.integers(0, 7)),
        st.tuples(st.sampled_from(["kick", "flush", "collect", "unpop", "again"])),
    ),
    max_size=60,
)


class Exchange:
    """A driver that follows the rules and sleeps until it is interrupted, and a device that takes its time."""

    def __init__(self, packed, size, without, in_order, start):
        self.device = Holder()
        self.device.in_order = in_order
        self.driver = device_bench(self.device, packed=packed, size=size, without=without)
        self.queue = self.driver.queues[0]
        if not packed:
            begin_at(self.device.queues[0], self.queue, start)
        self.added = []
        self.collected = []
        self.answers = {}
        self.heard = 0
        self.given_back = False

    def add(self, readable, writable, indirect):
        count = len(readable) + len(writable)
        if not count or self.queue.room < (1 if indirect else count) or (indirect and count > self.device.queue_sizes[0]):
            return
        n = len(self.added)
        texts = [bytes((n + i) & 0xFF for i in range(size)) for size in readable]
        buffer = self.queue.add(texts, writable, indirect=indirect)
        buffer.texts = b"".join(texts)
        self.added.append(buffer)
        self.kick()
        if not self.given_back:
            assert len(self.device.held) + len(self.answers) == len(self.added)

    def kick(self):
        self.queue.kick()

    def complete(self, which):
        held = self.device.held
        if not held:
            return
        chain = held.pop(which % len(held))
        buffer = next(b for b in self.added if b.written < 0 and b.head == chain.head and b not in self.collected)
        assert chain.read() == buffer.texts and chain.readable_size == len(buffer.texts)
        answer = bytes((which * 7 + i) & 0xFF for i in range(min(chain.writable_size, 3 + which * 11)))
        chain.write(answer)
        self.answers[id(buffer)] = answer
        self.device.queues[0].push(chain, len(answer))

    def flush(self):
        self.device.queues[0].flush()
        if self.waiting():
            assert self.driver.interrupts[0] > self.heard

    def waiting(self):
        """Whether something was published that the driver did not collect."""
        queue = self.queue
        if hasattr(queue, "free"):
            return self.driver.memory.read_uint(queue.device_area + 2, 2) != queue.seen
        flags = self.driver.memory.read_uint(queue.descriptors + 16 * (queue.seen % queue.size) + 14, 2)
        mask = ids.DESC_AVAIL | ids.DESC_USED
        return flags & mask == (0 if queue.seen // queue.size & 1 else mask)

    def collect(self):
        self.heard = self.driver.interrupts[0]
        for buffer in self.queue.used():
            self.collected.append(buffer)
            assert buffer.written == len(self.answers[id(buffer)])
            assert buffer.data == self.answers[id(buffer)]

    def unpop(self):
        if self.device.held:
            chain = self.device.held[-1]
            self.device.queues[0].unpop(chain)
            if chain.ring is None:
                self.device.held.pop()
                self.given_back = True

    def again(self):
        self.given_back = False
        self.driver.transport.handle(self.device.queues[0])

    def finish(self):
        self.again()
        while self.device.held:
            self.complete(0)
        self.flush()
        self.collect()


def begin_at(queue, driver_queue, start):
    """Let a split ring's indices begin near their end."""
    queue.ring.next = queue.ring.seen = queue.ring.used = start
    driver_queue.next = driver_queue.seen = driver_queue.kicked = start
    driver_queue.memory.write_uint(driver_queue.driver_area + 2, 2, start)
    driver_queue.memory.write_uint(driver_queue.device_area + 2, 2, start)
    driver_queue.memory.write_uint(driver_queue.device_area + 4 + 8 * driver_queue.size, 2, start)
    driver_queue.interrupt_at(0)


@given(
    packed=st.booleans(),
    size=st.sampled_from([1, 2, 3, 4, 7, 8]),
    events=st.booleans(),
    in_order=st.booleans(),
    start=st.sampled_from([0, 0xFFF8, 0xFFFF]),
    operations=OPERATIONS,
)
@settings(max_examples=150)
def test_any_exchange(packed, size, events, in_order, start, operations):
    if not packed:
        size = 1 << size.bit_length() - 1
    exchange = Exchange(packed, size, () if events else (ids.EVENT_IDX,), in_order, start)
    for name, *arguments in operations:
        getattr(exchange, name)(*arguments)
    exchange.finish()
    assert sorted(map(id, exchange.collected)) == sorted(map(id, exchange.added))
    if in_order:
        assert exchange.collected == exchange.added
    assert exchange.driver.transport.violations == 0


@FORMATS
def test_an_interrupt_only_where_the_driver_asked_for_one(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    driver.queues[0].interrupt_at(5)
    for _ in range(8):
        driver.queues[0].add([b"x"])
    driver.link.notify(0)
    seen = []
    for chain in device.held:
        device.queues[0].push(chain)
        device.queues[0].flush()
        seen.append(driver.interrupts[0])
    assert seen == [0, 0, 0, 0, 0, 1, 1, 1]


@FORMATS
def test_flags_suppress_interrupts(packed):
    driver = device_bench(Upper(), packed=packed, without=(ids.EVENT_IDX,))
    queue = driver.queues[0]
    queue.interrupts(False)
    queue.request([b"x"], [1])
    assert driver.interrupts == [0]
    queue.interrupts(True)
    queue.request([b"x"], [1])
    assert driver.interrupts == [1]


@FORMATS
@pytest.mark.parametrize("events", [False, True])
def test_kicks_that_the_device_does_not_want(packed, events):
    device = Holder()
    driver = device_bench(device, packed=packed, without=() if events else (ids.EVENT_IDX,))
    queue, ring = driver.queues[0], device.queues[0]
    queue.add([b"0"])
    assert queue.kick() and len(device.held) == 1
    ring.want_kicks(False)
    for _ in range(3):
        queue.add([b"1"])
        queue.kick()
    assert queue.kicks <= 2 if events else queue.kicks == 1
    while (chain := ring.pop()) is not None:
        device.held.append(chain)
    assert len(device.held) == 4
    ring.want_kicks(True)
    assert ring.pop() is None
    queue.add([b"2"])
    assert queue.kick() and len(device.held) == 5


@FORMATS
def test_a_chain_given_back_is_found_again(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    queue = device.queues[0]
    driver.queues[0].add([b"first"])
    driver.queues[0].add([b"second"])
    assert queue.available() >= 1
    one, two = queue.pop(), queue.pop()
    queue.unpop(one)  # not the last: ignored
    queue.unpop(two)
    queue.unpop(two)  # no more the device's
    queue.push(two, 0)
    assert queue.pop().read() == b"second"
    assert queue.pop() is None and queue.available() == 0


@FORMATS
def test_what_is_pushed_is_seen_after_flush(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    buffers = [driver.queues[0].add([], [4]) for _ in range(3)]
    driver.queues[0].kick()
    for chain in device.held:
        device.queues[0].push(chain, 2)
    assert driver.queues[0].used() == [] and driver.interrupts == [0]
    device.queues[0].flush()
    device.queues[0].flush()
    assert driver.queues[0].used() == buffers and driver.interrupts == [1]


@FORMATS
def test_no_more_is_used_than_there_is(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    buffer = driver.queues[0].add([], [4])
    driver.queues[0].kick()
    device.queues[0].push(device.held[0], 1 << 40)
    device.queues[0].push(device.held[0], 1)
    device.queues[0].flush()
    assert driver.queues[0].used() == [buffer] and buffer.written == 4


@FORMATS
def test_a_driver_that_never_stops_is_interrupted(packed):
    """One call of a handler takes no more chains than the queue holds; others get their turn."""

    class Endless(Upper):
        queue_sizes = (4,)
        taken = handled = 0

        def handle(self, queue):
            self.handled += 1
            for chain in queue.chains():
                self.taken += 1
                queue.push(chain, 0)
                queue.flush()
                driver.queues[0].used()
                driver.queues[0].add([b"again"])

    device = Endless()
    driver = device_bench(device, packed=packed)
    driver.queues[0].add([b"once"])
    driver.queues[0].kick()
    assert device.taken == 4 and len(driver.bench.events.calls) == 1
    driver.link.notify(0)
    assert device.taken == 8 and len(driver.bench.events.calls) == 1
    assert driver.run() and device.taken == 12 and device.handled == 3
    driver.link.set_status(0)
    assert driver.run() and device.handled == 3 and not driver.run()


@FORMATS
def test_chains_of_before_a_reset_are_ignored(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    driver.queues[0].add([], [4])
    driver.queues[0].kick()
    old = device.held[0]
    driver.start(packed=packed)
    assert device.resets == 1
    buffer = driver.queues[0].add([], [4])
    driver.queues[0].kick()
    queue = device.queues[0]
    queue.push(old, 4)
    queue.unpop(old)
    queue.flush()
    assert driver.queues[0].used() == []
    queue.push(device.held[-1], 3)
    queue.flush()
    assert driver.queues[0].used() == [buffer] and buffer.written == 3


@FORMATS
def test_a_queue_without_a_ring_is_empty(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    driver.link.set_status(0)
    queue = device.queues[0]
    assert not queue.ready and queue.pop() is None and list(queue.chains()) == [] and queue.available() == 0
    queue.flush()
    queue.want_kicks(False)


@FORMATS
def test_memory_that_goes_away(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    driver.queues[0].add([b"data"], [4])
    driver.queues[0].kick()
    memory = driver.memory
    region = memory.regions[0]
    memory.remove(region)
    memory.add(region)
    driver.queues[0].add([b"data"], [4])
    driver.queues[0].kick()
    assert len(device.held) == 2
    memory.remove(region)
    device.queues[0].push(device.held[0], 1)
    device.queues[0].flush()
    assert "not in memory any more" in driver.transport.failure
    assert not device.active and driver.link.status() & ids.DEVICE_NEEDS_RESET


@FORMATS
def test_a_region_that_goes_away_under_the_buffers(packed):
    device = Holder()
    driver = device_bench(device, packed=packed)
    queue, far = driver.queues[0], MemoryRegion(1 << 32, memoryview(bytearray(0x1000)))
    driver.memory.add(far)
    for taken in (1, 2):
        queue.expose([(1 << 32, 8, ids.DESC_WRITE)])
        driver.link.notify(0)
        assert len(device.held) == taken
    driver.memory.remove(far)
    queue.expose([(1 << 32, 8, ids.DESC_WRITE)])
    driver.link.notify(0)
    assert len(device.held) == 2 and device.queues[0].malformed == 1 and device.active
    with pytest.raises(GuestMemoryError):
        device.held[0].write(b"x")


@FORMATS
def test_in_order(packed):
    device = Holder()
    device.in_order = True
    driver = device_bench(device, packed=packed)
    queue = device.queues[0]
    buffers = [driver.queues[0].add([], [4]) for _ in range(4)]
    driver.queues[0].expose([(1 << 40, 1, 0)])
    driver.link.notify(0)
    assert queue.malformed == 1
    seen = []
    for which in (2, 1, 0, 3):
        queue.push(device.held[which], which)
        queue.flush()
        seen.append([buffer.written for buffer in driver.queues[0].used()] if which != 3 else [])
    assert seen == [[], [], [0, 1, 2], []]
    if packed:
        assert driver.queues[0].take_used() == (buffers[3].head, 3)
        assert driver.queues[0].raw_used(1) == (4, 0)
    else:
        assert [driver.queues[0].take_used() for _ in range(3)] == [(buffers[3].head, 3), (4, 0), None]


@FORMATS
def test_observers_hear_of_every_write(packed):
    """Dirty tracking and the simulator's code cache stand on it: the bytes that differ are those that were announced."""
    device = Upper()
    driver = device_bench(device, packed=packed, size=8, memory=0x20000)
    memory, queue = driver.memory, driver.queues[0]
    told = set()
    memory.observe_writes(lambda address, length: told.update(range(address, address + length)))
    for n in range(23):
        buffers = [queue.add([bytes(1 + n % 7)], [4, 4]) for _ in range(1 + n % 2)]
        before = memory.read(0, 0x20000)
        told.clear()
        driver.link.notify(0)
        after = memory.read(0, 0x20000)
        assert {i for i in range(0x20000) if before[i] != after[i]} <= told
        assert len(told) < 100
        assert queue.used() == buffers


@pytest.mark.parametrize("texts", [[b"ab", b"cdef", b"g"], [b"abcdefg"]])
@pytest.mark.parametrize("spaces", [[2, 3, 4], [8, 1], [9]])
def test_parts_of_a_chain(texts, spaces):
    device = Holder()
    driver = device_bench(device)
    buffer = driver.queues[0].add(texts, spaces)
    driver.queues[0].kick()
    chain = device.held[0]
    assert (chain.readable_size, chain.writable_size) == (7, 9)
    for offset in range(9):
        for size in (None, *range(9)):
            end = None if size is None else offset + size
            assert chain.read(offset, size) == b"abcdefg"[offset:end]
            assert sum(map(len, chain.readable_views(offset, size))) == len(b"abcdefg"[offset:end])
    for offset in range(10):
        for size in range(10 - offset):
            chain.write(bytes(9))
            chain.write(b"XYZXYZXYZ"[:size], offset)
            assert buffer.space == bytes(offset) + b"XYZXYZXYZ"[:size] + bytes(9 - offset - size)
    with pytest.raises(VirtioError, match="do not fit"):
        chain.write(b"xx", 8)
    assert sum(len(view) for view in chain.writable_views(1, 5)) == 5


def test_too_much_to_read_at_once():
    """The same megabyte a hundred times."""
    device = Holder()
    driver = device_bench(device, packed=True)
    device.queues[0].ring.longest = 100
    address = driver.place(driver.queues[0].table([(0, 1 << 20, 0)] * 100), 16)
    driver.queues[0].expose([(address, 1600, ids.DESC_INDIRECT)])
    driver.queues[0].kick()
    chain = device.held[0]
    assert chain.readable_size == 100 << 20 and len(chain.read(size=5000)) == 5000
    with pytest.raises(VirtioError, match="104857600 bytes to read at once"):
        chain.read()
