"""The MC146818 real-time clock and its battery-backed memory, behind ports 0x70 and 0x71.

Sources: Motorola MC146818A data sheet; the use of the memory is the PC's convention (Intel 82371AB for port 0x70's NMI
mask). Time and flags are computed from the clock when they are looked at; a timer runs only while an enabled interrupt
is to come.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import RTC_BASE
from pyhv.chipset.rtc_time import (
    ANY,
    DAY,
    DAY_SECONDS,
    HOURS,
    HOURS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    MONTH,
    SECONDS,
    SECONDS_ALARM,
    WEEKDAY,
    YEAR,
    Encoding,
    civil_from_days,
    days_from_civil,
    next_alarm,
    weekday,
)
from pyhv.memory.layout import MMIO_GAP_END, ram_ranges

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.clock import Clock, Timer
    from pyhv.irq import InterruptLine

NS = 1_000_000_000
OSCILLATOR_HZ = 32_768
UPDATE_WARNING_NS = 244_000
"""UIP is set so long before the registers change (data sheet, "update cycle")."""
HALF_SECOND_NS = NS // 2
"""The first update after the divider was released."""

REG_A, REG_B, REG_C, REG_D = 0x0A, 0x0B, 0x0C, 0x0D
ALARMS = (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM)
CENTURY, CENTURY_PS2 = 0x32, 0x37

A_UIP = 0x80
A_DIVIDER_RESET = 0x60
A_DEFAULT = 0x26
B_SET, B_PIE, B_AIE, B_UIE, B_SQWE, B_DM, B_24H = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02
C_IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
D_VRT = 0x80

KIB, MIB = 1 << 10, 1 << 20
NMI_MASK = 0x80


class Rtc:
    """The clock and 128 bytes of memory that tell `ram_size` bytes of RAM and `cpus` processors."""

    def __init__(self, *, clock: Clock, irq: InterruptLine, ram_size: int = 0, cpus: int = 1) -> None:
        self._clock = clock
        self._irq = irq
        self._index = 0
        self.nmi_masked = False
        """Port 0x70's bit 7."""
        self._offset = 0
        self._weekday_shift = 0
        self._held: dict[int, int] | None = None
        self._a = A_DEFAULT
        self._b = B_24H
        self._flags = 0
        self._timer: Timer | None = None
        self._second = self._now() // NS
        self._oscillation = self._oscillations()
        self._ram = bytearray(128)
        self._describe(ram_size, cpus)

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim ports 0x70 and 0x71."""
        ports.map(RTC_BASE, 2, self, "rtc", width=1)

    def reset(self) -> None:
        """The RESET pin: interrupts off; time, memory and register A are kept by the battery."""
        self._observe()
        self._b &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
        self._flags = 0
        self._index = 0
        self.nmi_masked = False
        self._update()

    def _describe(self, ram_size: int, cpus: int) -> None:
        """What firmware leaves in the memory: RAM sizes, equipment, checksum."""
        ram = self._ram
        low = ram_ranges(ram_size)[0][1]
        high = sum(length for base, length in ram_ranges(ram_size) if base >= MMIO_GAP_END)
        extended = min(max(low - MIB, 0) // KIB, 0xFFFF)
        beyond_16m = min(max(low - 16 * MIB, 0) // (64 * KIB), 0xFFFF)
        ram[0x14] = 0x06  # a coprocessor and a PS/2 mouse
        ram[0x15:0x17] = min(low // KIB, 640).to_bytes(2, "little")
        ram[0x17:0x19] = ram[0x30:0x32] = extended.to_bytes(2, "little")
        ram[0x34:0x36] = beyond_16m.to_bytes(2, "little")
        ram[0x5B:0x5E] = min(high // (64 * KIB), 0xFF_FFFF).to_bytes(3, "little")
        ram[0x5F] = min(max(cpus, 1) - 1, 0xFF)
        ram[0x2E:0x30] = sum(ram[0x10:0x2E]).to_bytes(2, "big")

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return 0xFF
        index = self._index
        if index in ALARMS:
            return self._ram[index]
        if index < REG_A or index in (CENTURY, CENTURY_PS2):
            return self._registers()[CENTURY if index == CENTURY_PS2 else index]
        if index == REG_A:
            return self._a | (A_UIP if self._updating() else 0)
        if index == REG_B:
            return self._b
        if index == REG_C:
            return self._take_flags()
        return D_VRT if index == REG_D else self._ram[index]

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if offset == 0:
            self._index = value & 0x7F
            self.nmi_masked = bool(value & NMI_MASK)
            return
        index = self._index
        if index in (REG_C, REG_D):
            return
        if index >= REG_A and index not in (REG_A, REG_B, CENTURY, CENTURY_PS2):
            self._ram[index] = value
            return
        self._observe()
        if index == REG_A:
            self._set_divider(value & ~A_UIP)
        elif index == REG_B:
            self._set_control(value)
        elif index in ALARMS:
            self._ram[index] = value
        else:
            self._set_register(CENTURY if index == CENTURY_PS2 else index, value)
        self._update()

    @property
    def _encoding(self) -> Encoding:
        return Encoding(bool(self._b & B_DM), bool(self._b & B_24H))

    @property
    def _divider_stopped(self) -> bool:
        return self._a & A_DIVIDER_RESET == A_DIVIDER_RESET

    def _now(self) -> int:
        """The clock's own time, in nanoseconds since the epoch, while it runs."""
        return self._clock.wall_ns() + self._offset

    def _oscillations(self) -> int:
        return self._clock.now_ns() * OSCILLATOR_HZ // NS

    def _updating(self) -> bool:
        return self._held is None and NS - self._now() % NS <= UPDATE_WARNING_NS

    def _registers(self) -> dict[int, int]:
        """The time registers as they read now: what was written while they are held, else the time."""
        if self._held is not None:
            return self._held
        days, second = divmod(self._now() // NS, DAY_SECONDS)
        year, month, day = civil_from_days(days)
        code = self._encoding
        return {
            SECONDS: code.encode(second % 60),
            MINUTES: code.encode(second // 60 % 60),
            HOURS: code.encode_hour(second // 3600),
            WEEKDAY: code.encode((weekday(days) - 1 + self._weekday_shift) % 7 + 1),
            DAY: code.encode(day),
            MONTH: code.encode(month),
            YEAR: code.encode(year % 100),
            CENTURY: code.encode(year // 100 % 100),
        }

    def _set_register(self, index: int, value: int) -> None:
        if self._held is not None:
            self._held[index] = value
            return
        registers = self._registers()
        registers[index] = value
        self._set_time(registers, self._now() % NS)

    def _set_time(self, registers: dict[int, int], fraction_ns: int) -> None:
        """Run on from these registers."""
        code = self._encoding
        year = code.decode(registers[CENTURY]) * 100 + code.decode(registers[YEAR])
        days = days_from_civil(year, code.decode(registers[MONTH]), code.decode(registers[DAY]))
        second = code.decode(registers[SECONDS]) + 60 * code.decode(registers[MINUTES])
        second += 3600 * code.decode_hour(registers[HOURS]) + DAY_SECONDS * days
        self._offset = second * NS + fraction_ns - self._clock.wall_ns()
        self._weekday_shift = (code.decode(registers[WEEKDAY]) - weekday(second // DAY_SECONDS)) % 7
        self._second = second

    def _hold(self) -> None:
        if self._held is None:
            self._held = self._registers()

    def _release(self, fraction_ns: int) -> None:
        """Run on, unless the other of SET and the divider still holds the registers."""
        if self._held is not None and not self._b & B_SET and not self._divider_stopped:
            held, self._held = self._held, None
            self._set_time(held, fraction_ns)

    def _set_divider(self, value: int) -> None:
        stopped = self._divider_stopped
        self._a = value
        if self._divider_stopped:
            self._hold()
        elif stopped:
            self._release(HALF_SECOND_NS)

    def _set_control(self, value: int) -> None:
        if value & B_SET:
            self._hold()
            value &= ~B_UIE
        self._b = value
        self._release(self._now() % NS)

    def _period(self) -> int:
        """Oscillations between two periodic interrupts; 0 when there are none."""
        rate = self._a & 0x0F
        if rate == 0 or self._divider_stopped:
            return 0
        return 1 << (rate - 1 if rate > 2 else rate + 6)

    def _next_alarm(self) -> int | None:
        code = self._encoding
        wanted: list[int | None] = []
        for register, decode in zip(ALARMS, (code.decode, code.decode, code.decode_hour), strict=True):
            raw = self._ram[register]
            wanted.append(None if raw & ANY == ANY else decode(raw))
        return next_alarm(self._second, *wanted)

    def _observe(self) -> None:
        """Set the flags of what has happened since the last look."""
        oscillation = self._oscillations()
        period = self._period()
        if period and oscillation // period > self._oscillation // period:
            self._flags |= PF
        self._oscillation = oscillation
        if self._held is not None:
            return
        second = self._now() // NS
        if second > self._second:
            self._flags |= UF
            alarm = self._next_alarm()
            if alarm is not None and alarm <= second:
                self._flags |= AF
        self._second = second

    def _take_flags(self) -> int:
        """Read register C: the flags, which are cleared and let go of the interrupt line."""
        self._observe()
        flags = self._flags
        if flags & self._b & (PF | AF | UF):
            flags |= C_IRQF
        self._flags = 0
        self._update()
        return flags

    def _update(self) -> None:
        """Drive IRQ8 and wait for the next enabled event that is not flagged yet."""
        self._irq.set(bool(self._flags & self._b & (PF | AF | UF)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = self._b & ~self._flags
        now = self._clock.now_ns()
        due: list[int] = []
        period = self._period()
        if waiting & PF and period:
            due.append(-(-(self._oscillation // period + 1) * period * NS // OSCILLATOR_HZ))
        if self._held is None:
            if waiting & UF:
                due.append(now + (self._second + 1) * NS - self._now())
            alarm = self._next_alarm() if waiting & AF else None
            if alarm is not None:
                due.append(now + alarm * NS - self._now())
        if due:
            self._timer = self._clock.call_at(min(due), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._observe()
        self._update()
