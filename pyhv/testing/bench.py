"""A workbench for one device: everything that a machine is to it, without a machine.

bench = DeviceBench(Doorbell())
bench.mmio_write(0xD000_0000, 4, 1)
assert bench.lines[10].level
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.bus import mmio_space, port_space
from pyhv.clock import ManualClock
from pyhv.device import Platform
from pyhv.irq import SharedLine
from pyhv.testing.doubles import RecordingControl, RecordingLine, guest_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.device import Device, MsrRead, MsrWrite
    from pyhv.irq import InterruptLine, Msi


class DeviceBench:
    """Devices attached to doubles. Accesses go through the real bus, so wide or misaligned ones are split as in a machine.

    - `clock`: a ManualClock; `memory`: guest RAM from address 0; `control.calls`: what the device asked of the machine.
    - `lines[gsi]`: a RecordingLine for each GSI that a device took a line of; `messages`: the MSIs sent.
    - `ports.unclaimed`, `mmio.unclaimed`: accesses that no device answered.
    """

    def __init__(self, *devices: Device, memory: int = 1 << 20) -> None:
        self.ports = port_space()
        self.mmio = mmio_space()
        self.memory = guest_memory(memory)
        self.clock = ManualClock()
        self.control = RecordingControl()
        self.lines: dict[int, RecordingLine] = {}
        self.messages: list[Msi] = []
        self._wires: dict[int, SharedLine] = {}
        self._msrs: dict[int, tuple[MsrRead, MsrWrite]] = {}
        platform = Platform(
            ports=self.ports,
            mmio=self.mmio,
            memory=self.memory,
            clock=self.clock,
            control=self.control,
            line=self._line,
            send_msi=self.messages.append,
            msr=self._add_msrs,
        )
        for device in devices:
            device.attach(platform)

    def _line(self, gsi: int) -> InterruptLine:
        if gsi not in self._wires:
            self.lines[gsi] = RecordingLine()
            self._wires[gsi] = SharedLine(self.lines[gsi].line.set)
        return self._wires[gsi].source()

    def _add_msrs(self, indices: Sequence[int], read: MsrRead, write: MsrWrite) -> None:
        for index in indices:
            self._msrs[index] = (read, write)

    def mmio_read(self, address: int, size: int) -> int:
        """Load 1 to 8 bytes."""
        return self.mmio.read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        """Store 1 to 8 bytes."""
        self.mmio.write(address, size, value)

    def port_in(self, port: int, size: int = 1) -> int:
        """IN: 1, 2 or 4 bytes."""
        return self.ports.read(port, size)

    def port_out(self, port: int, value: int, size: int = 1) -> None:
        """OUT: 1, 2 or 4 bytes."""
        self.ports.write(port, size, value)

    def rdmsr(self, index: int) -> int | None:
        """RDMSR: the value, or None where the guest would get #GP."""
        handlers = self._msrs.get(index)
        return handlers[0](index) if handlers else None

    def wrmsr(self, index: int, value: int) -> bool:
        """WRMSR: False where the guest would get #GP."""
        handlers = self._msrs.get(index)
        return handlers is not None and handlers[1](index, value)
