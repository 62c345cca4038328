"""Stand-ins for what a machine gives to a device: they remember what the device did with them."""

from __future__ import annotations

import select
from collections import deque

from pyhv._types import TYPE_CHECKING
from pyhv.irq import InterruptLine
from pyhv.memory import GuestMemory, MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Callable


def guest_memory(size: int = 0x10000, *, at: int = 0) -> GuestMemory:
    """Zeroed guest memory of `size` bytes at guest physical address `at`, with the real one's bounds checks."""
    memory = GuestMemory()
    memory.add(MemoryRegion(at, memoryview(bytearray(size))))
    return memory


class RecordingLine:
    """An interrupt wire: `line` is for the device, `changes` holds every level that it then had."""

    def __init__(self) -> None:
        self.changes: list[bool] = []
        self.line = InterruptLine(self.changes.append)

    @property
    def level(self) -> bool:
        """What the wire carries now."""
        return self.line.level

    @property
    def edges(self) -> int:
        """How often it rose."""
        return self.changes.count(True)


class ManualEvents:
    """A `pyhv.events.HostEvents` without a thread: `run()` calls what is due, in the caller's."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.writers: dict[int, Callable[[], None]] = {}
        self.calls: deque[Callable[[], None]] = deque()
        self.add_reader = self.readers.__setitem__
        self.add_writer = self.writers.__setitem__
        self.call_soon = self.calls.append

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def remove_writer(self, fd: int) -> None:
        self.writers.pop(fd, None)

    def run(self, timeout: float = 0.0) -> bool:
        """Do the calls that are queued, and call for the descriptors that are ready; whether there were any.

        Waits up to `timeout` seconds for a descriptor where no call is queued.
        """
        calls = [self.calls.popleft() for _ in range(len(self.calls))]
        for call in calls:
            call()
        ready = select.select(list(self.readers), list(self.writers), [], 0.0 if calls else timeout)
        for table, fds in zip((self.readers, self.writers), ready[:2], strict=True):
            for fd in fds:
                if fd in table:
                    table[fd]()
        return bool(calls or ready[0] or ready[1])


class RecordingControl:
    """A `pyhv.control.MachineControl`: `calls` holds every request as a tuple, its name first."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def debug_exit(self, value: int) -> None:
        self.calls.append(("debug_exit", value))

    def power_off(self, source: str) -> None:
        self.calls.append(("power_off", source))

    def reset(self, source: str) -> None:
        self.calls.append(("reset", source))

    def panic(self, source: str, detail: str = "") -> None:
        self.calls.append(("panic", source, detail))
