"""The i8254 interval timer: channel 0 interrupts, channel 1 once refreshed memory, channel 2 belongs to port 0x61.

Source: Intel 82C54 data sheet (231244). Counters are computed from the clock when they are read. Only the rising edges
of channel 0's OUT need a timer; the low part of a periodic wave is passed through right before its rising edge, as edge
triggered inputs cannot tell. After reset channel 0 counts as firmware leaves it, but interrupts only once somebody
listens.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.chipset.layout import PIT_BASE, PIT_HZ, PORT_61
from pyhv.chipset.pit_channel import Channel
from pyhv.chipset.port61 import Port61

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace
    from pyhv.clock import Clock, Timer
    from pyhv.irq import InterruptLine

NS = 1_000_000_000
CONTROL = 3
READ_BACK = 3
MAX_BACKLOG = 16
"""How many edges that came too late, or too fast, are made up for; more are lost."""
MIN_SPACING = PIT_HZ // 20_000 + 1
"""Ticks between two edges at least (50 us), so that a tiny count cannot occupy the host."""


class TimerListener(Protocol):
    """What the interrupt controllers' side knows about the timer's wire."""

    def timer_unmasked(self) -> bool: ...

    def timer_deaf(self) -> bool: ...

    def watch_timer(self, changed: Callable[[], None]) -> None: ...


class Pit:
    """The timer at ports 0x40-0x43, and port 0x61 beside it.

    With a `listener`, edges that nobody would notice cost nothing.
    """

    def __init__(self, *, clock: Clock, line: InterruptLine, listener: TimerListener | None = None) -> None:
        self._clock = clock
        self._line = line
        self._listener = listener
        self.channels = (Channel(gate=True), Channel(gate=True), Channel(gate=False))
        self.port61 = Port61(channel=self.channels[2], tick=self.tick)
        self._timer: Timer | None = None
        self._edge: int | None = None
        self._last_edge = 0
        self._backlog = 0
        self._asleep = True
        self.reset()
        if listener is not None:
            listener.watch_timer(self._wake)

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim ports 0x40-0x43 and 0x61."""
        ports.map(PIT_BASE, 4, self, "pit", width=1)
        ports.map(PORT_61, 1, self.port61, "port61", width=1)

    def reset(self) -> None:
        """All channels count 65536; no interrupt until the guest asks for it."""
        t = self.tick()
        for channel in self.channels:
            channel.reset(t)
        self.port61.reset()
        self._disarm()
        self._backlog = 0
        self._asleep = True
        self._line.set(False)

    def notice(self) -> None:
        """Start to interrupt, where a controller lets the timer through, though the guest has asked for nothing."""
        self._wake()

    def tick(self) -> int:
        """Whole CLK periods since the machine's start."""
        return self._clock.now_ns() * PIT_HZ // NS

    def read(self, offset: int, size: int) -> int:
        if offset == CONTROL:
            return 0
        t = self.tick()
        if offset == 0:
            self._catch_up(t)
        return self.channels[offset].read(t)

    def write(self, offset: int, size: int, value: int) -> None:
        t = self.tick()
        value &= 0xFF
        if offset != CONTROL:
            self._program(t, offset, lambda channel: channel.write(t, value))
            return
        selected = value >> 6
        if selected == READ_BACK:
            self._read_back(t, value)
        elif value & 0x30:
            access, mode, bcd = value >> 4 & 3, value >> 1 & 7, bool(value & 1)
            self._program(t, selected, lambda channel: channel.control(t, access, mode, bcd=bcd))
        else:
            self._catch_up(t)
            self.channels[selected].latch_count(t)

    def _read_back(self, t: int, value: int) -> None:
        self._catch_up(t)
        for index, channel in enumerate(self.channels):
            if value >> index & 2:
                if not value & 0x20:
                    channel.latch_count(t)
                if not value & 0x10:
                    channel.latch_status(t)

    def _program(self, t: int, index: int, change: Callable[[Channel], None]) -> None:
        channel = self.channels[index]
        if index != 0:
            change(channel)
            return
        self._catch_up(t)
        before = channel.out(t)
        change(channel)
        after = channel.out(t)
        if after and not before:
            self._rise()
        elif not after:
            self._line.set(False)
        self._backlog = 0
        self._asleep = False
        self._edge = channel.next_rise(t)
        self._arm(t)

    def _rise(self) -> None:
        self._line.set(False)
        self._line.set(True)

    def _wake(self) -> None:
        """The interrupt controllers changed: an edge may be noticed again, or for the first time."""
        listener = self._listener
        if not self._asleep or listener is None or listener.timer_deaf() or not listener.timer_unmasked():
            return
        self._asleep = False
        t = self.tick()
        self._edge = self.channels[0].next_rise(t)
        self._arm(t)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._edge = None

    def _arm(self, t: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._edge
        if self._backlog and due is not None:
            due = min(due, t + max((due - self._last_edge) // 2, MIN_SPACING))
        if due is None:
            return
        due = max(due, self._last_edge + MIN_SPACING)
        self._timer = self._clock.call_at(-(-due * NS // PIT_HZ), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._advance(self.tick())

    def _catch_up(self, t: int) -> None:
        """Account for edges whose timer is late, before the guest looks."""
        if self._edge is not None and self._edge <= t and self._last_edge + MIN_SPACING <= t:
            self._advance(t)

    def _advance(self, t: int) -> None:
        channel = self.channels[0]
        edge = self._edge
        due = self._backlog
        while edge is not None and edge <= t:
            due += 1
            edge = channel.next_rise(edge) if due <= MAX_BACKLOG else channel.next_rise(t)
        self._edge = edge
        if due:
            deaf = self._listener is not None and self._listener.timer_deaf()
            self._rise()
            self._last_edge = t
            self._backlog = min(due - 1, MAX_BACKLOG)
            if deaf and channel.periodic:
                self._disarm()
                self._backlog = 0
                self._asleep = True
                return
        self._arm(t)
