"""The 16550A UART (PC16550D data sheet, sections 8.1 to 8.11).

Transmission takes no time, so the transmitter is always empty. What the host sends waits in a queue of any length and
enters the receiver as the guest drains it, one trigger level at a time and not faster than a wire would bring it:
nothing is lost, a handler that takes one byte an interrupt sees an edge for each, one that takes all there is comes to
an end. Input stays queued until the guest listens (it enables receive interrupts, or polls the line status), and what
it throws away by resetting the FIFO goes back to the queue: a kernel that initialises the port while input is already
waiting does not eat it.
"""

from __future__ import annotations

from pyhv._builtin import deque
from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import COM1

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace
    from pyhv.clock import Clock, Timer
    from pyhv.irq import InterruptLine

RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)

IER_RX, IER_THRE, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_THRE, IIR_RX, IIR_LINE, IIR_TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
IIR_FIFO_ENABLED = 0xC0
FCR_ENABLE, FCR_RX_RESET = 0x01, 0x02
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 1, 2, 4, 8, 16
LSR_READY, LSR_OVERRUN, LSR_BREAK, LSR_THRE, LSR_IDLE, LSR_FIFO_ERROR = 0x01, 0x02, 0x10, 0x20, 0x40, 0x80
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
MSR_DELTAS = 0x0F

FIFO_SIZE = 16
TRIGGERS = (1, 4, 8, 14)
CLOCK_HZ = 115_200
"""The baud rate of divisor 1 on a PC: 1.8432 MHz / 16."""
TIMEOUT_CHARACTERS = 4
RESET_DIVISOR = 12
MIN_GAP_NS, MAX_GAP_NS = 100_000, 500_000
"""Bounds of the time between two batches of input: enough for a guest to work between them, not slower than it must."""

_BREAK = 0x100
_LOOPED = 0x200
_BYTES = tuple(bytes((value,)) for value in range(256))


class Serial:
    """One port: 8 registers from `base`.

    - `output(data)` takes what the guest transmits.
    - `gate_out2`: a PC card connects the interrupt only while MCR.OUT2 is set. Kernels written for emulators forget it,
      and no kernel relies on silence, so it is off unless asked for.
    """

    def __init__(
        self,
        *,
        output: Callable[[bytes], None],
        irq: InterruptLine,
        clock: Clock,
        base: int = COM1,
        gate_out2: bool = False,
        name: str = "serial",
    ) -> None:
        self.base = base
        self.name = name
        self.output = output
        self._irq = irq
        self._clock = clock
        self._gate_out2 = gate_out2
        self._queue: deque[int] = deque()
        self._fifo: deque[int] = deque()
        self._timer: Timer | None = None
        self._gap: Timer | None = None
        self._clear_state()

    def _clear_state(self) -> None:
        self._ier = self._lcr = self._mcr = self._scratch = 0
        self._fcr = 0
        self._divisor = RESET_DIVISOR
        self._lsr_errors = 0
        self._msr_delta = 0
        self._thre_pending = False
        self._acknowledges = False
        self._timed_out = False
        self._listening = False
        self._polled = False
        self._drains = False
        self._fast = True

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the 8 ports."""
        ports.map(self.base, 8, self, self.name, width=1)

    def reset(self) -> None:
        """The master reset; host input that the guest has not read stays queued."""
        self._stop_timer()
        self._end_gap()
        self._unread()
        self._clear_state()
        self._update()

    @property
    def waiting(self) -> int:
        """Bytes from the host that the guest has not read."""
        return len(self._queue) + sum(not value & _LOOPED for value in self._fifo)

    def receive(self, data: bytes) -> None:
        """Queue input from the host."""
        self._queue.extend(data)
        self._feed()

    def receive_break(self) -> None:
        """Queue a break condition (LSR.BI with a zero character) after the input already queued."""
        self._queue.append(_BREAK)
        self._feed()

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register."""
        value &= 0xFF
        self._polled = False
        if offset == RBR_THR and self._fast:
            self.output(_BYTES[value])
            if self._ier & IER_THRE:
                self._transmitted()
            return
        if offset == RBR_THR:
            if self._lcr & LCR_DLAB:
                self._divisor = self._divisor & 0xFF00 | value
            else:
                self._push(value | _LOOPED)
                self._transmitted()
        elif offset == IER:
            if self._lcr & LCR_DLAB:
                self._divisor = self._divisor & 0xFF | value << 8
            else:
                self._write_ier(value & 0x0F)
        elif offset == IIR_FCR:
            self._write_fcr(value)
        elif offset == LCR:
            self._lcr = value
        elif offset == MCR:
            self._write_mcr(value & 0x1F)
        elif offset == SCR:
            self._scratch = value
        self._fast = not (self._lcr & LCR_DLAB or self._mcr & MCR_LOOP)

    def read(self, offset: int, size: int) -> int:
        """Read a register."""
        if offset == LSR:
            polled, self._polled = self._polled, True
            if not (self._fifo or self._queue or self._lsr_errors):
                return LSR_THRE | LSR_IDLE
            return self._read_lsr(polled)
        self._polled = False
        if offset == RBR_THR:
            return self._divisor & 0xFF if self._lcr & LCR_DLAB else self._read_rbr()
        if offset == IER:
            return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier
        if offset == IIR_FCR:
            return self._read_iir()
        if offset == LCR:
            return self._lcr
        if offset == MCR:
            return self._mcr
        if offset == MSR:
            value = self._modem_inputs() | self._msr_delta
            self._msr_delta = 0
            self._update()
            return value
        return self._scratch

    # Transmitter

    def _transmitted(self) -> None:
        """The holding register was full for an instant: the interrupt falls, then rises.

        A guest that acknowledges by IIR has not seen the last rise yet if it is still pending: it needs no other edge.
        """
        if self._thre_pending and self._acknowledges:
            return
        self._thre_pending = False
        self._update()
        self._thre_pending = True
        self._update()

    def _write_ier(self, value: int) -> None:
        changed = self._ier ^ value
        self._ier = value
        if changed & IER_THRE:
            self._thre_pending = bool(value & IER_THRE)
        if value & IER_RX:
            self._listening = True
            self._feed()
            if self._fifo and self._timer is None and not self._timed_out:
                self._start_timer()
        self._update()

    # Receiver

    def _capacity(self) -> int:
        return FIFO_SIZE if self._fcr & FCR_ENABLE else 1

    def _trigger(self) -> int:
        return TRIGGERS[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1

    def _batch(self) -> int:
        """Bytes that may wait in the receiver: a full FIFO only for a guest that is known to take all there is."""
        return self._capacity() if self._drains else self._trigger()

    def _feed(self) -> None:
        """Let host input into the receiver."""
        if not self._queue or not self._listening or self._mcr & MCR_LOOP:
            return
        if self._gap is not None and self._ier & IER_RX:
            return
        room = self._batch() - len(self._fifo)
        if room <= 0:
            return
        empty = not self._fifo
        for _ in range(min(room, len(self._queue))):
            self._fifo.append(self._queue.popleft())
        if empty:
            self._expose()
        self._start_timer()
        self._update()

    def _push(self, value: int) -> None:
        """A character arrives; a full FIFO keeps what it has, a full buffer register is overwritten (LSR.OE)."""
        fifo = self._fifo
        if len(fifo) >= self._capacity():
            self._lsr_errors |= LSR_OVERRUN
            if not self._fcr & FCR_ENABLE:
                fifo.clear()
                fifo.append(value)
        else:
            fifo.append(value)
        if len(fifo) == 1:
            self._expose()
        self._start_timer()

    def _expose(self) -> None:
        """Errors of a character show in LSR when it comes to the top."""
        if self._fifo and self._fifo[0] & _BREAK:
            self._fifo[0] &= ~_BREAK
            self._lsr_errors |= LSR_BREAK

    def _read_rbr(self) -> int:
        fifo = self._fifo
        self._timed_out = False
        if not fifo:
            value = 0
        else:
            value = fifo.popleft() & 0xFF
            self._expose()
        if fifo:
            self._start_timer()
        else:
            self._stop_timer()
        self._update()
        if not fifo and self._queue:
            self._begin_gap()
        return value

    def _read_lsr(self, polled: bool) -> int:
        polling = not self._ier & IER_RX
        if polling and polled and not self._listening:
            self._listening = True
            self._feed()
        value = LSR_THRE | LSR_IDLE | self._lsr_errors
        if self._fifo:
            value |= LSR_READY
            if self._fcr & FCR_ENABLE and (self._lsr_errors & LSR_BREAK or any(entry & _BREAK for entry in self._fifo)):
                value |= LSR_FIFO_ERROR
        elif polling:
            self._feed()
        if self._lsr_errors:
            self._lsr_errors = 0
            self._update()
        return value

    def _unread(self) -> None:
        """Empty the receiver; the host's bytes go back to the head of the queue."""
        kept = [value for value in self._fifo if not value & _LOOPED]
        self._queue.extendleft(reversed(kept))
        self._fifo.clear()
        self._timed_out = False

    def _write_fcr(self, value: int) -> None:
        if (value ^ self._fcr) & FCR_ENABLE or (value & FCR_ENABLE and value & FCR_RX_RESET):
            self._stop_timer()
            self._unread()
            self._listening = self._drains = False
        self._fcr = value & 0xC9 if value & FCR_ENABLE else 0
        if self._ier & IER_RX:
            self._listening = True
            self._feed()
        self._update()

    def _characters_ns(self, count: int) -> int:
        bits = 7 + (self._lcr & 3) + (self._lcr >> 2 & 1) + (self._lcr >> 3 & 1)
        return count * bits * max(self._divisor, 1) * 1_000_000_000 // CLOCK_HZ

    def _begin_gap(self) -> None:
        """More input waits: it comes after the time that it takes on the wire, within bounds."""
        if self._gap is None:
            length = min(max(self._characters_ns(self._batch()), MIN_GAP_NS), MAX_GAP_NS)
            self._gap = self._clock.call_at(self._clock.now_ns() + length, self._gap_over)

    def _gap_over(self) -> None:
        self._gap = None
        self._feed()

    def _end_gap(self) -> None:
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None

    def _start_timer(self) -> None:
        """Arm the character timeout: 4 characters without traffic on the receive FIFO (8.4)."""
        self._stop_timer()
        if self._fcr & FCR_ENABLE and self._ier & IER_RX:
            deadline = self._clock.now_ns() + self._characters_ns(TIMEOUT_CHARACTERS)
            self._timer = self._clock.call_at(deadline, self._timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timeout(self) -> None:
        self._timer = None
        if self._fifo and self._fcr & FCR_ENABLE:
            self._timed_out = True
            self._update()

    # Modem control

    def _modem_inputs(self) -> int:
        mcr = self._mcr
        if not mcr & MCR_LOOP:
            return MSR_DCD | MSR_DSR | MSR_CTS
        return (
            (MSR_CTS if mcr & MCR_RTS else 0)
            | (MSR_DSR if mcr & MCR_DTR else 0)
            | (MSR_RI if mcr & MCR_OUT1 else 0)
            | (MSR_DCD if mcr & MCR_OUT2 else 0)
        )

    def _write_mcr(self, value: int) -> None:
        before = self._modem_inputs()
        self._mcr = value
        after = self._modem_inputs()
        delta = (before ^ after) >> 4
        if after & MSR_RI:
            delta &= ~(MSR_RI >> 4)
        self._msr_delta |= delta
        self._feed()
        self._update()

    # Interrupts

    def _pending(self) -> int:
        """The identification of the highest pending source, in the data sheet's order of priority (table III)."""
        ier = self._ier
        if ier & IER_LINE and self._lsr_errors:
            return IIR_LINE
        if ier & IER_RX:
            if len(self._fifo) >= self._trigger():
                return IIR_RX
            if self._timed_out:
                return IIR_TIMEOUT
        if ier & IER_THRE and self._thre_pending:
            return IIR_THRE
        if ier & IER_MODEM and self._msr_delta:
            return IIR_MODEM
        return IIR_NONE

    def _read_iir(self) -> int:
        value = self._pending()
        if value == IIR_THRE:
            self._acknowledges = True
            self._thre_pending = False
            self._update()
        elif value == IIR_NONE and self._gap is not None:
            self._drains = True  # it came back to look for more, right after it took all
        return value | IIR_FIFO_ENABLED if self._fcr & FCR_ENABLE else value

    def _update(self) -> None:
        connected = not self._gate_out2 or self._mcr & MCR_OUT2
        self._irq.set(bool(connected) and self._pending() != IIR_NONE)
