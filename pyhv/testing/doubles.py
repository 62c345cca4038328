"""Stand-ins for what a machine gives to a device: they remember what the device did with them."""

from __future__ import annotations

from pyhv.irq import InterruptLine
from pyhv.memory import GuestMemory, MemoryRegion


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
