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
from pyhv.memory import MemoryRegion
from pyhv.notify import DirectMessage
from pyhv.testing.doubles import ManualEvents, RecordingControl, RecordingLine, guest_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyhv.device import Device, MsrRead, MsrWrite
    from pyhv.irq import InterruptLine, Msi
    from pyhv.notify import Doorbell
    from pyhv.pci import PciBus


class DeviceBench:
    """Devices attached to doubles. Accesses go through the real bus, so wide or misaligned ones are split as in a machine.

    - `clock`: a ManualClock; `memory`: guest RAM from address 0; `control.calls`: what the device asked of the machine.
    - `lines[gsi]`: a RecordingLine for each GSI that a device took a line of; `messages`: the MSIs sent.
    - `ports.unclaimed`, `mmio.unclaimed`: accesses that no device answered.
    - `events`: a ManualEvents, whose `run()` calls what is due; `pci`: the PCI bus; `aml`, `tables`: what went to ACPI.
    """

    def __init__(self, *devices: Device, memory: int = 1 << 20) -> None:
        self.ports = port_space()
        self.mmio = mmio_space()
        self.memory = guest_memory(memory)
        self.clock = ManualClock()
        self.control = RecordingControl()
        self.lines: dict[int, RecordingLine] = {}
        self.messages: list[Msi] = []
        self.events = ManualEvents()
        self.aml: list[bytes] = []
        self.tables: list[tuple[bytes, int, bytes]] = []
        self._pci: PciBus | None = None
        self._wires: dict[int, SharedLine] = {}
        self._msrs: dict[int, tuple[MsrRead, MsrWrite]] = {}
        self.platform = Platform(
            ports=self.ports,
            mmio=self.mmio,
            memory=self.memory,
            clock=self.clock,
            control=self.control,
            line=self._line,
            send_msi=self.messages.append,
            msr=self._add_msrs,
            entropy=lambda size: bytes(i & 0xFF for i in range(size)),
            events=self.events,
            doorbell=self._doorbell,
            message_source=lambda: DirectMessage(self.messages.append),
            pci_bus=self._pci_bus,
            add_acpi=self.aml.append,
            add_acpi_table=lambda *table: self.tables.append(table),
            map_memory=self._map_memory,
        )
        for device in devices:
            device.attach(self.platform)
        if self._pci is not None:
            self._pci.assign()

    def _line(self, gsi: int) -> InterruptLine:
        if gsi not in self._wires:
            self.lines[gsi] = RecordingLine()
            self._wires[gsi] = SharedLine(self.lines[gsi].line.set)
        return self._wires[gsi].source()

    @property
    def pci(self) -> PciBus:
        """The PCI bus, made on first use."""
        return self._pci_bus()

    def _pci_bus(self) -> PciBus:
        if self._pci is None:
            from pyhv.pci import PciBus

            self._pci = PciBus(ports=self.ports, mmio=self.mmio, memory=self.memory, line=self._line)
            self._pci.attach(self.ports, self.mmio)
        return self._pci

    def _doorbell(self, address: int, size: int, callback: Callable[[], None], **_: object) -> Doorbell | None:
        return None

    def _map_memory(
        self, size: int, *, alignment: int = 1 << 21, fd: int = -1, readonly: bool = False, name: str = "device"
    ) -> MemoryRegion:
        end = max(region.end for region in self.memory.regions)
        region = MemoryRegion((end + alignment - 1) & -alignment, memoryview(bytearray(size)), name=name, readonly=readonly)
        self.memory.add(region)
        return region

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
