"""The model driver, which the library has for its users' tests as well, and a device to try it on."""

from pyhv.testing.virtio import (
    Buffer,
    DirectLink,
    DirectTransport,
    MmioLink,
    PackedDriver,
    SplitDriver,
    VirtioDriver,
    device_bench,
    mmio_bench,
)
from pyhv.virtio.device import VirtioDevice

__all__ = [
    "Buffer",
    "DirectLink",
    "DirectTransport",
    "MmioLink",
    "PackedDriver",
    "SplitDriver",
    "Upper",
    "VirtioDriver",
    "device_bench",
    "mmio_bench",
]


class Upper(VirtioDevice):
    """Gives text back in capitals."""

    device_id = 42
    queue_sizes = (64,)

    def handle(self, queue):
        for chain in queue.chains():
            data = chain.read()
            chain.write(data.upper())
            queue.push(chain, len(data))
