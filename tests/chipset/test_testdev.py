"""QEMU's pc-testdev, and the MSI ports that pyhv adds."""

import pytest
from chipset_fakes import Spaces, Wire
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.chipset.bochs_console import BochsConsole
from pyhv.chipset.testdev import TestDevice
from pyhv.irq import InterruptLine, Msi

SCRATCH = 0xFF00_0000


class Board(Spaces):
    def __init__(self) -> None:
        self.wires: dict[int, Wire] = {}
        self.messages: list[Msi] = []
        self.device = TestDevice(line=self.line, send_msi=self.messages.append)
        super().__init__(self.device, BochsConsole(output=lambda data: None))

    def line(self, number: int) -> InterruptLine:
        assert number not in self.wires
        self.wires[number] = Wire()
        return self.wires[number].line


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.mark.parametrize(("size", "port"), [(1, 0xE0), (1, 0xE3), (2, 0xE0), (2, 0xE1), (2, 0xE2), (4, 0xE0)])
def test_latch_takes_any_width_and_keeps_the_rest(board, size, port):
    board.out(0xE0, 0x4433_2211, 4)
    value = 0xDDCC_BBAA & ((1 << (8 * size)) - 1)
    board.out(port, value, size)
    assert board.inp(port, size) == value
    expected = bytearray(b"\x11\x22\x33\x44")
    expected[port - 0xE0 : port - 0xE0 + size] = value.to_bytes(size, "little")
    assert board.inp(0xE0, 4) == int.from_bytes(expected, "little")


def test_byte_latch_is_the_same_latch(board):
    board.out(0xE0, 0x4433_2211, 4)
    assert [board.inp(port) for port in (0xE8, 0xE9, 0xEA, 0xEB)] == [0x11, 0xE9, 0x33, 0x44]
    board.out(0xEA, 0x6655, 2)
    assert board.inp(0xE0, 4) == 0x6655_2211


def test_flush_is_swallowed(board):
    board.out(0xE4, 0x1234_5000, 4)
    assert not board.ports.unclaimed


@pytest.mark.parametrize("line", [0, 5, 15, 23])
def test_lines_follow_the_value_written(board, line):
    board.out(0x2000 + line, 1)
    assert board.wires[line].level
    assert board.inp(0x2000 + line) == 1
    board.out(0x2000 + line, 0x80)
    assert board.wires[line].changes == [True]
    board.out(0x2000 + line, 0)
    assert board.wires[line].changes == [True, False]
    assert set(board.wires) == {line}


def test_there_is_no_line_24(board):
    board.out(0x2018, 1)
    assert not board.wires
    assert board.ports.unclaimed[0x2018] == 1


def test_a_message_is_sent_by_writing_its_data(board):
    board.out(0x2080, 0xFEE0_1004, 4)
    assert board.inp(0x2080, 4) == 0xFEE0_1004
    assert not board.messages
    board.out(0x2084, 0x4031, 4)
    board.out(0x2084, 0x32, 4)
    assert board.messages == [Msi(0xFEE0_1004, 0x4031), Msi(0xFEE0_1004, 0x32)]
    assert board.inp(0x2084, 4) == 0x32


def test_scratch_memory_is_64_kib(board):
    assert board.mmio.read(SCRATCH + 8, 8) == 0
    board.mmio.write(SCRATCH + 0xFFF8, 8, 0x1122_3344_5566_7788)
    assert board.mmio.read(SCRATCH + 0xFFFC, 4) == 0x1122_3344
    board.mmio.write(SCRATCH + 0xFFFE, 1, 0xAA)
    assert board.mmio.read(SCRATCH + 0xFFF8, 8) == 0x11AA_3344_5566_7788
    board.mmio.write(SCRATCH + 0xFFFF, 2, 0xBBCC)
    assert board.mmio.read(SCRATCH + 0xFFFF, 1) == 0xCC
    assert board.mmio.read(SCRATCH + 0x1_0000, 1) == 0xFF


def test_reset_forgets(board):
    board.out(0xE0, 1)
    board.out(0x2003, 1)
    board.out(0x2080, 1, 4)
    board.mmio.write(SCRATCH, 4, 1)
    board.device.reset()
    assert (board.inp(0xE0), board.inp(0x2003), board.inp(0x2080, 4), board.mmio.read(SCRATCH, 4)) == (0, 0, 0, 0)
    assert not board.wires[3].level


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0xE0, 0xEC) | st.integers(0x1FFE, 0x201A) | st.integers(0x207E, 0x2088),
            st.sampled_from((1, 2, 4)),
            st.none() | st.integers(0, 0xFFFF_FFFF),
        ),
        max_size=40,
    ),
    st.lists(
        st.tuples(st.integers(-8, 0x1_0008), st.integers(1, 8), st.none() | st.integers(0, 2**64 - 1)), max_size=20
    ),
)
def test_nothing_a_guest_does_raises(port_accesses, memory_accesses):
    board = Board()
    for port, size, value in port_accesses:
        if value is None:
            assert 0 <= board.inp(port, size) < 1 << (8 * size)
        else:
            board.out(port, value & ((1 << (8 * size)) - 1), size)
    for offset, size, value in memory_accesses:
        if value is None:
            assert 0 <= board.mmio.read(SCRATCH + offset, size) < 1 << (8 * size)
        else:
            board.mmio.write(SCRATCH + offset, size, value & ((1 << (8 * size)) - 1))
    assert 0 <= board.inp(0xE0, 4) <= 0xFFFF_FFFF
    assert all(0 <= message.data <= 0xFFFF_FFFF for message in board.messages)
    assert set(board.wires) <= set(range(24))
