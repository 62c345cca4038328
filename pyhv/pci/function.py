"""One function of a device: type 0 header, ranges, capabilities and interrupts.

A device builds it, hands it to `PciBus.add`, and then calls `interrupt` or a capability's `fire`. Software meets it through
the configuration space and the ranges only.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.pci import registers as reg
from pyhv.pci.bar import Bar, BarKind
from pyhv.pci.config import ConfigSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import IoHandler
    from pyhv.irq import InterruptLine
    from pyhv.pci.message import MakeSource
    from pyhv.pci.msi import MsiCapability
    from pyhv.pci.msix import MsixCapability

COMMANDS = reg.COMMAND_MASTER | reg.COMMAND_PARITY | reg.COMMAND_SERR


def _nothing(*_: object) -> None:
    """Nobody wants to know."""


class PciFunction:
    """- `vendor`, `device`, `subsystem_vendor`, `subsystem`: 16-bit numbers; `class_code`: 24 bits, as 0x020000 for Ethernet.
    - `interrupt_pin`: 1 to 4 for INTA# to INTD#, 0 for none.
    - `master_changed`: called when software lets the function write to memory, or forbids it (`bus_master`).

    Everything of the function is added before the bus has it.
    """

    def __init__(
        self,
        *,
        vendor: int,
        device: int,
        class_code: int,
        revision: int = 0,
        subsystem_vendor: int = 0,
        subsystem: int = 0,
        interrupt_pin: int = 0,
        name: str = "pci function",
        master_changed: Callable[[], None] = _nothing,
    ) -> None:
        if not 0 <= interrupt_pin <= 4:
            raise ConfigError(f"{name}: interrupt pin {interrupt_pin} is not 0 to 4")
        self.name = name
        self.interrupt_pin = interrupt_pin
        self.devfn = -1
        """Slot * 8 + function, once the bus has it."""
        self.bars: dict[int, Bar] = {}
        self.msi: MsiCapability | None = None
        self.msix: MsixCapability | None = None
        self.config = config = ConfigSpace()
        self._master_changed = master_changed
        self._decoding_changed: Callable[[], None] = _nothing
        self._lines: tuple[InterruptLine, ...] = ()
        self._asserted = False
        self.bus_master = False
        """Whether software lets the function read and write memory, messages included (PCI 3.0, 6.2.2)."""
        self._next_capability = reg.FIRST_CAPABILITY
        self._last_pointer = reg.CAPABILITIES_POINTER
        config.define(reg.VENDOR_ID, 2, vendor)
        config.define(reg.DEVICE_ID, 2, device)
        config.define(reg.REVISION_ID, 1, revision)
        config.define(reg.CLASS_CODE, 1, class_code)
        config.define(reg.CLASS_CODE + 1, 2, class_code >> 8)
        config.define(reg.CACHE_LINE_SIZE, 1, 0, 0xFF)
        config.define(reg.LATENCY_TIMER, 1, 0, 0xF8)
        config.define(reg.SUBSYSTEM_VENDOR_ID, 2, subsystem_vendor)
        config.define(reg.SUBSYSTEM_ID, 2, subsystem)
        config.define(reg.INTERRUPT_PIN, 1, interrupt_pin)
        self._commands = COMMANDS
        if interrupt_pin:
            self._commands |= reg.COMMAND_INTX_DISABLE
            config.define(reg.INTERRUPT_LINE, 1, 0, 0xFF)
        config.define(reg.COMMAND, 2, 0, self._commands)
        config.on_write(reg.COMMAND, self._command_written)

    # What a device builds

    def add_bar(
        self,
        index: int,
        size: int,
        handler: IoHandler,
        *,
        kind: BarKind = BarKind.MEMORY32,
        prefetchable: bool = False,
        width: int = 4,
        moved: Callable[[int | None], None] = _nothing,
    ) -> Bar:
        """A range of `size` bytes, a power of two of at least 16 (ports: 4 to 256), that `handler` answers.

        `width` is the widest access that it takes whole; `moved`: see Bar. Raises ConfigError.
        """
        least, most = (4, 256) if kind is BarKind.IO else (16, 1 << (40 if kind is BarKind.MEMORY64 else 31))
        if size & (size - 1) or not least <= size <= most:
            raise ConfigError(f"{self.name}: BAR {index}: {size} bytes are not a power of two from {least} to {most}")
        bar = Bar(
            self.config,
            self._free_registers(index, 2 if kind is BarKind.MEMORY64 else 1),
            size,
            handler,
            kind=kind,
            prefetchable=prefetchable,
            width=width,
            moved=moved,
            name=f"{self.name} bar {index}",
        )
        self.bars[index] = bar
        self._commands |= reg.COMMAND_IO if bar.is_io else reg.COMMAND_MEMORY
        self.config.define(reg.COMMAND, 2, 0, self._commands)
        for register in range(index, index + (2 if bar.is_wide else 1)):
            self.config.on_write(reg.BAR_0 + 4 * register, self._bar_written)
        return bar

    def _free_registers(self, index: int, count: int) -> int:
        taken = {bar.index + half for bar in self.bars.values() for half in range(2 if bar.is_wide else 1)}
        wanted = range(index, index + count)
        if not 0 <= index <= reg.BAR_COUNT - count or taken.intersection(wanted):
            raise ConfigError(f"{self.name}: BAR {index}: there is no such register, or it is taken")
        return index

    def add_capability(self, kind: int, body: bytes, writable: bytes = b"") -> int:
        """Append to the list: `body` follows the identifier and the pointer; `writable` has the bits that software changes.

        Gives the capability's offset. Raises ConfigError when there is no room.
        """
        at = self._next_capability
        end = at + 2 + len(body)
        if end > reg.CONFIG_SIZE:
            raise ConfigError(f"{self.name}: no room in configuration space for one more capability")
        self._next_capability = (end + 3) & ~3
        config = self.config
        config.define(self._last_pointer, 1, at)
        config.define(reg.STATUS, 2, reg.STATUS_CAPABILITIES)
        config.define(at, 1, kind)
        for position, byte in enumerate(body):
            config.define(at + 2 + position, 1, byte, writable[position] if position < len(writable) else 0)
        self._last_pointer = at + 1
        return at

    def add_msi(self, vectors: int, make_source: MakeSource) -> MsiCapability:
        """MSI with 1, 2, 4 to 32 vectors; `make_source` is `platform.message_source`. Raises ConfigError."""
        from pyhv.pci import msi

        if vectors & (vectors - 1) or not 1 <= vectors <= msi.MAX_VECTORS:
            raise ConfigError(f"{self.name}: {vectors} MSI vectors are not a power of two from 1 to {msi.MAX_VECTORS}")
        at = self.add_capability(reg.CAPABILITY_MSI, bytes(msi.SIZE - 2))
        self.msi = msi.MsiCapability(
            self.config,
            at,
            vectors,
            make_source=make_source,
            allowed=lambda: self.bus_master,
            switched=self._drive,
        )
        return self.msi

    def add_msix(self, vectors: int, bar: int, make_source: MakeSource) -> MsixCapability:
        """MSI-X with 1 to 2048 vectors, their table and pending bits in BAR `bar`, which it makes. Raises ConfigError."""
        from pyhv.pci import msix

        if not 1 <= vectors <= msix.MAX_VECTORS:
            raise ConfigError(f"{self.name}: {vectors} MSI-X vectors are not 1 to {msix.MAX_VECTORS}")
        at = self.add_capability(reg.CAPABILITY_MSIX, bytes(msix.SIZE - 2))
        self.msix = msix.MsixCapability(
            self.config,
            at,
            vectors,
            bar,
            make_source=make_source,
            allowed=lambda: self.bus_master,
            switched=self._drive,
        )
        self.add_bar(bar, 2 * msix.half_size(vectors), self.msix, width=8)
        return self.msix

    def connect(self, devfn: int, lines: tuple[InterruptLine, ...], decoding_changed: Callable[[], None]) -> None:
        """The bus takes it: its number, the wires of its pin, and what to call when software moves a range."""
        self.devfn = devfn
        self._lines = lines
        self._decoding_changed = decoding_changed

    # What a device does

    def interrupt(self, asserted: bool) -> None:
        """Drive INTx#: it shows in the status register, and on the wire unless that is disabled or messages replace it."""
        if asserted == self._asserted:
            return
        self._asserted = asserted
        status = self.config.get(reg.STATUS, 2) & ~reg.STATUS_INTERRUPT
        self.config.put(reg.STATUS, 2, status | reg.STATUS_INTERRUPT if asserted else status)
        self._drive()

    def reset(self) -> None:
        """The state after a reset of the bus: nothing decoded, no interrupt."""
        self.interrupt(False)
        self.config.reset()
        for capability in (self.msi, self.msix):
            if capability is not None:
                capability.reset()
        self._drive()
        self._tell_master()  # first, for what the device does when its ranges go
        self._decoding_changed()

    def close(self) -> None:
        """Give back what interrupts took of the host."""
        for capability in (self.msi, self.msix):
            if capability is not None:
                capability.close()

    def _drive(self) -> None:
        messages = (self.msi is not None and self.msi.enabled) or (self.msix is not None and self.msix.enabled)
        disabled = self.config.get(reg.COMMAND, 2) & reg.COMMAND_INTX_DISABLE
        level = self._asserted and not messages and not disabled
        for line in self._lines:
            line.set(level)

    def _bar_written(self) -> None:
        self._decoding_changed()

    def _command_written(self) -> None:
        self._decoding_changed()
        self._drive()
        self._tell_master()

    def _tell_master(self) -> None:
        master = bool(self.config.get(reg.COMMAND, 2) & reg.COMMAND_MASTER)
        if master == self.bus_master:
            return
        self.bus_master = master
        if master:
            for capability in (self.msi, self.msix):
                if capability is not None:
                    capability.update()
        self._master_changed()
