"""ACPI fixed hardware: the PM1 event and control registers, the power button, the PM timer, the SCI.

Source: ACPI 6.5, 4.8.3. The system is always in ACPI mode: SCI_EN reads one and there is no SMI command port. The timer
has 24 bits. The FADT says so: SMI_CMD 0, TMR_VAL_EXT 0, PWR_BUTTON 0, SLP_BUTTON 1, FIX_RTC 1, no GPE blocks.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import PM1_CONTROL_PORT, PM1_EVENT_PORT, PM_TIMER_HZ, PM_TIMER_PORT, S5_SLEEP_TYPE

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.clock import Clock, Timer
    from pyhv.control import MachineControl
    from pyhv.irq import InterruptLine

NS = 1_000_000_000

TMR_STS = 1 << 0
GBL_STS = 1 << 5
PWRBTN_STS = 1 << 8
RTC_STS = 1 << 10
ENABLE_BITS = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS
"""RTC_EN can be set, as Linux tries whatever FIX_RTC says, but the RTC has IRQ8 and never raises this event."""

SCI_EN = 1 << 0
BM_RLD = 1 << 1
SLP_TYP_SHIFT = 10
SLP_TYP = 7 << SLP_TYP_SHIFT
SLP_EN = 1 << 13
CONTROL_BITS = BM_RLD | SLP_TYP

TIMER_BITS = 24
HALF_TURN = 1 << (TIMER_BITS - 1)
"""TMR_STS is set whenever the timer's highest bit changes."""

LEGACY_S5_SLEEP_TYPE = 0
"""What kernels that do not read \\_S5 write, as it is S5 on widespread virtual machines; no other state here has it."""


def _lanes(old: int, offset: int, size: int, value: int) -> int:
    """`old` (16 bits) with `size` bytes at `offset` replaced."""
    shift = offset * 8
    mask = ((1 << size * 8) - 1) << shift
    return (old & ~mask) | ((value << shift) & mask)


class AcpiPm:
    """The register blocks at 0x600, 0x604 and 0x608; `sci` is a level."""

    def __init__(self, *, clock: Clock, control: MachineControl, sci: InterruptLine) -> None:
        self._clock = clock
        self._control = control
        self._sci = sci
        self._status = 0
        self._enable = 0
        self._pm1_control = SCI_EN
        self._turns = self._half_turns()
        self._timer: Timer | None = None

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the three blocks, 4, 2 and 4 ports."""
        ports.map(PM1_EVENT_PORT, 2, IoFunctions(self._read_status, self._write_status), "pm1-status", width=2)
        ports.map(PM1_EVENT_PORT + 2, 2, IoFunctions(self._read_enable, self._write_enable), "pm1-enable", width=2)
        ports.map(PM1_CONTROL_PORT, 2, IoFunctions(self._read_control, self._write_control), "pm1-control", width=2)
        ports.map(PM_TIMER_PORT, 4, IoFunctions(self._read_timer, self._ignore), "pm-timer", width=4)

    def reset(self) -> None:
        """No events, none enabled; the timer runs on."""
        self._status = self._enable = 0
        self._pm1_control = SCI_EN
        self._turns = self._half_turns()
        self._update()

    def press_power_button(self) -> bool:
        """Press it; True when the guest asked to be told (otherwise nothing will come of it)."""
        self._status |= PWRBTN_STS
        self._update()
        return bool(self._enable & PWRBTN_STS)

    def _ticks(self) -> int:
        return self._clock.now_ns() * PM_TIMER_HZ // NS

    def _half_turns(self) -> int:
        return self._ticks() // HALF_TURN

    def _update(self) -> None:
        """Note the timer's turns, drive the SCI, and keep a timer only while its event could raise the SCI."""
        turns = self._half_turns()
        if turns != self._turns:
            self._turns = turns
            self._status |= TMR_STS
        self._sci.set(bool(self._status & self._enable))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._enable & TMR_STS and not self._status & TMR_STS:
            due = (turns + 1) * HALF_TURN
            self._timer = self._clock.call_at(-(-due * NS // PM_TIMER_HZ), self._update)

    def _read_status(self, offset: int, size: int) -> int:
        self._update()
        return self._status >> offset * 8

    def _write_status(self, offset: int, size: int, value: int) -> None:
        self._update()
        self._status &= ~(value << offset * 8)
        self._update()

    def _read_enable(self, offset: int, size: int) -> int:
        return self._enable >> offset * 8

    def _write_enable(self, offset: int, size: int, value: int) -> None:
        self._enable = _lanes(self._enable, offset, size, value) & ENABLE_BITS
        self._update()

    def _read_control(self, offset: int, size: int) -> int:
        return self._pm1_control >> offset * 8

    def _write_control(self, offset: int, size: int, value: int) -> None:
        written = _lanes(self._pm1_control, offset, size, value)
        self._pm1_control = (written & CONTROL_BITS) | SCI_EN
        if written & SLP_EN and written >> SLP_TYP_SHIFT & 7 in (S5_SLEEP_TYPE, LEGACY_S5_SLEEP_TYPE):
            self._control.power_off("acpi")

    def _read_timer(self, offset: int, size: int) -> int:
        return (self._ticks() & (1 << TIMER_BITS) - 1) >> offset * 8

    @staticmethod
    def _ignore(offset: int, size: int, value: int) -> None:
        """The timer is read-only."""
