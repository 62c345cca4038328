"""The board's wiring: which controller inputs each interrupt number drives.

ISA IRQ n reaches input n of the 8259A pair and of the I/O APIC, but IRQ0 reaches the I/O APIC's input 2: the interrupt
source override that PC firmware reports (ACPI 6.5, 5.2.12.5). Numbers 16 to 23 reach the I/O APIC only. The 8259A
pair's own output is not wired to the I/O APIC.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.ioapic import MASKED
from pyhv.chipset.layout import IOAPIC_PINS
from pyhv.errors import ConfigError
from pyhv.irq import SharedLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.chipset.ioapic import IoApic
    from pyhv.chipset.pic import Pic
    from pyhv.irq import InterruptLine

ISA_IRQS = 16
TIMER_IRQ, TIMER_GSI = 0, 2


def _both(first: InterruptLine, second: InterruptLine) -> Callable[[bool], None]:
    def drive(level: bool) -> None:
        first.set(level)
        second.set(level)

    return drive


class GsiRouter:
    """Hands out lines; all lines of one number are one wire, high while any of them is."""

    def __init__(self, *, pic: Pic, ioapic: IoApic) -> None:
        self._pic = pic
        self._ioapic = ioapic
        self._wires: list[SharedLine] = []
        for gsi in range(IOAPIC_PINS):
            pin = ioapic.line(gsi)
            irq = TIMER_IRQ if gsi == TIMER_GSI else gsi
            if gsi != TIMER_IRQ and irq < ISA_IRQS:
                self._wires.append(SharedLine(_both(pic.line(irq), pin)))
            else:
                self._wires.append(SharedLine(pin.set))
        self._wires[TIMER_IRQ] = self._wires[TIMER_GSI]

    def line(self, number: int) -> InterruptLine:
        """A new source of ISA IRQ or GSI `number`, 0 to 23; 0 and 2 are both the timer's wire.

        Raises ConfigError for any other number.
        """
        if not 0 <= number < IOAPIC_PINS:
            raise ConfigError(f"interrupt {number}: allowed are 0 to {IOAPIC_PINS - 1}")
        return self._wires[number].source()

    def timer_unmasked(self) -> bool:
        """Whether either controller lets the timer's interrupt through."""
        return not self._pic.master.imr & 1 << TIMER_IRQ or not self._ioapic.entries[TIMER_GSI] & MASKED

    def timer_deaf(self) -> bool:
        """Whether one more edge of the timer would change nothing: already requested here, masked there."""
        return bool(self._pic.master.irr & 1 << TIMER_IRQ) and bool(self._ioapic.entries[TIMER_GSI] & MASKED)

    def watch_timer(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever `timer_unmasked()` or `timer_deaf()` may have changed."""
        self._pic.on_timer_change = changed
        self._ioapic.watch_entry(TIMER_GSI, changed)
