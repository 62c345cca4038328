"""The 16550A against its data sheet, and against how kernels drive it."""

import pytest
from chipset_fakes import Spaces, Wire
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.chipset.serial import CLOCK_HZ, MAX_GAP_NS, Serial
from pyhv.clock import ManualClock

BASE = 0x3F8
RBR = THR = DLL = BASE
IER = DLM = BASE + 1
IIR = FCR = BASE + 2
LCR, MCR, LSR, MSR, SCR = BASE + 3, BASE + 4, BASE + 5, BASE + 6, BASE + 7
READY, OVERRUN, BREAK, EMPTY = 0x01, 0x02, 0x10, 0x60


class Port(Spaces):
    def __init__(self, **options) -> None:
        self.sent = bytearray()
        self.wire = Wire()
        self.clock = ManualClock()
        self.uart = Serial(output=self.sent.extend, irq=self.wire.line, clock=self.clock, **options)
        super().__init__(self.uart)

    def drain(self) -> bytes:
        data = bytearray()
        while self.inp(LSR) & READY:
            data.append(self.inp(RBR))
        return bytes(data)

    def poll(self) -> int:
        """getc() of a polling kernel."""
        for _ in range(3):
            if self.inp(LSR) & READY:
                return self.inp(RBR)
        raise AssertionError("no input")


@pytest.fixture
def port() -> Port:
    return Port()


def test_transmits_at_once(port):
    for byte in b"hi":
        assert port.inp(LSR) & EMPTY == EMPTY
        port.out(THR, byte)
    assert port.sent == b"hi"
    assert not port.wire.changes


def test_word_write_reaches_two_registers(port):
    port.out(THR, 0x0241, size=2)
    assert port.sent == b"A"
    assert port.inp(IER) == 2


def test_registers_read_back_only_what_exists(port):
    port.out(SCR, 0x5A)
    port.out(IER, 0xFF)
    port.out(MCR, 0xEF)
    port.out(LCR, 0x7F)
    assert [port.inp(p) for p in (SCR, IER, MCR, LCR)] == [0x5A, 0x0F, 0x0F, 0x7F]


def test_divisor_latch_hides_data_and_interrupt_enable(port):
    port.out(IER, 5)
    port.out(LCR, 0x83)
    port.out(DLL, 0x34)
    port.out(DLM, 0x12)
    assert (port.inp(DLL), port.inp(DLM)) == (0x34, 0x12)
    port.out(LCR, 0x03)
    assert port.inp(IER) == 5
    assert port.sent == b""
    port.out(THR, 0x41)
    assert port.sent == b"A"


def test_fifo_enable_shows_a_16550a(port):
    assert port.inp(IIR) >> 6 == 0
    port.out(FCR, 0x01)
    assert port.inp(IIR) == 0xC1
    port.out(FCR, 0xC0)
    assert port.inp(IIR) == 0x01


def test_enabling_thre_interrupts_while_empty(port):
    port.out(IER, 2)
    assert port.wire.level
    assert port.inp(IIR) == 0x02
    assert not port.wire.level
    assert port.inp(IIR) == 0x01
    port.out(IER, 0)
    port.out(IER, 2)
    assert port.inp(IIR) == 0x02


def test_rewriting_the_same_enable_does_not_rearm_thre(port):
    port.out(IER, 2)
    port.inp(IIR)
    port.out(IER, 2)
    assert port.inp(IIR) == 0x01


def test_each_write_gives_an_edge_even_to_a_handler_that_never_reads_iir(port):
    port.out(IER, 2)
    before = port.wire.edges
    for byte in b"abc":
        port.out(THR, byte)
    assert port.wire.edges == before + 3
    assert port.wire.level


def test_a_burst_gives_one_edge_to_a_handler_that_reads_iir(port):
    port.out(FCR, 0x01)
    port.out(IER, 2)
    for _ in range(3):
        assert port.inp(IIR) == 0xC2
        before = port.wire.edges
        for byte in range(16):
            port.out(THR, byte)
        assert port.wire.edges == before + 1
        assert port.wire.level


def test_reading_iir_for_a_higher_source_keeps_thre(port):
    port.out(IER, 3)
    port.uart.receive(b"x")
    assert port.inp(IIR) == 0x04
    assert port.inp(RBR) == ord("x")
    assert port.inp(IIR) == 0x02


def test_priorities(port):
    port.out(FCR, 0x01)
    port.out(IER, 0x0F)
    port.out(MCR, 0x10)
    for byte in range(17):
        port.out(THR, byte)
    assert port.inp(IIR) & 0x0F == 0x06
    assert port.inp(LSR) & OVERRUN
    assert port.inp(IIR) & 0x0F == 0x04
    assert port.drain() == bytes(range(16))
    assert port.inp(IIR) & 0x0F == 0x02
    assert port.inp(IIR) & 0x0F == 0x00
    port.inp(MSR)
    assert port.inp(IIR) & 0x0F == 0x01
    assert not port.wire.level


def test_one_byte_an_interrupt_without_fifo(port):
    port.out(IER, 1)
    port.uart.receive(b"abc")
    got = bytearray()
    for edges in range(1, 4):
        assert port.wire.edges == edges
        assert port.wire.level
        got.append(port.inp(RBR))
        assert not port.wire.level
        port.clock.advance(MAX_GAP_NS)
    assert got == b"abc"
    assert not port.wire.level


def test_a_handler_that_takes_all_there_is_comes_to_an_end(port):
    port.out(FCR, 0x81)
    port.out(IER, 1)
    port.uart.receive(bytes(100))
    assert len(port.drain()) == 8
    assert not port.wire.level
    port.uart.receive(bytes(4))
    port.out(IER, 0)
    port.out(IER, 1)
    assert not port.wire.level
    port.clock.advance(MAX_GAP_NS)
    assert len(port.drain()) == 8


def test_a_handler_that_looks_again_gets_a_full_fifo(port):
    port.out(FCR, 0x01)
    port.out(IER, 1)
    port.uart.receive(bytes(40))
    sizes = []
    while port.wire.level:
        while not port.inp(IIR) & 1:
            sizes.append(len(port.drain()))
        port.clock.advance(MAX_GAP_NS)
    assert sizes == [1, 16, 16, 7]
    port.out(FCR, 0x03)
    port.uart.receive(bytes(3))
    assert len(port.drain()) == 1


def test_a_polling_drain_comes_to_an_end(port):
    port.out(FCR, 0x81)
    port.uart.receive(bytes(range(20)))
    assert port.poll() == 0
    assert port.drain() == bytes(range(1, 8))
    assert port.drain() == bytes(range(8, 16))


def test_one_byte_an_interrupt_with_fifo_at_trigger_1(port):
    port.out(FCR, 0x07)
    port.out(IER, 1)
    port.uart.receive(b"abc")
    for edges, byte in enumerate(b"abc", 1):
        assert port.wire.edges == edges
        assert port.inp(RBR) == byte
        port.clock.advance(MAX_GAP_NS)


@pytest.mark.parametrize(("bits", "trigger"), [(0x41, 4), (0x81, 8), (0xC1, 14)])
def test_trigger_levels(port, bits, trigger):
    port.out(FCR, bits)
    port.out(IER, 1)
    port.uart.receive(b"x" * (trigger - 1))
    assert not port.wire.level
    assert port.inp(LSR) & READY
    port.uart.receive(b"x")
    assert port.wire.level
    assert port.inp(IIR) == 0xC4
    port.inp(RBR)
    assert not port.wire.level


def test_timeout_below_the_trigger(port):
    port.out(LCR, 0x83)
    port.out(DLL, 1)
    port.out(LCR, 0x03)
    port.out(FCR, 0xC1)
    port.out(IER, 1)
    port.uart.receive(b"ab")
    four_characters = 4 * 10 * 1_000_000_000 // CLOCK_HZ
    port.clock.advance(four_characters - 1)
    assert not port.wire.level
    port.clock.advance(1)
    assert port.inp(IIR) == 0xCC
    assert port.inp(RBR) == ord("a")
    assert not port.wire.level
    port.clock.advance(four_characters)
    assert port.inp(IIR) == 0xCC
    assert port.inp(RBR) == ord("b")
    port.clock.advance(10 * four_characters)
    assert port.inp(IIR) == 0xC1


def test_timeout_counts_from_enabling_interrupts_with_input_waiting(port):
    port.out(FCR, 0xC1)
    port.uart.receive(b"a")
    port.inp(LSR)
    assert port.inp(LSR) & READY
    port.out(IER, 1)
    port.clock.advance(1_000_000_000)
    assert port.inp(IIR) == 0xCC


def test_polling_kernel_gets_everything(port):
    data = bytes(range(256)) * 4
    port.uart.receive(data)
    assert bytes(port.poll() for _ in data) == data
    assert port.uart.waiting == 0


def test_initialisation_as_linux_does_it_loses_no_input(port):
    data = b"root\nls -l /\n"
    port.uart.receive(data)
    for byte in b"early console":
        port.inp(LSR)
        port.out(THR, byte)
    for fcr in (1, 7, 0):
        port.out(FCR, fcr)
    for register in (LSR, RBR, IIR, MSR):
        port.inp(register)
    assert port.inp(LSR) != 0xFF
    port.out(LCR, 3)
    port.out(MCR, 8)
    for register in (LSR, RBR, IIR, MSR):
        port.inp(register)
    port.out(IER, 5)
    port.out(FCR, 0x81)
    port.clock.advance(1_000_000_000)
    got = bytearray()
    while port.wire.level:
        assert not port.inp(IIR) & 1
        got += port.drain()
        port.clock.advance(1_000_000_000)
    assert got == data


def test_fifo_reset_puts_host_bytes_back_and_drops_looped_ones(port):
    port.out(FCR, 0x81)
    port.uart.receive(b"abc")
    port.inp(LSR)
    assert port.inp(LSR) & READY
    port.out(FCR, 0x83)
    assert not port.inp(LSR) & READY
    assert port.poll() == ord("a")
    port.out(MCR, 0x10)
    port.out(THR, 0x7A)
    port.out(FCR, 0x83)
    assert not port.inp(LSR) & READY
    port.out(MCR, 0)
    assert bytes(port.poll() for _ in range(2)) == b"bc"


def test_loopback_data_stays_inside_and_host_input_outside(port):
    port.out(FCR, 0x01)
    port.out(MCR, 0x10)
    port.uart.receive(b"host")
    port.out(THR, 0x55)
    assert port.drain() == b"\x55"
    assert port.sent == b""
    port.out(MCR, 0)
    assert bytes(port.poll() for _ in range(4)) == b"host"


def test_loopback_without_fifo_overwrites_on_overrun(port):
    port.out(MCR, 0x10)
    port.out(THR, 1)
    port.out(THR, 2)
    assert port.inp(LSR) & (READY | OVERRUN) == READY | OVERRUN
    assert not port.inp(LSR) & OVERRUN
    assert port.inp(RBR) == 2


@pytest.mark.parametrize(
    ("mcr", "msr"), [(0x10, 0x00), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x1A, 0x90), (0x0F, 0xB0)]
)
def test_modem_status_in_and_out_of_loopback(port, mcr, msr):
    port.out(MCR, mcr)
    assert port.inp(MSR) & 0xF0 == msr


def test_modem_deltas_interrupt_once_and_ring_counts_its_trailing_edge(port):
    port.out(MCR, 0x10)
    port.inp(MSR)
    port.out(IER, 8)
    port.out(MCR, 0x14)
    assert port.inp(IIR) == 0x01
    port.out(MCR, 0x10)
    assert port.inp(IIR) == 0x00
    assert port.wire.level
    assert port.inp(MSR) == 0x04
    assert not port.wire.level
    assert port.inp(MSR) == 0


def test_break_is_a_line_status_with_a_zero(port):
    port.out(FCR, 0x01)
    port.out(IER, 5)
    port.uart.receive(b"a")
    port.uart.receive_break()
    port.uart.receive(b"b")
    assert port.inp(RBR) == ord("a")
    port.clock.advance(MAX_GAP_NS)
    assert port.inp(IIR) & 0x0F == 0x06
    assert port.inp(LSR) & (READY | BREAK | 0x80) == READY | BREAK | 0x80
    assert not port.inp(LSR) & (BREAK | 0x80)
    assert port.inp(RBR) == 0
    port.clock.advance(MAX_GAP_NS)
    assert port.inp(RBR) == ord("b")


def test_out2_gates_the_interrupt_only_when_asked_to():
    port = Port(gate_out2=True)
    port.out(IER, 2)
    assert not port.wire.level
    port.out(MCR, 8)
    assert port.wire.level
    port.out(MCR, 0)
    assert not port.wire.level


def test_reset_keeps_input_and_silences_the_line(port):
    port.out(FCR, 0x01)
    port.out(IER, 3)
    port.uart.receive(b"later")
    port.uart.reset()
    assert not port.wire.level
    assert port.inp(IIR) == 1
    assert port.uart.waiting == 5
    assert bytes(port.poll() for _ in range(5)) == b"later"


ACTIONS = st.one_of(
    st.tuples(st.just("in"), st.integers(0, 7), st.sampled_from((1, 2, 4))),
    st.tuples(st.just("out"), st.integers(0, 7), st.integers(0, 255)),
    st.tuples(st.just("host"), st.binary(max_size=40), st.none()),
    st.tuples(st.just("wait"), st.integers(0, 10**8), st.none()),
    st.tuples(st.just("break"), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_nothing_a_guest_does_raises_or_breaks_the_invariants(actions):
    port = Port()
    for kind, first, second in actions:
        if kind == "in":
            assert 0 <= port.inp(BASE + first, second) < 1 << (8 * second)
        elif kind == "out":
            port.out(BASE + first, second)
        elif kind == "host":
            port.uart.receive(first)
        elif kind == "wait":
            port.clock.advance(first)
        else:
            port.uart.receive_break()
        assert len(port.uart._fifo) <= 16
        if port.inp(LCR) < 0x80:
            assert port.wire.level == (port.uart._pending() != 1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=30), max_size=12),
    st.sampled_from((0x00, 0x01, 0x41, 0x81, 0xC1)),
    st.lists(st.sampled_from((0x03, 0x83, 0xC3, 0x00)), max_size=4),
)
def test_host_input_arrives_whole_and_in_order(pieces, fcr, resets):
    port = Port()
    port.out(FCR, fcr)
    port.out(IER, 1)
    got = bytearray()
    for index, piece in enumerate(pieces):
        port.uart.receive(piece)
        if index < len(resets):
            port.out(FCR, resets[index])
        if port.wire.level:
            got.append(port.inp(RBR))
        port.clock.advance(10**8)
    while port.wire.level:
        got += port.drain()
        port.clock.advance(10**9)
    assert got == b"".join(pieces)
