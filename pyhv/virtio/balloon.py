"""The memory balloon (virtio 1.2, 5.5): the guest hands pages over, and the host really gets them back."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.memory.discard import discard, runs
from pyhv.units import format_size
from pyhv.virtio.balloon_pages import HeldPages
from pyhv.virtio.balloon_stats import MAX_STATISTICS, parse_statistics
from pyhv.virtio.device import VirtioDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pyhv.clock import Timer
    from pyhv.virtio.chain import Chain
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

F_MUST_TELL_HOST, F_STATS_VQ, F_DEFLATE_ON_OOM = 0, 1, 2
F_FREE_PAGE_HINT, F_PAGE_POISON, F_PAGE_REPORTING = 3, 4, 5

INFLATE, DEFLATE, STATS, FREE_PAGES, REPORTING = range(5)
PAGE: Final = 4096
"""The unit of page numbers, whatever the guest's or the host's pages are (5.5.6)."""
QUEUE_SIZES: Final = (128, 128, 2, 64, 64)
PIECE: Final = 1024
"""Page numbers that are looked at together."""
TURN: Final = 4096
"""Page numbers of one queue before others get their turn."""

_CONFIG: Final = struct.Struct("<IIII")


class VirtioBalloon(VirtioDevice):
    """`size` is what the balloon is to hold, in bytes, until `set_target` says otherwise.

    - `actual`: bytes that the driver says the balloon holds; `released`: the pages that were given back in all,
      reports and pages included that the host had not lent yet.
    - `deflate_on_oom`: the guest may take pages back when it would run out of memory.
    - `reporting`: the guest also tells which pages are free at the moment; the host takes them until they are used again.
    - `statistics_period_ns`: how often the guest is asked for its statistics, 0: only by `request_statistics()`. The last
      answer is in `statistics`, and goes to `on_statistics`.

    Methods are to be called with the machine's lock held. Raises ConfigError.
    """

    name = "balloon"
    device_id = 5
    queue_sizes = QUEUE_SIZES

    def __init__(
        self,
        *,
        size: int = 0,
        deflate_on_oom: bool = False,
        reporting: bool = True,
        statistics_period_ns: int = 0,
        on_statistics: Callable[[dict[str, int]], object] | None = None,
        transport: str = "pci",
    ) -> None:
        super().__init__(transport=transport)
        if size < 0 or size % PAGE:
            raise ConfigError(f"balloon: size: '{size}' is not a multiple of {PAGE}")
        if statistics_period_ns < 0:
            raise ConfigError(f"balloon: statistics: '{statistics_period_ns}' is not a period")
        self.features = 1 << F_MUST_TELL_HOST | 1 << F_STATS_VQ | 1 << F_PAGE_POISON
        self.features |= deflate_on_oom << F_DEFLATE_ON_OOM | reporting << F_PAGE_REPORTING
        self.statistics: dict[str, int] = {}
        self.on_statistics = on_statistics
        self.released = 0
        self.ignored = 0
        """Page numbers that were no page of the guest's RAM."""
        self._target = size // PAGE
        self._actual = 0
        self._poison = 0
        self._period = statistics_period_ns
        self._timer: Timer | None = None
        self._buffer: Chain | None = None
        self._wanted = False
        self._roles: dict[int, int] = {}
        self._progress: dict[int, tuple[Chain, int]] = {}
        self._held: HeldPages

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self._held = HeldPages(self.platform.memory)
        self.active = False
        self.deactivate()
        self._check_target(self._target * PAGE)

    # The host's side

    @property
    def target(self) -> int:
        """Bytes that the balloon is to hold."""
        return self._target * PAGE

    @property
    def actual(self) -> int:
        """Bytes that the balloon holds, by what the driver says."""
        return self._actual * PAGE

    def set_target(self, size: int) -> None:
        """How many bytes the balloon is to hold from now on; the guest follows as it can. Raises ConfigError."""
        self._check_target(size)
        if size // PAGE != self._target:
            self._target = size // PAGE
            self.config_changed()

    def _check_target(self, size: int) -> None:
        memory = self.platform.memory.size
        if size < 0 or size % PAGE or size > memory:
            raise ConfigError(
                f"balloon: size: '{format_size(size)}' is not a multiple of {PAGE} up to the guest's {format_size(memory)}"
            )

    def request_statistics(self) -> None:
        """Ask the guest for its statistics; the answer comes when it comes, and requests before that are one."""
        self._wanted = True
        self._ask()

    def _ask(self) -> None:
        chain = self._buffer
        if chain is not None and self._wanted and self.active:
            self._buffer, self._wanted = None, False
            queue = self.queues[self._queue_of(STATS)]
            queue.push(chain)
            queue.flush()

    def _tick(self) -> None:
        self._timer = self.platform.clock.call_at(self.platform.clock.now_ns() + self._period, self._tick)
        self.request_statistics()

    # Configuration space

    def config(self) -> bytes:
        return _CONFIG.pack(self._target, self._actual, 0, self._poison)

    def write_config(self, offset: int, data: bytes) -> None:
        """`poison_val` before DRIVER_OK, `actual` after it (5.5.6.4)."""
        old = self.config()
        _, actual, _, poison = _CONFIG.unpack(old[:offset] + data + old[offset + len(data) :])
        if self.active:
            self._actual = actual
        else:
            self._poison = poison

    # Driver

    def activate(self) -> None:
        wanted = [INFLATE, DEFLATE]
        for bit, role in ((F_STATS_VQ, STATS), (F_FREE_PAGE_HINT, FREE_PAGES), (F_PAGE_REPORTING, REPORTING)):
            if self.has(bit):
                wanted.append(role)
        # Numbers are those of 5.5.2; drivers that number only the queues that they have (Linux) are understood as well.
        by_number = all(self.queues[role].ready for role in wanted)
        self._roles = {role if by_number else index: role for index, role in enumerate(wanted)}
        if self.has(F_STATS_VQ):
            # Linux adds its first buffer, and notifies, before DRIVER_OK.
            queue = self.queues[self._queue_of(STATS)]
            self.handle(queue)
            queue.flush()
            if self._period:
                self._tick()

    def deactivate(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buffer = None
        self._actual = self._poison = 0
        self._progress.clear()
        self._held.clear()

    def queue_reset(self, queue: VirtQueue) -> None:
        self._progress.pop(queue.index, None)
        if self._roles.get(queue.index) == STATS:
            self._buffer = None

    def _queue_of(self, wanted: int) -> int:
        return next(index for index, role in self._roles.items() if role == wanted)

    def handle(self, queue: VirtQueue) -> None:
        role = self._roles.get(queue.index)
        if role in (INFLATE, DEFLATE):
            self._move(queue, self._inflate if role == INFLATE else self._deflate)
        elif role == STATS:
            self._receive_statistics(queue)
        elif role == REPORTING:
            for chain in queue.chains():
                self._report(chain)
                queue.push(chain)
        else:
            for chain in queue.chains():
                queue.push(chain)

    def _move(self, queue: VirtQueue, take: Callable[[tuple[int, ...]], None]) -> None:
        """Take one piece of page numbers at a time, so that a request of any length holds nobody else up."""
        left = TURN
        while left > 0:
            chain, offset = self._progress.pop(queue.index, (None, 0))
            if chain is None:
                chain = queue.pop()
                if chain is None:
                    return
            data = chain.read(offset, 4 * PIECE)
            count = len(data) // 4
            take(struct.unpack_from(f"<{count}I", data))
            left -= count + 64
            if count < PIECE:
                queue.push(chain)
            else:
                self._progress[queue.index] = chain, offset + 4 * PIECE
        queue.postpone()

    def _inflate(self, numbers: tuple[int, ...]) -> None:
        for first, count in runs(numbers):
            known = self._held.give(first, count, whole=self.has(F_MUST_TELL_HOST))
            self.released += known.released
            self.ignored += count - known.pages

    def _deflate(self, numbers: tuple[int, ...]) -> None:
        for first, count in runs(numbers):
            self._held.take(first, count)

    def _report(self, chain: Chain) -> None:
        """Free pages: they read as zeros afterwards, so those that must keep another value are left alone (5.5.6.5)."""
        if self.has(F_PAGE_POISON) and self._poison:
            return
        for address, length in chain.writable:
            self.released += discard(self.platform.memory, address, length)

    def _receive_statistics(self, queue: VirtQueue) -> None:
        for chain in queue.chains():
            if self._buffer is not None:
                queue.push(self._buffer)  # a driver has one buffer; one that has more gets the older back
            self._buffer = chain
            found = parse_statistics(chain.read(0, MAX_STATISTICS))
            if found:
                self.statistics = found
                if self.on_statistics is not None:
                    self.on_statistics(found)
        self._ask()
