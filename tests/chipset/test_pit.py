"""The 8254, channel by channel and mode by mode, against its data sheet; port 0x61; the edges of IRQ0."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.bus import mmio_space, port_space
from pyhv.chipset.gsi import GsiRouter
from pyhv.chipset.ioapic import IoApic
from pyhv.chipset.layout import PIT_HZ
from pyhv.chipset.pic import Pic
from pyhv.chipset.pit import MAX_BACKLOG, Pit
from pyhv.clock import ManualClock
from pyhv.irq import InterruptLine

NS = 1_000_000_000


class Board:
    """A timer on a bus, its clock counted in CLK ticks, and the ticks at which IRQ0 rose."""

    def __init__(self, listener=None) -> None:
        self.clock = ManualClock()
        self.edges: list[int] = []
        self.pit = Pit(clock=self.clock, line=InterruptLine(self._line), listener=listener)
        self.ports = port_space()
        self.pit.attach(self.ports, mmio_space())

    def _line(self, level: bool) -> None:
        if level:
            self.edges.append(self.pit.tick())

    def to(self, tick: int) -> None:
        self.clock.advance_to(-(-tick * NS // PIT_HZ))
        assert self.pit.tick() == tick

    def go(self, ticks: int) -> None:
        self.to(self.pit.tick() + ticks)

    def out(self, port: int, value: int) -> None:
        self.ports.write(port, 1, value)

    def read(self, port: int) -> int:
        return self.ports.read(port, 1)

    def program(self, channel: int, mode: int, count: int, bcd: int = 0) -> None:
        self.out(0x43, channel << 6 | 0x30 | mode << 1 | bcd)
        self.count(channel, count)

    def count(self, channel: int, count: int) -> None:
        self.out(0x40 + channel, count & 0xFF)
        self.out(0x40 + channel, count >> 8 & 0xFF)

    def value(self, channel: int) -> int:
        self.out(0x43, channel << 6)
        return self.read(0x40 + channel) | self.read(0x40 + channel) << 8

    def status(self, channel: int) -> int:
        self.out(0x43, 0xE0 | 2 << channel)
        return self.read(0x40 + channel)

    def gate2(self, level: int) -> None:
        self.out(0x61, level)

    def out2(self) -> bool:
        return bool(self.read(0x61) & 0x20)

    def wave(self, ticks: int) -> str:
        """OUT of channel 2 over so many ticks, starting with the first CLK from now."""
        seen = ""
        for _ in range(ticks):
            self.go(1)
            seen += "H" if self.out2() else "L"
        return seen

    def counts(self, ticks: int, channel: int = 2) -> list[int]:
        seen = []
        for _ in range(ticks):
            self.go(1)
            seen.append(self.value(channel))
        return seen


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def gated():
    """A board whose channel 2 counts."""
    board = Board()
    board.gate2(1)
    return board


def test_mode_0_output_and_count(gated):
    gated.program(2, 0, 4)
    assert not gated.out2()
    assert gated.wave(8) == "LLLLHHHH"
    gated.program(2, 0, 4)
    assert gated.counts(7) == [4, 3, 2, 1, 0, 0xFFFF, 0xFFFE]


def test_mode_0_gate_stops_counting(gated):
    gated.program(2, 0, 10)
    gated.go(4)
    gated.gate2(0)
    assert gated.value(2) == 7
    gated.go(100)
    assert gated.value(2) == 7
    gated.gate2(1)
    gated.go(6)
    assert not gated.out2()
    gated.go(1)
    assert gated.out2()


def test_mode_0_count_written_with_the_gate_low(board):
    board.program(2, 0, 4)
    board.go(50)
    assert board.value(2) == 4
    board.gate2(1)
    assert board.wave(5) == "LLLHH"


def test_mode_0_first_byte_stops_the_counter(gated):
    gated.program(2, 0, 4)
    gated.go(10)
    assert gated.out2()
    gated.out(0x42, 2)
    assert not gated.out2()
    gated.go(10)
    assert not gated.out2()
    gated.out(0x42, 0)
    assert gated.wave(4) == "LLHH"


def test_mode_1_is_triggered_by_the_gate(board):
    board.program(2, 1, 3)
    assert board.wave(3) == "HHH"
    board.gate2(1)
    assert board.wave(6) == "LLLHHH"
    board.gate2(0)
    assert board.wave(2) == "HH"
    board.gate2(1)
    board.go(2)
    board.gate2(0)
    board.gate2(1)
    assert board.wave(5) == "LLLHH"


def test_mode_1_new_count_waits_for_the_trigger(board):
    board.program(2, 1, 3)
    board.gate2(1)
    board.go(1)
    board.count(2, 5)
    assert board.status(2) & 0x40
    assert board.wave(4) == "LLHH"
    board.gate2(0)
    board.gate2(1)
    assert board.wave(7) == "LLLLLHH"
    assert not board.status(2) & 0x40


def test_mode_2_output_and_count(gated):
    gated.program(2, 2, 4)
    assert gated.wave(10) == "HHHLHHHLHH"
    gated.program(2, 2, 3)
    assert gated.counts(7) == [3, 2, 1, 3, 2, 1, 3]


def test_mode_2_new_count_at_the_end_of_the_cycle(gated):
    gated.program(2, 2, 4)
    gated.go(2)
    gated.count(2, 3)
    assert gated.status(2) & 0x40
    assert gated.wave(8) == "HLHHLHHL"
    assert not gated.status(2) & 0x40


def test_mode_2_gate_restarts_the_cycle(gated):
    gated.program(2, 2, 5)
    gated.go(3)
    gated.gate2(0)
    assert gated.wave(6) == "HHHHHH"
    gated.gate2(1)
    assert gated.wave(6) == "HHHHLH"


def test_mode_3_even_count(gated):
    gated.program(2, 3, 4)
    assert gated.wave(8) == "HHLLHHLL"
    gated.program(2, 3, 6)
    assert gated.counts(7) == [6, 4, 2, 6, 4, 2, 6]


def test_mode_3_odd_count(gated):
    gated.program(2, 3, 5)
    assert gated.wave(10) == "HHHLLHHHLL"
    gated.program(2, 3, 5)
    assert gated.counts(6) == [4, 2, 0, 4, 2, 4]


def test_mode_3_new_count_at_the_end_of_the_half_cycle(gated):
    gated.program(2, 3, 8)
    gated.go(2)
    gated.count(2, 4)
    assert gated.wave(8) == "HHLLHHLL"


def test_mode_4_strobe(gated):
    gated.program(2, 4, 3)
    assert gated.wave(7) == "HHHLHHH"
    gated.count(2, 2)
    assert gated.wave(5) == "HHLHH"


def test_mode_5_strobe_after_the_trigger(board):
    board.program(2, 5, 3)
    assert board.wave(4) == "HHHH"
    board.gate2(1)
    assert board.wave(6) == "HHHLHH"


@pytest.mark.parametrize(("written", "mode"), [(6, 2), (7, 3)])
def test_modes_6_and_7_are_2_and_3(board, written, mode):
    board.program(2, written, 10)
    assert board.status(2) >> 1 & 7 == mode


def test_zero_is_the_longest_count(gated):
    gated.program(2, 0, 0)
    gated.go(0x10000)
    assert not gated.out2()
    gated.go(1)
    assert gated.out2()


def test_bcd_counting(gated):
    gated.program(2, 0, 0x1000, bcd=1)
    assert gated.counts(3) == [0x1000, 0x0999, 0x0998]
    gated.program(2, 0, 0, bcd=1)
    assert gated.counts(2) == [0, 0x9999]
    gated.to(gated.pit.tick() + 9998)
    assert not gated.out2()
    gated.go(1)
    assert gated.out2()


@pytest.mark.parametrize(("access", "written", "count"), [(1, 0x34, 0x34), (2, 0x12, 0x1200)])
def test_single_byte_access(gated, access, written, count):
    gated.out(0x43, 0x80 | access << 4)
    gated.out(0x42, written)
    gated.go(1)
    assert gated.pit.channels[2].value(gated.pit.tick()) == count
    assert gated.read(0x42) == written
    assert gated.read(0x42) == written


def test_reads_alternate_between_the_bytes(gated):
    gated.program(2, 0, 0x1234)
    gated.go(1)
    assert [gated.read(0x42) for _ in range(4)] == [0x34, 0x12, 0x34, 0x12]


def test_a_latched_count_stays_until_it_is_read(gated):
    gated.program(2, 0, 0x1234)
    gated.go(1)
    gated.out(0x43, 0x80)
    gated.go(0x10)
    gated.out(0x43, 0x80)
    assert [gated.read(0x42), gated.read(0x42)] == [0x34, 0x12]
    assert [gated.read(0x42), gated.read(0x42)] == [0x24, 0x12]


def test_a_control_word_drops_the_latches(gated):
    gated.program(2, 0, 0x1234)
    gated.out(0x43, 0xC8)
    gated.program(2, 0, 0x5678)
    gated.go(1)
    assert [gated.read(0x42), gated.read(0x42)] == [0x78, 0x56]


def test_status(gated):
    gated.out(0x43, 0xB0)
    assert gated.status(2) == 0x70
    gated.count(2, 2)
    assert gated.status(2) == 0x70
    gated.go(1)
    assert gated.status(2) == 0x30
    gated.go(2)
    assert gated.status(2) == 0xB0


def test_read_back_latches_status_before_count_on_several_channels(gated):
    gated.program(0, 2, 1000)
    gated.program(2, 3, 500)
    gated.go(11)
    gated.out(0x43, 0xC0 | 2 | 8)
    gated.go(50)
    gated.out(0x43, 0xC0 | 2 | 8)
    assert [gated.read(0x40) for _ in range(3)] == [0xB4, 990 & 0xFF, 990 >> 8]
    assert [gated.read(0x42) for _ in range(3)] == [0xB6, 480 & 0xFF, 480 >> 8]


def test_the_control_port_reads_nothing(board):
    assert board.read(0x43) == 0


def test_channel_0_counts_from_reset_without_interrupting(board):
    assert board.value(0) == 0
    board.go(1001)
    assert board.value(0) == 0x10000 - 1000
    assert board.clock.next_deadline() is None
    board.go(10 * PIT_HZ)
    assert board.edges == []


def test_periodic_edges_do_not_drift(board):
    board.program(0, 2, 11932)
    board.go(1000 * 11932 + 1)
    assert board.edges == [1 + 11932 * (i + 1) for i in range(1000)]


def test_square_wave_edges(board):
    board.program(0, 3, 1193)
    board.go(3 * 1193 + 1)
    assert board.edges == [1194, 2387, 3580]


def test_one_shot_edge(board):
    board.program(0, 0, 5000)
    board.go(100_000)
    assert board.edges == [5001]
    assert board.clock.next_deadline() is None
    board.count(0, 300)
    board.go(100_000)
    assert board.edges == [5001, 100_000 + 301]


def test_strobe_edge(board):
    board.program(0, 4, 5000)
    board.go(100_000)
    assert board.edges == [5002]


def test_hardware_triggered_modes_never_interrupt(board):
    for mode in (1, 5):
        board.program(0, mode, 100)
        assert board.clock.next_deadline() is None


def test_leaving_mode_0_raises_the_output(board):
    board.program(0, 0, 5000)
    board.go(10)
    board.program(0, 2, 2000)
    board.go(2001)
    assert board.edges == [10, 2011]


def test_a_new_period_begins_after_the_running_one(board):
    board.program(0, 2, 2000)
    board.go(500)
    board.count(0, 1000)
    board.go(4501)
    assert board.edges == [2001, 3001, 4001, 5001]
    board.program(0, 3, 2000)
    board.go(1500)
    board.count(0, 1000)
    board.edges.clear()
    start = 5001 + 1
    board.go(3000)
    assert board.edges == [start + 2000, start + 3000, start + 4000]


def test_a_new_square_wave_taken_over_in_the_first_half(board):
    board.program(0, 3, 2000)
    board.go(500)
    board.count(0, 1000)
    board.go(2500)
    assert board.edges == [1501, 2501]


def test_a_late_host_makes_up_for_few_edges_and_drops_the_rest():
    class LateClock(ManualClock):
        def jump(self, ns: int) -> None:
            self._now += ns

    board = Board()
    board.clock = board.pit._clock = LateClock()
    board.program(0, 2, 1193)
    board.clock.jump(3_500_000)
    board.clock.advance(0)
    assert len(board.edges) == 1
    board.clock.advance(6_000_000)
    assert len(board.edges) == 9, "every period got its edge"
    gaps = [b - a for a, b in pairwise(board.edges)]
    assert min(gaps) >= 60
    board.clock.jump(60 * NS)
    board.clock.advance(0)
    before = len(board.edges)
    board.clock.advance(NS // 10)
    assert len(board.edges) - before == 100 + MAX_BACKLOG


def test_a_tiny_count_cannot_occupy_the_host(board):
    board.program(0, 2, 2)
    board.go(PIT_HZ // 10)
    assert 1000 < len(board.edges) <= 2000


@pytest.mark.parametrize("mode", [2, 3])
def test_a_count_of_one_is_no_endless_loop(board, mode):
    board.program(0, mode, 1)
    board.go(1000)
    assert board.edges == []
    assert board.status(0) & 0x80


def test_refresh_toggles_every_fifteen_microseconds(board):
    seen = []
    for _ in range(180):
        board.go(1)
        seen.append(board.read(0x61) >> 4 & 1)
    assert sum(a != b for a, b in pairwise(seen)) == 10


def test_port_61_keeps_its_low_bits(board):
    board.out(0x61, 0xFF)
    assert board.read(0x61) & 0xCF == 0x0F


class Wired:
    """The timer behind both controllers, as on the board."""

    def __init__(self, listening: bool = True) -> None:
        self.clock = ManualClock()
        self.pic = Pic()
        self.sent = []
        self.ioapic = IoApic(deliver=self.sent.append)
        router = GsiRouter(pic=self.pic, ioapic=self.ioapic)
        self.pit = Pit(clock=self.clock, line=router.line(0), listener=router if listening else None)
        self.ports = port_space()
        for device in (self.pic, self.ioapic, self.pit):
            device.attach(self.ports, mmio_space())

    def out(self, *pairs: tuple[int, int]) -> None:
        for port, value in pairs:
            self.ports.write(port, 1, value)


def test_a_guest_that_never_asks_costs_no_timer():
    wired = Wired()
    assert wired.clock.next_deadline() is None
    wired.out((0x21, 0xFF), (0xA1, 0xFF))
    assert wired.clock.next_deadline() is None


def test_firmware_s_tick_reaches_a_guest_that_opens_irq0():
    wired = Wired()
    wired.out((0x21, 0xFE))
    wired.clock.advance(60_000_000)
    assert wired.pic.output
    assert wired.pic.acknowledge() == 8


def test_unheard_ticks_stop_and_come_back_on_time():
    wired = Wired()
    wired.out((0x21, 0xFF), (0x43, 0x34), (0x40, 1193 & 0xFF), (0x40, 1193 >> 8))
    wired.clock.advance(10_000_000)
    assert wired.clock.next_deadline() is None
    wired.clock.advance(NS)
    wired.out((0x21, 0xFE))
    assert wired.pic.output
    wired.pic.acknowledge()
    wired.out((0x20, 0x20))
    due = wired.clock.next_deadline()
    assert due is not None and (due * PIT_HZ // NS - 1) % 1193 == 0
    wired.clock.advance(1_000_000)
    assert wired.pic.output


def test_ticks_reach_the_io_apic_while_the_pic_is_masked():
    wired = Wired()
    wired.out((0x21, 0xFF), (0x43, 0x34), (0x40, 1193 & 0xFF), (0x40, 1193 >> 8))
    wired.clock.advance(10_000_000)
    assert wired.sent == []
    wired.ioapic.write(0, 4, 0x14)
    wired.ioapic.write(0x10, 4, 0x30)
    wired.clock.advance(10_000_000)
    assert len(wired.sent) == 10


wired_steps = st.one_of(
    st.tuples(st.just("program"), st.sampled_from([0, 2, 3, 4]), st.integers(100, 5000)),
    st.tuples(st.just("count"), st.just(0), st.integers(100, 5000)),
    st.tuples(st.just("imr"), st.just(0), st.sampled_from([0, 1, 0xFF])),
    st.tuples(st.just("entry"), st.just(0), st.sampled_from([0x30, 0x1_0030, 0x8031])),
    st.tuples(st.just("serve"), st.just(0), st.just(0)),
    st.tuples(st.just("initialise"), st.just(0), st.just(0)),
)
waits = st.one_of(st.just(0), st.integers(0, 8_000_000), st.integers(2_000_000, 8_000_000))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(wired_steps, waits), max_size=40))
def test_nobody_can_tell_that_unheard_edges_are_left_out(steps):
    boards = Wired(), Wired(listening=False)
    for (kind, mode, value), wait in [(("program", 2, 1193), 3_000_000), *steps]:
        for wired in boards:
            if kind == "program":
                wired.out((0x43, 0x30 | mode << 1), (0x40, value & 0xFF), (0x40, value >> 8))
            elif kind == "count":
                wired.out((0x40, value & 0xFF), (0x40, value >> 8))
            elif kind == "imr":
                wired.out((0x21, value))
            elif kind == "entry":
                wired.ioapic.write(0, 4, 0x14)
                wired.ioapic.write(0x10, 4, value)
            elif kind == "initialise":
                wired.out((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1))
            else:
                if wired.pic.output:
                    wired.pic.acknowledge()
                    wired.out((0x20, 0x20))
                wired.ioapic.eoi(0x31)
            wired.clock.advance(wait)
        first, second = boards
        assert (first.pic.master.irr, first.pic.output) == (second.pic.master.irr, second.pic.output)
        assert first.sent == second.sent
        assert first.ioapic.line(2).level == second.ioapic.line(2).level


operations = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0x40, 0x41, 0x42, 0x43, 0x61]), st.integers(0, 255)),
    st.tuples(st.just("read"), st.sampled_from([0x40, 0x41, 0x42, 0x43, 0x61]), st.just(0)),
    st.tuples(st.just("go"), st.just(0), st.integers(0, 200_000)),
    st.tuples(st.just("go"), st.just(0), st.integers(0, 40)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(operations, max_size=50))
def test_any_use_keeps_the_invariants(steps):
    board = Board()
    for kind, port, value in steps:
        if kind == "write":
            board.out(port, value)
        elif kind == "read":
            assert 0 <= board.read(port) <= 0xFF
        else:
            board.go(value)
        t = board.pit.tick()
        deadline = board.clock.next_deadline()
        assert deadline is None or deadline > board.clock.now_ns()
        for channel in board.pit.channels:
            value = channel.value(t)
            assert 0 <= value <= 0xFFFF
            if channel.bcd and channel._start is not None:
                assert all(value >> shift & 15 <= 9 for shift in (0, 4, 8, 12))
            channel.out(t)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(0, 60),
    st.sampled_from([None, "count", "gate"]),
    st.integers(1, 40),
)
def test_predicted_rises_are_those_of_the_output(mode, count, when, event, new_count):
    board = Board()
    board.gate2(0)
    board.program(2, mode, count)
    board.gate2(1)
    board.go(when)
    if event == "count":
        board.count(2, new_count)
    elif event == "gate":
        board.gate2(0)
        board.go(3)
        board.gate2(1)
    channel = board.pit.channels[2]
    start = board.pit.tick()
    predicted = []
    rise = channel.next_rise(start)
    while rise is not None and rise <= start + 200:
        predicted.append(rise)
        rise = channel.next_rise(rise)
    level, seen = channel.out(start), []
    for t in range(start + 1, start + 201):
        now = channel.out(t)
        if now and not level:
            seen.append(t)
        level = now
    assert predicted == seen
