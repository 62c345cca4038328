"""How a test's driver reaches a virtio device: past the registers, or through those of virtio-mmio."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.chipset.layout import VIRTIO_MMIO_BASE
from pyhv.virtio import mmio
from pyhv.virtio.transport import Transport

if TYPE_CHECKING:
    from pyhv.device import Platform
    from pyhv.testing.bench import DeviceBench
    from pyhv.virtio.device import VirtioDevice
    from pyhv.virtio.queue import VirtQueue


class Link(Protocol):
    """How the driver reaches the device's registers."""

    def features(self) -> int: ...

    def set_features(self, features: int) -> None: ...

    def status(self) -> int: ...

    def set_status(self, value: int) -> None: ...

    def queue_limit(self, index: int) -> int:
        """The largest size of a queue; 0 when there is none."""
        ...

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        """Tell where a queue is, and enable it."""
        ...

    def notify(self, index: int) -> None: ...

    def read_config(self, offset: int, size: int) -> bytes: ...

    def write_config(self, offset: int, data: bytes) -> None: ...


class DirectTransport(Transport):
    """A transport without registers: it counts interrupts, by queue and for the configuration."""

    def __init__(self, device: VirtioDevice, platform: Platform) -> None:
        super().__init__(device, platform)
        self.interrupts = [0] * len(self.queues)
        self.config_interrupts = 0

    def interrupt_queue(self, queue: VirtQueue) -> None:
        self.interrupts[queue.index] += 1

    def interrupt_config(self) -> None:
        self.config_interrupts += 1


class DirectLink:
    """The driver's side of a DirectTransport, or of any other, past its registers."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def features(self) -> int:
        return self.transport.offered

    def set_features(self, features: int) -> None:
        for select in range(4):
            self.transport.set_driver_features(select, features >> (32 * select) & 0xFFFF_FFFF)

    def status(self) -> int:
        return self.transport.status

    def set_status(self, value: int) -> None:
        self.transport.set_status(value)

    def queue_limit(self, index: int) -> int:
        queues = self.transport.queues
        return queues[index].max_size if index < len(queues) else 0

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        queue, everything = self.transport.queues[index], (1 << 64) - 1
        self.transport.set_queue_size(queue, size)
        self.transport.set_queue_area(queue, "descriptors", descriptors, everything)
        self.transport.set_queue_area(queue, "driver_area", driver_area, everything)
        self.transport.set_queue_area(queue, "device_area", device_area, everything)
        self.transport.enable_queue(queue)

    def notify(self, index: int) -> None:
        self.transport.notify(index)

    def read_config(self, offset: int, size: int) -> bytes:
        return self.transport.read_config(offset, size).to_bytes(size, "little")

    def write_config(self, offset: int, data: bytes) -> None:
        self.transport.write_config(offset, len(data), int.from_bytes(data, "little"))


class MmioLink:
    """The driver's side of virtio-mmio, by loads and stores on the bus."""

    def __init__(self, bench: DeviceBench, address: int = VIRTIO_MMIO_BASE) -> None:
        self.bench = bench
        self.address = address

    def get(self, register: int, size: int = 4) -> int:
        """Load a register."""
        return self.bench.mmio_read(self.address + register, size)

    def put(self, register: int, value: int, size: int = 4) -> None:
        """Store to a register."""
        self.bench.mmio_write(self.address + register, size, value)

    def features(self) -> int:
        found = 0
        for select in range(2):
            self.put(mmio.DEVICE_FEATURES_SEL, select)
            found |= self.get(mmio.DEVICE_FEATURES) << 32 * select
        return found

    def set_features(self, features: int) -> None:
        for select in range(2):
            self.put(mmio.DRIVER_FEATURES_SEL, select)
            self.put(mmio.DRIVER_FEATURES, features >> 32 * select & 0xFFFF_FFFF)

    def status(self) -> int:
        return self.get(mmio.STATUS)

    def set_status(self, value: int) -> None:
        self.put(mmio.STATUS, value)

    def queue_limit(self, index: int) -> int:
        self.put(mmio.QUEUE_SEL, index)
        return self.get(mmio.QUEUE_NUM_MAX)

    def set_queue(self, index: int, size: int, descriptors: int, driver_area: int, device_area: int) -> None:
        self.put(mmio.QUEUE_SEL, index)
        self.put(mmio.QUEUE_NUM, size)
        for low, address in (
            (mmio.QUEUE_DESC_LOW, descriptors),
            (mmio.QUEUE_DRIVER_LOW, driver_area),
            (mmio.QUEUE_DEVICE_LOW, device_area),
        ):
            self.put(low, address & 0xFFFF_FFFF)
            self.put(low + 4, address >> 32)
        self.put(mmio.QUEUE_READY, 1)

    def notify(self, index: int) -> None:
        self.put(mmio.QUEUE_NOTIFY, index)

    def read_config(self, offset: int, size: int) -> bytes:
        return bytes(self.get(mmio.CONFIG + offset + i, 1) for i in range(size))

    def write_config(self, offset: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            self.put(mmio.CONFIG + offset + i, byte, 1)
