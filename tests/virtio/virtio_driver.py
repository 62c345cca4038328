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
    "Holder",
    "MmioLink",
    "PackedDriver",
    "SplitDriver",
    "Upper",
    "VirtioDriver",
    "device_bench",
    "mmio_bench",
    "raw_chain",
    "raw_list",
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


class Holder(VirtioDevice):
    """Keeps every chain in `held` until a test completes it."""

    device_id = 42
    queue_sizes = (8,)

    def __init__(self, **options):
        super().__init__(**options)
        self.held = []
        self.resets = 0

    def handle(self, queue):
        self.held += queue.chains()

    def deactivate(self):
        self.resets += 1
        self.held.clear()


def raw_chain(queue, *descriptors, head=0):
    """Write descriptors as they are, from the table's entry `head` on, and offer that entry (split ring)."""
    for i, descriptor in enumerate(descriptors):
        queue.write_descriptor(head + i, *descriptor)
    queue.offer(head)


def raw_list(queue, *descriptors, ident=0):
    """Write descriptors (address, length, flags) as they are and make them available (packed ring)."""
    for i, (address, length, flags) in reversed(list(enumerate(descriptors))):
        position = queue.next + i
        queue.write_descriptor(position, address, length, ident, flags | queue.flags_of(position))
    queue.next += len(descriptors)
