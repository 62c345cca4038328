"""The base of virtio devices: what a device says of itself, and what it does when its driver calls.

    class Upper(pyhv.VirtioDevice):
        device_id = 42
        queue_sizes = (64,)

        def handle(self, queue):
            for chain in queue.chains():
                data = chain.read()
                chain.write(data.upper())
                queue.push(chain, len(data))
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.device import Device
from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.virtio.errors import VirtioError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyhv.device import Platform
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport


class VirtioDevice(Device):
    """A device of type `device_id` with one queue for each of `queue_sizes` (their largest sizes, in descriptors).

    `features` holds the device's own feature bits; those of the rings are the transport's, but for IN_ORDER: a device that
    sets `in_order` promises to push chains in the order in which it took them. `transport`: "pci" or "mmio".

    While `active`, the driver is done with its set-up; `negotiated` are the feature bits that it took.
    A handler may raise VirtioError or GuestMemoryError: the device then fails, the machine goes on.
    """

    device_id: int = 0
    queue_sizes: Sequence[int] = ()
    features: int = 0
    in_order: bool = False
    transport: str = "pci"

    link: Transport
    queues: tuple[VirtQueue, ...] = ()
    negotiated: int = 0
    active: bool = False

    def __init__(self, *, transport: str | None = None) -> None:
        if transport is not None:
            self.transport = transport
        if self.transport not in ("pci", "mmio"):
            raise ConfigError(f"transport: {self.transport!r} is not one of pci, mmio")

    def attach(self, platform: Platform) -> None:
        """Become visible to the guest over the transport."""
        super().attach(platform)
        if self.transport == "mmio":
            from pyhv.virtio.mmio import MmioTransport

            self.connect(MmioTransport(self, platform))
        else:
            from pyhv.virtio.pci import PciTransport

            self.connect(PciTransport(self, platform))

    def connect(self, link: Transport) -> None:
        """Have this transport."""
        self.platform = link.platform
        self.link = link
        self.queues = link.queues

    def reset(self) -> None:
        """As at power-on."""
        self.link.reset()

    def close(self) -> None:
        """Let the transport give back what it has of the host."""
        if hasattr(self, "link"):
            self.link.close()

    # For devices to override

    def config(self) -> bytes:
        """The device configuration space as it is now."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver writes into the configuration space; 1 to 8 bytes that lie in it."""

    def accepts(self, features: int) -> bool:
        """Whether the device works with this choice of its features; they were all offered."""
        return True

    def activate(self) -> None:
        """The driver is ready: `negotiated` and `queues` can be used."""

    def deactivate(self) -> None:
        """The driver or the machine reset the device: forget what is under way."""

    def handle(self, queue: VirtQueue) -> None:
        """The driver notified a queue. What is pushed here is published afterwards."""

    def queue_reset(self, queue: VirtQueue) -> None:
        """The driver took one queue back: forget its chains."""

    # For devices to use

    def has(self, bit: int) -> bool:
        """Whether a feature, by its bit number, is in force."""
        return bool(self.negotiated >> bit & 1)

    def config_changed(self) -> None:
        """Tell the driver that `config()` gives something new."""
        self.link.config_changed()

    def fail(self, reason: str) -> None:
        """Stop until the driver resets the device: it broke the protocol, or the device cannot go on."""
        self.link.fail(reason)

    def guarded(self, callback: Callable[[], None]) -> Callable[[], None]:
        """`callback` for timers and host events: an error of the driver that comes up in it fails the device."""

        def call() -> None:
            try:
                callback()
            except (VirtioError, GuestMemoryError) as error:
                self.link.fail(str(error))

        return call
