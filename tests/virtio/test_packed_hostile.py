"""A packed ring whose driver breaks the rules: the buffer comes back unused, or the device fails; nothing else happens."""

import pytest
from virtio_driver import Holder, device_bench, raw_list

from pyhv.memory import MemoryRegion
from pyhv.virtio import ids

N, W, IND = ids.DESC_NEXT, ids.DESC_WRITE, ids.DESC_INDIRECT
ROM = 0x80_0000
END = 1 << 20


@pytest.fixture
def device():
    return Holder()


@pytest.fixture(params=[8, 5])
def driver(device, request):
    bench = device_bench(device, packed=True, size=request.param)
    bench.memory.add(MemoryRegion(ROM, memoryview(bytearray(0x1000)), name="rom", readonly=True))
    return bench


def refused(driver, device, *descriptors, ident=3):
    """Offer these descriptors, and see that the buffer comes back with length 0 and that the next one works."""
    queue = driver.queues[0]
    raw_list(queue, *descriptors, ident=ident)
    driver.link.notify(0)
    assert device.held == []
    assert queue.raw_used(len(descriptors)) == (ident, 0)
    assert device.queues[0].malformed == 1 and driver.interrupts == [1]
    assert device.active and not driver.transport.failure
    raw_list(queue, (0x1000, 4, 0))
    driver.link.notify(0)
    assert len(device.held) == 1


BAD = {
    "no memory": [(END, 1, 0)],
    "past the end": [(END - 1, 2, 0)],
    "past the end, by its length": [(0, 0xFFFF_FFFF, W)],
    "overflow": [((1 << 64) - 1, 0xFFFF_FFFF, W)],
    "writing to ROM": [(ROM, 4, W)],
    "into ROM's end": [(ROM + 0xFFF, 2, 0)],
    "the second has no memory": [(0x1000, 1, N), (END, 1, 0)],
    "the first has no memory": [(END, 1, N), (END, 1, N), (0x1000, 1, 0)],
    "readable after writable": [(0x1000, 1, W | N), (0x1000, 1, 0)],
    "indirect in a list, first": [(0x1000, 16, IND | N), (0x1000, 1, 0)],
    "indirect in a list, last": [(0x1000, 1, N), (0x1000, 16, IND)],
    "an empty table": [(0x1000, 0, IND)],
    "a table of half a descriptor": [(0x1000, 24, IND)],
    "a table outside memory": [(END, 16, IND)],
    "a table past the end": [(END - 16, 32, IND)],
    "a table of 4 GiB": [(0, 0xFFFF_FFF0, IND)],
    "a table longer than the queue": [(0x1000, 16 * 9, IND)],
}


@pytest.mark.parametrize("descriptors", BAD.values(), ids=BAD)
def test_a_malformed_buffer_is_returned(driver, device, descriptors):
    refused(driver, device, *descriptors)


TABLES = {
    "no memory": [(0x1000, 1, 0), (END, 1, 0)],
    "writing to ROM": [(ROM, 1, W)],
    "readable after writable": [(0x1000, 1, W), (0x1000, 1, 0)],
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_malformed_table_is_returned(driver, device, table):
    address = driver.place(driver.queues[0].table(table), 16)
    refused(driver, device, (address, 16 * len(table), IND))


def test_any_id_comes_back_as_it_was(driver, device):
    refused(driver, device, (END, 1, 0), ident=0xFFFF)


def test_indirect_without_the_feature(device):
    driver = device_bench(device, packed=True, without=(ids.INDIRECT_DESC,))
    address = driver.place(driver.queues[0].table([(0x1000, 1, 0)]), 16)
    refused(driver, device, (address, 16, IND))


def test_flags_in_a_table_are_ignored_but_for_write(driver, device):
    """2.8.7: also NEXT and INDIRECT; and WRITE beside INDIRECT in the ring."""
    address = driver.place(driver.queues[0].table([(0x1000, 1, IND), (0x1000, 1, N), (0x1000, 1, W | 0xFF00)]), 16)
    raw_list(driver.queues[0], (address, 48, IND | W))
    driver.link.notify(0)
    assert (device.held[0].readable_size, device.held[0].writable_size) == (2, 1)


def test_a_list_as_long_as_the_queue(driver, device):
    queue = driver.queues[0]
    for lap in range(3):
        raw_list(queue, *[(0x1000, 1, N)] * (queue.size - 1), (0x1000, 1, W))
        driver.link.notify(0)
        assert device.held[0].slots == queue.size
        device.queues[0].push(device.held.pop(), 1)
        device.queues[0].flush()
        assert queue.raw_used(queue.size) == (0, 1), lap


def test_a_queue_full_of_malformed_buffers(driver, device):
    queue = driver.queues[0]
    for ident in range(queue.size):
        raw_list(queue, (END, 1, 0), ident=ident)
    driver.link.notify(0)
    while driver.run():
        pass
    assert [queue.raw_used(1) for _ in range(queue.size)] == [(ident, 0) for ident in range(queue.size)]
    assert driver.interrupts[0] > 0 and device.active


def fails(driver, device, why):
    """See that the device needs a reset, that nothing wakes it, and that a reset does."""
    driver.link.notify(0)
    assert why in driver.transport.failure
    assert driver.link.status() & ids.DEVICE_NEEDS_RESET and driver.config_interrupts == 1
    held = len(device.held)
    driver.link.notify(0)
    driver.run()
    assert len(device.held) == held and not device.active
    driver.start(packed=True)
    assert driver.queues[0].add([b"x"]) and driver.queues[0].kick() and device.held[-1].read() == b"x"


def test_a_list_without_an_end(driver, device):
    queue = driver.queues[0]
    raw_list(queue, *[(0x1000, 1, N)] * queue.size)
    fails(driver, device, "descriptors are available")


def test_a_list_over_buffers_in_flight(driver, device):
    """The ring says that there are more descriptors than it holds: some of them are still the device's."""
    queue = driver.queues[0]
    raw_list(queue, (0x1000, 1, 0))
    driver.link.notify(0)
    raw_list(queue, *[(0x1000, 1, N)] * (queue.size - 1), (0x1000, 1, 0))
    fails(driver, device, "descriptors are available")
    assert device.resets == 1


def test_a_descriptor_made_available_again_while_it_is_in_flight(driver, device):
    queue = driver.queues[0]
    for _ in range(queue.size):
        raw_list(queue, (0x1000, 1, 0))
        driver.link.notify(0)
    assert len(device.held) == queue.size
    raw_list(queue, (0x1000, 1, 0))
    fails(driver, device, "descriptors are available")


def test_an_event_for_a_descriptor_without_the_feature(device):
    driver = device_bench(device, packed=True, without=(ids.EVENT_IDX,))
    driver.memory.write_uint(driver.queues[0].driver_area, 4, ids.EVENTS_DESC << 16 | 5)
    raw_list(driver.queues[0], (0x1000, 1, W))
    driver.link.notify(0)
    device.queues[0].push(device.held.pop(), 1)
    device.queues[0].flush()
    assert driver.interrupts == [1]


@pytest.mark.parametrize("event", [0x0000, 0x7FFF, 0x8000, 0xFFFF])
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 0xFFFF])
def test_any_event_suppression(driver, device, event, flags):
    queue = driver.queues[0]
    driver.memory.write_uint(queue.driver_area, 2, event)
    driver.memory.write_uint(queue.driver_area + 2, 2, flags)
    for _ in range(3 * queue.size):
        raw_list(queue, (0x1000, 1, W))
        driver.link.notify(0)
        device.queues[0].push(device.held.pop(), 1)
        device.queues[0].flush()
        assert queue.raw_used(1) == (0, 1)
    assert device.active
    if flags == 0:
        assert driver.interrupts == [3 * queue.size]
    elif flags == 1:
        assert driver.interrupts == [0]
