"""A split ring whose driver breaks the rules: the chain comes back unused, or the device fails; nothing else happens."""

import pytest
from virtio_driver import Holder, device_bench, raw_chain

from pyhv.memory import MemoryRegion
from pyhv.virtio import ids

N, W, IND = ids.DESC_NEXT, ids.DESC_WRITE, ids.DESC_INDIRECT
ROM = 0x80_0000
END = 1 << 20


@pytest.fixture
def device():
    return Holder()


@pytest.fixture(params=["at first", "later"])
def driver(device, request):
    bench = device_bench(device, size=8)
    bench.memory.add(MemoryRegion(ROM, memoryview(bytearray(0x1000)), name="rom", readonly=True))
    if request.param == "later":  # the ring has met RAM
        ring = device.queues[0].ring
        assert ring.placed() and ring.admit(0x1000, 1, 0) == (0, END)
    return bench


def refused(driver, device, *descriptors, head=0):
    """Offer these descriptors, and see that the chain comes back with length 0 and that the next one works."""
    queue = driver.queues[0]
    raw_chain(queue, *descriptors, head=head)
    driver.link.notify(0)
    assert device.held == []
    assert queue.take_used() == (head, 0)
    assert device.queues[0].malformed == 1 and driver.interrupts == [1]
    assert device.active and not driver.transport.failure
    raw_chain(queue, (0x1000, 4, 0, 0))
    driver.link.notify(0)
    assert len(device.held) == 1


BAD = {
    "a loop of one": [(0x1000, 1, N, 0)],
    "a loop of two": [(0x1000, 1, N, 1), (0x1000, 1, N, 0)],
    "next outside the table": [(0x1000, 1, N, 8)],
    "next far outside": [(0x1000, 1, N, 0xFFFF)],
    "no memory": [(END, 1, 0, 0)],
    "past the end": [(END - 1, 2, 0, 0)],
    "past the end, by its length": [(0, 0xFFFF_FFFF, W, 0)],
    "overflow": [((1 << 64) - 1, 0xFFFF_FFFF, W, 0)],
    "overflow to the beginning": [((1 << 64) - 16, 0x1000, 0, 0)],
    "writing to ROM": [(ROM, 4, W, 0)],
    "into ROM's end": [(ROM + 0xFFF, 2, 0, 0)],
    "readable after writable": [(0x1000, 1, W | N, 1), (0x1000, 1, 0, 0)],
    "readable after an empty writable": [(0x1000, 0, W | N, 1), (0x1000, 1, 0, 0)],
    "indirect and next": [(0x1000, 16, IND | N, 1), (0x1000, 1, 0, 0)],
    "an empty table": [(0x1000, 0, IND, 0)],
    "a table of half a descriptor": [(0x1000, 24, IND, 0)],
    "a table outside memory": [(END, 16, IND, 0)],
    "a table past the end": [(END - 16, 32, IND, 0)],
    "a table of 4 GiB": [(0, 0xFFFF_FFF0, IND, 0)],
    "a table at the end of the address space": [((1 << 64) - 16, 16, IND, 0)],
}


@pytest.mark.parametrize("descriptors", BAD.values(), ids=BAD)
def test_a_malformed_chain_is_returned(driver, device, descriptors):
    refused(driver, device, *descriptors)


TABLES = {
    "nested": [(0x2000, 16, IND, 0)],
    "nested later": [(0x1000, 1, N, 1), (0x2000, 16, IND, 0)],
    "nested and next": [(0x1000, 1, N | IND, 1), (0x2000, 16, 0, 0)],
    "a loop": [(0x1000, 1, N, 0)],
    "a loop later": [(0x1000, 1, N, 1), (0x1000, 1, N, 1)],
    "next outside": [(0x1000, 1, N, 2), (0x1000, 1, 0, 0)],
    "one after the last": [(0x1000, 1, N, 1)],
    "longer than the queue": [(0x1000, 1, N if i < 8 else 0, i + 1) for i in range(9)],
    "no memory": [(0x1000, 1, N, 1), (END, 1, 0, 0)],
    "writing to ROM": [(ROM, 1, W, 0)],
    "readable after writable": [(0x1000, 1, W | N, 1), (0x1000, 1, 0, 0)],
    "readable after writable, out of order": [(0x1000, 1, W | N, 2), (0, 0, 0, 0), (0x1000, 1, 0, 0)],
}


@pytest.mark.parametrize("direct", [0, 1], ids=["alone", "after a direct one"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_malformed_table_is_returned(driver, device, table, direct):
    queue = driver.queues[0]
    address = driver.place(queue.raw_table(table), 16)
    refused(driver, device, *[(0x3000, 1, N, i + 1) for i in range(direct)], (address, 16 * len(table), IND, 0))


def test_a_chain_of_4_gib_is_returned(driver, device):
    driver.memory.add(MemoryRegion(1 << 32, memoryview(bytearray(1)), name="tail"))
    half = END // 2
    table = [(0, half, N, i + 1) for i in range(8191)] + [(0, half, 0, 0)]
    device.queues[0].ring.longest = 8192
    address = driver.place(driver.queues[0].raw_table(table), 16)
    refused(driver, device, (address, 16 * len(table), IND, 0))


def test_indirect_without_the_feature(device):
    driver = device_bench(device, without=(ids.INDIRECT_DESC,))
    address = driver.place(driver.queues[0].raw_table([(0x1000, 1, 0, 0)]), 16)
    refused(driver, device, (address, 16, IND, 0))


def test_what_is_unusual_is_served(driver, device):
    """WRITE beside INDIRECT is ignored (2.7.5.3.2), direct elements may precede a table, a table need not be in sequence."""
    driver.memory.write(0x1000, b"abcd")
    queue = driver.queues[0]
    table = [(0x1001, 1, N, 3), (0, 0, 0, 0), (0x1100, 5, W, 0), (0x1002, 2, N, 2)]
    address = driver.place(queue.raw_table(table), 16)
    raw_chain(queue, (0x1000, 1, N, 1), (address, 64, IND | W, 7))
    raw_chain(queue, (address, 64, IND | W, 7), head=2)
    raw_chain(queue, (0x1000, 1, N, 4), (0x1000, 0, N, 5), (ROM, 4, 0, 0), head=3)
    driver.link.notify(0)
    assert [chain.read() for chain in device.held] == [b"abcd", b"bcd", b"a" + bytes(4)]
    assert [chain.writable_size for chain in device.held] == [5, 5, 0]


def test_a_chain_as_long_as_the_queue(driver, device):
    queue = driver.queues[0]
    raw_chain(queue, *[(0x1000, 1, N, i + 1) for i in range(7)], (0x1000, 1, 0, 0))
    table = [(0x1000, 1, N, i + 1) for i in range(7)] + [(0x1000, 1, 0, 0)]
    address = driver.place(queue.raw_table(table), 16)
    driver.link.notify(0)
    raw_chain(queue, (address, 128, IND, 0))
    driver.link.notify(0)
    assert [chain.readable_size for chain in device.held] == [8, 8]


def test_a_queue_full_of_malformed_chains(driver, device):
    queue = driver.queues[0]
    for head in range(8):
        raw_chain(queue, (END, 1, 0, 0), head=head)
    raw = driver.interrupts[0]
    driver.link.notify(0)
    while driver.run():
        pass
    assert [queue.take_used() for _ in range(9)] == [(head, 0) for head in range(8)] + [None]
    assert driver.interrupts[0] > raw and device.active


def fails(driver, device, why):
    """See that the device needs a reset, that nothing wakes it, and that a reset does."""
    driver.link.notify(0)
    assert why in driver.transport.failure
    assert driver.link.status() & ids.DEVICE_NEEDS_RESET and driver.config_interrupts == 1
    assert not device.active and not device.queues[0].ready
    held = len(device.held)
    driver.link.notify(0)
    driver.link.set_status(0xFF)
    driver.run()
    assert len(device.held) == held and not device.active and driver.config_interrupts == 1
    driver.start()
    assert driver.queues[0].add([b"x"]) and driver.queues[0].kick() and device.held[-1].read() == b"x"


@pytest.mark.parametrize("jump", [9, 0x7FFF, 0x8000, 0xFFFF])
def test_the_available_index_jumps(driver, device, jump):
    driver.memory.write_uint(driver.queues[0].driver_area + 2, 2, jump)
    fails(driver, device, "available index")


def test_the_available_index_goes_back(driver, device):
    raw_chain(driver.queues[0], (0x1000, 1, 0, 0))
    driver.link.notify(0)
    driver.memory.write_uint(driver.queues[0].driver_area + 2, 2, 0)
    fails(driver, device, "available index")


def test_more_chains_than_the_queue_holds(driver, device):
    """One descriptor offered again and again, never waiting for it."""
    queue = driver.queues[0]
    for _ in range(8):
        raw_chain(queue, (0x1000, 1, 0, 0))
        driver.link.notify(0)
    assert len(device.held) == 8
    raw_chain(queue, (0x1000, 1, 0, 0))
    fails(driver, device, "available index 9 after 8, used index 0, size 8")


@pytest.mark.parametrize("head", [8, 0xFFFF])
def test_a_head_outside_the_table(driver, device, head):
    driver.queues[0].offer(head)
    fails(driver, device, f"descriptor {head} of 8")


def test_a_failure_in_the_middle_of_a_handler(driver, device):
    """Chains that were taken before stay harmless: they can be read, and pushed into nothing."""
    queue = driver.queues[0]
    raw_chain(queue, (0x1000, 1, W, 0))
    queue.offer(99)
    fails(driver, device, "descriptor 99")
    assert device.resets == 1


def test_a_driver_that_reads_its_used_ring_from_a_descriptor(driver, device):
    """Buffers may lie anywhere in RAM, also over the ring itself."""
    queue = driver.queues[0]
    raw_chain(queue, (queue.descriptors, 4096, N, 1), (queue.device_area, 70, W, 0))
    driver.link.notify(0)
    chain = device.held[0]
    chain.write(b"\xff" * 70)
    device.queues[0].push(chain, 70)
    device.queues[0].flush()
    assert device.active and driver.memory.read_uint(queue.device_area + 2, 2) == 1
