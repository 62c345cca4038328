"""Bus 0: the host bridge and the functions behind it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import ECAM_BASE, ECAM_SIZE, PCI_FIRST_GSI, PCI_FIRST_IRQ, PCI_IRQS, pci_memory64, pci_wire
from pyhv.errors import ConfigError
from pyhv.pci import registers as reg
from pyhv.pci.decode import Decoder
from pyhv.pci.function import PciFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace
    from pyhv.irq import InterruptLine
    from pyhv.memory import GuestMemory
    from pyhv.pci.bar import Bar

SLOTS, FUNCTIONS = 32, 8
HOST_BRIDGE_VENDOR, HOST_BRIDGE_DEVICE = 0x1B36, 0x0008
"""QEMU's generic host bridge: no driver and no firmware takes it for a chipset with registers of its own, as they would
take an identity of Intel's."""
HOST_BRIDGE_CLASS = 0x06_0000


class PciBus:
    """All functions by their number, slot * 8 + function; slot 0 is the host bridge.

    `line(gsi)` makes interrupt wires. Where no firmware runs, `assign` does what it would have done.
    """

    def __init__(
        self,
        *,
        ports: AddressSpace,
        mmio: AddressSpace,
        memory: GuestMemory,
        line: Callable[[int], InterruptLine],
    ) -> None:
        self._ports = ports
        self._mmio = mmio
        self._memory = memory
        self._line = line
        self._functions: dict[int, PciFunction] = {}
        self._bars: list[Bar] = []
        self._decoder = Decoder(ports, mmio, memory)
        self._add(
            PciFunction(
                vendor=HOST_BRIDGE_VENDOR, device=HOST_BRIDGE_DEVICE, class_code=HOST_BRIDGE_CLASS, name="host bridge"
            ),
            0,
        )

    @property
    def functions(self) -> tuple[PciFunction, ...]:
        """All functions by their number, the host bridge first."""
        return tuple(function for _, function in sorted(self._functions.items()))

    @property
    def pins(self) -> tuple[tuple[int, int], ...]:
        """The number and the interrupt pin of each function behind the host bridge, for firmware's tables."""
        return tuple((function.devfn, function.interrupt_pin) for function in self.functions[1:])

    @property
    def level_irqs(self) -> int:
        """The ISA IRQs that functions share, a bit each: firmware makes them level triggered."""
        return sum({1 << self._irq(function) for function in self.functions if function.interrupt_pin})

    def add(self, function: PciFunction) -> int:
        """Give a function the next free slot, or where all are taken the next function of one; gives the slot.

        Raises ConfigError when the bus is full.
        """
        for devfn in (slot * FUNCTIONS + number for number in range(FUNCTIONS) for slot in range(1, SLOTS)):
            if devfn not in self._functions:
                self._add(function, devfn)
                return devfn // FUNCTIONS
        raise ConfigError(f"{function.name}: the PCI bus is full, with {len(self._functions)} functions")

    def _add(self, function: PciFunction, devfn: int) -> None:
        slot, number = divmod(devfn, FUNCTIONS)
        lines: tuple[InterruptLine, ...] = ()
        if function.interrupt_pin:
            wire = pci_wire(slot, function.interrupt_pin)
            lines = (self._line(PCI_FIRST_GSI + wire), self._line(PCI_FIRST_IRQ + wire % PCI_IRQS))
        if number:
            for other in (function, self._functions[slot * FUNCTIONS]):
                other.config.define(reg.HEADER_TYPE, 1, reg.MULTI_FUNCTION)
        self._functions[devfn] = function
        self._bars = [bar for f in self.functions for _, bar in sorted(f.bars.items())]
        function.connect(devfn, lines, lambda: self._decoding_changed(function))

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the memory through which configuration space is reached (ECAM)."""
        memory.map(ECAM_BASE, ECAM_SIZE, IoFunctions(self._read_ecam, self._write_ecam), "pci ecam", width=4)

    def reset(self) -> None:
        """Every function as after a reset of the bus."""
        for function in self.functions:
            function.reset()

    def assign(self) -> None:
        """Do what firmware does: place all ranges and switch them on, and note in each function where its pin leads."""
        from pyhv.pci.assign import assign

        end = max((region.end for region in self._memory.regions), default=0)
        homeless = assign(self._bars, self._ports, self._mmio, pci_memory64(end))
        for function in self.functions:
            if function.interrupt_pin:
                function.config.write(reg.INTERRUPT_LINE, 1, self._irq(function))
            if not homeless.intersection(function.bars.values()):
                function.config.write(reg.COMMAND, 2, reg.COMMAND_IO | reg.COMMAND_MEMORY)

    @staticmethod
    def _irq(function: PciFunction) -> int:
        """The ISA IRQ of a function's pin."""
        return PCI_FIRST_IRQ + pci_wire(function.devfn // FUNCTIONS, function.interrupt_pin) % PCI_IRQS

    def read_config(self, devfn: int, offset: int, size: int) -> int:
        """Read `size` bytes (1, 2, 4) of a function's configuration space; ones where there is none.

        `devfn` may have the number of a bus above the slot: there is only bus 0.
        """
        function = self._functions.get(devfn)
        if function is None:
            return (1 << 8 * size) - 1
        if (offset & 3) + size <= 4:
            return function.config.read(offset, size)
        return sum(function.config.read(offset + byte, 1) << 8 * byte for byte in range(size))

    def write_config(self, devfn: int, offset: int, size: int, value: int) -> None:
        """Write `size` bytes (1, 2, 4) of a function's configuration space."""
        function = self._functions.get(devfn)
        if function is None:
            return
        if (offset & 3) + size <= 4:
            function.config.write(offset, size, value)
            return
        for byte in range(size):
            function.config.write(offset + byte, 1, value >> 8 * byte & 0xFF)

    def _read_ecam(self, offset: int, size: int) -> int:
        return self.read_config(offset >> 12, offset & 0xFFF, size)

    def _write_ecam(self, offset: int, size: int, value: int) -> None:
        self.write_config(offset >> 12, offset & 0xFFF, size, value)

    def _decoding_changed(self, function: PciFunction) -> None:
        command = function.config.get(reg.COMMAND, 2)
        changed = False
        for bar in function.bars.values():
            address = bar.decoded(command)
            if address != bar.address:
                bar.address = address
                changed = True
        if changed:
            self._decoder.update(self._bars)
