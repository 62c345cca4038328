"""A virtqueue as a device sees it, whatever the format of its ring."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyhv.virtio.chain import Chain as Chain
    from pyhv.virtio.transport import Transport


class Ring(Protocol):
    """A queue's memory in one of the two formats. Nothing that the driver put there makes a method raise."""

    def pop(self) -> Chain | None: ...

    def unpop(self, chain: Chain) -> None: ...

    def push(self, chain: Chain, written: int) -> None: ...

    def flush(self) -> bool:
        """Publish what was pushed; whether the driver wants to be interrupted for it."""
        ...

    def available(self) -> int: ...

    def want_kicks(self, wanted: bool) -> None: ...

    def hold(self, held: bool) -> None:
        """While held: no chain is found, and what was pushed waits to be published."""
        ...


class NoRing:
    """What stands where a queue has no ring: before DRIVER_OK, after a reset or a failure."""

    def pop(self) -> Chain | None:
        return None

    def unpop(self, chain: Chain) -> None:
        return None

    def push(self, chain: Chain, written: int) -> None:
        return None

    def flush(self) -> bool:
        return False

    def available(self) -> int:
        return 0

    def want_kicks(self, wanted: bool) -> None:
        return None

    def hold(self, held: bool) -> None:
        return None


NO_RING = NoRing()


class VirtQueue:
    """One queue: its registers, which the transport keeps, and its ring while the device is active.

    `index` of the device's queues; `size` in descriptors, `max_size` what the device offers; `malformed` counts the chains
    that were returned to the driver because they broke a rule.
    """

    def __init__(self, index: int, max_size: int, transport: Transport) -> None:
        self.index = index
        self.max_size = max_size
        self.transport = transport
        self.malformed = 0
        self.postponed = False
        self.held = False
        self.ring: Ring = NO_RING
        self.clear()

    def clear(self) -> None:
        """The registers as they are after a reset."""
        self.ring = NO_RING
        self.size = self.max_size
        self.descriptors = 0
        self.driver_area = 0
        self.device_area = 0
        self.enabled = False

    @property
    def ready(self) -> bool:
        """Whether it can be used now: enabled, and the driver is done with its set-up and lets the device use memory."""
        return self.ring is not NO_RING and not self.held

    def hold(self, held: bool) -> None:
        """Leave guest memory alone, or go on."""
        self.held = held
        self.ring.hold(held)

    def pop(self) -> Chain | None:
        """The next chain, None when there is none; the driver then kicks for the next, if kicks are wanted.

        It may not kick before: whoever stops earlier comes back by itself, or by `postpone`.
        """
        return self.ring.pop()

    def chains(self) -> Iterator[Chain]:
        """The chains that are available, at most as many as the queue holds.

        A driver that adds more all the while gets the rest handled later, after other work of the machine.
        """
        for _ in range(self.size):
            chain = self.ring.pop()
            if chain is None:
                return
            yield chain
        self.postpone()

    def unpop(self, chain: Chain) -> None:
        """Give back the chain that was popped last, unprocessed; the next pop finds it again."""
        self.ring.unpop(chain)

    def push(self, chain: Chain, written: int = 0) -> None:
        """Return a chain to the driver, `written` bytes of its writable part filled from its beginning.

        The driver sees it after `flush`. A chain from before a reset is ignored.
        """
        self.ring.push(chain, written)

    def flush(self) -> None:
        """Publish what was pushed, and interrupt the driver if it wants that."""
        if self.ring.flush():
            self.transport.interrupt_queue(self)

    def available(self) -> int:
        """How many chains wait, at most; for a packed ring descriptors are not counted, and 1 stands for some."""
        return self.ring.available()

    def want_kicks(self, wanted: bool) -> None:
        """Whether the driver shall notify when it adds chains. It does, unless told otherwise."""
        self.ring.want_kicks(wanted)

    def postpone(self) -> None:
        """Have this queue handled again, soon."""
        self.transport.handle_soon(self)

    def lie(self, reason: str) -> None:
        """The ring itself is inconsistent: no chain of it can be trusted, the device fails."""
        self.transport.fail(f"queue {self.index}: {reason}")

    def refuse(self, reason: str) -> None:
        """Count a malformed chain."""
        self.malformed += 1
        self.transport.refused(self, reason)
