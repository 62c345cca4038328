"""The MC146818: calendar, alarm, interrupts, held registers, memory."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.bus import mmio_space, port_space
from pyhv.chipset.rtc import Rtc
from pyhv.chipset.rtc_time import Encoding, civil_from_days, days_from_civil, next_alarm, weekday
from pyhv.clock import ManualClock
from pyhv.irq import InterruptLine

NS = 1_000_000_000
START = datetime(2024, 2, 28, 23, 59, 58, tzinfo=UTC)  # a Wednesday
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
SET, PIE, AIE, UIE, BINARY, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
TIME = (0, 2, 4, 6, 7, 8, 9, 0x32)


class Board:
    def __init__(self, start: datetime = START, **options: int) -> None:
        self.clock = ManualClock(int(start.timestamp()) * NS)
        self.edges = 0
        self.irq = InterruptLine(self._line)
        self.rtc = Rtc(clock=self.clock, irq=self.irq, **options)
        self.ports = port_space()
        self.rtc.attach(self.ports, mmio_space())

    def _line(self, level: bool) -> None:
        self.edges += level

    def read(self, index: int) -> int:
        self.ports.write(0x70, 1, index)
        return self.ports.read(0x71, 1)

    def write(self, index: int, value: int) -> None:
        self.ports.write(0x70, 1, index)
        self.ports.write(0x71, 1, value)

    def time(self) -> list[int]:
        return [self.read(index) for index in TIME]

    def alarm(self, hours: int, minutes: int, seconds: int) -> None:
        for index, value in ((5, hours), (3, minutes), (1, seconds)):
            self.write(index, value)

    def go(self, seconds: float) -> None:
        self.clock.advance(int(seconds * NS))


@pytest.fixture
def board():
    return Board()


def test_the_time_in_bcd(board):
    assert board.time() == [0x58, 0x59, 0x23, 4, 0x28, 0x02, 0x24, 0x20]
    assert board.read(0x37) == 0x20
    board.go(2)
    assert board.time() == [0x00, 0x00, 0x00, 5, 0x29, 0x02, 0x24, 0x20]


def test_the_time_in_binary(board):
    board.write(B, BINARY | H24)
    assert board.time() == [58, 59, 23, 4, 28, 2, 24, 20]


@pytest.mark.parametrize(("hour", "register"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)])
def test_twelve_hours(hour, register):
    board = Board(START.replace(hour=hour))
    board.write(B, 0)
    assert board.read(4) == register
    board.write(4, register)
    board.write(B, H24)
    assert board.read(4) == hour // 10 << 4 | hour % 10


def test_setting_the_time_while_it_is_held(board):
    board.write(B, SET | H24)
    for index, value in zip(TIME, (0x01, 0x02, 0x03, 1, 0x31, 0x12, 0x99, 0x19), strict=True):
        board.write(index, value)
    board.go(5)
    assert board.time() == [0x01, 0x02, 0x03, 1, 0x31, 0x12, 0x99, 0x19]
    board.write(B, H24)
    assert board.time() == [0x01, 0x02, 0x03, 1, 0x31, 0x12, 0x99, 0x19]
    board.go(20 * 3600 + 57 * 60 + 59)
    assert board.time() == [0, 0, 0, 2, 0x01, 0x01, 0x00, 0x20]


def test_setting_a_register_while_the_time_runs(board):
    board.write(4, 0x05)
    board.write(6, 7)
    board.go(1)
    assert board.time() == [0x59, 0x59, 0x05, 7, 0x28, 0x02, 0x24, 0x20]
    board.go(19 * 3600)
    assert board.read(6) == 1


def test_impossible_dates_are_carried_over(board):
    board.write(B, SET | H24)
    board.write(7, 0x31)
    board.write(B, H24)
    assert (board.read(7), board.read(8)) == (0x02, 0x03)


def test_the_divider_holds_time_and_lets_it_go_half_a_second_before_the_next(board):
    board.write(A, 0x76)
    board.go(10)
    assert board.read(0) == 0x58
    board.write(A, 0x26)
    board.go(0.4)
    assert board.read(0) == 0x58
    board.go(0.1)
    assert board.read(0) == 0x59


def test_update_in_progress(board):
    assert board.read(A) == 0x26
    board.clock.advance(NS - 244_000)
    assert board.read(A) == 0xA6
    assert board.read(0) == 0x58
    board.clock.advance(244_000)
    assert board.read(A) == 0x26
    assert board.read(0) == 0x59
    board.write(B, SET | H24)
    board.clock.advance(NS - 1)
    assert board.read(A) == 0x26
    board.write(A, 0xFF & ~0x70 | 0x20)
    assert board.read(A) & 0x80 == 0, "read-only"


def test_flags_are_set_without_interrupts_and_cleared_by_reading(board):
    board.alarm(0x23, 0x59, 0x59)
    board.go(1)
    assert board.read(C) == PF | AF | UF
    assert board.read(C) == 0
    assert board.edges == 0
    assert board.clock.next_deadline() is None


def test_update_interrupts(board):
    board.write(B, UIE | H24)
    board.go(1)
    assert board.irq.level
    board.go(5)
    assert board.edges == 1
    assert board.read(C) & (IRQF | UF) == IRQF | UF
    assert not board.irq.level
    board.go(0.999)
    assert not board.irq.level
    board.go(0.001)
    assert board.irq.level


def test_enabling_a_flagged_interrupt_interrupts_at_once(board):
    board.go(1)
    board.write(B, UIE | H24)
    assert board.irq.level


def test_holding_the_time_turns_update_interrupts_off(board):
    board.write(B, SET | UIE | H24)
    assert board.read(B) == SET | H24
    board.go(3)
    assert board.read(C) & UF == 0


@pytest.mark.parametrize(("rate", "hz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (8, 256), (10, 64), (15, 2)])
def test_periodic_interrupts(board, rate, hz):
    board.write(A, 0x20 | rate)
    board.write(B, PIE | H24)
    board.read(C)
    count = 0
    end = board.clock.now_ns() + NS
    while (deadline := board.clock.next_deadline()) is not None and deadline <= end:
        board.clock.advance_to(deadline)
        assert board.read(C) & (IRQF | PF) == IRQF | PF
        count += 1
    assert count == hz


def test_no_periodic_rate(board):
    board.write(A, 0x20)
    board.write(B, PIE | H24)
    board.go(2)
    assert board.read(C) & PF == 0


def test_periodic_interrupts_wait_for_the_flags_to_be_read(board):
    board.write(A, 0x2F)
    board.write(B, PIE | H24)
    board.go(10)
    assert board.edges == 1
    assert board.clock.next_deadline() is None


@pytest.mark.parametrize(
    ("alarm", "wait"),
    [
        ((0x00, 0x00, 0x05), 7),
        ((0xFF, 0xFF, 0x10), 12),
        ((0xC0, 0x01, 0x00), 62),
        ((0x23, 0xFF, 0xFF), 1),
        ((0x23, 0x59, 0x58), 86_400),
    ],
)
def test_alarms(board, alarm, wait):
    board.alarm(*alarm)
    board.write(B, AIE | H24)
    board.go(wait - 0.001)
    assert board.read(C) & AF == 0
    assert not board.irq.level
    board.go(0.001)
    assert board.irq.level
    assert board.read(C) & (IRQF | AF) == IRQF | AF


def test_an_impossible_alarm_never_comes(board):
    board.alarm(0x24, 0x00, 0x00)
    board.write(B, AIE | H24)
    assert board.clock.next_deadline() is None
    board.go(200_000)
    assert board.read(C) & AF == 0


def test_an_alarm_on_a_twelve_hour_clock():
    board = Board(START.replace(hour=12, minute=59))
    board.write(B, AIE)
    board.alarm(0x81, 0x00, 0x00)
    board.go(2)
    assert board.irq.level


def test_alarm_registers_read_back(board):
    board.alarm(0xC5, 0x12, 0xFF)
    assert [board.read(i) for i in (5, 3, 1)] == [0xC5, 0x12, 0xFF]


def test_register_d_says_valid(board):
    board.write(D, 0)
    assert board.read(D) == 0x80


def test_reset_keeps_time_and_memory(board):
    board.write(0x0F, 0x0A)
    board.write(4, 0x05)
    board.write(B, UIE | PIE | AIE | H24)
    board.go(1)
    board.rtc.reset()
    assert not board.irq.level
    assert board.read(C) == 0
    assert board.read(B) == H24
    assert board.read(4) == 0x05
    assert board.read(0x0F) == 0x0A
    assert board.clock.next_deadline() is None


def test_nmi_mask_and_index(board):
    board.ports.write(0x70, 1, 0x8F)
    assert board.rtc.nmi_masked
    board.ports.write(0x71, 1, 0x55)
    assert board.read(0x0F) == 0x55
    assert not board.rtc.nmi_masked
    assert board.ports.read(0x70, 1) == 0xFF


MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "base_kib", "extended_kib", "beyond_16m", "beyond_4g"),
    [
        (0, 0, 0, 0, 0),
        (512 << 10, 512, 0, 0, 0),
        (8 * MIB, 640, 7 * 1024, 0, 0),
        (64 * MIB, 640, 63 * 1024, 768, 0),
        (256 * MIB, 640, 0xFFFF, 3840, 0),
        (4096 * MIB, 640, 0xFFFF, 0xBF00, 0x4000),
    ],
)
def test_memory_sizes(size, base_kib, extended_kib, beyond_16m, beyond_4g):
    board = Board(ram_size=size, cpus=3)

    def number(*indexes: int) -> int:
        return sum(board.read(index) << 8 * i for i, index in enumerate(indexes))

    assert number(0x15, 0x16) == base_kib
    assert number(0x17, 0x18) == number(0x30, 0x31) == extended_kib
    assert number(0x34, 0x35) == beyond_16m
    assert number(0x5B, 0x5C, 0x5D) == beyond_4g
    assert board.read(0x5F) == 2
    assert number(0x2F, 0x2E) == sum(board.read(i) for i in range(0x10, 0x2E))


@settings(max_examples=200)
@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))
def test_the_calendar_agrees_with_python_s(moment):
    days = moment.toordinal() - datetime(1970, 1, 1).toordinal()
    assert days_from_civil(moment.year, moment.month, moment.day) == days
    assert civil_from_days(days) == (moment.year, moment.month, moment.day)
    assert weekday(days) == moment.isoweekday() % 7 + 1


@given(st.integers(0, 23), st.booleans(), st.booleans())
def test_hours_round_trip(hour, binary, hours_24):
    code = Encoding(binary, hours_24)
    assert code.decode_hour(code.encode_hour(hour)) == hour


parts = st.one_of(st.none(), st.integers(0, 70))


@settings(max_examples=100)
@given(st.integers(0, 86_399), parts, parts, parts)
def test_the_next_alarm_is_the_first_match(after, seconds, minutes, hours):
    found = next_alarm(after, seconds, minutes, hours)

    def matches(moment: int) -> bool:
        clock = datetime(1970, 1, 1) + timedelta(seconds=moment)
        return all(
            want is None or want == have
            for want, have in ((seconds, clock.second), (minutes, clock.minute), (hours, clock.hour))
        )

    if found is None:
        assert (hours or 0) > 23 or (minutes or 0) > 59 or (seconds or 0) > 59
    else:
        assert after < found <= after + 86_400 and matches(found)
        assert not any(matches(moment) for moment in range(after + 1, min(found, after + 4000)))
        assert not any(matches(moment) for moment in range(max(after + 1, found - 4000), found))


steps = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 15), st.integers(0, 255)),
    st.tuples(st.just("write"), st.integers(0, 127), st.integers(0, 255)),
    st.tuples(st.just("read"), st.integers(0, 127), st.just(0)),
    st.tuples(st.just("go"), st.just(0), st.integers(0, 3 * NS)),
    st.tuples(st.just("reset"), st.just(0), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_any_use_keeps_the_invariants(actions):
    board = Board(ram_size=64 * MIB)
    for kind, index, value in actions:
        if kind == "write":
            board.write(index, value)
        elif kind == "read":
            assert 0 <= board.read(index) <= 255
        elif kind == "go":
            board.clock.advance(value)
        else:
            board.rtc.reset()
        deadline = board.clock.next_deadline()
        assert deadline is None or deadline > board.clock.now_ns()
        for register in (*TIME, 0x37):
            assert 0 <= board.read(register) <= 255
        assert board.read(B) & (PIE | AIE | UIE) or not board.irq.level
    board.read(C)
    assert not board.irq.level
