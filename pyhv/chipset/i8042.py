"""The PC/AT keyboard controller, with a keyboard and a mouse that answer commands and that nobody touches.

Facts: the IBM PS/2 technical reference (keyboard and auxiliary device controller, keyboard, mouse sections). The
output buffer holds one byte; the devices queue more behind it. IRQ 1 is high while the buffer holds a byte from the
keyboard or the controller, IRQ 12 while it holds one from the mouse, where the command byte enables them. After a reset
it is as firmware leaves it: tested, translating, keyboard on, mouse off.
"""

from __future__ import annotations

from collections import deque

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import I8042_COMMAND, I8042_DATA

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.control import MachineControl
    from pyhv.irq import InterruptLine

STATUS_FULL, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED, STATUS_AUX = 0x01, 0x04, 0x08, 0x10, 0x20
MODE_KEYBOARD_IRQ, MODE_AUX_IRQ, MODE_SYSTEM, MODE_KEYBOARD_OFF, MODE_AUX_OFF, MODE_TRANSLATE = (
    1,
    2,
    4,
    0x10,
    0x20,
    0x40,
)
OUTPUT_RESET, OUTPUT_A20, OUTPUT_FULL, OUTPUT_AUX_FULL = 0x01, 0x02, 0x10, 0x20

READ_RAM, WRITE_RAM = 0x20, 0x60
PASSWORD_TEST, AUX_DISABLE, AUX_ENABLE, AUX_TEST, SELF_TEST = 0xA4, 0xA7, 0xA8, 0xA9, 0xAA
KEYBOARD_TEST, KEYBOARD_DISABLE, KEYBOARD_ENABLE = 0xAB, 0xAD, 0xAE
READ_INPUT, READ_OUTPUT, WRITE_OUTPUT = 0xC0, 0xD0, 0xD1
LOOP_KEYBOARD, LOOP_AUX, WRITE_AUX = 0xD2, 0xD3, 0xD4
A20_OFF, A20_ON = 0xDD, 0xDF
PULSE = 0xF0

SELF_TEST_PASSED, NO_PASSWORD, TEST_PASSED, INPUT_PORT = 0x55, 0xF1, 0x00, 0x80
ACK, RESEND, DEVICE_PASSED = 0xFA, 0xFE, 0xAA
KEYBOARD_ID = (0xAB, 0x83)
KEYBOARD_ID_TRANSLATED = (0xAB, 0x41)
MOUSE_ID = 0x00
QUEUE_LIMIT = 64
"""Bytes that a device holds back; a guest that never reads loses what comes after."""


class Keyboard:
    """An MF2 keyboard in scan code set 2 that answers commands."""

    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.reset()

    def reset(self) -> None:
        """Power-on defaults."""
        self.queue.clear()
        self.scanning = True
        self._parameter_of = 0
        self._scan_set = 2
        self._last = ACK

    def command(self, byte: int, *, translated: bool) -> None:
        """Take a byte from the host."""
        pending, self._parameter_of = self._parameter_of, 0
        if pending and byte < 0x80:
            if pending != 0xF0:
                self._answer(ACK)
            elif byte == 0:
                self._answer(ACK, self._scan_set)
            elif byte <= 3:
                self._scan_set = byte
                self._answer(ACK)
            else:
                self._answer(RESEND)
        elif byte in (0xED, 0xF0, 0xF3):
            self._parameter_of = byte
            self._answer(ACK)
        elif byte == 0xEE:
            self._answer(0xEE)
        elif byte == 0xF2:
            self._answer(ACK, *(KEYBOARD_ID_TRANSLATED if translated else KEYBOARD_ID))
        elif byte in (0xF4, 0xF5, 0xF6):
            self.scanning = byte != 0xF5
            if byte != 0xF4:
                self._scan_set = 2
            self._answer(ACK)
        elif 0xF7 <= byte <= 0xFA:
            self._answer(ACK)
        elif byte == 0xFE:
            self._answer(self._last)
        elif byte == 0xFF:
            self.reset()
            self._answer(ACK, DEVICE_PASSED)
        else:
            self._answer(RESEND)

    def _answer(self, *data: int) -> None:
        _enqueue(self.queue, data)
        self._last = data[-1]


class Mouse:
    """A two-button PS/2 mouse that answers commands and does not move."""

    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.reset()

    def reset(self) -> None:
        """Power-on defaults: stream mode, off, 100 reports a second, 4 counts a millimetre, 1:1."""
        self.queue.clear()
        self._defaults()
        self._parameter_of = 0
        self._wrap = False
        self._last: tuple[int, ...] = (ACK,)

    def _defaults(self) -> None:
        self._remote = self._enabled = self._scaled = False
        self._resolution = 2
        self._rate = 100

    def command(self, byte: int) -> None:
        """Take a byte from the host."""
        pending, self._parameter_of = self._parameter_of, 0
        if pending:
            if pending == 0xE8:
                self._resolution = byte
            else:
                self._rate = byte
            self._answer(ACK)
        elif self._wrap and byte not in (0xEC, 0xFF):
            self._answer(byte)
        elif byte in (0xE6, 0xE7):
            self._scaled = byte == 0xE7
            self._answer(ACK)
        elif byte in (0xE8, 0xF3):
            self._parameter_of = byte
            self._answer(ACK)
        elif byte == 0xE9:
            status = self._remote << 6 | self._enabled << 5 | self._scaled << 4
            self._answer(ACK, status, self._resolution, self._rate)
        elif byte == 0xEB:
            self._answer(ACK, 0x08, 0, 0)
        elif byte in (0xEA, 0xF0):
            self._remote = byte == 0xF0
            self._answer(ACK)
        elif byte in (0xEC, 0xEE):
            self._wrap = byte == 0xEE
            self._answer(ACK)
        elif byte == 0xF2:
            self._answer(ACK, MOUSE_ID)
        elif byte in (0xF4, 0xF5):
            self._enabled = byte == 0xF4
            self._answer(ACK)
        elif byte == 0xF6:
            self._defaults()
            self._answer(ACK)
        elif byte == 0xFE:
            _enqueue(self.queue, self._last)
        elif byte == 0xFF:
            self.reset()
            self._answer(ACK, DEVICE_PASSED, MOUSE_ID)
        else:
            self._answer(RESEND)

    def _answer(self, *data: int) -> None:
        _enqueue(self.queue, data)
        self._last = data


class I8042:
    """Ports 0x60 and 0x64. `keyboard_irq` is IRQ 1, `aux_irq` IRQ 12; bit 0 of the output port resets the machine."""

    def __init__(self, *, control: MachineControl, keyboard_irq: InterruptLine, aux_irq: InterruptLine) -> None:
        self.keyboard = Keyboard()
        self.mouse = Mouse()
        self._control = control
        self._keyboard_irq = keyboard_irq
        self._aux_irq = aux_irq
        self._own: deque[tuple[int, bool]] = deque()
        self._clear()

    def _clear(self) -> None:
        self._own.clear()
        self._ram = bytearray(32)
        self._ram[0] = MODE_KEYBOARD_IRQ | MODE_SYSTEM | MODE_AUX_OFF | MODE_TRANSLATE
        self._output_port = OUTPUT_RESET | OUTPUT_A20
        self._status = STATUS_SYSTEM | STATUS_COMMAND | STATUS_UNLOCKED
        self._buffer = 0
        self._full = self._from_aux = False
        self._pending_command = 0

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the data and the command port."""
        ports.map(I8042_DATA, 1, IoFunctions(self._read_data, self._write_data), "i8042 data", width=1)
        ports.map(I8042_COMMAND, 1, IoFunctions(self._read_status, self._write_command), "i8042 command", width=1)

    def reset(self) -> None:
        """The power-on state."""
        self.keyboard.reset()
        self.mouse.reset()
        self._clear()
        self._drive()

    def type_scancodes(self, codes: bytes) -> None:
        """Keys pressed by the host: scan codes as the guest is to read them. Dropped while scanning is off."""
        if self.keyboard.scanning:
            _enqueue(self.keyboard.queue, codes)
            self._advance()

    # Ports

    def _read_status(self, offset: int, size: int) -> int:
        return self._status | (STATUS_FULL if self._full else 0) | (STATUS_AUX if self._full and self._from_aux else 0)

    def _read_data(self, offset: int, size: int) -> int:
        self._full = False
        self._drive()
        value = self._buffer
        self._advance()
        return value

    def _write_command(self, offset: int, size: int, value: int) -> None:
        self._status |= STATUS_COMMAND
        self._pending_command = 0
        self._command(value)
        self._advance()

    def _write_data(self, offset: int, size: int, value: int) -> None:
        self._status &= ~STATUS_COMMAND
        command, self._pending_command = self._pending_command, 0
        if command == 0:
            self._ram[0] &= ~MODE_KEYBOARD_OFF
            self.keyboard.command(value, translated=bool(self._ram[0] & MODE_TRANSLATE))
        elif command == WRITE_AUX:
            self._ram[0] &= ~MODE_AUX_OFF
            self.mouse.command(value)
        elif command == WRITE_OUTPUT:
            self._write_output(value)
        elif command == LOOP_KEYBOARD:
            self._respond(value)
        elif command == LOOP_AUX:
            self._respond(value, aux=True)
        else:
            self._ram[command & 0x1F] = value
            if command == WRITE_RAM:
                self._status = self._status & ~STATUS_SYSTEM | value & MODE_SYSTEM
                self._drive()
        self._advance()

    # Controller

    def _command(self, value: int) -> None:
        if READ_RAM <= value < READ_RAM + 32:
            self._respond(self._ram[value & 0x1F])
        elif WRITE_RAM <= value < WRITE_RAM + 32 or value in (WRITE_OUTPUT, LOOP_KEYBOARD, LOOP_AUX, WRITE_AUX):
            self._pending_command = value
        elif value == SELF_TEST:
            self._status |= STATUS_SYSTEM
            self._ram[0] |= MODE_SYSTEM
            self._respond(SELF_TEST_PASSED)
        elif value in (AUX_TEST, KEYBOARD_TEST):
            self._respond(TEST_PASSED)
        elif value == PASSWORD_TEST:
            self._respond(NO_PASSWORD)
        elif value in (AUX_DISABLE, AUX_ENABLE):
            self._mode(MODE_AUX_OFF, value == AUX_DISABLE)
        elif value in (KEYBOARD_DISABLE, KEYBOARD_ENABLE):
            self._mode(MODE_KEYBOARD_OFF, value == KEYBOARD_DISABLE)
        elif value == READ_INPUT:
            self._respond(INPUT_PORT)
        elif value == READ_OUTPUT:
            full = (OUTPUT_AUX_FULL if self._from_aux else OUTPUT_FULL) if self._full else 0
            self._respond(self._output_port | full)
        elif value in (A20_OFF, A20_ON):
            self._output_port = self._output_port & ~OUTPUT_A20 | (OUTPUT_A20 if value == A20_ON else 0)
        elif value >= PULSE and not value & OUTPUT_RESET:
            self._control.reset("keyboard controller")

    def _mode(self, bit: int, on: bool) -> None:
        self._ram[0] = self._ram[0] | bit if on else self._ram[0] & ~bit

    def _write_output(self, value: int) -> None:
        self._output_port = value & (OUTPUT_RESET | OUTPUT_A20)
        if not value & OUTPUT_RESET:
            self._output_port |= OUTPUT_RESET
            self._control.reset("keyboard controller")

    def _respond(self, value: int, *, aux: bool = False) -> None:
        if len(self._own) < QUEUE_LIMIT:
            self._own.append((value, aux))

    def _advance(self) -> None:
        """Put the next waiting byte into the output buffer: the controller's own first, then keyboard, then mouse."""
        if not self._full:
            if self._own:
                self._buffer, self._from_aux = self._own.popleft()
            elif self.keyboard.queue and not self._ram[0] & MODE_KEYBOARD_OFF:
                self._buffer, self._from_aux = self.keyboard.queue.popleft(), False
            elif self.mouse.queue and not self._ram[0] & MODE_AUX_OFF:
                self._buffer, self._from_aux = self.mouse.queue.popleft(), True
            else:
                return
            self._full = True
        self._drive()

    def _drive(self) -> None:
        mode = self._ram[0]
        self._keyboard_irq.set(self._full and not self._from_aux and bool(mode & MODE_KEYBOARD_IRQ))
        self._aux_irq.set(self._full and self._from_aux and bool(mode & MODE_AUX_IRQ))


def _enqueue(queue: deque[int], data: bytes | tuple[int, ...]) -> None:
    if len(queue) + len(data) <= QUEUE_LIMIT:
        queue.extend(data)
