"""What the chipset's tests put around a device: address spaces, a recording machine and wire, and plain memory."""

from dataclasses import dataclass, field

from pyhv.bus import AddressSpace, mmio_space, port_space
from pyhv.irq import InterruptLine
from pyhv.memory import GuestMemory, MemoryRegion


@dataclass
class FakeControl:
    """A MachineControl that remembers what it was asked for."""

    calls: list[tuple[object, ...]] = field(default_factory=list)

    def debug_exit(self, value: int) -> None:
        self.calls.append(("debug_exit", value))

    def power_off(self, source: str) -> None:
        self.calls.append(("power_off", source))

    def reset(self, source: str) -> None:
        self.calls.append(("reset", source))

    def panic(self, source: str, detail: str = "") -> None:
        self.calls.append(("panic", source))


@dataclass
class Wire:
    """A line and every change of its level."""

    changes: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.line = InterruptLine(self.changes.append)

    @property
    def level(self) -> bool:
        return self.line.level

    @property
    def edges(self) -> int:
        return self.changes.count(True)


class Spaces:
    """The ports and the physical addresses that a device was attached to."""

    def __init__(self, *devices) -> None:
        self.ports: AddressSpace = port_space()
        self.mmio: AddressSpace = mmio_space()
        for device in devices:
            device.attach(self.ports, self.mmio)

    def out(self, port: int, value: int, size: int = 1) -> None:
        self.ports.write(port, size, value)

    def inp(self, port: int, size: int = 1) -> int:
        return self.ports.read(port, size)


def guest_memory(size: int = 0x10000, rom_at: int | None = None) -> GuestMemory:
    memory = GuestMemory()
    memory.add(MemoryRegion(0, memoryview(bytearray(size))))
    if rom_at is not None:
        memory.add(MemoryRegion(rom_at, memoryview(bytearray(0x1000)), name="rom", readonly=True))
    return memory
