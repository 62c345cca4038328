"""The driver's side of virtio-pci for tests of devices: it finds the structures by their capabilities, as drivers do.

    bench = pci_bench(Upper())
    assert bench.queues[0].request([b"abc"], [16]) == b"ABC"
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import ECAM_BASE, LAPIC_BASE
from pyhv.pci import registers as reg
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import VirtioDriver
from pyhv.virtio import pci

if TYPE_CHECKING:
    from pyhv.virtio.device import VirtioDevice

CONFIG_VECTOR = 0
FIRST_QUEUE_VECTOR = 1


class PciLink:
    """A function in `slot`, by loads and stores on the bus.

    `structures` are the address and the length of each structure, by its type. With `msix`, vector 0 is the
    configuration's and vector 1 + n queue n's; message data is the vector's number.
    """

    def __init__(self, bench: DeviceBench, slot: int = 1, *, msix: bool = True) -> None:
        self.bench = bench
        self.slot = slot
        self.msix = msix
        self.structures: dict[int, tuple[int, int]] = {}
        self.window = self.msix_at = self.multiplier = 0
        self.set_config(reg.COMMAND, 2, reg.COMMAND_IO | reg.COMMAND_MEMORY | reg.COMMAND_MASTER)
        self.find()
        if msix:
            for vector in range(1 + (self.get_config(self.msix_at + 2, 2) & 0x7FF)):
                self.set_vector(vector, vector)
            self.set_config(self.msix_at + 2, 2, 0x8000)

    def get_config(self, offset: int, size: int) -> int:
        """Read configuration space."""
        return self.bench.mmio_read(ECAM_BASE + (self.slot << 15) + offset, size)

    def set_config(self, offset: int, size: int, value: int) -> None:
        """Write configuration space."""
        self.bench.mmio_write(ECAM_BASE + (self.slot << 15) + offset, size, value)

    def bar(self, index: int) -> int:
        """The address in a base address register."""
        low = self.get_config(reg.BAR_0 + 4 * index, 4)
        high = self.get_config(reg.BAR_0 + 4 * index + 4, 4) if low & reg.BAR_MEMORY_64 else 0
        return high << 32 | low & ~0xF

    def move(self, index: int, address: int) -> None:
        """Put a range of 64 bits somewhere else, and find the structures anew."""
        self.set_config(reg.BAR_0 + 4 * index, 4, address & 0xFFFF_FFFF)
        self.set_config(reg.BAR_0 + 4 * index + 4, 4, address >> 32)
        self.find()

    def find(self) -> None:
        """Walk the capabilities."""
        at = self.get_config(reg.CAPABILITIES_POINTER, 1)
        while at:
            kind, following = self.get_config(at, 1), self.get_config(at + 1, 1)
            if kind == reg.CAPABILITY_MSIX:
                self.msix_at = at
            elif kind == reg.CAPABILITY_VENDOR:
                structure = self.get_config(at + 3, 1)
                start = self.bar(self.get_config(at + 4, 1)) + self.get_config(at + 8, 4)
                if structure == pci.PCI_CFG:
                    self.window = at
                else:
                    self.structures[structure] = (start, self.get_config(at + 12, 4))
                if structure == pci.NOTIFY_CFG:
                    self.multiplier = self.get_config(at + 16, 4)
            at = following

    def set_vector(self, vector: int, data: int, *, masked: bool = False) -> None:
        """Fill an entry of the MSI-X table."""
        table = self.bar(self.get_config(self.msix_at + 4, 4) & 7) + 16 * vector
        for offset, value in enumerate((LAPIC_BASE, 0, data, int(masked))):
            self.bench.mmio_write(table + 4 * offset, 4, value)

    def get(self, register: int, size: int) -> int:
        """Load a register of the common configuration."""
        return self.bench.mmio_read(self.structures[pci.COMMON_CFG][0] + register, size)

    def put(self, register: int, size: int, value: int) -> None:
        """Store to a register of the common configuration."""
        self.bench.mmio_write(self.structures[pci.COMMON_CFG][0] + register, size, value)

    def features(self) -> int:
        found = 0
        for select in range(2):
            self.put(pci.DEVICE_FEATURE_SELECT, 4, select)
            found |= self.get(pci.DEVICE_FEATURE, 4) << 32 * select
        return found

    def set_features(self, features: int) -> None:
        for select in range(2):
            self.put(pci.DRIVER_FEATURE_SELECT, 4, select)
            self.put(pci.DRIVER_FEATURE, 4, features >> 32 * select & 0xFFFF_FFFF)

    def status(self) -> int:
        return self.get(pci.DEVICE_STATUS, 1)

    def set_status(self, value: int) -> None:
        self.put(pci.DEVICE_STATUS, 1, value)

    def queue_limit(self, index: int) -> int:
        if index >= self.get(pci.NUM_QUEUES, 2):
            return 0
        self.put(pci.QUEUE_SELECT, 2, index)
        return self.get(pci.QUEUE_SIZE, 2)

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        self.put(pci.QUEUE_SELECT, 2, index)
        self.put(pci.QUEUE_SIZE, 2, size)
        if self.msix:
            self.put(pci.CONFIG_MSIX_VECTOR, 2, CONFIG_VECTOR)
            self.put(pci.QUEUE_MSIX_VECTOR, 2, FIRST_QUEUE_VECTOR + index)
        for register, address in (
            (pci.QUEUE_DESC, descriptors),
            (pci.QUEUE_DRIVER, driver_area),
            (pci.QUEUE_DEVICE, device_area),
        ):
            self.put(register, 4, address & 0xFFFF_FFFF)
            self.put(register + 4, 4, address >> 32)
        self.put(pci.QUEUE_ENABLE, 2, 1)

    def notify(self, index: int) -> None:
        self.put(pci.QUEUE_SELECT, 2, index)
        offset = self.get(pci.QUEUE_NOTIFY_OFF, 2) * self.multiplier
        self.bench.mmio_write(self.structures[pci.NOTIFY_CFG][0] + offset, 2, index)

    def interrupt_status(self) -> int:
        """Read the interrupt status, which clears it."""
        return self.bench.mmio_read(self.structures[pci.ISR_CFG][0], 1)

    def read_config(self, offset: int, size: int) -> bytes:
        start = self.structures[pci.DEVICE_CFG][0] + offset
        return bytes(self.bench.mmio_read(start + i, 1) for i in range(size))

    def write_config(self, offset: int, data: bytes) -> None:
        start = self.structures[pci.DEVICE_CFG][0] + offset
        for i, byte in enumerate(data):
            self.bench.mmio_write(start + i, 1, byte)


def pci_bench(
    device: VirtioDevice, *, memory: int = 1 << 20, msix: bool = True, start: bool = True, **options: object
) -> VirtioDriver:
    """A device on the PCI bus and a driver that uses its registers; `options` are those of `VirtioDriver.start`."""
    bench = DeviceBench(device, memory=memory)
    driver = VirtioDriver(bench, device, PciLink(bench, msix=msix))
    if start:
        driver.start(**options)  # type: ignore[arg-type]
    return driver
