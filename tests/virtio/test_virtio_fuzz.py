"""Random bytes in rings, random accesses to registers: no exception, no wedge, and work that is bounded."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_driver import Upper, device_bench, mmio_bench

from pyhv.chipset.layout import VIRTIO_MMIO_SIZE
from pyhv.virtio import ids, mmio, packed, split
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.errors import VirtioError

SEEDS = st.integers(0, 1 << 64)


class Careless(VirtioDevice):
    """Reads and writes all that it is given, keeps some, and gives it back later or never."""

    device_id = 42
    queue_sizes = (8, 16)
    in_order = True

    def __init__(self, random):
        super().__init__(transport="mmio")
        self.random = random
        self.kept = []
        self.taken = 0

    def config(self):
        return b"configuration"

    def handle(self, queue):
        random = self.random
        for chain in queue.chains():
            self.taken += 1
            data = chain.read(size=5000)
            assert len(data) == min(chain.readable_size, 5000)
            assert sum(map(len, chain.readable_views())) == chain.readable_size
            assert sum(map(len, chain.writable_views())) == chain.writable_size
            what = random.randrange(6)
            if what == 0:
                self.kept.append((queue, chain))
                continue
            if what == 1 and random.randrange(4) == 0:
                queue.unpop(chain)
                break
            try:
                chain.write(data[: random.randrange(100)])
            except VirtioError:
                queue.push(chain)
                continue
            queue.push(chain, random.randrange(1 << 33))
            if self.kept and random.randrange(2):
                kept_in, chain = self.kept.pop(random.randrange(len(self.kept)))
                kept_in.push(chain, 1)
        queue.want_kicks(bool(random.randrange(8)))

    def deactivate(self):
        if self.random.randrange(2):
            self.kept.clear()


@pytest.fixture
def counted(monkeypatch):
    """Counts the descriptors that rings read."""
    count = [0]

    def counting(function):
        def call(*arguments):
            count[0] += 1
            assert count[0] < 100_000
            return function(*arguments)

        return call

    def counting_each(function):
        return lambda table: map(counting(lambda item: item), function(table))

    for module in (split, packed):
        monkeypatch.setattr(module, "_descriptor", counting(module._descriptor))
        monkeypatch.setattr(module, "_descriptors", counting_each(module._descriptors))
    return count


def settle(driver, turns=64):
    """Let what was postponed happen; a hostile ring may go on for ever, but only a bit at a time."""
    for _ in range(turns):
        if not driver.run():
            return


def still_works(driver, form):
    """After a reset the device is as good as new."""
    driver._free = 0x1_0000
    device = driver.device
    device.random = Random(0)
    device.handle = lambda queue: Upper.handle(device, queue)
    driver.start(packed=form)
    assert driver.queues[0].request([b"fine"], [4]) == b"FINE"


def scribble(random, driver, queue):
    """Some damage to the ring, from a bit to all of it, in values that are near what is right or not at all."""
    memory = driver.memory
    size = queue.size
    areas = [(queue.descriptors, 16 * size)]
    if hasattr(queue, "free"):
        areas += [(queue.driver_area, 6 + 2 * size), (queue.device_area, 6 + 8 * size)]
    else:
        areas += [(queue.driver_area, 4), (queue.device_area, 4)]
    for _ in range(random.randrange(1, 12)):
        area, length = random.choice(areas)
        what = random.randrange(5)
        if what == 0:
            memory.write(area + random.randrange(length), random.randbytes(1))
        elif what == 1:
            memory.write(area, random.randbytes(length))
        elif what == 2:
            memory.write_uint(queue.driver_area + 2, 2, queue.next + random.randrange(-3, size + 3))
        elif what == 3:
            descriptor(random, memory, queue, size)
        else:
            memory.write_uint(queue.driver_area + 4 + 2 * random.randrange(size), 2, random.randrange(size + 1))


def descriptor(random, memory, queue, size):
    """One descriptor of plausible shape, at a random place of the ring or in a table."""
    address = random.choice([0x1000, 0x2000, queue.descriptors, random.randrange(1 << 20), random.randrange(1 << 64)])
    length = random.choice([0, 1, 16, 16 * size, 4096, random.randrange(1 << 32)])
    flags = random.choice([0, 1, 2, 3, 4, 5, random.randrange(8)]) | random.choice([0, 0x80, 0x8000, 0x8080])
    last = random.randrange(size + 1)
    fields = (last, flags) if random.randrange(2) else (flags, last)
    at = random.choice([queue.descriptors, 0x1000, 0x2000]) + 16 * random.randrange(size)
    memory.write(at, b"".join(v.to_bytes(n, "little") for v, n in zip((address, length, *fields), (8, 4, 2, 2), strict=True)))


@given(seed=SEEDS, form=st.booleans(), events=st.booleans())
@settings(max_examples=150)
def test_random_bytes_in_rings(seed, form, events):
    random = Random(seed)
    device = Careless(random)
    driver = device_bench(device, packed=form, without=() if events else (ids.EVENT_IDX,), size=8)
    for _ in range(12):
        queue = random.choice(driver.queues)
        if queue.room > 3 and random.randrange(3):
            queue.add([random.randbytes(random.randrange(1, 50))], [20] * random.randrange(3), indirect=form)
        if random.randrange(2):
            scribble(random, driver, queue)
        driver.link.notify(queue.index)
        settle(driver, 4)
        if not device.active:
            assert driver.transport.failure
            driver._free = 0x1_0000
            driver.start(packed=form, size=8)
    settle(driver)
    still_works(driver, form)


@pytest.mark.parametrize("form", [False, True], ids=["split", "packed"])
def test_work_is_bounded(form, counted):
    """All heads lead into one loop, or one long table: each costs a queue's length at most."""
    driver = device_bench(Upper(), packed=form)
    queue = driver.queues[0]
    size, memory = queue.size, driver.memory
    for i in range(size):
        queue.write_descriptor(i, 0x1000, 1, *((ids.DESC_NEXT, (i + 1) % size) if not form else (i, queue.flags_of(i) | 1)))
    if not form:
        memory.write(queue.driver_area + 4, b"".join(i.to_bytes(2, "little") for i in range(size)))
        memory.write_uint(queue.driver_area + 2, 2, size)
    driver.link.notify(0)
    assert counted[0] <= size * (size + 1)
    settle(driver)
    assert counted[0] <= 2 * size * (size + 1)


@given(seed=SEEDS)
@settings(max_examples=150)
def test_random_accesses_to_registers(seed):
    """Anything, anywhere in the page, on a device in any state; then the driver goes the right way."""
    random = Random(seed)
    device = Careless(random)
    driver = mmio_bench(device, start=False)
    if random.randrange(2):
        driver.start(packed=bool(random.randrange(2)))
    link = driver.link
    registers = [value for name, value in vars(mmio).items() if name.isupper() and isinstance(value, int) and value < 0x100]
    values = [0, 1, 2, 3, 7, 8, 11, 15, 16, 64, 128, 0x1000, 0x1_0000, 0xFEB0_0000, 0xFFFF_FFFF]
    for _ in range(80):
        register = random.choice(registers) if random.randrange(8) else random.randrange(0x1000)
        size = 4 if random.randrange(8) else random.choice([1, 2, 8])
        if random.randrange(4):
            value = random.choice(values) if random.randrange(8) else random.randrange(1 << 32)
            link.put(register, value, size)
        else:
            assert 0 <= link.get(register, size) < 1 << 8 * size
        if random.randrange(4) == 0:
            settle(driver, 1)
        status = link.status()
        assert device.active == (status & (ids.DRIVER_OK | ids.FAILED | ids.DEVICE_NEEDS_RESET) == ids.DRIVER_OK)
    assert driver.bench.lines[16].level == bool(link.get(mmio.INTERRUPT_STATUS))
    still_works(driver, bool(random.randrange(2)))
    assert set(driver.bench.mmio.unclaimed) <= {link.address + VIRTIO_MMIO_SIZE, -1}
