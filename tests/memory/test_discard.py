"""Guest memory given back to the host: whole pages within a range, and nothing else."""

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.memory import GuestMemory, MemoryBacking, MemoryRegion, allocate
from pyhv.memory.discard import discard, runs

MIB = 1 << 20
BASE = 0x1000_0000


def blocks(region: MemoryRegion) -> int:
    """Bytes of host memory behind a region."""
    return os.fstat(region.fd).st_blocks * 512


@pytest.fixture
def memory() -> GuestMemory:
    memory = GuestMemory()
    memory.add(allocate(BASE, MIB, MemoryBacking()))
    memory.fill(BASE, MIB, 0x55)
    return memory


def test_pages_go_back_to_the_host_and_read_as_zeros(memory: GuestMemory) -> None:
    [region] = memory.regions
    assert blocks(region) == MIB
    assert discard(memory, BASE + 0x2000, 0x3000) == 0x3000
    assert blocks(region) == MIB - 0x3000
    assert memory.read(BASE + 0x1FFF, 2) == b"\x55\0" and memory.read(BASE + 0x4FFF, 2) == b"\0\x55"


def test_only_whole_pages_within_go(memory: GuestMemory) -> None:
    assert discard(memory, BASE + 1, 0x1FFE) == 0
    assert discard(memory, BASE + 0xFFF, 0x1002) == 0x1000
    assert memory.read(BASE + 0xFFF, 1) == memory.read(BASE + 0x2000, 1) == b"\x55"
    assert memory.read(BASE + 0x1000, 0x1000) == bytes(0x1000)


def test_observers_hear_of_it(memory: GuestMemory) -> None:
    heard: list[tuple[int, int]] = []
    memory.observe_writes(lambda address, length: heard.append((address, length)))
    discard(memory, BASE - 0x5000, 0x6800)
    discard(memory, BASE + 0x10, 0x10)
    assert heard == [(BASE, 0x1000)]


def test_large_pages_go_as_a_whole() -> None:
    """Without a pool of huge pages on this host: a region that says that its pages are large."""
    gone: list[tuple[int, int]] = []

    def take(offset: int, size: int) -> bool:
        gone.append((offset, size))
        return True

    region = MemoryRegion(BASE, memoryview(bytearray(8 * MIB)), page_size=2 * MIB, discard=take)
    memory = GuestMemory()
    memory.add(region)
    assert discard(memory, BASE + 0x1000, 6 * MIB) == 4 * MIB
    assert discard(memory, BASE, 2 * MIB - 1) == 0
    assert gone == [(2 * MIB, 4 * MIB)]


def test_what_cannot_be_given_back_is_left_alone(memory: GuestMemory) -> None:
    memory.add(MemoryRegion(BASE + MIB, memoryview(bytearray(b"\x55" * 0x2000))))  # nobody takes it
    rom = allocate(BASE + 2 * MIB, 0x2000, MemoryBacking(), readonly=True)
    memory.add(rom)
    refused = MemoryRegion(BASE + 3 * MIB, memoryview(bytearray(0x2000)), discard=lambda offset, size: False)
    memory.add(refused)
    assert discard(memory, BASE + MIB, 4 * MIB) == 0
    assert memory.read(BASE + MIB, 4) == b"\x55" * 4
    assert discard(memory, 0, 1 << 52) == MIB


@given(st.integers(-0x3000, 0x9000), st.integers(0, 0x9000))
def test_no_byte_outside_is_touched(offset: int, length: int) -> None:
    memory = GuestMemory()
    size = 0x6000
    memory.add(allocate(BASE, size, MemoryBacking()))
    memory.fill(BASE, size, 0x55)
    given_back = discard(memory, BASE + offset, length)
    first, last = max(0, offset), min(size, offset + length)
    expected = bytearray(b"\x55" * size)
    start, stop = -(-first // 0x1000) * 0x1000, last // 0x1000 * 0x1000
    if start < stop:
        expected[start:stop] = bytes(stop - start)
    assert memory.read(BASE, size) == expected
    assert given_back == max(0, stop - start)
    memory.regions[0].close()


@given(st.lists(st.integers(0, 60)))
def test_runs_hold_every_number_once(numbers: list[int]) -> None:
    found = list(runs(numbers))
    flat = [n for first, count in found for n in range(first, first + count)]
    assert flat == sorted(set(numbers))
    assert all(a + n < b for (a, n), (b, _) in pairwise(found))
