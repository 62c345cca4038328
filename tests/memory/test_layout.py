"""RAM around the hole below 4 GiB."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.memory import MMIO_GAP_END, MMIO_GAP_START, ram_ranges


@given(st.integers(1, 1 << 30).map(lambda pages: pages * 4096))
def test_all_of_it_is_somewhere_and_none_in_the_hole(size: int) -> None:
    ranges = ram_ranges(size)
    assert sum(length for _, length in ranges) == size
    for address, length in ranges:
        assert length > 0 and (address + length <= MMIO_GAP_START or address >= MMIO_GAP_END)


@pytest.mark.parametrize("size", [4096, MMIO_GAP_START])
def test_small_machines_have_one_range(size: int) -> None:
    assert ram_ranges(size) == ((0, size),)


def test_large_ones_have_two() -> None:
    assert ram_ranges(MMIO_GAP_START + 4096) == ((0, MMIO_GAP_START), (MMIO_GAP_END, 4096))
