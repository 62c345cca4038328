"""What both ring formats share: their place in memory, the check of addresses, and completion in order.

A ring keeps views of its own memory for as long as `GuestMemory.version` stands still, and tells observers of each
write through them. Everything that it reads there it reads once, and checks before it is used.
"""

from __future__ import annotations

from _thread import allocate_lock

from pyhv._types import TYPE_CHECKING
from pyhv.errors import GuestMemoryError
from pyhv.virtio.errors import VirtioError
from pyhv.virtio.ids import DESC_SIZE

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory
    from pyhv.virtio.chain import Chain
    from pyhv.virtio.queue import VirtQueue

_NO_RAM = memoryview(b"")
MAX_CHAIN_BYTES = 0xFFFF_FFFF
"""A chain's bytes: the used length has 32 bits, and 2.7.5 allows one more."""


def check_area(
    memory: GuestMemory, what: str, address: int, alignment: int, length: int, *, write: bool = False
) -> None:
    """Raises VirtioError unless a part of a ring is aligned, in one piece, and in memory of the right kind."""
    if address % alignment:
        raise VirtioError(f"{what} at {address:#x} is not aligned to {alignment}")
    region = memory.find(address)
    if region is None or address + length > region.end or (write and region.readonly):
        raise VirtioError(f"{what} at {address:#x} is not {'writable ' if write else ''}memory")


class RingBase:
    """The device's side of a ring: what does not depend on the format.

    `low` and `high` bound the writable region that the last elements lay in, `ram` is its memory: most of them lie in one.
    """

    __slots__ = (
        "barrier",
        "event_idx",
        "held",
        "high",
        "indirect",
        "kicks",
        "longest",
        "low",
        "memory",
        "order",
        "pending",
        "queue",
        "ram",
        "size",
        "version",
    )

    def __init__(
        self, queue: VirtQueue, memory: GuestMemory, *, indirect: bool, event_idx: bool, in_order: bool
    ) -> None:
        self.queue = queue
        self.memory = memory
        self.size = queue.size
        self.longest = queue.max_size
        self.indirect = indirect
        self.event_idx = event_idx
        self.order = InOrder() if in_order else None
        self.kicks = True
        self.held = False
        self.pending: list[tuple[int, int]] = []
        self.barrier = allocate_lock()
        self.low = self.high = 0
        self.ram = _NO_RAM
        self.version = -1

    def place(self) -> None:
        """Take views of the ring. Raises GuestMemoryError."""
        raise NotImplementedError

    def placed(self) -> bool:
        """Renew the views where memory changed; False while they are not to be used, and when the ring is gone from memory,
        which fails the device."""
        if self.held:
            return False
        self.low = self.high = 0
        try:
            self.place()
        except GuestMemoryError as error:
            self.queue.lie(f"the ring is not in memory any more: {error}")
            return False
        self.version = self.memory.version
        return True

    def hold(self, held: bool) -> None:
        self.held = held
        self.version = -1  # which has every access ask `placed`
        if not held:
            self.want_kicks(self.kicks)

    def want_kicks(self, wanted: bool) -> None:
        raise NotImplementedError

    def piece(self, address: int, length: int, *, write: bool = False) -> memoryview:
        """A range that must be in one region."""
        views = self.memory.view(address, length, write=write)
        if len(views) != 1:
            raise GuestMemoryError(address, length)
        return views[0]

    def fence(self) -> None:
        """Let what was written be seen before anything else is read: a locked instruction is in every lock."""
        with self.barrier:
            pass

    def admit(self, address: int, length: int, write: int) -> tuple[int, int]:
        """Check an element outside [low, high); gives the bounds to go on with. Raises VirtioError."""
        region = self.memory.find(address)
        if region is not None and not region.readonly and address + length <= region.end:
            self.low, self.high, self.ram = region.address, region.end, region.buffer
        elif not self.memory.contains(address, length, write=bool(write)):
            raise VirtioError(f"[{address:#x}, {address + length:#x}) is not memory that the device may use so")
        return self.low, self.high

    def table(self, address: int, length: int) -> memoryview | bytes:
        """An indirect table, uncopied where it is in one piece. Raises VirtioError."""
        if not length or length % DESC_SIZE or length > DESC_SIZE << 16:
            raise VirtioError(f"an indirect table of {length} bytes")
        start = address - self.low
        if start >= 0 and address + length <= self.high:
            return self.ram[start : start + length]
        try:
            views = self.memory.view(address, length)
        except GuestMemoryError:
            raise VirtioError(f"an indirect table outside memory, at {address:#x}") from None
        return views[0] if len(views) == 1 else b"".join(views)

    def refuse(self, position: int, entry: tuple[int, int], reason: str) -> None:
        """Return a malformed chain to the driver."""
        self.queue.refuse(reason)
        if self.order is not None:
            self.order.take(position)
        self.give(position, entry)

    def push(self, chain: Chain, written: int) -> None:
        if chain.ring is self:
            chain.ring = None
            if written > chain.writable_size:
                written = chain.writable_size
            if self.order is None:
                self.pending.append((chain.head | written << 32, chain.slots))
            else:
                self.give(chain.position, (chain.head | written << 32, chain.slots))

    def give(self, position: int, entry: tuple[int, int]) -> None:
        """Put an entry of the used ring where `flush` finds it, once it is its turn."""
        if self.order is None:
            self.pending.append(entry)
        else:
            self.pending += self.order.give(position, entry)


class InOrder:
    """VIRTIO_F_IN_ORDER: what is returned too early waits for what was taken before it (2.7.9)."""

    __slots__ = ("_done", "_taken")

    def __init__(self) -> None:
        self._taken: dict[int, None] = {}
        self._done: dict[int, tuple[int, int]] = {}

    def take(self, position: int) -> None:
        """The chain at this position was taken, for the first time or once more."""
        self._taken[position] = None

    def give(self, position: int, entry: tuple[int, int]) -> list[tuple[int, int]]:
        """It is done; the entries whose turn it now is."""
        self._done[position] = entry
        due: list[tuple[int, int]] = []
        while self._taken:
            first = next(iter(self._taken))
            if first not in self._done:
                break
            due.append(self._done.pop(first))
            del self._taken[first]
        return due
