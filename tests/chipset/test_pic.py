"""The 8259A pair, against its data sheet."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.bus import mmio_space, port_space
from pyhv.chipset.pic import Pic
from pyhv.errors import ConfigError


class Board:
    """A pair on a bus, with what INTR did."""

    def __init__(self, initialise: bool = True, icw4: int = 0x01) -> None:
        self.intr: list[bool] = []
        self.pic = Pic(on_output=self.intr.append)
        self.ports = port_space()
        self.pic.attach(self.ports, mmio_space())
        if initialise:
            self.icw(icw4)

    def icw(self, icw4: int = 0x01) -> None:
        for base, vector, icw3 in ((0x20, 0x30, 4), (0xA0, 0x38, 2)):
            self.out(base, 0x11)
            self.out(base + 1, vector)
            self.out(base + 1, icw3)
            self.out(base + 1, icw4)

    def out(self, port: int, value: int) -> None:
        self.ports.write(port, 1, value)

    def read(self, port: int) -> int:
        return self.ports.read(port, 1)

    def raise_(self, *irqs: int) -> None:
        for irq in irqs:
            self.pic.line(irq).set(True)

    def drop(self, *irqs: int) -> None:
        for irq in irqs:
            self.pic.line(irq).set(False)

    def irr(self, base: int = 0x20) -> int:
        self.out(base, 0x0A)
        return self.read(base)

    def isr(self, base: int = 0x20) -> int:
        self.out(base, 0x0B)
        return self.read(base)


def test_reset_leaves_what_firmware_programs():
    board = Board(initialise=False)
    assert (board.read(0x21), board.read(0xA1)) == (0xB8, 0x8E)
    board.raise_(1)
    assert board.pic.acknowledge() == 0x09
    board.out(0x20, 0x20)
    board.raise_(8)
    assert board.pic.acknowledge() == 0x70


def test_initialisation_clears_masks_requests_and_the_edge_sense():
    board = Board()
    board.out(0x21, 0xFF)
    board.raise_(4)
    board.icw()
    assert board.read(0x21) == 0
    assert board.irr() == 0
    assert not board.pic.output
    board.drop(4)
    board.raise_(4)
    assert board.pic.output


@pytest.mark.parametrize("irq", [i for i in range(16) if i != 2])
def test_each_input_has_its_vector(irq):
    board = Board()
    board.raise_(irq)
    assert board.pic.output
    assert board.pic.acknowledge() == 0x30 + irq
    assert not board.pic.output


def test_the_cascade_is_no_input():
    pic = Pic()
    for irq in (2, -1, 16):
        with pytest.raises(ConfigError):
            pic.line(irq)


def test_lower_numbers_first_and_nesting():
    board = Board()
    board.raise_(5, 3)
    assert board.pic.acknowledge() == 0x33
    assert not board.pic.output
    board.raise_(1)
    assert board.pic.acknowledge() == 0x31
    assert board.isr() == 0b1010
    board.out(0x20, 0x20)
    assert board.isr() == 0b1000
    board.out(0x20, 0x63)
    assert board.isr() == 0
    assert board.pic.acknowledge() == 0x35


def test_masked_requests_wait():
    board = Board()
    board.out(0x21, 0x10)
    board.raise_(4)
    assert not board.pic.output
    assert board.irr() == 0x10
    board.out(0x21, 0)
    assert board.pic.acknowledge() == 0x34


def test_an_edge_is_requested_once():
    board = Board()
    board.raise_(4)
    board.pic.acknowledge()
    board.out(0x20, 0x20)
    assert not board.pic.output
    board.drop(4)
    board.raise_(4)
    assert board.pic.output


def test_a_pulse_is_enough_for_an_edge_input():
    board = Board()
    board.pic.line(4).pulse()
    assert board.pic.acknowledge() == 0x34


def test_level_inputs_request_while_they_are_high():
    board = Board()
    board.out(0x4D0, 0x20)
    board.raise_(5)
    assert board.pic.acknowledge() == 0x35
    assert not board.pic.output
    board.out(0x20, 0x20)
    assert board.pic.output
    board.drop(5)
    assert not board.pic.output


def test_elcr_keeps_the_fixed_inputs_edge_triggered():
    board = Board()
    board.out(0x4D0, 0xFF)
    board.out(0x4D1, 0xFF)
    assert (board.read(0x4D0), board.read(0x4D1)) == (0xF8, 0xDE)


def test_spurious_irq7_is_not_in_service():
    board = Board()
    board.out(0x4D0, 0x20)
    board.raise_(5)
    board.drop(5)
    assert board.pic.acknowledge() == 0x37
    assert board.isr() == 0


def test_spurious_irq15_puts_only_the_cascade_in_service():
    board = Board()
    board.out(0x4D1, 0x04)
    board.raise_(10)
    board.drop(10)
    assert board.pic.output
    assert board.pic.acknowledge() == 0x3F
    assert board.isr(0x20) == 0x04
    assert board.isr(0xA0) == 0


def test_slave_requests_follow_one_another():
    board = Board()
    board.raise_(8, 12)
    assert board.pic.acknowledge() == 0x38
    board.out(0xA0, 0x20)
    board.out(0x20, 0x20)
    assert board.pic.acknowledge() == 0x3C
    board.out(0xA0, 0x20)
    board.out(0x20, 0x20)
    assert not board.pic.output
    assert board.isr(0xA0) == board.isr(0x20) == 0


def test_automatic_eoi_serves_the_slave_without_commands():
    board = Board(icw4=0x03)
    board.raise_(8, 9, 3)
    assert [board.pic.acknowledge() for _ in range(3)] == [0x38, 0x39, 0x33]
    assert not board.pic.output
    assert board.isr() == 0


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself():
    for icw4, seen in ((0x01, False), (0x11, True)):
        board = Board(icw4=icw4)
        board.raise_(12)
        assert board.pic.acknowledge() == 0x3C
        board.raise_(9)
        assert board.pic.output is seen
    assert board.pic.acknowledge() == 0x39
    board.raise_(3)
    assert not board.pic.output, "lower priorities still wait for the slave"


def test_special_mask_mode():
    board = Board()
    board.raise_(3)
    board.pic.acknowledge()
    board.raise_(5)
    assert not board.pic.output
    board.out(0x21, 0x08)
    assert not board.pic.output
    board.out(0x20, 0x68)
    assert board.pic.acknowledge() == 0x35
    board.out(0x20, 0x20)
    assert board.isr() == 0x08, "a masked input's service is not ended by a non-specific EOI"
    board.out(0x20, 0x20)
    assert board.isr() == 0x08
    board.out(0x20, 0x48)
    board.out(0x20, 0x20)
    assert board.isr() == 0


def test_rotation_on_non_specific_eoi():
    board = Board()
    board.raise_(4)
    board.pic.acknowledge()
    board.out(0x20, 0xA0)
    board.drop(4)
    board.raise_(4, 0, 5)
    served = []
    for _ in range(3):
        served.append(board.pic.acknowledge() - 0x30)
        board.out(0x20, 0x20)
    assert served == [5, 0, 4]


def test_rotation_in_automatic_eoi():
    board = Board(icw4=0x03)
    board.out(0x20, 0x80)
    for irq in (3, 4, 5):
        board.pic.line(irq).pulse()
    assert board.pic.acknowledge() == 0x33
    board.pic.line(3).pulse()
    assert [board.pic.acknowledge() - 0x30 for _ in range(3)] == [4, 5, 3]
    board.out(0x20, 0x00)
    assert not board.pic.master.rotate_on_auto_eoi


def test_set_priority():
    board = Board()
    board.out(0x20, 0xC5)
    board.raise_(6, 0)
    assert board.pic.acknowledge() == 0x36
    board.out(0x20, 0xE6)
    assert board.isr() == 0
    assert board.pic.master.lowest == 6


def test_poll():
    board = Board()
    board.raise_(3)
    board.out(0x20, 0x0C)
    assert board.read(0x20) == 0x83
    assert board.isr() == 0x08
    assert not board.pic.output
    board.out(0x20, 0x20)
    board.out(0x20, 0x0C)
    assert board.read(0x20) & 0x80 == 0
    assert board.read(0x21) == 0


def test_polling_the_slave_takes_its_request_back_from_the_master():
    board = Board()
    board.raise_(11)
    assert board.pic.output
    board.out(0xA0, 0x0C)
    assert board.read(0xA0) == 0x83
    assert not board.pic.output
    assert board.irr() == 0


def test_no_request_during_initialisation():
    board = Board()
    board.out(0x20, 0x11)
    board.raise_(1)
    assert not board.pic.output
    for value in (0x40, 4, 1):
        board.out(0x21, value)
    assert board.pic.acknowledge() == 0x41


def test_initialisation_without_icw4_or_cascade():
    board = Board()
    board.out(0x20, 0x12)
    board.out(0x21, 0x50)
    board.out(0x21, 0xFE)
    assert board.read(0x21) == 0xFE
    board.raise_(1)
    assert not board.pic.output
    board.out(0x21, 0)
    assert board.pic.acknowledge() == 0x51


def test_output_changes_are_reported_once():
    board = Board()
    board.raise_(3, 4)
    board.pic.acknowledge()
    board.out(0x20, 0x20)
    board.pic.acknowledge()
    board.out(0x20, 0x20)
    assert board.intr == [True, False, True, False]


ports = st.sampled_from([0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1])
actions = st.one_of(
    st.tuples(st.just("write"), ports, st.integers(0, 255)),
    st.tuples(st.just("read"), ports, st.just(0)),
    st.tuples(st.just("line"), st.sampled_from([i for i in range(16) if i != 2]), st.integers(0, 1)),
    st.tuples(st.just("ack"), st.just(0), st.just(0)),
)


@settings(max_examples=150)
@given(st.lists(actions, max_size=60))
def test_any_use_keeps_the_invariants(steps):
    board = Board(initialise=False)
    level = False
    for kind, where, value in steps:
        if kind == "write":
            board.out(where, value)
        elif kind == "read":
            assert 0 <= board.read(where) <= 0xFF
        elif kind == "line":
            board.pic.line(where).set(bool(value))
        else:
            vector = board.pic.acknowledge()
            assert vector >> 3 in (board.pic.master.base >> 3, board.pic.slave.base >> 3)
        for changed in board.intr:
            assert changed is not level
            level = changed
        board.intr.clear()
        assert level is board.pic.output
        for chip in (board.pic.master, board.pic.slave):
            assert chip.output is (chip.pending() is not None)
            assert 0 <= chip.irr <= 0xFF and 0 <= chip.isr <= 0xFF and 0 <= chip.lowest <= 7


def test_firmware_leaves_the_irqs_level_triggered_that_the_board_shares():
    pic, ports = Pic(levels=1 << 10 | 1 << 11 | 1 << 8), port_space()
    pic.attach(ports, mmio_space())
    assert ports.read(0x4D0, 2) == 0x0C00
    ports.write(0x4D1, 1, 0)
    pic.reset()
    assert ports.read(0x4D1, 1) == 0x0C
