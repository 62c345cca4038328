"""The driver's way to a working device, and every way off it (virtio 1.2, 2.1, 2.2, 3.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_driver import Holder, Upper, device_bench

from pyhv import log
from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.memory import MemoryRegion
from pyhv.virtio import ids
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.errors import VirtioError

ACK, DRIVER, FEATURES, OK = ids.ACKNOWLEDGE, ids.DRIVER, ids.FEATURES_OK, ids.DRIVER_OK
READY = ACK | DRIVER | FEATURES | OK


class Picky(Holder):
    """Has features of its own: 0 and 1, of which 1 needs 0."""

    features = 3
    in_order = True

    def __init__(self):
        super().__init__()
        self.calls = []

    def accepts(self, features):
        return not features & 2 or bool(features & 1)

    def activate(self):
        self.calls.append("activate")

    def deactivate(self):
        super().deactivate()
        self.calls.append("deactivate")

    def queue_reset(self, queue):
        self.calls.append(f"queue_reset {queue.index}")


@pytest.fixture
def device():
    return Picky()


@pytest.fixture
def driver(device):
    return device_bench(device, start=False)


def set_status(driver, *values):
    for value in values:
        driver.link.set_status(value)
    return driver.link.status()


def take(driver, features):
    """As far as FEATURES_OK; gives the status."""
    set_status(driver, 0, ACK, ACK | DRIVER)
    driver.link.set_features(features)
    return set_status(driver, ACK | DRIVER | FEATURES)


RING = 1 << ids.VERSION_1


def test_what_is_offered(driver):
    bits = [ids.INDIRECT_DESC, ids.EVENT_IDX, ids.VERSION_1, ids.RING_PACKED, ids.RING_RESET, ids.IN_ORDER]
    assert driver.link.features() == 3 | sum(1 << bit for bit in bits)
    assert device_bench(Holder(), start=False).link.features() == sum(1 << bit for bit in bits[:-1])
    assert [driver.transport.device_features(select) for select in (2, 3, 4, 1 << 31)] == [0, 0, 0, 0]


def test_the_whole_way(driver, device):
    assert take(driver, RING | 1) == ACK | DRIVER | FEATURES
    assert device.negotiated == RING | 1 and device.has(0) and not device.has(1) and not device.active
    assert set_status(driver, READY) == READY
    assert device.active and device.calls == ["activate"]
    assert set_status(driver, 0) == 0
    assert not device.active and device.negotiated == 0 and device.calls == ["activate", "deactivate"]


def test_all_at_once(driver, device):
    driver.link.set_features(RING)
    assert set_status(driver, READY) == READY and device.active


@pytest.mark.parametrize(
    "features",
    [0, 3, RING | 2, RING | 4, RING | 1 << 63, RING | 1 << 127, RING | 1 << ids.ACCESS_PLATFORM],
    ids=["nothing", "no VERSION_1", "one needs another", "unknown", "far", "farther", "not offered"],
)
def test_features_that_are_refused(driver, device, features):
    assert take(driver, features) == ACK | DRIVER
    assert set_status(driver, READY) == ACK | DRIVER and not device.active
    assert driver.transport.violations
    assert take(driver, RING | 3) == ACK | DRIVER | FEATURES


def test_features_are_fixed_by_features_ok(driver, device):
    take(driver, RING)
    driver.link.set_features(RING | 3)
    set_status(driver, READY)
    assert device.negotiated == RING


@given(st.lists(st.integers(0, 0xFF), max_size=12))
def test_any_status_writes(values):
    """A bit is set only on what it stands on, and goes only by a reset."""
    device = Picky()
    driver = device_bench(device, start=False)
    driver.link.set_features(RING)
    before = 0
    for value in values:
        driver.link.set_status(value)
        status = driver.link.status()
        if value == 0:
            assert status == 0
            driver.link.set_features(RING)
        else:
            assert status & before == before
            assert status & ~before & ~value == 0
        assert not status & 0x70
        for bit, needs in ((DRIVER, ACK), (FEATURES, ACK | DRIVER), (OK, ACK | DRIVER | FEATURES)):
            assert not status & bit or status & needs == needs
        assert device.active == (status & (OK | ids.FAILED) == OK)
        before = status
    assert device.calls.count("activate") - device.calls.count("deactivate") == bool(before & OK)


def test_a_driver_that_gives_up(driver, device):
    driver.start()
    assert set_status(driver, READY | ids.FAILED) == READY | ids.FAILED
    driver.link.notify(0)
    assert not device.active and device.held == []
    assert take(driver, RING) == ACK | DRIVER | FEATURES


def place(driver, size=8):
    """Where a split ring could be."""
    return [driver.allocate(16 * size, 16), driver.allocate(6 + 2 * size, 2), driver.allocate(6 + 8 * size, 4)]


def enabled(driver, size, *areas, packed=False, offered=8):
    """Whether such a queue is taken."""
    take(driver, RING | packed << ids.RING_PACKED)
    driver.link.set_queue(0, size, *areas)
    queue = driver.transport.queues[0]
    assert queue.enabled == (not driver.transport.failure)
    return queue.enabled


@pytest.mark.parametrize("size", [0, 3, 5, 6, 7, 9, 16, 0x8000, 0xFFFF])
def test_split_sizes_that_are_impossible(driver, size):
    assert not enabled(driver, size, *place(driver))
    assert driver.link.status() & ids.DEVICE_NEEDS_RESET
    assert enabled(driver, 8, *place(driver))


@pytest.mark.parametrize("size", [0, 9, 0x8000, 0xFFFF])
def test_packed_sizes_that_are_impossible(driver, size):
    assert not enabled(driver, size, *place(driver), packed=True)
    assert enabled(driver, 5, *place(driver), packed=True)


ROM, END = 0x80_0000, 1 << 20


def bad_areas():
    for packed in (False, True):
        alignments = (16, 4, 4) if packed else (16, 2, 4)
        lengths = (128, 4, 4) if packed else (128, 22, 70)
        writes = (True, False, True) if packed else (False, False, True)
        for area in range(3):
            for off in {1, alignments[area] // 2}:
                yield packed, area, 0x2000 + off, False
            for address in (END, END - lengths[area] + 16, (1 << 64) - 16, (1 << 64) - 0x1000, 1 << 52):
                yield packed, area, address, False
            yield packed, area, END - (lengths[area] + 15 & -16), True
            yield packed, area, ROM, not writes[area]
            yield packed, area, ROM + 0x1000 - 16, not writes[area] and lengths[area] < 16


@pytest.mark.parametrize(("packed", "area", "address", "good"), list(bad_areas()))
def test_where_a_ring_may_be(driver, packed, area, address, good):
    driver.memory.add(MemoryRegion(ROM, memoryview(bytearray(0x1000)), name="rom", readonly=True))
    areas = place(driver)
    areas[area] = address
    assert enabled(driver, 8, *areas, packed=packed) == good


def test_a_queue_is_not_enabled_before_features_ok(driver):
    set_status(driver, 0, ACK, ACK | DRIVER)
    driver.link.set_queue(0, 8, *place(driver))
    assert not driver.transport.queues[0].enabled and driver.transport.violations


def test_registers_are_frozen_once_enabled(driver, device):
    areas = place(driver)
    assert enabled(driver, 4, *areas)
    before = driver.transport.violations
    driver.link.set_queue(0, 8, 0x7000, 0x8000, 0x9000)
    queue = device.queues[0]
    assert [queue.size, queue.descriptors, queue.driver_area, queue.device_area] == [4, *areas]
    assert driver.transport.violations == before + 4
    set_status(driver, READY)
    driver.link.set_queue(0, 8, 0x7000, 0x8000, 0x9000)
    assert queue.ring.size == 4 and queue.size == 4


def test_notifications_that_come_too_early_or_for_nothing(driver, device):
    driver.link.notify(0)
    take(driver, RING)
    driver.link.notify(0)
    areas = place(driver)
    driver.link.set_queue(0, 8, *areas)
    driver.memory.write_uint(areas[1] + 2, 2, 1)
    driver.link.notify(0)
    assert device.held == [] and driver.memory.read_uint(areas[2] + 2, 2) == 0
    set_status(driver, READY)
    before = driver.transport.violations
    assert before == 3
    for index in (1, 2, 0xFFFF, 0xFFFF_FFFF):
        driver.link.notify(index)
    assert device.held == [] and driver.transport.violations == before + 4
    driver.link.notify(0)
    assert len(device.held) == 1


def test_a_queue_enabled_after_driver_ok(driver, device):
    take(driver, RING)
    set_status(driver, READY)
    driver.link.notify(0)
    driver.link.set_queue(0, 8, *place(driver))
    assert device.queues[0].ready


@pytest.mark.parametrize("keep", [False, True])
def test_a_queue_reset(driver, device, keep):
    driver.start()
    queue, transport = device.queues[0], driver.transport
    driver.queues[0].add([b"x"])
    driver.queues[0].kick()
    transport.reset_queue(queue, keep=keep)
    assert device.calls == ["activate", "queue_reset 0"] and not queue.ready and not queue.enabled
    assert (queue.descriptors != 0) == keep and queue.size == 8
    driver.link.notify(0)
    queue.push(device.held[0])
    queue.flush()
    driver.queues[0].layout()
    driver.link.set_queue(0, 8, driver.queues[0].descriptors, driver.queues[0].driver_area, driver.queues[0].device_area)
    driver.queues[0].outstanding.clear()
    driver.queues[0].add([b"y"])
    driver.queues[0].kick()
    assert device.held[-1].read() == b"y" and driver.queues[0].used() == []


class Moody(VirtioDevice):
    """Does what its buffer says."""

    device_id = 9
    queue_sizes = (8, 8)

    def config(self):
        return b"12345678"

    def write_config(self, offset, data):
        if data == b"!":
            raise VirtioError("an exclamation")
        self.wrote = offset, data

    def handle(self, queue):
        for chain in queue.chains():
            what = chain.read()
            queue.push(chain)
            if what == b"protocol":
                raise VirtioError("not so")
            if what == b"memory":
                raise GuestMemoryError(0x10, 4)
            if what == b"fail":
                self.fail("no more")
            if what == b"bug":
                raise ZeroDivisionError


@pytest.mark.parametrize(("what", "why"), [(b"protocol", "not so"), (b"memory", "not memory"), (b"fail", "no more")])
def test_a_handler_that_fails(what, why):
    device = Moody()
    driver = device_bench(device)
    driver.queues[0].add([what])
    driver.queues[0].add([b"another"])
    driver.queues[0].kick()
    assert why in driver.transport.failure and not device.active
    assert driver.link.status() == READY | ids.DEVICE_NEEDS_RESET
    assert driver.config_interrupts == 1 and driver.transport.config_generation == 1
    driver.queues[1].add([b"x"])
    driver.queues[1].kick()
    device.fail("again")
    assert driver.queues[1].used() == [] and driver.config_interrupts == 1
    driver.start()
    assert driver.transport.failure == ""
    assert driver.queues[0].request([b"x"]) == b""


def test_a_bug_is_not_hidden():
    driver = device_bench(Moody())
    driver.queues[0].add([b"bug"])
    with pytest.raises(ZeroDivisionError):
        driver.queues[0].kick()


def test_a_callback_of_its_own_that_fails():
    device = Moody()
    driver = device_bench(device)

    def callback():
        raise VirtioError("late")

    device.guarded(callback)()
    assert driver.transport.failure == "late"


def test_configuration_space():
    device = Moody()
    driver = device_bench(device)
    link = driver.link
    assert link.read_config(0, 8) == b"12345678"
    assert link.read_config(6, 4) == b"78\0\0" and link.read_config(4000, 4) == bytes(4)
    link.write_config(2, b"ab")
    assert device.wrote == (2, b"ab")
    for offset, size in ((7, 2), (8, 1), (0xEFF, 4)):
        link.write_config(offset, bytes(size))
    assert device.wrote == (2, b"ab") and driver.transport.violations == 3
    link.write_config(0, b"!")
    assert driver.transport.failure == "an exclamation"


def test_configuration_changes():
    device = Moody()
    driver = device_bench(device, start=False)
    device.config_changed()
    assert driver.config_interrupts == 0 and driver.transport.config_generation == 1
    driver.start()
    device.config_changed()
    assert driver.config_interrupts == 1 and driver.transport.config_generation == 2


def test_the_machine_resets():
    device = Picky()
    driver = device_bench(device)
    device.reset()
    assert driver.link.status() == 0 and device.calls == ["activate", "deactivate"]
    device.reset()
    assert device.calls == ["activate", "deactivate"]


def test_close_can_be_repeated(device):
    VirtioDevice().close()
    device_bench(device)
    device.close()
    device.close()
    assert not device.active


def test_violations_are_told_a_few_times():
    heard = []
    stop = log.listen(lambda name, **values: heard.append((name, values)))
    try:
        driver = device_bench(Upper())
        for _ in range(1000):
            driver.link.notify(7)
    finally:
        stop()
    assert driver.transport.violations == 1000 and 0 < len(heard) < 100
    assert heard[0] == ("virtio.violation", {"device": "Upper", "what": "queue 7 notified when it is not in use"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device_id": 0}, "device_id: 0 is not one of 1 to 61375"),
        ({"device_id": 0x10000}, "device_id: 65536 is not one of"),
        ({"queue_sizes": (8, 0)}, "queue_sizes: 0 is not a power of two up to 32768"),
        ({"queue_sizes": (24,)}, "queue_sizes: 24 is not a power of two"),
        ({"queue_sizes": (65536,)}, "queue_sizes: 65536 is not a power of two"),
    ],
)
def test_classes_that_are_no_device(fields, message):
    with pytest.raises(ConfigError, match=message):
        device_bench(type("Wrong", (Upper,), fields)())


def test_a_transport_that_does_not_exist():
    with pytest.raises(ConfigError, match="transport: 'ccw' is not one of pci, mmio"):
        Upper(transport="ccw")
