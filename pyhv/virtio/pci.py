"""Virtio over PCI (virtio 1.2, 4.1), without the legacy interface.

One range holds the four structures of registers, another the table of MSI-X. Capabilities of the function say where they
are; one of them is a window to the ranges for software that can only reach configuration space.
"""

from __future__ import annotations

from struct import pack

from pyhv._types import TYPE_CHECKING
from pyhv.errors import HostError
from pyhv.log import event
from pyhv.pci import BarKind, PciFunction
from pyhv.pci.registers import CAPABILITY_VENDOR
from pyhv.virtio import ids
from pyhv.virtio.queue import NO_RING
from pyhv.virtio.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.device import Platform
    from pyhv.notify import Doorbell
    from pyhv.virtio.device import VirtioDevice
    from pyhv.virtio.queue import VirtQueue

FIRST_DEVICE = 0x1040
"""Device id of a virtio device of type 0 (4.1.2.1)."""
REVISION = 1
CLASSES = {
    ids.NET: 0x02_0000,
    ids.BLOCK: 0x01_8000,
    ids.CONSOLE: 0x07_8000,
    ids.VSOCK: 0x07_8000,
    ids.FS: 0x01_8000,
    ids.PMEM: 0x05_8000,
}
OTHER_CLASS = 0x00_FF00

# Capabilities (4.1.4)
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5
CAPABILITY_SIZE = 16
CFG_BAR, CFG_OFFSET, CFG_LENGTH, CFG_DATA = 4, 8, 12, 16

# Where the structures are
REGISTERS_BAR, MSIX_BAR = 0, 2
COMMON, ISR, DEVICE, NOTIFY = 0x0000, 0x1000, 0x2000, 0x3000
STRUCTURE_SIZE = 0x1000
NOTIFY_MULTIPLIER = 4
NO_VECTOR = 0xFFFF

# Common configuration (4.1.4.3)
DEVICE_FEATURE_SELECT, DEVICE_FEATURE, DRIVER_FEATURE_SELECT, DRIVER_FEATURE = 0x00, 0x04, 0x08, 0x0C
CONFIG_MSIX_VECTOR, NUM_QUEUES, DEVICE_STATUS, CONFIG_GENERATION, QUEUE_SELECT = 0x10, 0x12, 0x14, 0x15, 0x16
QUEUE_SIZE, QUEUE_MSIX_VECTOR, QUEUE_ENABLE, QUEUE_NOTIFY_OFF = 0x18, 0x1A, 0x1C, 0x1E
QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE = 0x20, 0x28, 0x30
QUEUE_NOTIFY_DATA, QUEUE_RESET = 0x38, 0x3A
COMMON_SIZE = 0x3C
_AREAS = {
    QUEUE_DESC: ("descriptors", 0),
    QUEUE_DESC + 4: ("descriptors", 32),
    QUEUE_DRIVER: ("driver_area", 0),
    QUEUE_DRIVER + 4: ("driver_area", 32),
    QUEUE_DEVICE: ("device_area", 0),
    QUEUE_DEVICE + 4: ("device_area", 32),
}
_WIDTHS = {
    **dict.fromkeys((DEVICE_FEATURE_SELECT, DEVICE_FEATURE, DRIVER_FEATURE_SELECT, DRIVER_FEATURE, *_AREAS), 4),
    **dict.fromkeys((CONFIG_MSIX_VECTOR, NUM_QUEUES, QUEUE_SELECT, QUEUE_SIZE, QUEUE_MSIX_VECTOR), 2),
    **dict.fromkeys((QUEUE_ENABLE, QUEUE_NOTIFY_OFF, QUEUE_NOTIFY_DATA, QUEUE_RESET), 2),
    **dict.fromkeys((DEVICE_STATUS, CONFIG_GENERATION), 1),
}
"""The registers of the common configuration, each with its size. Addresses are two registers of 32 bits (4.1.3.1)."""


class PciTransport(Transport):
    """A function on the bus with INTA#, and MSI-X with a vector for the configuration and one for each queue."""

    areas = _AREAS

    def __init__(self, device: VirtioDevice, platform: Platform) -> None:
        super().__init__(device, platform)
        number = FIRST_DEVICE + device.device_id
        self.function = function = PciFunction(
            vendor=ids.VENDOR_ID,
            device=number,
            class_code=CLASSES.get(device.device_id, OTHER_CLASS),
            revision=REVISION,
            subsystem_vendor=ids.VENDOR_ID,
            subsystem=number,
            interrupt_pin=1,
            name=device.label,
            master_changed=self._master_changed,
        )
        self._doorbells: dict[int, Doorbell] = {}
        self._address: int | None = None
        notify_size = max(STRUCTURE_SIZE, NOTIFY_MULTIPLIER * len(self.queues))
        for kind, offset, length, more in (
            (COMMON_CFG, COMMON, COMMON_SIZE, b""),
            (NOTIFY_CFG, NOTIFY, notify_size, pack("<I", NOTIFY_MULTIPLIER)),
            (ISR_CFG, ISR, 1, b""),
            (DEVICE_CFG, DEVICE, STRUCTURE_SIZE, b""),
        ):
            function.add_capability(CAPABILITY_VENDOR, _capability(kind, offset, length, more))
        self._window = function.add_capability(
            CAPABILITY_VENDOR,
            _capability(PCI_CFG, 0, 0, bytes(4)),
            writable=b"\0\0\xff\0\0\0" + b"\xff" * 12,
        )
        function.config.on_read(self._window + CFG_DATA, self._read_window)
        function.config.on_write(self._window + CFG_DATA, self._write_window)
        function.add_bar(
            REGISTERS_BAR,
            1 << (NOTIFY + notify_size - 1).bit_length(),
            self,
            kind=BarKind.MEMORY64,
            moved=self._moved,
        )
        self._msix = function.add_msix(1 + len(self.queues), MSIX_BAR, platform.message_source)
        self._clear()
        for queue in self.queues:
            queue.hold(True)  # until software makes the function bus master
        self.slot = platform.pci.add(function)

    def _clear(self) -> None:
        self._device_select = self._driver_select = self.queue_select = 0
        self._interrupts = 0
        self._config_vector = NO_VECTOR
        self._vectors = [NO_VECTOR] * len(self.queues)

    # Registers

    def read(self, offset: int, size: int) -> int:
        """Any of the structures. What is no register reads zero."""
        if offset < ISR:
            return self._read_common(offset, size)
        if offset >= NOTIFY:
            return 0
        if offset >= DEVICE:
            return self.read_config(offset - DEVICE, size)
        if offset > ISR:
            return 0
        interrupts, self._interrupts = self._interrupts, 0
        self.function.interrupt(False)
        return interrupts

    def write(self, offset: int, size: int, value: int) -> None:
        """Any of the structures. In the common configuration only whole registers are taken."""
        if offset >= NOTIFY:
            index, rest = divmod(offset - NOTIFY, NOTIFY_MULTIPLIER)
            if rest:
                self.violation(f"{size} bytes written between notifications at {offset:#x}")
            else:
                self.notify(index)
        elif offset >= DEVICE:
            self.write_config(offset - DEVICE, size, value)
        elif offset >= ISR:
            self.violation(f"{size} bytes written at the interrupt status")
        elif _WIDTHS.get(offset) == size:
            self._write_register(offset, value)
        else:
            self.violation(f"{size} bytes written at common configuration {offset:#x}")

    def _read_common(self, offset: int, size: int) -> int:
        if _WIDTHS.get(offset) == size:
            return self._read_register(offset)
        self.violation(f"{size} bytes read at common configuration {offset:#x}")
        value = 0
        for register, width in _WIDTHS.items():
            shift = 8 * (register - offset)
            if register < offset + size and offset < register + width:
                bits = self._read_register(register)
                value |= bits << shift if shift >= 0 else bits >> -shift
        return value & (1 << 8 * size) - 1

    def _read_register(self, offset: int) -> int:
        if offset == DEVICE_STATUS:
            return self.status
        if offset == DEVICE_FEATURE_SELECT:
            return self._device_select
        if offset == DEVICE_FEATURE:
            return self.device_features(self._device_select)
        if offset == DRIVER_FEATURE_SELECT:
            return self._driver_select
        if offset == DRIVER_FEATURE:
            select = self._driver_select
            return self.driver_features >> 32 * select & 0xFFFF_FFFF if select < 4 else 0
        if offset == CONFIG_MSIX_VECTOR:
            return self._config_vector
        if offset == NUM_QUEUES:
            return len(self.queues)
        if offset == CONFIG_GENERATION:
            return self.read_generation() & 0xFF
        if offset == QUEUE_SELECT:
            return self.queue_select
        return self._read_queue(offset)

    def _read_queue(self, offset: int) -> int:
        queue = self.selected()
        if queue is None:
            return NO_VECTOR if offset == QUEUE_MSIX_VECTOR else 0
        if offset == QUEUE_SIZE:
            packed = self.negotiated >> ids.RING_PACKED & 1
            return queue.size if packed or not queue.size & (queue.size - 1) else 0  # "0 or a power of 2" (4.1.4.3.1)
        if offset == QUEUE_MSIX_VECTOR:
            return self._vectors[queue.index]
        if offset == QUEUE_ENABLE:
            return int(queue.enabled)
        if offset == QUEUE_NOTIFY_OFF:
            return queue.index
        if offset in _AREAS:
            area, shift = _AREAS[offset]
            address: int = getattr(queue, area)
            return address >> shift & 0xFFFF_FFFF
        return 0

    def _write_register(self, offset: int, value: int) -> None:
        if offset == DEVICE_STATUS:
            self.set_status(value)
        elif offset == DEVICE_FEATURE_SELECT:
            self._device_select = value
        elif offset == DRIVER_FEATURE_SELECT:
            self._driver_select = value
        elif offset == DRIVER_FEATURE:
            self.set_driver_features(self._driver_select, value)
        elif offset == CONFIG_MSIX_VECTOR:
            self._config_vector = self._vector(value)
        elif offset == QUEUE_SELECT:
            self.queue_select = value
        elif offset in (DEVICE_FEATURE, NUM_QUEUES, CONFIG_GENERATION, QUEUE_NOTIFY_OFF, QUEUE_NOTIFY_DATA):
            self.violation(f"read-only register {offset:#x} written")
        else:
            self.write_queue(offset, value)

    def write_queue_register(self, queue: VirtQueue, offset: int, value: int) -> None:
        if offset == QUEUE_SIZE:
            self.set_queue_size(queue, value)
        elif offset == QUEUE_MSIX_VECTOR:
            self._vectors[queue.index] = self._vector(value)
        elif offset == QUEUE_ENABLE:
            if value == 1:
                self.enable_queue(queue)
            else:
                self.violation(f"queue {queue.index}: {value} written to its enable register")
        elif value == 1 and self.negotiated >> ids.RING_RESET & 1:
            self._vectors[queue.index] = NO_VECTOR
            self.reset_queue(queue)
        else:
            self.violation(f"queue {queue.index}: {value} written to its reset register")

    def _vector(self, value: int) -> int:
        """A vector as it is then read: NO_VECTOR for one that there is not (4.1.5.1.2)."""
        if value != NO_VECTOR and value >= self._msix.vectors:
            self.violation(f"vector {value} of {self._msix.vectors}")
        return value if value < self._msix.vectors else NO_VECTOR

    # The window in configuration space (4.1.4.9)

    def _aim(self) -> tuple[Callable[[int, int], int], Callable[[int, int, int], None], int, int] | None:
        """Whose register the window shows: its read and write, offset and size; None where it shows none."""
        get, at = self.function.config.get, self._window
        bar = self.function.bars.get(get(at + CFG_BAR, 1))
        offset, size = get(at + CFG_OFFSET, 4), get(at + CFG_LENGTH, 4)
        if bar is None or size not in (1, 2, 4) or offset % size or offset + size > bar.size:
            return None
        return bar.handler.read, bar.handler.write, offset, size

    def _read_window(self) -> int:
        aim = self._aim()
        if aim is None:
            self.violation("configuration window aimed at nothing")
            return 0
        read, _, offset, size = aim
        return read(offset, size) & (1 << 8 * size) - 1

    def _write_window(self) -> None:
        aim = self._aim()
        if aim is None:
            self.violation("configuration window aimed at nothing")
            return
        _, write, offset, size = aim
        write(offset, size, self.function.config.get(self._window + CFG_DATA, size))

    # What happens

    def notify(self, index: int) -> None:
        """A function that is not bus master must not touch the queue; it does once it is."""
        if self.function.bus_master:
            super().notify(index)
        else:
            self.violation(f"queue {index} notified when the function is not bus master")

    def _master_changed(self) -> None:
        for queue in self.queues:
            queue.hold(not self.function.bus_master)
        for queue in self.queues:
            if queue.ready:
                self.handle(queue)

    def interrupt_queue(self, queue: VirtQueue) -> None:
        if self._msix.enabled:
            self._msix.fire(self._vectors[queue.index])
        else:
            self._interrupts |= ids.ISR_QUEUE
            self.function.interrupt(True)

    def interrupt_config(self) -> None:
        """The interrupt status says so also where a message is sent (4.1.4.5.1)."""
        self._interrupts |= ids.ISR_CONFIG
        if self._msix.enabled:
            self._msix.fire(self._config_vector)
        else:
            self.function.interrupt(True)

    def opened(self, queue: VirtQueue) -> None:
        if self._address is None or queue.index in self._doorbells:
            return

        def rung() -> None:
            if queue.ready:
                self.notify(queue.index)

        try:
            doorbell = self.platform.doorbell(self._address + NOTIFY + NOTIFY_MULTIPLIER * queue.index, 2, rung)
        except (HostError, OSError) as error:
            event("virtio.no_doorbell", device=self.device.label, queue=queue.index, error=str(error))
            return
        if doorbell is not None:
            self._doorbells[queue.index] = doorbell

    def _moved(self, address: int | None) -> None:
        self._close_doorbells()
        self._address = address
        for queue in self.queues:
            if queue.ring is not NO_RING:
                self.opened(queue)

    def stopped(self) -> None:
        self._close_doorbells()
        self._clear()
        self.function.interrupt(False)

    def close(self) -> None:
        super().close()
        self._close_doorbells()
        self.function.close()

    def _close_doorbells(self) -> None:
        while self._doorbells:
            self._doorbells.popitem()[1].close()


def _capability(kind: int, offset: int, length: int, more: bytes) -> bytes:
    """A structure's capability behind its first two bytes: length, type, BAR, identifier, padding, offset, length."""
    return pack("<BBBBxxII", CAPABILITY_SIZE + len(more), kind, REGISTERS_BAR, 0, offset, length) + more
