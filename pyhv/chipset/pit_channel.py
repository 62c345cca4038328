"""One counter of an 8254, computed from time: nothing runs between accesses.

Source: Intel 82C54 data sheet (231244): control word, read-back, modes 0 to 5. Time is counted in whole CLK ticks since
the machine's start; `t` is always the current tick and never goes back.
"""

from __future__ import annotations

BINARY_MODULUS = 0x1_0000
BCD_MODULUS = 10_000

TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE, SOFTWARE_STROBE, HARDWARE_STROBE = range(6)

LSB, MSB, BOTH = 1, 2, 3
STATUS_OUT = 0x80
STATUS_NULL = 0x40


def _from_bcd(raw: int) -> int:
    return (raw >> 12 & 15) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15)


def _to_bcd(value: int) -> int:
    return value // 1000 << 12 | value // 100 % 10 << 8 | value // 10 % 10 << 4 | value % 10


class Channel:
    """Count register, counting element, output, gate and latches of one counter."""

    def __init__(self, *, gate: bool) -> None:
        self._first_gate = gate
        self.mode = RATE
        self._held = 0
        self._start: int | None = None
        self._clear(LSB, RATE, bcd=False)
        self.reset(0)

    def reset(self, t: int) -> None:
        """Counting 65536 in mode 2, as firmware leaves the timer (the data sheet leaves it undefined)."""
        self.gate = self._first_gate
        self.control(t, BOTH, RATE, bcd=False)
        self.write(t, 0)
        self.write(t, 0)

    @property
    def periodic(self) -> bool:
        """Whether OUT repeats by itself."""
        return self.mode in (RATE, SQUARE)

    def control(self, t: int, access: int, mode: int, *, bcd: bool) -> None:
        """A control word: OUT takes the mode's initial level, counting waits for a count."""
        self._held = self.value(t)
        self._clear(access, mode - 4 if mode > HARDWARE_STROBE else mode, bcd=bcd)

    def _clear(self, access: int, mode: int, *, bcd: bool) -> None:
        self.access = access
        self.mode = mode
        self.bcd = bcd
        self._modulus = BCD_MODULUS if bcd else BINARY_MODULUS
        self._register: int | None = None
        self._count = self._modulus
        self._start = None
        self._frozen: int | None = None
        self._next_count = 0
        self._switch_at: int | None = None
        self._null = True
        self._loads_at: int | None = None
        self._low_byte: int | None = None
        self._reads_high = False
        self._latched_count: list[int] = []
        self._latched_status: int | None = None

    def write(self, t: int, byte: int) -> None:
        """A byte of the count."""
        self._sync(t)
        if self.access == BOTH:
            if self._low_byte is None:
                self._low_byte = byte
                if self.mode == TERMINAL_COUNT:
                    self._held = self.value(t)
                    self._start = self._frozen = None
                return
            raw = byte << 8 | self._low_byte
            self._low_byte = None
        else:
            raw = byte << 8 if self.access == MSB else byte
        self._load(t, (_from_bcd(raw) if self.bcd else raw) or self._modulus)

    def _load(self, t: int, count: int) -> None:
        self._register = count
        self._null = True
        self._loads_at = None
        if self.mode in (ONE_SHOT, HARDWARE_STROBE) or (self.periodic and not self.gate):
            return
        if self.periodic and self._start is not None:
            self._next_count = count
            if self._switch_at is None:
                self._switch_at = self._boundary(t)
            self._loads_at = self._switch_at
            return
        self._begin(t)

    def _begin(self, t: int) -> None:
        """Load the counting element on the next CLK."""
        if self._register is None:
            return
        self._count = self._register
        self._start = self._loads_at = t + 1
        self._frozen = None if self.gate or self.mode in (ONE_SHOT, HARDWARE_STROBE) else 0
        self._switch_at = None

    def set_gate(self, t: int, level: bool) -> None:
        """Drive GATE: a level for modes 0, 2, 3 and 4, a trigger for modes 1, 2, 3 and 5."""
        if level == self.gate:
            return
        self._sync(t)
        self.gate = level
        if self.mode in (ONE_SHOT, HARDWARE_STROBE):
            if level:
                self._begin(t)
        elif not level:
            if self._start is not None:
                self._frozen = self._elapsed(t)
            if self._switch_at is not None:
                self._loads_at = None
        elif self.periodic:
            self._begin(t)
        elif self._start is not None and self._frozen is not None:
            self._start = t - self._frozen
            self._frozen = None

    def _elapsed(self, t: int) -> int:
        if self._frozen is not None:
            return self._frozen
        return max(0, t - self._start) if self._start is not None else 0

    def _boundary(self, t: int) -> int:
        """The next tick at which a periodic counter reloads."""
        start = self._start or 0
        count = self._count
        cycle = start + self._elapsed(t) // count * count
        if self.mode == SQUARE and t < cycle + (count + 1) // 2:
            return cycle + (count + 1) // 2
        return cycle + count

    def _sync(self, t: int) -> None:
        """Take over a new count whose time has come."""
        if self._switch_at is not None and t >= self._switch_at and self._frozen is None:
            self._start = self._switched_start(self._start or 0, self._switch_at)
            self._count = self._next_count
            self._switch_at = None
        if self._null and self._loads_at is not None and t >= self._loads_at:
            self._null = False
            self._loads_at = None

    def _switched_start(self, start: int, at: int) -> int:
        """Where the cycle of a count taken over `at` begins: a mode 3 counter may be in the middle of one."""
        if self.mode == SQUARE and (at - start) % self._count:
            return at - (self._next_count + 1) // 2
        return at

    def out(self, t: int) -> bool:
        """The level of OUT."""
        self._sync(t)
        mode = self.mode
        if self._start is None:
            return mode != TERMINAL_COUNT
        elapsed = self._elapsed(t)
        count = self._count
        if mode in (TERMINAL_COUNT, ONE_SHOT):
            return elapsed >= count
        if mode in (SOFTWARE_STROBE, HARDWARE_STROBE):
            return elapsed != count
        if not self.gate or count == 1:
            return True
        phase = elapsed % count
        return phase != count - 1 if mode == RATE else phase < (count + 1) // 2

    def value(self, t: int) -> int:
        """The counting element as a read shows it, 16 bits."""
        self._sync(t)
        if self._start is None:
            return self._held
        elapsed = self._elapsed(t)
        count = self._count
        if self.mode == RATE:
            value = count - elapsed % count
        elif self.mode == SQUARE:
            phase = elapsed % count
            high = (count + 1) // 2
            value = (count & ~1) - 2 * (phase if phase < high else phase - high)
        else:
            value = count - elapsed
        value %= self._modulus
        return _to_bcd(value) if self.bcd else value

    def next_rise(self, t: int) -> int | None:
        """The first tick after `t` at which OUT goes from low to high by itself; None when it never will.

        A count that replaces this one at its cycle's end is taken into account only up to its own first rise.
        """
        if self._start is None or self._frozen is not None:
            return None
        start, count = self._start, self._count
        if self.periodic:
            if self._switch_at is not None:
                start = self._switched_start(start, self._switch_at)
                if t < self._switch_at == start and count > 1:
                    return start
                count = self._next_count
            if count == 1:
                return None
            return start + ((t - start) // count + 1) * count if t >= start else start + count
        rise = start + count + (0 if self.mode in (TERMINAL_COUNT, ONE_SHOT) else 1)
        return rise if rise > t else None

    def latch_count(self, t: int) -> None:
        """Hold the count for reading; ignored while an earlier one is unread."""
        if not self._latched_count:
            value = self.value(t)
            self._latched_count = self._bytes(value)

    def _bytes(self, value: int) -> list[int]:
        low, high = value & 0xFF, value >> 8
        return {LSB: [low], MSB: [high]}.get(self.access, [low, high])

    def latch_status(self, t: int) -> None:
        """Hold the status byte for reading; ignored while an earlier one is unread."""
        if self._latched_status is None:
            status = STATUS_OUT if self.out(t) else 0
            status |= STATUS_NULL if self._null else 0
            self._latched_status = status | self.access << 4 | self.mode << 1 | self.bcd

    def read(self, t: int) -> int:
        """The next byte: latched status, then latched count, then the counter as it runs."""
        if self._latched_status is not None:
            status, self._latched_status = self._latched_status, None
            return status
        if self._latched_count:
            return self._latched_count.pop(0)
        data = self._bytes(self.value(t))
        if len(data) == 1:
            return data[0]
        byte = data[self._reads_high]
        self._reads_high = not self._reads_high
        return byte
