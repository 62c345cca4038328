"""ACPI fixed hardware: PM1 registers, SCI, power button, PM timer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.bus import mmio_space, port_space
from pyhv.chipset.acpi_pm import AcpiPm
from pyhv.chipset.layout import PM_TIMER_HZ
from pyhv.clock import ManualClock
from pyhv.irq import InterruptLine

NS = 1_000_000_000
STATUS, ENABLE, CONTROL, TIMER = 0x600, 0x602, 0x604, 0x608
TMR, GBL, PWRBTN, RTC = 0x001, 0x020, 0x100, 0x400
HALF_TURN_NS = -(-(1 << 23) * NS // PM_TIMER_HZ)


class Control:
    """Remembers what was asked of the machine."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def debug_exit(self, value: int) -> None:
        self.asked.append("debug_exit")

    def power_off(self, source: str) -> None:
        self.asked.append(f"power_off {source}")

    def reset(self, source: str) -> None:
        self.asked.append("reset")

    def panic(self, source: str, detail: str = "") -> None:
        self.asked.append("panic")


class Board:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.control = Control()
        self.sci = InterruptLine(lambda level: None)
        self.pm = AcpiPm(clock=self.clock, control=self.control, sci=self.sci)
        self.ports = port_space()
        self.pm.attach(self.ports, mmio_space())

    def out(self, port: int, value: int, size: int = 2) -> None:
        self.ports.write(port, size, value)

    def read(self, port: int, size: int = 2) -> int:
        return self.ports.read(port, size)


@pytest.fixture
def board():
    return Board()


def test_acpi_is_always_on(board):
    assert board.read(CONTROL) == 1
    board.out(CONTROL, 0)
    assert board.read(CONTROL) == 1


@pytest.mark.parametrize("sleep_type", range(8))
def test_only_s5_powers_off(board, sleep_type):
    board.out(CONTROL, sleep_type << 10)
    assert board.control.asked == []
    board.out(CONTROL, sleep_type << 10 | 0x2000)
    assert board.control.asked == (["power_off acpi"] if sleep_type in (0, 5) else [])
    assert board.read(CONTROL) == sleep_type << 10 | 1


def test_power_off_by_bytes(board):
    board.out(CONTROL + 1, 0x34, size=1)
    assert board.control.asked == ["power_off acpi"]


def test_the_power_button_raises_the_sci_until_its_status_is_cleared(board):
    board.out(ENABLE, PWRBTN)
    assert board.pm.press_power_button()
    assert board.sci.level
    assert board.read(STATUS) == PWRBTN
    board.out(STATUS, TMR | GBL)
    assert board.sci.level
    board.out(STATUS, PWRBTN)
    assert not board.sci.level
    assert board.read(STATUS) == 0


def test_an_unheard_button_only_sets_its_status(board):
    assert not board.pm.press_power_button()
    assert not board.sci.level
    board.out(ENABLE + 1, 1, size=1)
    assert board.sci.level


def test_only_existing_events_can_be_enabled(board):
    board.out(ENABLE, 0xFFFF)
    assert board.read(ENABLE) == TMR | GBL | PWRBTN | RTC


def test_wide_access_to_the_event_block(board):
    board.pm.press_power_button()
    board.out(STATUS, PWRBTN << 16 | PWRBTN, size=4)
    assert board.read(STATUS, 4) == PWRBTN << 16


def test_the_timer_counts_24_bits(board):
    board.clock.advance(NS)
    assert board.read(TIMER, 4) == PM_TIMER_HZ
    board.out(TIMER, 0, size=4)
    assert board.read(TIMER, 4) == PM_TIMER_HZ
    board.clock.advance(9 * NS)
    assert board.read(TIMER, 4) == 10 * PM_TIMER_HZ & 0xFF_FFFF
    assert board.read(TIMER + 1, 1) == 10 * PM_TIMER_HZ >> 8 & 0xFF


def test_the_timer_status_is_set_at_every_half_turn(board):
    board.clock.advance(HALF_TURN_NS - 1000)
    assert board.read(STATUS) == 0
    board.clock.advance(1000)
    assert board.read(STATUS) == TMR
    board.out(STATUS, TMR)
    assert board.read(STATUS) == 0
    board.clock.advance(HALF_TURN_NS)
    assert board.read(STATUS) == TMR


def test_the_timer_interrupts_only_when_enabled(board):
    board.clock.advance(3 * HALF_TURN_NS)
    assert board.clock.next_deadline() is None and not board.sci.level
    board.out(STATUS, TMR)
    board.out(ENABLE, TMR)
    assert not board.sci.level
    board.clock.advance(HALF_TURN_NS)
    assert board.sci.level
    assert board.clock.next_deadline() is None
    board.out(STATUS, TMR)
    assert not board.sci.level
    board.clock.advance(HALF_TURN_NS)
    assert board.sci.level


def test_reset(board):
    board.out(ENABLE, TMR | PWRBTN)
    board.pm.press_power_button()
    board.out(CONTROL, 0x1402)
    board.pm.reset()
    assert not board.sci.level
    assert (board.read(STATUS), board.read(ENABLE), board.read(CONTROL)) == (0, 0, 1)
    assert board.clock.next_deadline() is None


accesses = st.one_of(
    st.tuples(st.just("write"), st.integers(0x600, 0x60B), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("read"), st.integers(0x600, 0x60B), st.sampled_from([1, 2, 4]), st.just(0)),
    st.tuples(st.just("go"), st.just(0), st.just(0), st.integers(0, 5 * NS)),
    st.tuples(st.just("press"), st.just(0), st.just(0), st.just(0)),
)


@settings(max_examples=100)
@given(st.lists(accesses, max_size=40))
def test_any_use_keeps_the_invariants(steps):
    board = Board()
    for kind, port, size, value in steps:
        if kind == "write":
            board.out(port, value & (1 << 8 * size) - 1, size)
        elif kind == "read":
            assert 0 <= board.read(port, size) < 1 << 8 * size
        elif kind == "go":
            board.clock.advance(value)
        else:
            board.pm.press_power_button()
        status, enable = board.read(STATUS), board.read(ENABLE)
        assert board.sci.level == bool(status & enable)
        assert board.read(CONTROL) & 1
        deadline = board.clock.next_deadline()
        assert (deadline is not None) == bool(enable & TMR and not status & TMR)
