"""What the transports share: the driver's way to a working device, and what becomes of one that leaves it.

A transport turns registers into the calls of `Transport`, and its two interrupts into wires or messages. Feature bits,
status and queue addresses are checked here (virtio 1.2, 2.1, 2.2, 3.1.1).
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.log import event
from pyhv.virtio import ids
from pyhv.virtio.errors import VirtioError
from pyhv.virtio.packed import PackedRing, check_packed
from pyhv.virtio.queue import NO_RING, VirtQueue
from pyhv.virtio.split import SplitRing, check_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyhv.device import Platform
    from pyhv.virtio.device import VirtioDevice

RING_FEATURES = 1 << ids.INDIRECT_DESC | 1 << ids.EVENT_IDX | 1 << ids.VERSION_1 | 1 << ids.RING_PACKED | 1 << ids.RING_RESET
_STEPS = (
    (ids.ACKNOWLEDGE, 0),
    (ids.DRIVER, ids.ACKNOWLEDGE),
    (ids.FEATURES_OK, ids.ACKNOWLEDGE | ids.DRIVER),
    (ids.DRIVER_OK, ids.ACKNOWLEDGE | ids.DRIVER | ids.FEATURES_OK),
)
"""Status bits in the order in which a driver sets them, and what each stands on (2.1, 3.1.1)."""
MAX_DEVICE_ID = 0xFFFF - 0x1040
"""So that the PCI device id fits (4.1.2.1)."""
_LOGGED = 16
"""How many violations of one device are told to listeners; all are counted."""


class Transport:
    """One device's connection to its driver.

    What is of one transport only is overridden: `interrupt_queue`, `interrupt_config`, `opened`, `stopped`, `close`,
    `write_queue_register`, and `areas`: the registers of queue addresses, each with the area and the bit where its 32 begin.
    `queue_select` is the driver's choice of a queue. `violations` counts what the driver did against the rules; `failure`
    says why the device needs a reset.
    """

    areas: Mapping[int, tuple[str, int]] = {}

    def __init__(self, device: VirtioDevice, platform: Platform) -> None:
        if not 0 < device.device_id <= MAX_DEVICE_ID:
            raise ConfigError(f"{device.label}: device_id: {device.device_id!r} is not one of 1 to {MAX_DEVICE_ID}")
        for size in device.queue_sizes:
            if not 0 < size <= ids.MAX_QUEUE_SIZE or size & (size - 1):
                raise ConfigError(f"{device.label}: queue_sizes: {size!r} is not a power of two up to {ids.MAX_QUEUE_SIZE}")
        self.device = device
        self.platform = platform
        self.offered = device.features | RING_FEATURES | (1 << ids.IN_ORDER if device.in_order else 0)
        self.queues = tuple(VirtQueue(index, size, self) for index, size in enumerate(device.queue_sizes))
        self.status = 0
        self.driver_features = 0
        self.queue_select = 0
        self.config_generation = 0
        self._shown_generation = 0
        self.violations = 0
        self.failure = ""

    # What a transport provides

    def interrupt_queue(self, queue: VirtQueue) -> None:
        """Used buffers wait in a queue."""

    def interrupt_config(self) -> None:
        """The configuration changed, or the device failed."""

    def write_queue_register(self, queue: VirtQueue, offset: int, value: int) -> None:
        """A register of a queue, but for those of its addresses."""

    def opened(self, queue: VirtQueue) -> None:
        """A queue can be used from now on, and be notified."""

    def stopped(self) -> None:
        """The device was reset."""

    def close(self) -> None:
        """Give back what the transport has of the host. Idempotent."""
        self._stop_queues()

    # What registers do

    def device_features(self, select: int) -> int:
        """32 of the feature bits that the device offers."""
        return (self.offered >> (32 * select)) & 0xFFFF_FFFF if select < 4 else 0

    def set_driver_features(self, select: int, value: int) -> None:
        """32 of the feature bits that the driver takes."""
        if self.status & ids.FEATURES_OK:
            self.violation("feature bits after FEATURES_OK")
        elif select < 4:
            shift = 32 * select
            self.driver_features = self.driver_features & ~(0xFFFF_FFFF << shift) | (value & 0xFFFF_FFFF) << shift
        elif value:
            self.violation(f"feature bits from {32 * select}")

    def set_status(self, value: int) -> None:
        """The driver's write to the status register."""
        if value == 0:
            self.reset()
            return
        if self.status & ~value & ~ids.DEVICE_NEEDS_RESET:
            self.violation(f"status {self.status:#x} set to {value:#x}: bits go only by a reset")
        wanted = value & ~self.status
        if wanted & ids.FAILED:
            self.status |= ids.FAILED
            self._stop_queues()
            event("virtio.driver_failed", device=self.device.label)
        for bit, before in _STEPS:
            if not wanted & bit:
                continue
            if self.status & before != before or self.status & (ids.FAILED | ids.DEVICE_NEEDS_RESET):
                self.violation(f"status bit {bit:#x} when the status is {self.status:#x}")
            elif bit == ids.FEATURES_OK and not self._acceptable():
                self.violation(f"features {self.driver_features:#x} of {self.offered:#x}")
            else:
                self.status |= bit
                if bit == ids.FEATURES_OK:
                    self.device.negotiated = self.driver_features
                elif bit == ids.DRIVER_OK:
                    self._start()

    def _acceptable(self) -> bool:
        features = self.driver_features
        return (
            not features & ~self.offered
            and bool(features >> ids.VERSION_1 & 1)
            and self.device.accepts(features)
        )

    def selected(self) -> VirtQueue | None:
        """The queue that the driver's registers are about; None where it chose one that there is not."""
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def write_queue(self, offset: int, value: int) -> None:
        """A register of the selected queue."""
        queue = self.selected()
        if queue is None:
            self.violation(f"register {offset:#x} of queue {self.queue_select}, which does not exist")
        elif offset in self.areas:
            area, shift = self.areas[offset]
            self.set_queue_area(queue, area, value << shift, 0xFFFF_FFFF << shift)
        else:
            self.write_queue_register(queue, offset, value)

    def set_queue_size(self, queue: VirtQueue, size: int) -> None:
        """Checked when the queue is enabled."""
        if self._configurable(queue):
            queue.size = size

    def set_queue_area(self, queue: VirtQueue, area: str, value: int, mask: int) -> None:
        """Some bits of an address: `area` is "descriptors", "driver_area" or "device_area"."""
        if self._configurable(queue):
            setattr(queue, area, getattr(queue, area) & ~mask | value & mask)

    def _configurable(self, queue: VirtQueue) -> bool:
        if queue.enabled:
            self.violation(f"queue {queue.index}: a register written after it was enabled")
        return not queue.enabled

    def enable_queue(self, queue: VirtQueue) -> None:
        """The driver has set the queue up. What is impossible fails the device."""
        if queue.enabled:
            return
        if not self.status & ids.FEATURES_OK or self.status & (ids.FAILED | ids.DEVICE_NEEDS_RESET):
            self.violation(f"queue {queue.index} enabled when the status is {self.status:#x}")
            return
        try:
            (check_packed if self.negotiated >> ids.RING_PACKED & 1 else check_split)(queue, self.platform.memory)
        except VirtioError as error:
            self.fail(f"queue {queue.index}: {error}")
            return
        queue.enabled = True
        if self.device.active:
            self._open(queue)

    def reset_queue(self, queue: VirtQueue, *, keep: bool = False) -> None:
        """The driver takes one queue back (2.6.1), and may set it up anew. With `keep` its registers stay as they were."""
        open_ = queue.ring is not NO_RING
        if keep:
            queue.enabled = False
            queue.ring = NO_RING
        else:
            queue.clear()
        if open_:
            self._guard(self.device.queue_reset, queue)

    def notify(self, index: int) -> None:
        """The driver says that a queue has new buffers."""
        if index >= len(self.queues) or not self.queues[index].ready:
            self.violation(f"queue {index} notified when it is not in use")
            return
        self.handle(self.queues[index])

    def read_config(self, offset: int, size: int) -> int:
        """`size` bytes of the configuration space; zeros behind its end."""
        return int.from_bytes(self.device.config()[offset : offset + size], "little")

    def read_generation(self) -> int:
        """A number whose low 8 bits are others once the configuration has changed since this was last read (4.1.4.3.1)."""
        self._shown_generation = self.config_generation
        return self.config_generation

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Ignored where it does not fit the configuration space."""
        if offset + size > len(self.device.config()):
            self.violation(f"{size} bytes written behind the configuration at {offset:#x}")
            return
        self._guard(self.device.write_config, offset, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))

    # What happens

    @property
    def negotiated(self) -> int:
        """The feature bits in force; 0 before FEATURES_OK."""
        return self.driver_features if self.status & ids.FEATURES_OK else 0

    def _start(self) -> None:
        self.device.active = True
        for queue in self.queues:
            if queue.enabled:
                self._open(queue)
        self._guard(self.device.activate)

    def _open(self, queue: VirtQueue) -> None:
        has = self.negotiated.__rshift__
        ring = PackedRing if has(ids.RING_PACKED) & 1 else SplitRing
        queue.ring = ring(
            queue,
            self.platform.memory,
            indirect=bool(has(ids.INDIRECT_DESC) & 1),
            event_idx=bool(has(ids.EVENT_IDX) & 1),
            in_order=bool(has(ids.IN_ORDER) & 1),
        )
        if queue.held:
            queue.hold(True)
        self.opened(queue)

    def _stop_queues(self) -> None:
        self.device.active = False
        for queue in self.queues:
            queue.ring = NO_RING

    def reset(self) -> None:
        """By the driver or by the machine: everything is as it was at the beginning."""
        begun = self.status & ids.DRIVER_OK
        self._stop_queues()
        for queue in self.queues:
            queue.clear()
        self.status = 0
        self.driver_features = 0
        self.device.negotiated = 0
        self.failure = ""
        self.stopped()
        if begun:
            self.device.deactivate()

    def handle(self, queue: VirtQueue) -> None:
        """Have the device work on a queue, and publish what it did."""
        self._guard(self.device.handle, queue)
        queue.flush()

    def handle_soon(self, queue: VirtQueue) -> None:
        """The same later, when others had their turn."""
        if queue.postponed:
            return
        queue.postponed = True

        def again() -> None:
            queue.postponed = False
            if queue.ready:
                self.handle(queue)

        self.platform.events.call_soon(again)

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except (VirtioError, GuestMemoryError) as error:
            self.fail(str(error))

    def config_changed(self) -> None:
        """The configuration space reads otherwise than before."""
        self._next_generation()
        if self.device.active:
            self.interrupt_config()

    def _next_generation(self) -> None:
        self.config_generation += 1
        if not (self.config_generation - self._shown_generation) & 0xFF:
            self.config_generation += 1

    def fail(self, reason: str) -> None:
        """The device cannot go on until the driver resets it (2.1.2)."""
        if self.status & ids.DEVICE_NEEDS_RESET:
            return
        begun = self.status & ids.DRIVER_OK
        self.status |= ids.DEVICE_NEEDS_RESET
        self.failure = reason
        self._stop_queues()
        self.violation(f"needs a reset: {reason}")
        if begun:
            self._next_generation()
            self.interrupt_config()

    def refused(self, queue: VirtQueue, reason: str) -> None:
        """A chain went back to the driver unused."""
        self.violation(f"queue {queue.index}: {reason}")

    def violation(self, what: str) -> None:
        """Count what the driver did wrong."""
        self.violations += 1
        if self.violations <= _LOGGED:
            event("virtio.violation", device=self.device.label, what=what)
