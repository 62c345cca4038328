"""The memory map and the places that loaders choose."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.boot.e820 import RAM, memory_map
from pyhv.boot.placer import Placer
from pyhv.errors import BootError
from pyhv.memory import MMIO_GAP_END, MMIO_GAP_START, ram_ranges

MIB = 1 << 20
GIB = 1 << 30


@given(st.integers(1, 1 << 28).map(lambda pages: pages * 4096).filter(lambda size: size >= MIB))
def test_the_map_is_sorted_disjoint_and_only_ram_is_ram(size: int) -> None:
    entries = memory_map(size)
    for a, b in itertools.pairwise(entries):
        assert a.end <= b.address
    usable = sum(e.length for e in entries if e.kind == RAM)
    assert size - MIB <= usable <= size
    for e in entries:
        assert e.length > 0
        if e.kind == RAM:
            assert any(start <= e.address and e.end <= start + length for start, length in ram_ranges(size))
            assert e.end <= MMIO_GAP_START or e.address >= MMIO_GAP_END


def test_further_reservations() -> None:
    assert (0xE0000000, MIB, 2) in [(e.address, e.length, e.kind) for e in memory_map(GIB, ((0xE0000000, MIB),))]


ranges = st.lists(st.tuples(st.integers(0, 64 * MIB), st.integers(1, 16 * MIB)), max_size=6)


@given(ranges, st.integers(1, 8 * MIB), st.integers(0, 80 * MIB), st.sampled_from(["above", "below", "information"]))
def test_places_are_free_aligned_and_in_memory(taken: list[tuple[int, int]], size: int, hint: int, way: str) -> None:
    placer = Placer(64 * MIB, "kernel: 'x'")
    for start, length in taken:
        placer.take(start, start + length)
    try:
        if way == "above":
            place = placer.above(hint, size, "thing")
        elif way == "below":
            place = placer.below(hint, size, "thing")
            assert place + size <= max(hint, 0)
        else:
            place = placer.information(size, hint)
    except BootError as error:
        assert "no room for" in str(error)
        return
    assert place % 4096 == 0 and place >= MIB and place + size <= 64 * MIB
    for start, length in taken:
        assert place + size <= start or start + length <= place
    with pytest.raises(AssertionError):
        assert all(place + size <= a or b <= place for a, b in placer.taken)


@given(st.integers(0, 60 * MIB))
def test_information_shares_a_large_page_with_the_images_end_or_the_next(end: int) -> None:
    place = Placer(64 * MIB, "x").information(4096, end)
    assert place >= max(end, MIB) + (128 << 10)
    assert place // (2 * MIB) - max(end, MIB) // (2 * MIB) <= 1


def test_what_is_placed_is_taken() -> None:
    placer = Placer(64 * MIB, "x")
    first = placer.above(2 * MIB, 5000, "a")
    second = placer.above(2 * MIB, 5000, "b")
    third = placer.below(64 * MIB, 5000, "c")
    fourth = placer.below(64 * MIB, 5000, "d")
    assert (first, second) == (2 * MIB, 2 * MIB + 8192)
    assert (third, fourth) == (64 * MIB - 8192, 64 * MIB - 16384)
