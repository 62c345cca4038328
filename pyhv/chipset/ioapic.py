"""The I/O APIC: 24 interrupt inputs, each turned into a message to the local APICs.

Sources: Intel 82093AA data sheet (290566), with the EOI register of version 0x20 (Intel ICH9 data sheet, 13.5). The
message is an x86 MSI (APM vol. 2, 16.5): software programs a redirection entry as the same fields. Messages are taken
at once, so the delivery status bit always reads idle. An input's level means "asserted": the polarity bit is kept but
inverts nothing, as the board and its tables agree about each wire's polarity.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import IOAPIC_BASE, IOAPIC_PINS, LAPIC_BASE
from pyhv.errors import ConfigError
from pyhv.irq import InterruptLine, Msi

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace

VERSION = 0x20
WINDOW = 0x1000
"""The page that the chip decodes; its registers repeat every 256 bytes."""

IOREGSEL, IOWIN, EOI_REGISTER = 0x00, 0x10, 0x40
REG_ID, REG_VERSION, REG_ARBITRATION, REG_REDIRECTION = 0x00, 0x01, 0x02, 0x10

VECTOR = 0xFF
DELIVERY_MODE_SHIFT = 8
LOGICAL = 1 << 11
REMOTE_IRR = 1 << 14
LEVEL = 1 << 15
MASKED = 1 << 16
DESTINATION_SHIFT = 56
WRITABLE_LOW = 0x1_AFFF
WRITABLE_HIGH = 0xFF00_0000

FIXED, LOWEST, SMI, NMI, INIT, EXTINT = 0, 1, 2, 4, 5, 7
LOWEST_VECTOR = 0x10
"""Vectors below are no interrupt's (APM vol. 2, 16.6.1)."""

MSI_ADDRESS_DESTINATION_SHIFT = 12
MSI_ADDRESS_REDIRECTION_HINT = 1 << 3
MSI_ADDRESS_LOGICAL = 1 << 2
MSI_DATA_ASSERT = 1 << 14
MSI_DATA_LEVEL = 1 << 15


def _is_level(entry: int) -> bool:
    """SMI, NMI, INIT and ExtINT are edges whatever the trigger mode says (82093AA, 3.2.4, delivery mode)."""
    return bool(entry & LEVEL) and (entry >> DELIVERY_MODE_SHIFT) & 7 in (FIXED, LOWEST)


def message(entry: int) -> Msi | None:
    """The message that a redirection entry sends; None for its reserved delivery modes."""
    mode = (entry >> DELIVERY_MODE_SHIFT) & 7
    if mode not in (FIXED, LOWEST, SMI, NMI, INIT, EXTINT):
        return None
    address = LAPIC_BASE | (entry >> DESTINATION_SHIFT) << MSI_ADDRESS_DESTINATION_SHIFT
    if entry & LOGICAL:
        address |= MSI_ADDRESS_LOGICAL
        if mode == LOWEST:
            address |= MSI_ADDRESS_REDIRECTION_HINT
    data = (entry & VECTOR) | mode << DELIVERY_MODE_SHIFT
    if _is_level(entry):
        data |= MSI_DATA_ASSERT | MSI_DATA_LEVEL
    return Msi(address, data)


class IoApic:
    """One I/O APIC at `base`.

    `deliver` takes each message. `on_routes_changed` is called when `routes()` has changed, always before a message
    that depends on it, and never for what does not change it (masking, edge triggered inputs, rewriting an entry).
    """

    def __init__(
        self,
        *,
        deliver: Callable[[Msi], None],
        on_routes_changed: Callable[[], None] = lambda: None,
        apic_id: int = 0,
        base: int = IOAPIC_BASE,
    ) -> None:
        self._deliver = deliver
        self._on_routes_changed = on_routes_changed
        self._first_id = apic_id & 0xF
        self._base = base
        self._inputs = 0
        self._lines: dict[int, InterruptLine] = {}
        self._routes: dict[int, Msi] = {}
        self._watches: dict[int, Callable[[], None]] = {}
        self.id = self._first_id
        self.select = 0
        self.entries = [MASKED] * IOAPIC_PINS

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the register page."""
        memory.map(self._base, WINDOW, self, "ioapic", width=4)

    def reset(self) -> None:
        """All inputs masked, registers as after power-on; the inputs' levels stay what their devices drive."""
        self.id = self._first_id
        self.select = 0
        self.entries = [MASKED] * IOAPIC_PINS
        if self._routes:
            self._routes.clear()
            self._on_routes_changed()

    def line(self, pin: int) -> InterruptLine:
        """The input `pin`, always the same object; raises ConfigError when there is no such pin."""
        if not 0 <= pin < IOAPIC_PINS:
            raise ConfigError(f"I/O APIC input {pin}: allowed are 0 to {IOAPIC_PINS - 1}")
        line = self._lines.get(pin)
        if line is None:
            line = self._lines[pin] = InterruptLine(lambda level: self._set_input(pin, level))
        return line

    def routes(self) -> dict[int, Msi]:
        """By pin, the level triggered messages that the guest set up: their vectors need an EOI broadcast.

        A pin stays while it is masked, as its interrupt may still be in service and mask changes are frequent.
        """
        return dict(self._routes)

    def watch_entry(self, pin: int, changed: Callable[[], None]) -> None:
        """Have `changed` called after each write to this pin's redirection entry; one watcher a pin."""
        self._watches[pin] = changed

    def eoi(self, vector: int) -> None:
        """A local APIC's EOI broadcast (or a write to the EOI register): level inputs still high interrupt again."""
        for pin, entry in enumerate(self.entries):
            if entry & REMOTE_IRR and entry & VECTOR == vector:
                self.entries[pin] = entry & ~REMOTE_IRR
                self._serve_level(pin)

    def _set_input(self, pin: int, level: bool) -> None:
        """A change of the wire."""
        bit = 1 << pin
        if not level:
            self._inputs &= ~bit
            return
        self._inputs |= bit
        entry = self.entries[pin]
        if _is_level(entry):
            self._serve_level(pin)
        elif not entry & MASKED:
            self._send(entry)

    def _serve_level(self, pin: int) -> None:
        entry = self.entries[pin]
        if self._inputs >> pin & 1 and _is_level(entry) and not entry & (MASKED | REMOTE_IRR):
            self.entries[pin] = entry | REMOTE_IRR
            self._send(entry)

    def _send(self, entry: int) -> None:
        msi = message(entry)
        if msi is not None:
            self._deliver(msi)

    def read(self, offset: int, size: int) -> int:
        """Registers are 32 bits wide; a narrower access gets its bytes of them."""
        register = offset & 0xFC
        if register == IOREGSEL:
            value = self.select
        elif register == IOWIN:
            value = self._read_register(self.select)
        else:
            value = 0
        return value >> ((offset & 3) * 8)

    def write(self, offset: int, size: int, value: int) -> None:
        """A narrower access replaces its bytes of the register."""
        register = offset & 0xFC
        shift = (offset & 3) * 8
        if register == IOREGSEL:
            if shift == 0:
                self.select = value & 0xFF
        elif register == IOWIN:
            lanes = ((1 << size * 8) - 1) << shift
            if lanes & 0xFFFF_FFFF != 0xFFFF_FFFF:
                value = (self._read_register(self.select) & ~lanes) | ((value << shift) & lanes)
            self._write_register(self.select, value & 0xFFFF_FFFF)
        elif register == EOI_REGISTER and shift == 0:
            self.eoi(value & VECTOR)

    def _read_register(self, index: int) -> int:
        if index in (REG_ID, REG_ARBITRATION):
            return self.id << 24
        if index == REG_VERSION:
            return (IOAPIC_PINS - 1) << 16 | VERSION
        pin, high = divmod(index - REG_REDIRECTION, 2)
        if 0 <= pin < IOAPIC_PINS:
            return self.entries[pin] >> (32 if high else 0) & 0xFFFF_FFFF
        return 0

    def _write_register(self, index: int, value: int) -> None:
        if index == REG_ID:
            self.id = value >> 24 & 0xF
            return
        pin, high = divmod(index - REG_REDIRECTION, 2)
        if not 0 <= pin < IOAPIC_PINS:
            return
        shift = 32 if high else 0
        writable = (WRITABLE_HIGH if high else WRITABLE_LOW) << shift
        entry = (self.entries[pin] & ~writable) | (value << shift & writable)
        if not _is_level(entry):
            # Software for chips without an EOI register ends an interrupt by making its entry edge triggered.
            entry &= ~REMOTE_IRR
        self.entries[pin] = entry
        self._update_route(pin, entry)
        self._serve_level(pin)
        watch = self._watches.get(pin)
        if watch is not None:
            watch()

    def _update_route(self, pin: int, entry: int) -> None:
        known = self._routes.get(pin)
        route = message(entry) if _is_level(entry) and entry & VECTOR >= LOWEST_VECTOR else None
        if route == known:
            return
        if route is None or (entry & MASKED and not entry & REMOTE_IRR):
            if known is None:
                return
            del self._routes[pin]
        else:
            self._routes[pin] = route
        self._on_routes_changed()
