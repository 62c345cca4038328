"""Virtio over MMIO (virtio 1.2, 4.2): one page of registers and one interrupt line a device.

Kernels find it by its node in the DSDT (LNRO0005), or by `kernel_parameter`.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import PCI_FIRST_GSI, PCI_WIRES, VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE, VIRTIO_MMIO_SLOTS
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.virtio import ids
from pyhv.virtio.transport import Transport

if TYPE_CHECKING:
    from pyhv.device import Platform
    from pyhv.notify import Doorbell
    from pyhv.virtio.device import VirtioDevice
    from pyhv.virtio.queue import VirtQueue

MAGIC = int.from_bytes(b"virt", "little")
VERSION = 2

# Registers (table 4.1)
MAGIC_VALUE, VERSION_REG, DEVICE_ID, VENDOR = 0x00, 0x04, 0x08, 0x0C
DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER_FEATURES, DRIVER_FEATURES_SEL = 0x10, 0x14, 0x20, 0x24
QUEUE_SEL, QUEUE_NUM_MAX, QUEUE_NUM, QUEUE_READY, QUEUE_NOTIFY = 0x30, 0x34, 0x38, 0x44, 0x50
INTERRUPT_STATUS, INTERRUPT_ACK, STATUS = 0x60, 0x64, 0x70
QUEUE_DESC_LOW, QUEUE_DESC_HIGH, QUEUE_DRIVER_LOW, QUEUE_DRIVER_HIGH = 0x80, 0x84, 0x90, 0x94
QUEUE_DEVICE_LOW, QUEUE_DEVICE_HIGH = 0xA0, 0xA4
SHM_SEL, SHM_LEN_LOW, SHM_LEN_HIGH, SHM_BASE_LOW, SHM_BASE_HIGH = 0xAC, 0xB0, 0xB4, 0xB8, 0xBC
QUEUE_RESET, CONFIG_GENERATION, CONFIG = 0xC0, 0xFC, 0x100

_AREAS = {
    QUEUE_DESC_LOW: ("descriptors", 0),
    QUEUE_DESC_HIGH: ("descriptors", 32),
    QUEUE_DRIVER_LOW: ("driver_area", 0),
    QUEUE_DRIVER_HIGH: ("driver_area", 32),
    QUEUE_DEVICE_LOW: ("device_area", 0),
    QUEUE_DEVICE_HIGH: ("device_area", 32),
}


class MmioTransport(Transport):
    """Registers in the first free slot, on a level-triggered line that other devices may share."""

    areas = _AREAS

    def __init__(self, device: VirtioDevice, platform: Platform) -> None:
        super().__init__(device, platform)
        for slot in range(VIRTIO_MMIO_SLOTS):
            self.address = VIRTIO_MMIO_BASE + VIRTIO_MMIO_SIZE * slot
            if platform.mmio.find(self.address) is None:
                break
        else:
            raise ConfigError(f"{device.label}: all {VIRTIO_MMIO_SLOTS} virtio-mmio slots are taken")
        self.slot = slot
        self.irq = PCI_FIRST_GSI + slot % PCI_WIRES
        self._line = platform.line(self.irq)
        self._features_select = 0
        self._driver_select = 0
        self._interrupts = 0
        self._doorbells: list[Doorbell | None] = [None] * len(self.queues)
        platform.mmio.map(self.address, VIRTIO_MMIO_SIZE, self, device.label, 4)
        platform.add_acpi(self._acpi())

    @property
    def kernel_parameter(self) -> str:
        """What a Linux kernel without ACPI is to be told: size, address and interrupt."""
        return f"virtio_mmio.device={VIRTIO_MMIO_SIZE >> 10}K@{self.address:#x}:{self.irq}"

    def _acpi(self) -> bytes:
        from pyhv.boot import aml

        return aml.device(
            f"VR{self.slot:02X}",
            aml.name("_HID", aml.string("LNRO0005")),
            aml.name("_UID", aml.integer(self.slot)),
            aml.name("_CCA", aml.integer(1)),
            aml.name(
                "_CRS",
                aml.resources(
                    aml.memory32(self.address, VIRTIO_MMIO_SIZE), aml.interrupt(self.irq, active_low=True, shared=True)
                ),
            ),
        )

    # Registers

    def read(self, offset: int, size: int) -> int:
        """A register, or bytes of the configuration space."""
        if offset >= CONFIG:
            return self.read_config(offset - CONFIG, size)
        if size != 4 or offset & 3:
            self.violation(f"{size} bytes read at register {offset:#x}")
            return 0
        if offset == INTERRUPT_STATUS:
            return self._interrupts
        if offset == MAGIC_VALUE:
            return MAGIC
        if offset == VERSION_REG:
            return VERSION
        if offset == DEVICE_ID:
            return self.device.device_id
        if offset == VENDOR:
            return ids.VENDOR_ID
        if offset == DEVICE_FEATURES:
            return self.device_features(self._features_select)
        if offset == STATUS:
            return self.status
        if offset == CONFIG_GENERATION:
            return self.read_generation() & 0xFFFF_FFFF
        if SHM_LEN_LOW <= offset <= SHM_BASE_HIGH:
            return 0xFFFF_FFFF
        queue = self.selected()
        if queue is not None:
            if offset == QUEUE_NUM_MAX:
                return queue.max_size
            if offset == QUEUE_READY:
                return int(queue.enabled)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A register, or bytes of the configuration space."""
        if offset == QUEUE_NOTIFY and size == 4:
            self.notify(value)
        elif offset >= CONFIG:
            self.write_config(offset - CONFIG, size, value)
        elif size != 4 or offset & 3:
            self.violation(f"{size} bytes written at register {offset:#x}")
        elif offset == INTERRUPT_ACK:
            self._interrupts &= ~value
            self._line.set(bool(self._interrupts))
        elif offset == STATUS:
            self.set_status(value)
        elif offset == DEVICE_FEATURES_SEL:
            self._features_select = value
        elif offset == DRIVER_FEATURES_SEL:
            self._driver_select = value
        elif offset == DRIVER_FEATURES:
            self.set_driver_features(self._driver_select, value)
        elif offset == QUEUE_SEL:
            self.queue_select = value
        elif offset != SHM_SEL:
            self.write_queue(offset, value)

    def write_queue_register(self, queue: VirtQueue, offset: int, value: int) -> None:
        if offset == QUEUE_NUM:
            self.set_queue_size(queue, value)
        elif offset == QUEUE_READY:
            if value & 1:
                self.enable_queue(queue)
            else:
                self.reset_queue(queue, keep=True)
        elif offset == QUEUE_RESET:
            if value & 1 and self.negotiated >> ids.RING_RESET & 1:
                self.reset_queue(queue)
        else:
            self.violation(f"register {offset:#x} written")

    # What happens

    def interrupt_queue(self, queue: VirtQueue) -> None:
        self._interrupts |= ids.ISR_QUEUE
        self._line.set(True)

    def interrupt_config(self) -> None:
        self._interrupts |= ids.ISR_CONFIG
        self._line.set(True)

    def opened(self, queue: VirtQueue) -> None:
        if self._doorbells[queue.index] is not None:
            return

        def rung() -> None:
            if queue.ready:  # it may have been reset since
                self.handle(queue)

        try:
            self._doorbells[queue.index] = self.platform.doorbell(
                self.address + QUEUE_NOTIFY, 4, rung, datamatch=queue.index
            )
        except OSError as error:  # no descriptor is left: then each notification is an exit
            event("virtio.no_doorbell", device=self.device.label, queue=queue.index, error=str(error))

    def stopped(self) -> None:
        self._features_select = self._driver_select = self.queue_select = 0
        self._interrupts = 0
        self._line.set(False)

    def close(self) -> None:
        super().close()
        for index, doorbell in enumerate(self._doorbells):
            if doorbell is not None:
                self._doorbells[index] = None
                doorbell.close()
