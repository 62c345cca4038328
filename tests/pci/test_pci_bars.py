"""Ranges: sizes, places, moves, and what happens where they cannot be."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pci_rig import BAR, IO, MEMORY, RAM, Registers, Rig, function

from pyhv.bus import Deferred
from pyhv.pci import BarKind, PciFunction

ONES = 0xFFFF_FFFF
HIGH = 0x3_0000_0000


def with_ranges() -> tuple[PciFunction, Registers, Registers, Registers]:
    """32 bits at register 0, 64 bits at 2 and 3, ports at 4."""
    device = function()
    low, wide, ports = Registers(), Registers(), Registers()
    device.add_bar(0, 0x1000, low, moved=low.moves.append)
    device.add_bar(2, 0x10_0000, wide, kind=BarKind.MEMORY64, prefetchable=True, width=8, moved=wide.moves.append)
    device.add_bar(4, 0x20, ports, kind=BarKind.IO, moved=ports.moves.append)
    return device, low, wide, ports


def test_sizing_by_all_ones():
    rig = Rig(with_ranges()[0])
    for register in range(6):
        rig.write(1, BAR + 4 * register, ONES)
    found = [rig.read(1, BAR + 4 * register) for register in range(6)]
    assert found == [0xFFFF_F000, 0, 0xFFF0_000C, ONES, 0xFFFF_FFE1, 0]


def test_a_range_of_4_gib_is_sized_by_its_upper_half():
    device = function()
    device.add_bar(0, 1 << 33, Registers(), kind=BarKind.MEMORY64)
    rig = Rig(device)
    for register in range(2):
        rig.write(1, BAR + 4 * register, ONES)
    assert [rig.read(1, BAR + 4 * register) for register in range(2)] == [4, 0xFFFF_FFFE]


def test_a_range_answers_where_it_is_put_while_its_decoding_is_on():
    device, low, wide, ports = with_ranges()
    rig = Rig(device)
    rig.write(1, BAR, 0xE200_0000)
    rig.write(1, BAR + 8, HIGH & ONES)
    rig.write(1, BAR + 12, HIGH >> 32)
    rig.write(1, BAR + 16, 0xC100)
    assert rig.mmio.find(0xE200_0000) is None and rig.ports.find(0xC100) is None
    rig.command(1, MEMORY)
    assert rig.mmio.read(0xE200_0010, 4) == 0x10
    assert rig.mmio.read(HIGH + 0x8_0008, 8) == 0x8_0008
    assert rig.ports.find(0xC100) is None
    rig.command(1, MEMORY | IO)
    rig.ports.write(0xC11F, 1, 0x5A)
    assert ports.seen == [(0x1F, 1, 0x5A)]
    rig.command(1, 0)
    assert rig.mmio.find(0xE200_0000) is None and rig.ports.find(0xC100) is None
    assert (low.moves, wide.moves, ports.moves) == ([0xE200_0000, None], [HIGH, None], [0xC100, None])


def test_a_range_moves_while_it_answers():
    device, low, wide, _ = with_ranges()
    rig = Rig(device)
    rig.command(1, MEMORY)
    rig.write(1, BAR, 0xE200_0000)
    rig.write(1, BAR, 0xE300_0000)
    assert rig.mmio.find(0xE200_0000) is None and rig.mmio.read(0xE300_0000, 4) == 0
    rig.write(1, BAR + 1, 0x10, 1)
    assert rig.mmio.read(0xE300_1000, 4) == 0
    assert low.moves == [0xE200_0000, None, 0xE300_0000, None, 0xE300_1000]
    rig.write(1, BAR + 8, 0xE400_0000)
    rig.write(1, BAR + 12, 3)
    assert wide.moves == [0xE400_0000, None, 0x3_E400_0000]


@pytest.mark.parametrize(
    "address", [0, RAM - 0x1000, 0xFEE0_0000, 0xFEE0_F000, 0xFEFF_D000, 0xFEC0_0000, 0xE000_0000, 0xFFFF_F000]
)
def test_what_is_fixed_wins(address):
    device, low, _, _ = with_ranges()
    rig = Rig()
    rig.bus.add(device)
    fixed = Registers()
    rig.mmio.map(0xFEC0_0000, 0x1000, fixed, "ioapic")
    rig.mmio.defer(0xFFFF_F000, 0x1000, Deferred("firmware", lambda: None))
    rig.command(1, MEMORY)
    low.moves.clear()
    rig.write(1, BAR, address)
    assert low.moves == []
    rig.write(1, BAR, 0xE200_0000)
    assert low.moves == [0xE200_0000]
    assert rig.mmio.read(0xFEC0_0010, 4) == 0x10 and rig.read(1, 0) == 0x5678_1234


def test_ports_of_devices_win():
    device, *_, ports = with_ranges()
    rig = Rig(device)
    rig.command(1, IO)
    ports.moves.clear()
    rig.write(1, BAR + 16, 0xCE0)
    assert ports.moves == [None] and rig.ports.read(0xCF8, 4) == 0
    rig.write(1, BAR + 16, 0xFFE0)
    assert ports.moves == [None, 0xFFE0]
    rig.write(1, BAR + 16, 0x1_0000)
    assert ports.moves == [None, 0xFFE0, None]


def test_of_two_that_overlap_the_first_answers_until_it_goes():
    first, low, _, _ = with_ranges()
    second, below, _, _ = with_ranges()
    rig = Rig(first, second)
    for slot in (2, 1):
        rig.command(slot, MEMORY)
        rig.write(slot, BAR, 0xE200_0000)
    assert (low.moves, below.moves) == ([0xE200_0000], [0xE200_0000, None])
    rig.write(1, BAR, 0xE200_1000)
    assert below.moves == [0xE200_0000, None, 0xE200_0000]
    rig.write(1, BAR, 0xE200_0000)
    rig.command(1, 0)
    assert below.moves[-1] == 0xE200_0000
    rig.mmio.write(0xE200_0000, 4, 1)
    assert below.seen == [(0, 4, 1)] and low.seen == []


def test_a_loser_in_the_chain_does_not_keep_others_away():
    """A (first) is over B, B over C: while A answers, B does not, so C does."""
    devices = [function() for _ in range(3)]
    ranges = [Registers() for _ in range(3)]
    for device, registers, size in zip(devices, ranges, (0x1000, 0x4000, 0x1000), strict=True):
        device.add_bar(0, size, registers, moved=registers.moves.append)
    rig = Rig(*devices)
    for slot, address in ((3, 0xE200_3000), (2, 0xE200_0000), (1, 0xE200_0000)):
        rig.write(slot, BAR, address)
        rig.command(slot, MEMORY)
    assert ranges[2].moves == [0xE200_3000, None, 0xE200_3000]
    assert ranges[1].moves == [0xE200_0000, None]
    assert ranges[0].moves == [0xE200_0000]


@pytest.mark.parametrize("high", [0x0010_0000, 0x8000_0000, ONES])
def test_addresses_that_no_processor_has(high):
    device, _, wide, _ = with_ranges()
    rig = Rig(device)
    rig.command(1, MEMORY)
    rig.write(1, BAR + 8, 0xE400_0000)
    rig.write(1, BAR + 12, high)
    assert wide.moves == [0xE400_0000, None]


def test_a_reset_takes_ranges_away():
    device, low, _, _ = with_ranges()
    rig = Rig(device)
    rig.bus.assign()
    assert len(low.moves) == 1
    rig.bus.reset()
    assert low.moves[1:] == [None]
    assert rig.read(1, BAR) == 0


def test_firmware_places_ranges_in_the_windows_apart_and_switches_them_on():
    rig = Rig(*(with_ranges()[0] for _ in range(31)))
    rig.mmio.map(0xE100_0000, 0x1000, Registers(), "in the way")
    rig.ports.map(0xC000, 8, Registers(), "in the way")
    rig.bus.assign()
    spans = []
    for slot in range(1, 32):
        assert rig.read(slot, 4, 2) == MEMORY | IO
        low, wide, ports = rig.read(slot, BAR), rig.read(slot, BAR + 8), rig.read(slot, BAR + 16)
        assert rig.read(slot, BAR + 12) == 0
        assert (low & 0xF, wide & 0xF, ports & 3) == (0, 0xC, 1)
        assert 0xC000 < ports - 1 <= 0xFFE0
        spans += [(ports - 1, 0x20), (low, 0x1000), (wide & ~0xF, 0x10_0000)]
    spans.sort()
    assert all(a + size <= b for (a, size), (b, _) in pairwise(spans))
    memory = [span for span in spans if span[0] > 0xFFFF]
    assert memory[0][0] >= 0xE100_1000 and sum(memory[-1]) <= 0xFE00_0000


def test_large_ranges_go_above_memory():
    device = function()
    device.add_bar(0, 1 << 30, Registers(), kind=BarKind.MEMORY64)
    rig = Rig(device)
    rig.bus.assign()
    assert (rig.read(1, BAR), rig.read(1, BAR + 4)) == (4, 1)


def test_what_finds_no_room_stays_off():
    device, small = function(), function()
    device.add_bar(0, 1 << 30, Registers())
    device.add_bar(1, 0x1000, Registers())
    small.add_bar(0, 0x1000, Registers())
    rig = Rig(device, small)
    rig.bus.assign()
    assert rig.read(1, 4, 2) == 0 and rig.read(1, BAR) == 0
    assert rig.read(2, 4, 2) == MEMORY


INTERESTING = (0, RAM, 0xE100_0000, 0xE100_1000, 0xE110_0000, 0xFEE0_0000, 0xFFFF_F000, 0xC000, 0xC020, 0xCF0, ONES, 1)
STEP = st.one_of(
    st.tuples(
        st.integers(1, 3),
        st.integers(0, 5).map(lambda register: BAR + 4 * register),
        st.sampled_from((1, 2, 4)),
        st.sampled_from(INTERESTING) | st.integers(0, ONES),
    ),
    st.tuples(st.integers(1, 3), st.just(4), st.just(2), st.integers(0, 7)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(STEP, max_size=40))
def test_claims_never_overlap_and_are_where_software_said(steps):
    devices = [with_ranges() for _ in range(3)]
    rig = Rig(*(device[0] for device in devices))
    rig.mmio.map(0xFEC0_0000, 0x1000, Registers(), "ioapic")
    fixed = {m.name for space in (rig.mmio, rig.ports) for m in space.mappings}
    for slot, register, size, value in steps:
        rig.write(slot, register, value & (1 << 8 * size) - 1, size)
        for space in (rig.mmio, rig.ports):
            claims = space.mappings
            assert all(a.end <= b.base for a, b in pairwise(claims))
        for mapping in rig.mmio.mappings:
            assert mapping.name in fixed or mapping.base >= RAM
    assert {m.name for space in (rig.mmio, rig.ports) for m in space.mappings} >= fixed
    for number, (device, *ranges) in enumerate(devices, 1):
        for bar, registers in zip(device.bars.values(), ranges, strict=True):
            on = rig.read(number, 4, 2) & (IO if bar.is_io else MEMORY)
            low = rig.read(number, BAR + 4 * bar.index) & (~3 if bar.is_io else ~15)
            address = low | rig.read(number, BAR + 4 * bar.index + 4) << 32 if bar.is_wide else low
            last = registers.moves[-1] if registers.moves else None
            assert last in (None, address if on else None)
            assert (bar.mapping.base if bar.mapping else None) == last
