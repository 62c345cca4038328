"""What the chipset's tests put around a device: address spaces, a recording machine and wire, and plain memory."""

from pyhv.bus import AddressSpace, mmio_space, port_space
from pyhv.memory import GuestMemory, MemoryRegion
from pyhv.testing import doubles
from pyhv.testing.doubles import RecordingControl, RecordingLine


class FakeControl(RecordingControl):
    """What a device asked of its machine; of a panic, only who told it."""

    def panic(self, source: str, detail: str = "") -> None:
        self.calls.append(("panic", source))


Wire = RecordingLine


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
    memory = doubles.guest_memory(size)
    if rom_at is not None:
        memory.add(MemoryRegion(rom_at, memoryview(bytearray(0x1000)), name="rom", readonly=True))
    return memory
