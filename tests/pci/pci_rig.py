"""A PCI bus with everything around it that a machine would have, and what drivers do to it."""

from collections.abc import Callable

from pyhv.bus import mmio_space, port_space
from pyhv.chipset.layout import ECAM_BASE
from pyhv.chipset.pci_ports import PciPorts
from pyhv.chipset.reset_control import ResetControl
from pyhv.irq import InterruptLine, Msi, SharedLine
from pyhv.pci import PciBus, PciFunction
from pyhv.testing.doubles import RecordingControl, guest_memory

RAM = 0x10_0000
COMMAND, STATUS, HEADER_TYPE, BAR, POINTER, LINE, PIN = 0x04, 0x06, 0x0E, 0x10, 0x34, 0x3C, 0x3D
IO, MEMORY, MASTER, INTX_DISABLE = 1, 2, 4, 1 << 10


class FakeSource:
    """A backend's message source: what was sent, in the rig's list."""

    def __init__(self, sent: list[Msi]) -> None:
        self.sent = sent
        self.message: Msi | None = None
        self.closed = False

    def set(self, message: Msi | None) -> None:
        self.message = message

    def send(self) -> None:
        assert not self.closed
        if self.message is not None:
            self.sent.append(self.message)

    def close(self) -> None:
        self.closed = True


class Registers:
    """A range's handler that remembers writes and answers with where it was read."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.moves: list[int | None] = []

    def read(self, offset: int, size: int) -> int:
        return offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append((offset, size, value))


class Rig:
    """`sent` has the messages; `level(gsi)` is what a wire carries."""

    def __init__(self, *functions: PciFunction) -> None:
        self.ports, self.mmio = port_space(), mmio_space()
        self.memory = guest_memory(RAM)
        self.control = RecordingControl()
        self.sent: list[Msi] = []
        self.sources: list[FakeSource] = []
        self.levels: dict[int, bool] = {}
        self._wires: dict[int, SharedLine] = {}
        self.bus = PciBus(ports=self.ports, mmio=self.mmio, memory=self.memory, line=self.line)
        self.bus.attach(self.ports, self.mmio)
        reset_control = ResetControl(control=self.control)
        reset_control.attach(self.ports, self.mmio)
        PciPorts(lambda: self.bus, reset_control).attach(self.ports, self.mmio)
        for function in functions:
            self.bus.add(function)

    def line(self, gsi: int) -> InterruptLine:
        if gsi not in self._wires:
            self._wires[gsi] = SharedLine(self._drive(gsi))
        return self._wires[gsi].source()

    def _drive(self, gsi: int) -> Callable[[bool], None]:
        return lambda level: self.levels.__setitem__(gsi, level)

    def level(self, gsi: int) -> bool:
        return self.levels.get(gsi, False)

    def source(self) -> FakeSource:
        self.sources.append(FakeSource(self.sent))
        return self.sources[-1]

    def read(self, slot: int, offset: int, size: int = 4) -> int:
        """Configuration space by ECAM."""
        return self.mmio.read(ECAM_BASE | slot << 15 | offset, size)

    def write(self, slot: int, offset: int, value: int, size: int = 4) -> None:
        self.mmio.write(ECAM_BASE | slot << 15 | offset, size, value)

    def command(self, slot: int, value: int) -> None:
        self.write(slot, COMMAND, value, 2)

    def capability(self, slot: int, kind: int) -> int:
        """Walk the list, as drivers do; gives the offset."""
        at, seen = self.read(slot, POINTER, 1), []
        while at:
            assert at >= 0x40 and at not in seen
            seen.append(at)
            if self.read(slot, at, 1) == kind:
                return at
            at = self.read(slot, at + 1, 1)
        raise AssertionError(f"no capability {kind:#x} among those at {seen}")


def function(**fields: int) -> PciFunction:
    """A function without any ranges."""
    return PciFunction(**{"vendor": 0x1234, "device": 0x5678, "class_code": 0xFF0000, **fields})
