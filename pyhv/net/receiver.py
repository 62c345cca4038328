"""The way of a frame into the guest: from a backend straight into the driver's buffers (virtio 1.2, 5.1.6.3, 5.1.6.4)."""

from __future__ import annotations

from collections import deque

from pyhv._types import TYPE_CHECKING
from pyhv.net import filter
from pyhv.net.backend import gather, scatter
from pyhv.net.ids import ETHERNET_HEADER, GSO_ECN, GSO_NONE, HEADER, HEADER_SIZE, MAX_FRAME, NUM_BUFFERS, VLAN_TAG
from pyhv.virtio.chain import cut

if TYPE_CHECKING:
    from typing import Final

    from pyhv.clock import Clock
    from pyhv.net.backend import NetBackend
    from pyhv.net.counters import NetCounters
    from pyhv.net.filter import ReceiveFilter
    from pyhv.net.pcap import Capture
    from pyhv.virtio.chain import Chain, Ranges
    from pyhv.virtio.queue import VirtQueue

SMALL: Final = 2048
"""Bytes of buffers that are laid out where the last frame was no longer; what is longer is copied once."""
LARGE: Final = HEADER_SIZE + MAX_FRAME
BUDGET_FRAMES: Final = 128
BUDGET_BYTES: Final = 4 << 20
"""What one run delivers before others of the machine get their turn."""
MOST_PIECES: Final = 1000
"""What readv takes, with the one for what is too long (IOV_MAX is 1024)."""

_PLAIN = HEADER.pack(0, GSO_NONE, 0, 0, 0, 0, 0)


class Receiver:
    """Fills the buffers of a receive queue. Those that were taken and not filled are kept, as is a frame that found too few.

    `starving` after a run: the driver has no buffers left; it is to be run again when there are.
    """

    def __init__(self, backend: NetBackend, wanted: ReceiveFilter, counters: NetCounters, clock: Clock) -> None:
        self.capture: Capture | None = None
        self._backend = backend
        self._filter = wanted
        self._counters = counters
        self._clock = clock
        self._skip = 0 if backend.header else HEADER_SIZE
        self._spill = memoryview(bytearray(LARGE))
        self._kept: deque[Chain] = deque()
        self.forget()
        self.set_up(mergeable=False, mtu=0)

    def set_up(self, *, mergeable: bool, mtu: int) -> None:
        """What the driver negotiated; `mtu` 0 for no limit."""
        self._mergeable = mergeable
        self._longest = HEADER_SIZE + (mtu + ETHERNET_HEADER + VLAN_TAG if mtu else MAX_FRAME)

    def forget(self) -> None:
        """The driver took its buffers back."""
        self._kept.clear()
        self._held = b""
        self._last = 0
        self.starving = False

    def run(self, queue: VirtQueue) -> bool:
        """Deliver what is there; whether there may be more, for the budget was used up. The queue is not flushed."""
        self.starving = False
        left = BUDGET_BYTES
        for _ in range(BUDGET_FRAMES):
            length = self._deliver(queue)
            if not length:
                return False
            left -= length
            if left <= 0:
                break
        return True

    def _deliver(self, queue: VirtQueue) -> int:
        """Deliver one frame, or lose it; its length with the header, 0 where there is none or no buffer for it."""
        if self._held:
            return self._deliver_held(queue)
        wanted = 1 if not self._mergeable else LARGE if self._last > SMALL else SMALL
        ranges, room, _ = self._lay_out(queue, wanted)
        if not room:
            self.starving = True
            return 0
        kept, skip = self._kept, self._skip
        into = kept[0].memory.views(cut(ranges, skip, None) if skip else ranges, write=True)
        into.append(self._spill)
        length = self._backend.receive(into)
        if not length:
            return 0
        length += skip
        if not self._passes(length, into):
            return length
        if length > room:
            if not self._mergeable or length > room + len(self._spill):
                self._counters.lost += 1
                return length
            return self._spread(length, room, into[:-1], queue)
        if self.capture is not None:
            self._captured(into, length - HEADER_SIZE)
        if skip:
            kept[0].write(_PLAIN)
        self._complete(length, queue, into[0])
        return length

    def _deliver_held(self, queue: VirtQueue) -> int:
        """Deliver the frame that found too few buffers."""
        held = self._held
        ranges, room, full = self._lay_out(queue, len(held))
        if room < len(held):
            return self._hold(held, queue, full)
        self._held = b""
        pieces = self._kept[0].memory.views(ranges, write=True)
        scatter(held, pieces)
        self._complete(len(held), queue)
        return len(held)

    def _lay_out(self, queue: VirtQueue, wanted: int) -> tuple[Ranges, int, bool]:
        """The kept buffers, and more of the driver's, until `wanted` bytes fit or there are none: their ranges and room.

        Last, whether they are so many pieces that no further buffer was looked at.
        """
        ranges: Ranges = []
        room = 0
        for chain in self._kept:
            if room >= wanted:
                return ranges, room, False
            if len(ranges) + len(chain.writable) > MOST_PIECES:
                return ranges, room, True
            ranges += chain.writable
            room += chain.writable_size
        pop, keep = queue.ring.pop, self._kept.append
        while room < wanted:
            taken = pop()
            if taken is None:
                break
            size, writable = taken.writable_size, taken.writable
            if size < HEADER_SIZE or len(writable) > MOST_PIECES:
                self._counters.bad_buffer += 1
                queue.push(taken)
                continue
            keep(taken)
            ranges += writable
            if len(ranges) > MOST_PIECES:
                return ranges[: -len(writable)], room, True
            room += size
        return ranges, room, False

    def _passes(self, length: int, pieces: list[memoryview]) -> bool:
        """Whether the driver gets this frame. An unwanted one leaves its bytes in the buffers, for the next to overwrite."""
        if not self._filter.open:
            head = gather(pieces, HEADER_SIZE - self._skip, min(filter.HEAD_SIZE, length - HEADER_SIZE))
            if not self._filter.passes(head):
                self._counters.filtered += 1
                return False
        if length > self._longest and (self._skip or gather(pieces, 1, 1)[0] & ~GSO_ECN == GSO_NONE):
            self._counters.lost += 1
            return False
        return True

    def _spread(self, length: int, room: int, pieces: list[memoryview], queue: VirtQueue) -> int:
        """A frame was longer than expected: move what spilled over into further buffers, or hold it until there are some."""
        spilled = self._spill[: length - room]
        laid = len(pieces)
        ranges, room, full = self._lay_out(queue, length)
        if room < length:
            frame = b"".join([_PLAIN[: self._skip], *pieces, spilled])
            if self.capture is not None:
                self._captured([memoryview(frame)[self._skip :]], length - HEADER_SIZE)
            return self._hold(frame, queue, full)
        every = self._kept[0].memory.views(cut(ranges, self._skip, None), write=True)
        scatter(spilled, every[laid:])
        if self.capture is not None:
            self._captured(every, length - HEADER_SIZE)
        if self._skip:
            self._kept[0].write(_PLAIN)
        self._complete(length, queue)
        return length

    def _hold(self, frame: bytes, queue: VirtQueue, full: bool) -> int:
        """Wait for more buffers; where the driver cannot add any that would help, the frame is lost."""
        if full or len(self._kept) >= queue.size:
            self._held = b""
            self._counters.lost += 1
            return len(frame)
        self._held = frame
        self.starving = True
        return 0

    def _complete(self, length: int, queue: VirtQueue, header: memoryview | None = None) -> None:
        """Return the buffers that a frame is in, all but the last of them full, and say how many they are.

        `header`: the first piece, where it is at hand and the header is in it.
        """
        kept, push = self._kept, queue.ring.push
        first = kept[0]
        left, count = length, 0
        while left > 0:
            chain = kept.popleft()
            size = chain.writable_size
            push(chain, size if size < left else left)
            left -= size
            count += 1
        number = count.to_bytes(2, "little")
        if header is not None and not self._skip and len(header) >= HEADER_SIZE:
            header[NUM_BUFFERS:HEADER_SIZE] = number
        else:
            first.write(number, NUM_BUFFERS)
        self._last = length
        counters = self._counters
        counters.received += 1
        counters.received_bytes += length - HEADER_SIZE

    def _captured(self, pieces: list[memoryview], length: int) -> None:
        """Write a frame to the capture; the pieces begin with a header where the backend gives one."""
        assert self.capture is not None
        frame = b"".join(pieces)[HEADER_SIZE - self._skip :]
        self.capture.write(self._clock.wall_ns(), (frame[:length],))
