"""Virtio over PCI (virtio 1.2, 4.1): identity, structures, vectors, interrupts, doorbells, the configuration window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_driver import Holder, Upper

from pyhv.errors import CapabilityMissing
from pyhv.irq import Msi
from pyhv.pci import registers as reg
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import VirtioDriver
from pyhv.testing.virtio_pci import PciLink, pci_bench
from pyhv.virtio import ids, pci
from pyhv.virtio.pci import NO_VECTOR

LAPIC = 0xFEE0_0000
NEW_HOME = 0x2_0000_0000


class Device(Holder):
    queue_sizes = (8, 16)

    def __init__(self):
        super().__init__()
        self.space = bytearray(range(1, 11))

    def config(self):
        return bytes(self.space)

    def write_config(self, offset, data):
        self.space[offset : offset + len(data)] = data


@pytest.fixture
def driver():
    return pci_bench(Device(), start=False)


@pytest.fixture
def link(driver):
    return driver.link


@pytest.fixture
def started():
    driver = pci_bench(Device())
    driver.link.put(pci.QUEUE_SELECT, 2, 0)
    return driver


def give_back(driver, index=0):
    """Have a buffer go to the device and come back, with the interrupt that this makes."""
    queue = driver.queues[index]
    queue.used()
    queue.add([b"x"])
    queue.kick()
    device = driver.device
    device.queues[index].push(device.held.pop())
    device.queues[index].flush()


# What drivers find


def test_identity(link):
    assert link.get_config(reg.VENDOR_ID, 4) == (0x1040 + 42) << 16 | 0x1AF4
    assert link.get_config(reg.SUBSYSTEM_VENDOR_ID, 4) == (0x1040 + 42) << 16 | 0x1AF4
    assert link.get_config(reg.REVISION_ID, 1) == 1
    assert link.get_config(reg.INTERRUPT_PIN, 1) == 1


@pytest.mark.parametrize(("kind", "found"), [(ids.NET, 0x020000), (ids.BLOCK, 0x018000), (42, 0x00FF00)])
def test_classes(kind, found):
    class Kind(Device):
        device_id = kind

    link = pci_bench(Kind(), start=False).link
    assert link.get_config(reg.REVISION_ID, 4) >> 8 == found


def test_structures_lie_in_the_range_apart(link):
    base = link.bar(0)
    assert link.get_config(reg.BAR_0, 1) & 0xF == reg.BAR_MEMORY_64
    assert link.structures == {
        pci.COMMON_CFG: (base, 0x3C),
        pci.ISR_CFG: (base + 0x1000, 1),
        pci.DEVICE_CFG: (base + 0x2000, 0x1000),
        pci.NOTIFY_CFG: (base + 0x3000, 0x1000),
    }
    assert link.multiplier == 4
    assert link.get_config(link.msix_at + 2, 2) & 0x7FF == 2
    assert link.bar(2) != base


def test_a_device_of_many_queues():
    class Wide(Device):
        queue_sizes = (2,) * 1500

    driver = pci_bench(Wide(), size=2)
    link = driver.link
    assert link.get(pci.NUM_QUEUES, 2) == 1500
    assert link.structures[pci.NOTIFY_CFG][1] == 6000
    link.set_config(reg.BAR_0, 4, 0xFFFF_FFFF)
    assert link.get_config(reg.BAR_0, 4) == 0xFFFF_8004
    link.move(0, NEW_HOME)
    give_back(driver, 1499)
    assert driver.bench.messages == [Msi(LAPIC, 1500)]


# Common configuration


def test_features_by_halves(link):
    for select, value in ((0, 0x3000_0000), (1, 0x105), (2, 0), (4, 0), (0xFFFF_FFFF, 0)):
        link.put(pci.DEVICE_FEATURE_SELECT, 4, select)
        assert link.get(pci.DEVICE_FEATURE_SELECT, 4) == select
        assert link.get(pci.DEVICE_FEATURE, 4) == value
    for select, value in ((1, 0x101), (0, 0x5), (2, 0xFFFF_FFFF), (0xFFFF_FFFF, 0)):
        link.put(pci.DRIVER_FEATURE_SELECT, 4, select)
        link.put(pci.DRIVER_FEATURE, 4, value)
        assert link.get(pci.DRIVER_FEATURE, 4) == value
    assert link.bench.pci.functions[1].name == "Device"


def test_queue_registers(link):
    assert link.get(pci.NUM_QUEUES, 2) == 2
    for index, limit in ((0, 8), (1, 16), (2, 0), (0xFFFF, 0)):
        link.put(pci.QUEUE_SELECT, 2, index)
        assert link.get(pci.QUEUE_SELECT, 2) == index
        assert link.get(pci.QUEUE_SIZE, 2) == limit
        assert link.get(pci.QUEUE_NOTIFY_OFF, 2) == (index if limit else 0)
        assert link.get(pci.QUEUE_MSIX_VECTOR, 2) == NO_VECTOR
        assert link.get(pci.QUEUE_ENABLE, 2) == link.get(pci.QUEUE_RESET, 2) == 0


def test_addresses_by_halves(link, driver):
    link.put(pci.QUEUE_SELECT, 2, 1)
    for register in (pci.QUEUE_DESC, pci.QUEUE_DRIVER, pci.QUEUE_DEVICE):
        link.put(register + 4, 4, 0x1234_5678)
        link.put(register, 4, 0x9ABC_DEF0 + register)
        assert link.get(register, 8) == 0x1234_5678_9ABC_DEF0 + register
    queue = driver.transport.queues[1]
    assert [queue.descriptors, queue.driver_area, queue.device_area] == [
        0x1234_5678_9ABC_DEF0 + register for register in (0x20, 0x28, 0x30)
    ]
    link.put(pci.QUEUE_DESC, 8, 0xFEDC_BA98_7654_3210)
    assert queue.descriptors == 0xFEDC_BA98_7654_3210


def test_registers_of_an_enabled_queue_are_frozen(started):
    link, queue = started.link, started.transport.queues[0]
    before = (queue.size, queue.descriptors, queue.driver_area, queue.device_area)
    for register in (*range(pci.QUEUE_DESC, pci.QUEUE_DEVICE + 8, 4), pci.QUEUE_SIZE):
        link.put(register, 2 if register == pci.QUEUE_SIZE else 4, 4)
    assert (queue.size, queue.descriptors, queue.driver_area, queue.device_area) == before
    assert link.get(pci.QUEUE_ENABLE, 2) == 1
    violations = started.transport.violations
    link.put(pci.QUEUE_ENABLE, 2, 0)
    assert link.get(pci.QUEUE_ENABLE, 2) == 1 and started.transport.violations == violations + 1


def test_other_widths_read_the_bytes_and_write_nothing(started):
    link = started.link
    bytewise = bytes(link.get(offset, 1) for offset in range(0x40))
    for size in (2, 4, 8):
        for offset in range(0x40 - size):
            assert link.get(offset, size).to_bytes(size, "little") == bytewise[offset : offset + size]
    status = link.status()
    link.put(pci.DEVICE_STATUS, 2, 0)
    link.put(pci.NUM_QUEUES, 4, 0)
    link.put(pci.QUEUE_SIZE, 1, 0)
    link.put(pci.DEVICE_FEATURE_SELECT + 1, 4, 1)
    assert link.status() == status and bytes(link.get(offset, 1) for offset in range(0x40)) == bytewise
    assert started.transport.violations >= 4


def test_read_only_registers(started):
    link = started.link
    registers = ((pci.DEVICE_FEATURE, 4), (pci.NUM_QUEUES, 2), (pci.CONFIG_GENERATION, 1), (pci.QUEUE_NOTIFY_OFF, 2))
    for register, size in registers:
        before = link.get(register, size)
        link.put(register, size, 0x55)
        assert link.get(register, size) == before


def test_the_generation_counts_changes_and_wraps(started):
    for number in range(258):
        assert started.link.get(pci.CONFIG_GENERATION, 1) == number & 0xFF
        started.device.config_changed()


@pytest.mark.parametrize(("features", "shown"), [(1 << ids.VERSION_1, 0), (1 << ids.VERSION_1 | 1 << ids.RING_PACKED, 7)])
def test_a_size_that_a_split_ring_cannot_have_is_not_shown(link, features, shown):
    link.set_status(ids.ACKNOWLEDGE)
    link.set_status(ids.ACKNOWLEDGE | ids.DRIVER)
    link.set_features(features)
    link.set_status(ids.ACKNOWLEDGE | ids.DRIVER | ids.FEATURES_OK)
    link.put(pci.QUEUE_SELECT, 2, 0)
    for size, found in ((4, 4), (7, shown), (8, 8)):
        link.put(pci.QUEUE_SIZE, 2, size)
        assert link.get(pci.QUEUE_SIZE, 2) == found


@pytest.mark.parametrize("changes", [255, 256, 257, 512])
def test_the_generation_differs_after_any_number_of_changes(started, changes):
    before = started.link.get(pci.CONFIG_GENERATION, 1)
    for _ in range(changes):
        started.device.config_changed()
    assert started.link.get(pci.CONFIG_GENERATION, 1) != before


def test_configuration_space_by_any_width(link):
    start = link.structures[pci.DEVICE_CFG][0]
    assert link.read_config(0, 11) == bytes([*range(1, 11), 0])
    read, write = link.bench.mmio_read, link.bench.mmio_write
    assert read(start + 2, 2) == 0x0403 and read(start, 8) == 0x0807060504030201 and read(start + 0xFFC, 4) == 0
    write(start + 4, 2, 0xBBAA)
    write(start + 8, 4, 0xFFFF_FFFF)
    assert link.read_config(4, 6) == bytes((0xAA, 0xBB, 7, 8, 9, 10))


# Interrupts


def test_the_wire_and_the_interrupt_status():
    driver = pci_bench(Device(), msix=False)
    link, line = driver.link, driver.bench.lines[17]
    give_back(driver)
    assert line.level
    driver.device.config_changed()
    assert link.interrupt_status() == ids.ISR_QUEUE | ids.ISR_CONFIG
    assert not line.level and link.interrupt_status() == 0
    give_back(driver)
    assert line.edges == 2 and link.interrupt_status() == ids.ISR_QUEUE
    assert driver.bench.messages == []
    driver.device.config_changed()
    link.set_status(0)
    assert not line.level and link.interrupt_status() == 0


def test_every_queue_has_a_vector_and_the_configuration_too(started):
    give_back(started, 1)
    give_back(started, 0)
    started.device.config_changed()
    assert [message.data for message in started.bench.messages] == [2, 1, 0]
    assert not started.bench.lines[17].level


def test_the_interrupt_status_beside_messages(started):
    """It has the configuration's bit before the message goes, and never a queue's (4.1.4.5.1)."""
    link, bench = started.link, started.bench
    give_back(started)
    assert link.interrupt_status() == 0
    started.device.config_changed()
    assert len(bench.messages) == 2
    assert link.get_config(reg.STATUS, 2) & reg.STATUS_INTERRUPT == 0 and not bench.lines[17].level
    assert link.interrupt_status() == ids.ISR_CONFIG and link.interrupt_status() == 0


def test_vectors_may_be_shared(started):
    link = started.link
    for index in range(2):
        link.put(pci.QUEUE_SELECT, 2, index)
        link.put(pci.QUEUE_MSIX_VECTOR, 2, 0)
        assert link.get(pci.QUEUE_MSIX_VECTOR, 2) == 0
    give_back(started, 0)
    give_back(started, 1)
    assert [message.data for message in started.bench.messages] == [0, 0]


@pytest.mark.parametrize("vector", [NO_VECTOR, 3, 0xFFFE])
def test_no_vector_means_no_interrupt(started, vector):
    """A vector that there is not reads back as NO_VECTOR (4.1.5.1.2.1)."""
    link = started.link
    for register in (pci.CONFIG_MSIX_VECTOR, pci.QUEUE_MSIX_VECTOR):
        link.put(register, 2, vector)
        assert link.get(register, 2) == NO_VECTOR
    give_back(started)
    started.device.config_changed()
    assert started.bench.messages == [] and not started.bench.lines[17].level


def test_a_masked_vector_waits(started):
    link = started.link
    link.set_vector(1, 1, masked=True)
    give_back(started)
    give_back(started)
    assert started.bench.messages == []
    link.set_vector(1, 0x51)
    assert started.bench.messages == [Msi(LAPIC, 0x51)]


def test_a_reset_forgets_vectors(started):
    link = started.link
    link.set_status(0)
    assert link.get(pci.CONFIG_MSIX_VECTOR, 2) == link.get(pci.QUEUE_MSIX_VECTOR, 2) == NO_VECTOR
    assert link.get(pci.QUEUE_SELECT, 2) == 0


# One queue's reset


def test_queue_reset(started):
    link, queue = started.link, started.transport.queues[0]
    link.put(pci.QUEUE_RESET, 2, 0)
    assert queue.ready
    link.put(pci.QUEUE_RESET, 2, 1)
    assert link.get(pci.QUEUE_RESET, 2) == link.get(pci.QUEUE_ENABLE, 2) == 0
    assert link.get(pci.QUEUE_MSIX_VECTOR, 2) == NO_VECTOR and link.get(pci.QUEUE_SIZE, 2) == 8
    started.queues[0].layout()
    driver_queue = started.queues[0]
    link.set_queue(0, 8, driver_queue.descriptors, driver_queue.driver_area, driver_queue.device_area)
    driver_queue.outstanding.clear()
    give_back(started)
    assert [message.data for message in started.bench.messages] == [1]


def test_queue_reset_needs_the_feature():
    driver = pci_bench(Device(), without=(ids.RING_RESET,))
    driver.link.put(pci.QUEUE_SELECT, 2, 0)
    driver.link.put(pci.QUEUE_RESET, 2, 1)
    assert driver.transport.queues[0].ready


# The range, the bus and notifications


def test_a_range_that_moves(started):
    link = started.link
    old = link.structures[pci.NOTIFY_CFG][0]
    link.move(0, NEW_HOME)
    assert link.structures[pci.NOTIFY_CFG][0] == NEW_HOME + 0x3000
    give_back(started)
    assert len(started.bench.messages) == 1
    started.bench.mmio_write(old, 2, 0)
    assert list(started.bench.mmio.unclaimed) == [old]


def test_a_function_that_is_not_bus_master_touches_nothing_until_it_is():
    driver = pci_bench(Upper())
    link, queue = driver.link, driver.queues[0]
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY)
    buffer = queue.add([b"abc"], [3])
    queue.kick()
    assert queue.used() == [] and driver.transport.violations == 1
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY | reg.COMMAND_MASTER)
    assert queue.used() == [buffer] and buffer.data == b"ABC"
    assert [message.data for message in driver.bench.messages] == [1]


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_what_is_done_while_it_is_not_bus_master_is_published_when_it_is_again(packed):
    """Linux takes it away from all functions before it starts another kernel in the old one's memory."""
    driver = pci_bench(Device(), packed=packed)
    link, queue, device = driver.link, driver.queues[0], driver.device
    first, second = queue.add([b"x"]), queue.add([b"y"])
    queue.kick()
    before = driver.memory.read(0, 1 << 16) + driver.memory.read(queue.descriptors, 0x1000)
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY)
    assert not device.queues[0].ready
    for chain in device.held:
        device.queues[0].push(chain)
    device.queues[0].flush()
    device.queues[0].want_kicks(False)
    assert device.queues[0].pop() is None and device.queues[0].available() == 0
    assert driver.memory.read(0, 1 << 16) + driver.memory.read(queue.descriptors, 0x1000) == before
    assert driver.bench.messages == []
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY | reg.COMMAND_MASTER)
    assert queue.used() == [first, second]
    assert [message.data for message in driver.bench.messages] == [1]
    assert device.queues[0].ready and driver.transport.violations == 0


def test_a_reset_while_it_is_not_bus_master(started):
    link = started.link
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY)
    started.start()
    started.device.queues[0].flush()
    assert not started.device.queues[0].ready
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY | reg.COMMAND_MASTER)
    give_back(started)
    assert [message.data for message in started.bench.messages] == [1]


def test_notifications_of_other_widths_and_places(started):
    link = started.link
    queue = started.queues[1]
    queue.add([b"x"])
    link.bench.mmio_write(link.structures[pci.NOTIFY_CFG][0] + 4, 4, 1)
    assert len(started.device.held) == 1
    violations = started.transport.violations
    link.bench.mmio_write(link.structures[pci.NOTIFY_CFG][0] + 2, 2, 0)
    link.bench.mmio_write(link.structures[pci.NOTIFY_CFG][0] + 8, 2, 2)
    link.bench.mmio_write(link.structures[pci.ISR_CFG][0], 1, 1)
    assert started.transport.violations == violations + 3
    assert link.bench.mmio_read(link.structures[pci.NOTIFY_CFG][0], 4) == 0
    assert link.bench.mmio_read(link.structures[pci.ISR_CFG][0] + 4, 4) == 0


class Bell:
    """A doorbell; one that rang while it was closed is heard."""

    def __init__(self, bells, address, callback):
        self.bells, self.address, self.callback = bells, address, callback
        bells[address] = self
        self.late = False

    def close(self):
        del self.bells[self.address]
        if self.late:
            self.callback()


@pytest.fixture
def belled():
    """A device on a bench that has doorbells, and these by address."""
    device, bench, bells = Device(), DeviceBench(), {}

    def doorbell(address, size, callback, *, pio=False, datamatch=None):
        assert (size, pio, datamatch) == (2, False, None)
        return Bell(bells, address, callback)

    bench.platform.doorbell = doorbell
    device.attach(bench.platform)
    bench.pci.assign()
    return VirtioDriver(bench, device, PciLink(bench)), bells


def test_doorbells_follow_the_range(belled):
    driver, bells = belled
    link = driver.link
    assert not bells
    driver.start()
    notify = link.structures[pci.NOTIFY_CFG][0]
    assert sorted(bells) == [notify, notify + 4]
    driver.queues[1].add([b"x"])
    bells[notify + 4].callback()
    assert len(driver.device.held) == 1
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MASTER)
    assert not bells
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MEMORY)
    assert sorted(bells) == [notify, notify + 4]
    bells[notify].callback()
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MASTER | reg.COMMAND_MEMORY)
    assert sorted(bells) == [notify, notify + 4] and driver.transport.violations == 0
    link.move(0, NEW_HOME)
    assert sorted(bells) == [NEW_HOME + 0x3000, NEW_HOME + 0x3004]
    link.set_status(0)
    assert not bells
    driver.start()
    assert len(bells) == 2
    driver.device.close()
    assert not bells
    driver.device.close()


def test_a_doorbell_that_rang_before_the_range_moved_is_heard(belled):
    driver, bells = belled
    driver.start()
    driver.queues[0].add([b"x"])
    bells[driver.link.structures[pci.NOTIFY_CFG][0]].late = True
    driver.link.move(0, NEW_HOME)
    assert len(driver.device.held) == 1


def test_a_doorbell_that_rang_before_a_reset_is_nothing(belled):
    driver, bells = belled
    driver.start()
    bells[driver.link.structures[pci.NOTIFY_CFG][0]].late = True
    driver.link.set_status(0)
    assert driver.device.held == [] and driver.transport.violations == 0


def test_a_doorbell_that_rang_before_a_reset_of_the_bus_is_nothing(belled):
    """The machine's memory was cleared before, and the rings with it."""
    driver, bells = belled
    driver.start()
    driver.queues[0].add([b"x"])
    bells[driver.link.structures[pci.NOTIFY_CFG][0]].late = True
    driver.bench.pci.reset()
    assert driver.device.held == [] and driver.transport.violations == 0


def test_a_host_that_gives_no_doorbell():
    device, bench = Device(), DeviceBench()

    def doorbell(*_arguments, **_options):
        raise CapabilityMissing("too many")

    bench.platform.doorbell = doorbell
    device.attach(bench.platform)
    bench.pci.assign()
    driver = VirtioDriver(bench, device, PciLink(bench))
    driver.start()
    give_back(driver)
    assert len(bench.messages) == 1


# The window in configuration space


def aim(link, bar, offset, length):
    link.set_config(link.window + pci.CFG_BAR, 1, bar)
    link.set_config(link.window + pci.CFG_OFFSET, 4, offset)
    link.set_config(link.window + pci.CFG_LENGTH, 4, length)


def test_the_window_reads_and_writes_registers_without_decoding(link):
    link.set_config(reg.COMMAND, 2, reg.COMMAND_MASTER)
    aim(link, 0, pci.NUM_QUEUES, 2)
    assert link.get_config(link.window + pci.CFG_DATA, 2) == 2
    aim(link, 0, pci.DEVICE_STATUS, 1)
    link.set_config(link.window + pci.CFG_DATA, 1, ids.ACKNOWLEDGE)
    assert link.get_config(link.window + pci.CFG_DATA, 4) == ids.ACKNOWLEDGE
    aim(link, 0, 0x2004, 4)
    assert link.get_config(link.window + pci.CFG_DATA, 4) == 0x08070605
    aim(link, 2, 8, 4)
    link.set_config(link.window + pci.CFG_DATA, 4, 0x77)
    assert link.get_config(link.window + pci.CFG_DATA, 4) == 0x77


def test_the_window_notifies(started):
    started.queues[1].add([b"x"])
    aim(started.link, 0, 0x3004, 2)
    started.link.set_config(started.link.window + pci.CFG_DATA, 2, 1)
    assert len(started.device.held) == 1


@pytest.mark.parametrize(
    ("bar", "offset", "length"),
    [(1, 0, 4), (5, 0, 1), (0xFF, 0, 1), (0, 0, 0), (0, 0, 3), (0, 0, 8), (0, 2, 4), (0, 0x4000, 1), (0, 0xFFFF_FFFC, 4)],
)
def test_a_window_on_nothing(link, driver, bar, offset, length):
    aim(link, bar, offset, length)
    violations = driver.transport.violations
    link.set_config(link.window + pci.CFG_DATA, 4, 0xFFFF_FFFF)
    assert link.get_config(link.window + pci.CFG_DATA, 4) == 0
    assert driver.transport.violations == violations + 2 and link.status() == 0


def test_other_fields_of_capabilities_are_read_only(link):
    before = [link.get_config(offset, 1) for offset in range(0x40, 0x100)]
    for offset in range(0x40, 0x100, 4):
        if offset < link.window or offset > link.msix_at:
            link.set_config(offset, 4, 0xFFFF_FFFF)
    assert [link.get_config(offset, 1) for offset in range(0x40, 0x100)] == before


# Drivers of every kind


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
@pytest.mark.parametrize("msix", [False, True], ids=["wire", "messages"])
def test_a_request(packed, msix):
    driver = pci_bench(Upper(), packed=packed, msix=msix)
    assert driver.queues[0].request([b"abc", b"def"], [2, 10]) == b"ABCDEF"
    assert len(driver.bench.messages) == int(msix) and driver.bench.lines[17].level == (not msix)


def test_two_devices_of_one_machine():
    one, other = Upper(), Upper()
    bench = DeviceBench(one, other)
    drivers = [VirtioDriver(bench, device, PciLink(bench, slot)) for slot, device in ((1, one), (2, other))]
    drivers[1]._free = 0x8_0000
    for number, driver in enumerate(drivers):
        driver.start()
        assert driver.queues[0].request([b"abc"], [3]) == b"ABC"
        assert len(bench.messages) == number + 1


ACCESS = st.tuples(
    st.sampled_from(("config", "common", "registers", "table", "queue")),
    st.integers(0, 0x4FFF),
    st.sampled_from((1, 2, 4, 8)),
    st.none() | st.sampled_from((0, 1, 3, 8, 15, 0x1000, 0xFFFF, NEW_HOME)) | st.integers(0, (1 << 64) - 1),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(ACCESS, max_size=60), st.booleans())
def test_nothing_that_a_driver_does_raises(accesses, start):
    driver = pci_bench(Upper(), start=start)
    link, bench = driver.link, driver.bench
    ecam, home = 0xE000_8000, link.bar(0)
    for where, offset, size, value in accesses:
        if where == "queue":
            link.put(pci.QUEUE_SELECT, 2, offset & 3)
            continue
        address = {
            "config": ecam + (offset & 0xFF),
            "common": home + (offset & 0x3F),
            "registers": home + offset,
            "table": link.bar(2) + (offset & 0xFFF),
        }[where]
        if value is None:
            assert 0 <= bench.mmio_read(address, size) < 1 << 8 * size
        else:
            bench.mmio_write(address, size, value & (1 << 8 * size) - 1)
    bench.events.run()
    link.set_config(reg.COMMAND, 2, 7)
    link.move(0, NEW_HOME)
    link.set_config(reg.BAR_0 + 8, 4, 0xE200_0000)
    driver._free = 0x8_0000
    driver.start()
    assert driver.queues[0].request([b"abc"], [3]) == b"ABC"
