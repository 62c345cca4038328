"""The entropy device (virtio 1.2, 5.4): random bytes, at most so many in a time where that is asked for."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.virtio.device import VirtioDevice

if TYPE_CHECKING:
    from typing import Final

    from pyhv.clock import Timer
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

QUEUE_SIZE: Final = 64
MAX_REQUEST: Final = 1 << 16
"""Bytes that one buffer gets; a device may use less than all of it (5.4.6.2)."""


class VirtioEntropy(VirtioDevice):
    """The bytes are `platform.entropy`'s: the host's, or those that the machine's seed decides.

    `rate` bytes are given in each `period_ns` of machine time, 0 for no limit; requests beyond wait for the next period.
    Raises ConfigError.
    """

    name = "entropy"
    device_id = 4
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, *, rate: int = 0, period_ns: int = 1_000_000_000, transport: str = "pci") -> None:
        super().__init__(transport=transport)
        if rate < 0 or period_ns <= 0:
            raise ConfigError(f"entropy: {rate} bytes in {period_ns} ns is not a rate")
        self.rate = rate
        self.period_ns = period_ns
        self.given = 0
        """Bytes that the guest was given."""
        self._left = rate
        self._period_end = 0
        self._timer: Timer | None = None

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self.deactivate()
        self._period_end = 0

    def handle(self, queue: VirtQueue) -> None:
        if self._timer is not None:
            return
        for chain in queue.chains():
            size = self._allowance(min(chain.writable_size, MAX_REQUEST))
            if not size and chain.writable_size:
                queue.unpop(chain)
                self._timer = self.platform.clock.call_at(self._period_end, self._next_period)
                return
            chain.write(self.platform.entropy(size))
            queue.push(chain, size)
            self.given += size

    def _allowance(self, size: int) -> int:
        """How many of `size` bytes may be given now; takes them off the period's."""
        if not self.rate:
            return size
        now = self.platform.clock.now_ns()
        if now >= self._period_end:
            self._period_end = now + self.period_ns
            self._left = self.rate
        size = min(size, self._left)
        self._left -= size
        return size

    def _next_period(self) -> None:
        self._timer = None
        queue = self.queues[0]
        self.handle(queue)
        queue.flush()

    def deactivate(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
