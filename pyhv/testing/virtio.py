"""A virtio driver to test devices with: it lays out rings in guest memory, adds buffers, notifies, and reads what was used.

    bench = device_bench(Upper())
    assert bench.queues[0].request([b"abc"], [16]) == b"ABC"

`device_bench` joins device and driver directly; `mmio_bench` goes through the registers of virtio-mmio.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio_links import DirectLink, DirectTransport, Link, MmioLink
from pyhv.testing.virtio_rings import Buffer, DriverQueue, PackedDriver, SplitDriver
from pyhv.virtio import ids, mmio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.virtio.device import VirtioDevice
    from pyhv.virtio.transport import Transport

RINGS_AT = 0x1_0000
"""Guest physical address from which rings, tables and buffers are laid out."""

__all__ = [
    "RINGS_AT",
    "Buffer",
    "DirectLink",
    "DirectTransport",
    "DriverQueue",
    "Link",
    "MmioLink",
    "PackedDriver",
    "SplitDriver",
    "VirtioDriver",
    "device_bench",
    "mmio_bench",
]


class VirtioDriver:
    """A driver and its machine: `bench` is the DeviceBench, `device` the device, `queues` the driver's queues.

    `interrupts[i]` counts the interrupts of queue i, `config_interrupts` those of the configuration (direct links only).
    """

    def __init__(self, bench: DeviceBench, device: VirtioDevice, link: Link) -> None:
        self.bench = bench
        self.device = device
        self.link = link
        self.memory = bench.memory
        self.negotiated = 0
        self.queues: list[SplitDriver | PackedDriver] = []
        self._free = RINGS_AT

    def start(self, *, features: int | None = None, without: Sequence[int] = (), packed: bool = False, size: int = 0) -> None:
        """Reset the device, take its features (`features`, or all that it offers but for the bit numbers in `without`; a
        packed ring if so asked), set up every queue with `size` descriptors (0: as many as it takes), and set DRIVER_OK."""
        link = self.link
        link.set_status(0)
        link.set_status(ids.ACKNOWLEDGE)
        link.set_status(ids.ACKNOWLEDGE | ids.DRIVER)
        if features is None:
            features = link.features() & ~sum(1 << bit for bit in without)
        self.negotiated = features & ~(1 << ids.RING_PACKED) | packed << ids.RING_PACKED
        link.set_features(self.negotiated)
        status = ids.ACKNOWLEDGE | ids.DRIVER | ids.FEATURES_OK
        link.set_status(status)
        assert link.status() == status, f"the device refused features {self.negotiated:#x}"
        kind = PackedDriver if packed else SplitDriver
        self.queues = []
        while limit := link.queue_limit(len(self.queues)):
            self.queues.append(kind(self, len(self.queues), min(size, limit) if size else limit))
        link.set_status(status | ids.DRIVER_OK)

    def has(self, bit: int) -> bool:
        """Whether a feature was negotiated."""
        return bool(self.negotiated >> bit & 1)

    @property
    def transport(self) -> Transport:
        """The device's transport."""
        return self.device.link

    @property
    def interrupts(self) -> list[int]:
        """Interrupts by queue."""
        transport = self.transport
        assert isinstance(transport, DirectTransport)
        return transport.interrupts

    @property
    def config_interrupts(self) -> int:
        """Interrupts of the configuration."""
        transport = self.transport
        assert isinstance(transport, DirectTransport)
        return transport.config_interrupts

    def run(self, timeout: float = 0.0) -> bool:
        """Let host events happen."""
        return self.bench.events.run(timeout)

    def allocate(self, size: int, alignment: int = 1) -> int:
        """The address of zeroed guest memory. When it runs out and nothing is outstanding, buffers begin anew."""
        address = (self._free + alignment - 1) & -alignment
        if address + size > self.memory.regions[0].end:
            assert not any(queue.outstanding for queue in self.queues), "the bench's memory is full"
            address = (self._after_rings() + alignment - 1) & -alignment
        self._free = address + size
        self.memory.fill(address, size)
        return address

    def _after_rings(self) -> int:
        return max(queue.device_area + 8 * queue.size + 6 for queue in self.queues)

    def place(self, data: bytes, alignment: int = 1) -> int:
        """The address of guest memory that holds these bytes."""
        address = self.allocate(len(data), alignment)
        self.memory.write(address, data)
        return address


def device_bench(device: VirtioDevice, *, memory: int = 1 << 20, start: bool = True, **options: object) -> VirtioDriver:
    """A device joined to a driver without a transport's registers; `options` are those of `VirtioDriver.start`."""
    bench = DeviceBench(memory=memory)
    transport = DirectTransport(device, bench.platform)
    device.connect(transport)
    driver = VirtioDriver(bench, device, DirectLink(transport))
    if start:
        driver.start(**options)  # type: ignore[arg-type]
    return driver


def mmio_bench(device: VirtioDevice, *, memory: int = 1 << 20, start: bool = True, **options: object) -> VirtioDriver:
    """A device with transport="mmio" and a driver that uses its registers."""
    bench = DeviceBench(device, memory=memory)
    transport = device.link
    assert isinstance(transport, mmio.MmioTransport)
    driver = VirtioDriver(bench, device, MmioLink(bench, transport.address))
    if start:
        driver.start(**options)  # type: ignore[arg-type]
    return driver
