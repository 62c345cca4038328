"""The keyboard controller, as kernels probe it."""

import pytest
from chipset_fakes import FakeControl, Spaces, Wire
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.chipset import i8042 as k
from pyhv.chipset.i8042 import I8042

DATA, COMMAND = 0x60, 0x64


class Board(Spaces):
    def __init__(self) -> None:
        self.control = FakeControl()
        self.irq1, self.irq12 = Wire(), Wire()
        self.device = I8042(control=self.control, keyboard_irq=self.irq1.line, aux_irq=self.irq12.line)
        super().__init__(self.device)

    def command(self, command: int, *parameters: int) -> None:
        self.out(COMMAND, command)
        for parameter in parameters:
            self.out(DATA, parameter)

    def drain(self) -> list[int]:
        data = []
        while self.inp(COMMAND) & k.STATUS_FULL:
            data.append(self.inp(DATA))
        return data

    def ask(self, command: int, *parameters: int) -> list[int]:
        self.command(command, *parameters)
        return self.drain()

    def keyboard(self, *data: int) -> list[int]:
        for byte in data:
            self.out(DATA, byte)
        return self.drain()

    def mouse(self, *data: int) -> list[int]:
        for byte in data:
            self.command(k.WRITE_AUX, byte)
        return self.drain()


@pytest.fixture
def board() -> Board:
    return Board()


def test_after_reset_it_is_ready_and_empty(board):
    status = board.inp(COMMAND)
    assert status & k.STATUS_SYSTEM
    assert not status & (k.STATUS_FULL | 2)
    assert not board.irq1.level and not board.irq12.level


@pytest.mark.parametrize(
    ("command", "answer"),
    [(k.SELF_TEST, 0x55), (k.KEYBOARD_TEST, 0), (k.AUX_TEST, 0), (k.PASSWORD_TEST, 0xF1), (k.READ_INPUT, 0x80)],
)
def test_controller_commands_that_answer(board, command, answer):
    assert board.ask(command) == [answer]


def test_status_says_what_was_written_last(board):
    board.out(COMMAND, k.KEYBOARD_ENABLE)
    assert board.inp(COMMAND) & k.STATUS_COMMAND
    board.out(DATA, 0xEE)
    assert not board.inp(COMMAND) & k.STATUS_COMMAND


def test_command_byte_and_ram(board):
    board.command(0x60, 0x47)
    assert board.ask(0x20) == [0x47]
    board.command(0x7F, 0x5A)
    assert board.ask(0x3F) == [0x5A]
    assert board.ask(0x20) == [0x47]


@pytest.mark.parametrize(
    ("off", "on", "bit"),
    [(k.KEYBOARD_DISABLE, k.KEYBOARD_ENABLE, 0x10), (k.AUX_DISABLE, k.AUX_ENABLE, 0x20)],
)
def test_device_switches_show_in_the_command_byte(board, off, on, bit):
    board.command(off)
    assert board.ask(0x20)[0] & bit
    board.command(on)
    assert not board.ask(0x20)[0] & bit


def test_loops_as_linux_probes_the_mouse_port(board):
    board.command(0x60, 0x03)
    board.command(k.LOOP_AUX, 0x5A)
    assert board.inp(COMMAND) & (k.STATUS_FULL | k.STATUS_AUX) == k.STATUS_FULL | k.STATUS_AUX
    assert board.irq12.level and not board.irq1.level
    assert board.inp(DATA) == 0x5A
    assert not board.irq12.level
    board.command(k.LOOP_KEYBOARD, 0xA5)
    assert board.inp(COMMAND) & (k.STATUS_FULL | k.STATUS_AUX) == k.STATUS_FULL
    assert board.irq1.level
    assert board.inp(DATA) == 0xA5


def test_interrupts_obey_the_command_byte(board):
    board.command(0x60, 0x00)
    board.out(DATA, 0xEE)
    assert not board.irq1.level
    board.command(0x60, 0x01)
    assert board.irq1.level
    assert board.drain() == [0xEE]


def test_each_byte_waiting_gives_an_edge(board):
    board.out(DATA, 0xFF)
    assert board.irq1.edges == 1
    assert board.inp(DATA) == k.ACK
    assert board.irq1.edges == 2
    assert board.inp(DATA) == k.DEVICE_PASSED
    assert not board.irq1.level
    assert board.inp(DATA) == k.DEVICE_PASSED


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ((0xEE,), [0xEE]),
        ((0xED, 0x02), [0xFA, 0xFA]),
        ((0xF3, 0x20), [0xFA, 0xFA]),
        ((0xF0, 0x00), [0xFA, 0xFA, 2]),
        ((0xF0, 0x01, 0xF0, 0x00), [0xFA, 0xFA, 0xFA, 0xFA, 1]),
        ((0xF0, 0x05), [0xFA, 0xFE]),
        ((0xF4,), [0xFA]),
        ((0xF5,), [0xFA]),
        ((0xF6,), [0xFA]),
        ((0xF8,), [0xFA]),
        ((0xEE, 0xFE), [0xEE, 0xEE]),
        ((0xED, 0xF4), [0xFA, 0xFA]),
        ((0x12,), [0xFE]),
        ((0xFF,), [0xFA, 0xAA]),
    ],
)
def test_keyboard_commands(board, sent, answer):
    assert board.keyboard(*sent) == answer


def test_keyboard_identity_is_translated_when_scan_codes_are(board):
    board.command(0x60, 0x41)
    assert board.keyboard(0xF2) == [0xFA, 0xAB, 0x41]
    board.command(0x60, 0x01)
    assert board.keyboard(0xF2) == [0xFA, 0xAB, 0x83]


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ((0xFF,), [0xFA, 0xAA, 0x00]),
        ((0xF2,), [0xFA, 0x00]),
        ((0xE9,), [0xFA, 0x00, 2, 100]),
        ((0xE8, 3, 0xF3, 40, 0xE7, 0xF4, 0xE9), [0xFA] * 7 + [0x30, 3, 40]),
        ((0xF0, 0xEB), [0xFA, 0xFA, 0x08, 0, 0]),
        ((0xEE, 0xE9, 0xEC, 0xF2), [0xFA, 0xE9, 0xFA, 0xFA, 0]),
        ((0xF3, 200, 0xF6, 0xE9), [0xFA] * 4 + [0, 2, 100]),
        ((0xF2, 0xFE), [0xFA, 0, 0xFA, 0]),
        ((0xE1,), [0xFE]),
    ],
)
def test_mouse_commands(board, sent, answer):
    assert board.mouse(*sent) == answer


def test_a_device_that_is_off_holds_its_bytes(board):
    board.out(DATA, 0xF2)
    board.command(k.KEYBOARD_DISABLE)
    assert board.drain() == [0xFA]
    board.command(k.KEYBOARD_ENABLE)
    assert board.drain() == [0xAB, 0x41]


def test_keys_arrive_by_interrupt_unless_scanning_is_off(board):
    board.device.type_scancodes(b"\x1e\x9e")
    assert board.irq1.level
    assert board.drain() == [0x1E, 0x9E]
    assert board.keyboard(0xF5) == [0xFA]
    board.device.type_scancodes(b"\x1e\x9e")
    assert board.drain() == []


@pytest.mark.parametrize("value", [0xFE, 0xF0, 0xF2, 0xFC])
def test_pulsing_bit_0_resets(board, value):
    board.command(value)
    assert board.control.calls == [("reset", "keyboard controller")]


@pytest.mark.parametrize("value", [0xFF, 0xF1, 0xFD])
def test_other_pulses_do_not(board, value):
    board.command(value)
    assert not board.control.calls


def test_output_port_holds_a20_and_resets(board):
    assert board.ask(k.READ_OUTPUT)[0] & 3 == 3
    board.command(k.WRITE_OUTPUT, 0xDD)
    assert board.ask(k.READ_OUTPUT)[0] & 3 == 1
    board.command(k.A20_ON)
    assert board.ask(k.READ_OUTPUT)[0] & 3 == 3
    board.command(k.A20_OFF)
    assert board.ask(k.READ_OUTPUT)[0] & 3 == 1
    assert not board.control.calls
    board.command(k.WRITE_OUTPUT, 0xDE)
    assert board.control.calls == [("reset", "keyboard controller")]


def test_a_guest_that_never_reads_fills_no_memory(board):
    for _ in range(10_000):
        board.out(DATA, 0xF2)
        board.command(k.SELF_TEST)
        board.command(k.WRITE_AUX, 0xE9)
    device = board.device
    assert max(len(device._own), len(device.keyboard.queue), len(device.mouse.queue)) <= k.QUEUE_LIMIT


def test_reset(board):
    board.command(0x60, 0)
    board.out(DATA, 0xF2)
    board.device.reset()
    assert not board.inp(COMMAND) & k.STATUS_FULL
    assert not board.irq1.level
    assert board.ask(0x20) == [0x65]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("in", "out")), st.sampled_from((DATA, COMMAND)), st.integers(0, 255)), max_size=80
    )
)
def test_nothing_a_guest_does_raises(accesses):
    board = Board()
    for kind, port, value in accesses:
        if kind == "in":
            assert 0 <= board.inp(port) <= 0xFF
        else:
            board.out(port, value)
        assert not (board.irq1.level and board.irq12.level)
        if board.irq1.level or board.irq12.level:
            assert board.inp(COMMAND) & k.STATUS_FULL
    assert len(board.drain()) <= 3 * k.QUEUE_LIMIT + 1
