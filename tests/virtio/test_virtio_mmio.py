"""The registers of virtio-mmio (virtio 1.2, 4.2.2), its line, its doorbells, and how a guest finds it."""

import shutil
import subprocess

import pytest
from virtio_driver import Holder, Upper, mmio_bench

from pyhv.boot import aml
from pyhv.chipset.layout import VIRTIO_MMIO_SLOTS
from pyhv.errors import ConfigError
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import MmioLink, VirtioDriver
from pyhv.virtio import ids, mmio


class Device(Holder):
    queue_sizes = (8, 16)

    def __init__(self):
        super().__init__(transport="mmio")
        self.space = bytearray(range(1, 11))

    def config(self):
        return bytes(self.space)

    def write_config(self, offset, data):
        self.space[offset : offset + len(data)] = data


@pytest.fixture
def driver():
    return mmio_bench(Device(), start=False)


@pytest.fixture
def link(driver):
    return driver.link


@pytest.fixture
def line(driver):
    return driver.bench.lines[16]


def test_identity(link):
    assert link.get(mmio.MAGIC_VALUE) == 0x74726976
    assert link.get(mmio.VERSION_REG) == 2
    assert link.get(mmio.DEVICE_ID) == 42
    assert link.get(mmio.VENDOR) == 0x1AF4


def test_features_by_halves(link):
    for select, value in ((0, 0x3000_0000), (1, 0x105), (2, 0), (3, 0), (4, 0), (0xFFFF_FFFF, 0)):
        link.put(mmio.DEVICE_FEATURES_SEL, select)
        assert link.get(mmio.DEVICE_FEATURES) == value


def test_queue_registers(link, driver):
    driver.start()
    link.put(mmio.STATUS, 0)
    for index, limit in ((0, 8), (1, 16), (2, 0), (0xFFFF_FFFF, 0)):
        link.put(mmio.QUEUE_SEL, index)
        assert link.get(mmio.QUEUE_NUM_MAX) == limit and link.get(mmio.QUEUE_READY) == 0


def test_addresses_by_halves(link, driver):
    link.put(mmio.QUEUE_SEL, 1)
    for low, high in (
        (mmio.QUEUE_DESC_LOW, mmio.QUEUE_DESC_HIGH),
        (mmio.QUEUE_DRIVER_LOW, mmio.QUEUE_DRIVER_HIGH),
        (mmio.QUEUE_DEVICE_LOW, mmio.QUEUE_DEVICE_HIGH),
    ):
        link.put(high, 0x1234_5678)
        link.put(low, 0x9ABC_DEF0 + low)
    queue = driver.transport.queues[1]
    areas = [queue.descriptors, queue.driver_area, queue.device_area]
    assert areas == [0x1234_5678_9ABC_DEF0 + register for register in (0x80, 0x90, 0xA0)]
    assert driver.transport.queues[0].descriptors == 0


def test_interrupt_status_and_line(link, driver, line):
    driver.start()
    queue = driver.queues[0]
    queue.add([b"x"])
    queue.kick()
    device = driver.device
    assert link.get(mmio.INTERRUPT_STATUS) == 0 and not line.level
    device.queues[0].push(device.held[0])
    device.queues[0].flush()
    assert link.get(mmio.INTERRUPT_STATUS) == 1 and line.level
    device.config_changed()
    assert link.get(mmio.INTERRUPT_STATUS) == 3 and line.edges == 1
    link.put(mmio.INTERRUPT_ACK, 1)
    assert link.get(mmio.INTERRUPT_STATUS) == 2 and line.level
    link.put(mmio.INTERRUPT_ACK, 0xFFFF_FFFC)
    assert line.level
    link.put(mmio.INTERRUPT_ACK, 2)
    assert link.get(mmio.INTERRUPT_STATUS) == 0 and not line.level


def test_reset_lowers_the_line(link, driver, line):
    driver.start()
    driver.device.config_changed()
    assert line.level
    link.put(mmio.STATUS, 0)
    assert not line.level and link.get(mmio.INTERRUPT_STATUS) == 0
    driver.start()
    driver.device.config_changed()
    driver.device.reset()
    assert not line.level and link.get(mmio.STATUS) == 0


def test_configuration_space_by_any_width(link):
    assert [link.get(mmio.CONFIG + i, 1) for i in range(11)] == [*range(1, 11), 0]
    assert link.get(mmio.CONFIG + 2, 2) == 0x0403
    assert link.get(mmio.CONFIG + 1, 4) == 0x05040302
    assert link.get(mmio.CONFIG, 8) == 0x0807060504030201
    assert link.get(mmio.CONFIG + 8, 4) == 0x0A09
    assert link.get(0xFFC, 4) == 0
    link.put(mmio.CONFIG + 4, 0xBBAA, 2)
    link.put(mmio.CONFIG + 8, 0xFFFF_FFFF, 4)
    assert [link.get(mmio.CONFIG + i, 1) for i in range(4, 10)] == [0xAA, 0xBB, 7, 8, 9, 10]


def test_configuration_generation(link, driver):
    assert link.get(mmio.CONFIG_GENERATION) == 0
    driver.device.config_changed()
    assert link.get(mmio.CONFIG_GENERATION) == 1


def test_a_queue_size_of_more_than_16_bits(link, driver):
    for status in (1, 3):
        link.put(mmio.STATUS, status)
    link.set_features(1 << ids.VERSION_1)
    link.put(mmio.STATUS, 11)
    link.set_queue(0, 0x1_0008, 0x1000, 0x2000, 0x3000)
    assert link.get(mmio.QUEUE_READY) == 0 and link.get(mmio.STATUS) & ids.DEVICE_NEEDS_RESET


def test_registers_are_whole_words(link, driver):
    """4.2.2.2: 32 bits wide and aligned; anything else does nothing and reads zeros."""
    transport = driver.transport
    for size in (1, 2):
        assert link.get(mmio.MAGIC_VALUE, size) == 0
        link.put(mmio.STATUS, 1, size)
        link.put(mmio.QUEUE_NOTIFY, 0, size)
    assert link.get(mmio.MAGIC_VALUE + 2, 4) == 0
    link.put(mmio.STATUS - 2, 0x1_0000, 4)
    assert link.get(mmio.STATUS) == 0
    assert transport.violations == 8


def test_registers_that_are_not_there(link, driver):
    for offset in range(0, 0x100, 4):
        link.put(mmio.QUEUE_SEL, 0)
        before = link.get(offset)
        if offset in (mmio.MAGIC_VALUE, mmio.VERSION_REG, mmio.DEVICE_ID, mmio.VENDOR, mmio.DEVICE_FEATURES):
            link.put(offset, 0xFFFF_FFFF)
            assert link.get(offset) == before
    assert [link.get(offset) for offset in (0x18, 0x28, 0x3C, 0x48, 0x58, 0x68, 0x78, 0xD0, 0xF8)] == [0] * 9


def test_no_shared_memory(link):
    """A length of all ones says that there is no such region (4.2.2)."""
    link.put(mmio.SHM_SEL, 0)
    assert link.get(mmio.SHM_LEN_LOW) == link.get(mmio.SHM_LEN_HIGH) == 0xFFFF_FFFF


def test_queue_ready_and_reset(link, driver):
    driver.start()
    link.put(mmio.QUEUE_SEL, 0)
    assert link.get(mmio.QUEUE_READY) == 1
    link.put(mmio.QUEUE_READY, 1)
    link.put(mmio.QUEUE_READY, 0)
    queue = driver.transport.queues[0]
    assert link.get(mmio.QUEUE_READY) == 0 and queue.descriptors and not queue.ready
    link.put(mmio.QUEUE_READY, 1)
    assert queue.ready
    link.put(mmio.QUEUE_RESET, 0)
    assert queue.ready
    link.put(mmio.QUEUE_RESET, 1)
    assert link.get(mmio.QUEUE_RESET) == 0 and link.get(mmio.QUEUE_READY) == 0 and not queue.descriptors


def test_queue_reset_needs_the_feature(link, driver):
    driver.start(without=(ids.RING_RESET,))
    link.put(mmio.QUEUE_SEL, 0)
    link.put(mmio.QUEUE_RESET, 1)
    assert driver.transport.queues[0].ready


def test_a_queue_that_does_not_exist(link, driver):
    driver.start()
    link.put(mmio.QUEUE_SEL, 2)
    before = driver.transport.violations
    for offset in (*range(0x80, 0xA8, 4), mmio.QUEUE_NUM, mmio.QUEUE_READY, mmio.QUEUE_RESET):
        link.put(offset, 1)
    assert driver.transport.violations > before and link.get(mmio.QUEUE_READY) == 0


def test_slots_and_lines():
    devices = [Upper(transport="mmio") for _ in range(10)]
    bench = DeviceBench(*devices)
    assert [device.link.address for device in devices] == [0xFEB0_0000 + 0x1000 * i for i in range(10)]
    assert [device.link.irq for device in devices] == [16, 17, 18, 19, 20, 21, 22, 23, 16, 17]
    one, other = (VirtioDriver(bench, device, MmioLink(bench, device.link.address)) for device in (devices[0], devices[8]))
    one.start()
    one._free = 0x4_0000
    other._free = 0x8_0000
    other.start()
    devices[0].config_changed()
    devices[8].config_changed()
    one.link.put(mmio.INTERRUPT_ACK, 2)
    assert bench.lines[16].level
    other.link.put(mmio.INTERRUPT_ACK, 2)
    assert not bench.lines[16].level


def test_no_slot_is_left():
    bench = DeviceBench()
    for _ in range(VIRTIO_MMIO_SLOTS):
        Upper(transport="mmio").attach(bench.platform)
    with pytest.raises(ConfigError, match="Upper: all 256 virtio-mmio slots are taken"):
        Upper(transport="mmio").attach(bench.platform)


def test_what_a_kernel_is_told(driver):
    assert driver.transport.kernel_parameter == "virtio_mmio.device=4K@0xfeb00000:16"


def test_the_node_in_the_dsdt(tmp_path, driver):
    """iasl reads it back."""
    (node,) = driver.bench.aml
    if shutil.which("iasl") is None:
        pytest.skip("no iasl: acpica-tools")
    from pyhv.boot.acpi import table

    path = tmp_path / "dsdt.aml"
    path.write_bytes(table(b"DSDT", 2, aml.scope("\\_SB", node)))
    subprocess.run(["iasl", "-d", path], check=True, capture_output=True, timeout=60)
    source = (tmp_path / "dsdt.dsl").read_text()
    assert "Device (VR00)" in source and 'Name (_HID, "LNRO0005")' in source
    assert "0xFEB00000," in source and "0x00001000," in source and "0x00000010," in source
    assert "Interrupt (ResourceConsumer, Level, ActiveLow, Shared, ,, )" in source
    subprocess.run(["iasl", tmp_path / "dsdt.dsl"], check=True, capture_output=True, timeout=60)


class Bell:
    def __init__(self, callback):
        self.callback = callback
        self.closed = False

    def close(self):
        self.closed = True


def test_doorbells():
    """One for each queue once it is in use, kept over resets, given back at the end."""
    device = Device()
    bench = DeviceBench()
    bells = {}

    def doorbell(address, size, callback, *, pio=False, datamatch=None):
        bells[address, size, pio, datamatch] = Bell(callback)
        return bells[address, size, pio, datamatch]

    bench.platform.doorbell = doorbell
    device.attach(bench.platform)
    driver = VirtioDriver(bench, device, MmioLink(bench))
    assert bells == {}
    driver.start()
    assert list(bells) == [(0xFEB0_0050, 4, False, 0), (0xFEB0_0050, 4, False, 1)]
    first = list(bells.values())
    driver.queues[1].add([b"x"])
    first[1].callback()
    assert [chain.read() for chain in device.held] == [b"x"]
    driver.start()
    assert list(bells.values()) == first
    driver.queues[0].add([b"y"])
    first[0].callback()
    assert [chain.read() for chain in device.held] == [b"y"]
    device.close()
    assert all(bell.closed for bell in first)
    device.close()


def test_no_descriptor_is_left_for_a_doorbell():
    bench = DeviceBench()

    def doorbell(*_, **__):
        raise OSError(24, "Too many open files")

    bench.platform.doorbell = doorbell
    device = Upper(transport="mmio")
    device.attach(bench.platform)
    driver = VirtioDriver(bench, device, MmioLink(bench))
    driver.start()
    assert driver.queues[0].request([b"x"], [1]) == b"X"
