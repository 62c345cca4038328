"""The I/O APIC, against the 82093AA data sheet and what operating systems rely on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.bus import mmio_space, port_space
from pyhv.chipset.ioapic import IoApic
from pyhv.errors import ConfigError
from pyhv.irq import Msi

BASE = 0xFEC0_0000
MASKED, LEVEL, LOW_ACTIVE, REMOTE_IRR, LOGICAL = 1 << 16, 1 << 15, 1 << 13, 1 << 14, 1 << 11


class Board:
    """An I/O APIC on a bus, with what it sent and how often its routes changed."""

    def __init__(self) -> None:
        self.sent: list[Msi] = []
        self.changes = 0
        self.ioapic = IoApic(deliver=self.sent.append, on_routes_changed=self._changed)
        self.mmio = mmio_space()
        self.ioapic.attach(port_space(), self.mmio)

    def _changed(self) -> None:
        self.changes += 1

    def write(self, register: int, value: int) -> None:
        self.mmio.write(BASE, 4, register)
        self.mmio.write(BASE + 0x10, 4, value)

    def read(self, register: int) -> int:
        self.mmio.write(BASE, 4, register)
        return self.mmio.read(BASE + 0x10, 4)

    def entry(self, pin: int, low: int, destination: int = 0) -> None:
        self.write(0x11 + 2 * pin, destination << 24)
        self.write(0x10 + 2 * pin, low)

    def low(self, pin: int) -> int:
        return self.read(0x10 + 2 * pin)

    def set(self, pin: int, level: int) -> None:
        self.ioapic.line(pin).set(bool(level))

    def vectors(self) -> list[int]:
        return [msi.data & 0xFF for msi in self.sent]


def test_registers_after_reset():
    board = Board()
    assert board.read(0) == 0
    assert board.read(1) == 0x0017_0020
    assert [board.read(0x10 + i) for i in range(48)] == [MASKED, 0] * 24
    assert board.read(0x40) == 0
    assert board.read(0xFF) == 0


def test_id_is_four_bits_and_arbitration_follows_it():
    board = Board()
    board.write(0, 0xFFFF_FFFF)
    assert board.read(0) == 0x0F00_0000
    assert board.read(2) == 0x0F00_0000
    board.write(1, 0xFFFF_FFFF)
    assert board.read(1) == 0x0017_0020


def test_status_bits_are_read_only():
    board = Board()
    board.write(0x10, 0xFFFF_FFFF)
    board.write(0x11, 0xFFFF_FFFF)
    assert board.read(0x10) == 0x0001_AFFF
    assert board.read(0x11) == 0xFF00_0000


def test_no_such_pin():
    for pin in (-1, 24):
        with pytest.raises(ConfigError):
            Board().ioapic.line(pin)


@pytest.mark.parametrize(
    ("low", "destination", "address", "data"),
    [
        (0x31, 0, 0xFEE0_0000, 0x31),
        (0x31, 3, 0xFEE0_3000, 0x31),
        (0x31 | LOGICAL, 0xFF, 0xFEEF_F004, 0x31),
        (0x131 | LOGICAL, 3, 0xFEE0_300C, 0x131),
        (0x131, 3, 0xFEE0_3000, 0x131),
        (0x31 | LEVEL, 1, 0xFEE0_1000, 0xC031),
        (0x31 | LEVEL | LOW_ACTIVE, 1, 0xFEE0_1000, 0xC031),
        (0x200, 0, 0xFEE0_0000, 0x200),
        (0x400 | LEVEL, 0, 0xFEE0_0000, 0x400),
        (0x500, 0, 0xFEE0_0000, 0x500),
        (0x700, 0, 0xFEE0_0000, 0x700),
    ],
)
def test_messages(low, destination, address, data):
    board = Board()
    board.entry(5, low, destination)
    board.set(5, 1)
    assert board.sent == [Msi(address, data)]


@pytest.mark.parametrize("mode", [3, 6])
def test_reserved_delivery_modes_send_nothing(mode):
    board = Board()
    board.entry(5, 0x31 | mode << 8)
    board.set(5, 1)
    assert board.sent == []


def test_an_edge_interrupts_once():
    board = Board()
    board.entry(14, 0x78)
    board.set(14, 1)
    assert board.vectors() == [0x78]
    board.ioapic.eoi(0x78)
    board.set(14, 0)
    board.set(14, 1)
    assert board.vectors() == [0x78, 0x78]
    assert board.low(14) == 0x78


def test_edges_at_a_masked_input_are_lost():
    board = Board()
    board.entry(14, 0x81 | MASKED)
    board.set(14, 1)
    board.entry(14, 0x81)
    assert board.sent == []
    board.set(14, 0)
    board.set(14, 1)
    assert board.vectors() == [0x81]


def test_a_level_waits_for_the_unmasking():
    board = Board()
    board.entry(14, 0x82 | MASKED | LEVEL)
    board.set(14, 1)
    assert board.sent == []
    board.entry(14, 0x82 | LEVEL)
    assert board.vectors() == [0x82]


def test_a_level_that_fell_while_masked_is_forgotten():
    board = Board()
    board.entry(14, 0x82 | MASKED | LEVEL)
    board.set(14, 1)
    board.set(14, 0)
    board.entry(14, 0x82 | LEVEL)
    assert board.sent == []


def test_a_level_is_sent_once_until_its_eoi_then_again():
    board = Board()
    board.entry(14, 0x98 | LEVEL)
    board.set(14, 1)
    assert board.low(14) & REMOTE_IRR
    board.set(14, 0)
    board.set(14, 1)
    assert board.vectors() == [0x98]
    board.ioapic.eoi(0x97)
    assert board.vectors() == [0x98]
    board.ioapic.eoi(0x98)
    assert board.vectors() == [0x98, 0x98]
    board.set(14, 0)
    board.ioapic.eoi(0x98)
    assert board.vectors() == [0x98, 0x98]
    assert not board.low(14) & REMOTE_IRR


def test_a_masked_level_is_retriggered_by_the_unmasking_after_its_eoi():
    board = Board()
    board.entry(14, 0x99 | LEVEL)
    board.set(14, 1)
    board.entry(14, 0x99 | LEVEL | MASKED)
    board.ioapic.eoi(0x99)
    assert board.vectors() == [0x99]
    board.entry(14, 0x99 | LEVEL)
    assert board.vectors() == [0x99, 0x99]


def test_an_entry_moved_to_another_processor_in_its_own_handler():
    board = Board()
    board.entry(14, 0x84 | LEVEL, 0)
    board.set(14, 1)
    board.set(14, 0)
    board.write(0x11 + 28, 1 << 24)
    assert board.low(14) & REMOTE_IRR
    board.ioapic.eoi(0x84)
    assert not board.low(14) & REMOTE_IRR
    board.set(14, 1)
    assert board.sent[-1] == Msi(0xFEE0_1000, 0xC084)


def test_making_an_entry_edge_triggered_for_a_while_ends_its_interrupt():
    board = Board()
    board.entry(9, 0x84 | LEVEL)
    board.set(9, 1)
    board.entry(9, 0x84 | MASKED)
    assert board.low(9) == 0x84 | MASKED
    board.entry(9, 0x84 | LEVEL)
    assert board.vectors() == [0x84, 0x84]


def test_the_eoi_register():
    board = Board()
    board.entry(16, 0x55 | LEVEL)
    board.set(16, 1)
    board.mmio.write(BASE + 0x40, 4, 0x55)
    assert board.vectors() == [0x55, 0x55]


def test_an_eoi_reaches_every_pin_of_that_vector():
    board = Board()
    for pin in (16, 17):
        board.entry(pin, 0x55 | LEVEL)
        board.set(pin, 1)
        board.set(pin, 0)
    board.ioapic.eoi(0x55)
    assert not (board.low(16) | board.low(17)) & REMOTE_IRR


def test_routes_hold_the_level_triggered_messages():
    board = Board()
    assert board.ioapic.routes() == {}
    board.entry(3, 0x33)
    board.entry(4, 0x34 | LEVEL, 2)
    board.entry(5, 0x35 | LEVEL | MASKED)
    board.entry(6, 0x436 | LEVEL)
    assert board.ioapic.routes() == {4: Msi(0xFEE0_2000, 0xC034)}
    assert board.changes == 1


def test_routes_change_only_when_it_matters():
    board = Board()
    board.entry(4, 0x34 | LEVEL, 2)
    for _ in range(3):
        board.entry(4, 0x34 | LEVEL | MASKED, 2)
        board.set(4, 1)
        board.entry(4, 0x34 | LEVEL, 2)
        board.ioapic.eoi(0x34)
        board.set(4, 0)
    assert board.changes == 1
    board.write(0x11 + 8, 3 << 24)
    assert board.changes == 2
    board.write(0x10 + 8, MASKED)
    assert board.ioapic.routes() == {}
    assert board.changes == 3


def test_routes_are_known_before_the_message_leaves():
    order = []
    ioapic = IoApic(deliver=lambda msi: order.append("message"), on_routes_changed=lambda: order.append("routes"))
    ioapic.line(7).set(True)
    ioapic.write(0, 4, 0x10 + 14)
    ioapic.write(0x10, 4, 0x60 | LEVEL)
    assert order == ["routes", "message"]


def test_reset_masks_and_forgets_routes():
    board = Board()
    board.write(0, 0x0500_0000)
    board.entry(4, 0x34 | LEVEL)
    board.ioapic.reset()
    assert board.read(0) == 0
    assert board.low(4) == MASKED
    assert board.ioapic.routes() == {}
    assert board.changes == 2


def test_narrow_and_wide_accesses():
    board = Board()
    board.mmio.write(BASE, 1, 0x11)
    board.mmio.write(BASE + 0x13, 1, 0x07)
    assert board.mmio.read(BASE + 0x10, 4) == 0x0700_0000
    assert board.mmio.read(BASE + 0x13, 1) == 0x07
    assert board.mmio.read(BASE + 0x12, 2) == 0x0700
    board.mmio.write(BASE, 4, 0x10)
    board.mmio.write(BASE + 0x10, 8, 0xFFFF_FFFF_0001_0044)
    assert board.mmio.read(BASE + 0x10, 8) == 0x0001_0044
    assert board.mmio.read(BASE + 0x110, 4) == 0x0001_0044


steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 0x10, 0x40, 0x11, 0x12, 0x44, 0x110]), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("entry"), st.integers(0, 23), st.integers(0, 2**18 - 1)),
    st.tuples(st.just("read"), st.integers(0, 0xFFF), st.just(0)),
    st.tuples(st.just("line"), st.integers(0, 23), st.integers(0, 1)),
    st.tuples(st.just("eoi"), st.integers(0, 255), st.just(0)),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(steps, st.sampled_from([1, 2, 4, 8])), max_size=60))
def test_any_use_keeps_the_invariants(actions):
    board = Board()
    for (kind, where, value), size in actions:
        before, changes = board.ioapic.routes(), board.changes
        if kind == "write":
            board.mmio.write(BASE + where, size, value)
        elif kind == "entry":
            board.entry(where, value)
        elif kind == "read":
            assert 0 <= board.mmio.read(BASE + where, size) < 1 << 8 * size
        elif kind == "line":
            board.set(where, value)
        else:
            board.ioapic.eoi(where)
        assert (board.ioapic.routes() == before) or board.changes > changes
        for pin, entry in enumerate(board.ioapic.entries):
            assert 0 <= entry < 1 << 64
            if entry & REMOTE_IRR:
                assert entry & LEVEL
                assert entry & 0xFF < 0x10 or pin in board.ioapic.routes()
            elif entry & LEVEL and not entry & MASKED and entry >> 8 & 7 < 2:
                assert not board.ioapic.line(pin).level
    for msi in board.sent:
        assert 0xFEE0_0000 <= msi.address <= 0xFEEF_FFFF and 0 <= msi.data <= 0xFFFF
