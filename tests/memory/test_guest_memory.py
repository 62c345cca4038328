"""Bounds-checked access: against a model, with arbitrary addresses, and the errors that a device may rely on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.memory import GuestMemory, MemoryRegion

RANGES = ((0x0, 0x2000), (0x2000, 0x1000), (0x8000, 0x1000), (0x1_0000_0000, 0x1000))
ROM = 0x8000


def build() -> GuestMemory:
    """RAM at 0 in two adjacent regions, ROM at 0x8000, RAM at 4 GiB."""
    memory = GuestMemory()
    for address, size in RANGES:
        memory.add(MemoryRegion(address, memoryview(bytearray(size)), name=f"{address:x}", readonly=address == ROM))
    return memory


EDGES = st.sampled_from(
    [edge + delta for base, size in RANGES for edge in (base, base + size) for delta in range(-3, 4)]
)
ADDRESSES = st.one_of(EDGES, st.integers(-(1 << 70), 1 << 70), st.integers(0, 0xA000))
LENGTHS = st.one_of(st.integers(0, 64), st.integers(-5, 1 << 66))


def inside(address: int, length: int, *, write: bool = False) -> bool:
    """What the specification of GuestMemory says, byte by byte where that is affordable."""
    if length < 0 or address < 0:
        return False
    position = address
    while position < address + length:
        for base, size in RANGES:
            if base <= position < base + size and not (write and base == ROM):
                position = base + size
                break
        else:
            return False
    return True


@given(ADDRESSES, LENGTHS)
@settings(max_examples=300)
def test_any_read_gives_bytes_or_the_one_error(address: int, length: int) -> None:
    memory = build()
    assert memory.contains(address, length) == inside(address, length)
    if inside(address, length):
        assert memory.read(address, length) == bytes(length)
    else:
        with pytest.raises(GuestMemoryError):
            memory.read(address, length)


@given(ADDRESSES, st.binary(max_size=64))
@settings(max_examples=300)
def test_any_write_is_whole_or_not_at_all(address: int, data: bytes) -> None:
    memory = build()
    if inside(address, len(data), write=True):
        memory.write(address, data)
        assert memory.read(address, len(data)) == data
        assert sum(sum(region.buffer) for region in memory.regions) == sum(data)
    else:
        with pytest.raises(GuestMemoryError):
            memory.write(address, data)
        assert not any(any(region.buffer) for region in memory.regions)


@given(ADDRESSES, st.sampled_from([1, 2, 4, 8]), st.integers(-(1 << 70), 1 << 70))
@settings(max_examples=100)
def test_integers_keep_their_low_bits(address: int, size: int, value: int) -> None:
    memory = build()
    if inside(address, size, write=True):
        memory.write_uint(address, size, value)
        assert memory.read_uint(address, size) == value & (1 << 8 * size) - 1
    else:
        with pytest.raises(GuestMemoryError):
            memory.write_uint(address, size, value)


@given(ADDRESSES, st.integers(0, 5000), st.binary(min_size=0, max_size=300))
@settings(max_examples=100)
def test_strings_stop_at_a_nul_the_limit_or_the_end(address: int, limit: int, text: bytes) -> None:
    memory = build()
    memory.load(0x2F00, b"\xff" * 0x100)
    if inside(address, len(text), write=True):
        memory.write(address, text)
    found = memory.read_cstring(address, limit)
    assert len(found) <= limit and 0 not in found


def test_views_are_zero_copy_and_in_segments() -> None:
    memory = build()
    first, second = memory.view(0x1FFE, 4, write=True)
    first[:], second[:] = b"ab", b"cd"
    assert memory.read(0x1FFE, 4) == b"abcd"
    assert memory.view(0x1000, 0) == []


@given(st.lists(st.tuples(ADDRESSES, LENGTHS), max_size=6), st.booleans())
@settings(max_examples=300)
def test_views_of_many_ranges_are_those_of_each(ranges: list[tuple[int, int]], write: bool) -> None:
    memory = build()
    heard: list[tuple[int, int]] = []
    memory.observe_writes(lambda address, length: heard.append((address, length)))
    for address, length in ranges:
        assert memory.contains(address, length, write=write) == inside(address, length, write=write)
    if all(inside(address, length, write=write) for address, length in ranges):
        views = memory.views(ranges, write=write)
        assert heard == (ranges if write else [])
        single = [view for address, length in ranges for view in memory.view(address, length)]
        assert [len(view) for view in views] == [len(view) for view in single]
        for number, view in enumerate(views):
            if write:
                view[0] = number + 1
                assert single[number][0] == number + 1
    else:
        with pytest.raises(GuestMemoryError):
            memory.views(ranges, write=write)


def test_the_version_says_when_kept_views_are_stale() -> None:
    memory = build()
    before = memory.version
    memory.write(0, b"x")
    memory.view(0, 4, write=True)
    assert memory.version == before
    region = memory.regions[0]
    memory.remove(region)
    after = memory.version
    assert after != before
    memory.add(region)
    assert memory.version not in (before, after)


def test_rom_takes_a_load_but_no_write() -> None:
    memory = build()
    memory.load(ROM, b"BIOS")
    assert memory.read(ROM, 4) == b"BIOS"
    for attempt in (
        lambda: memory.write(ROM, b"x"),
        lambda: memory.fill(ROM, 1),
        lambda: memory.view(ROM, 1, write=True),
    ):
        with pytest.raises(GuestMemoryError):
            attempt()


def test_fill() -> None:
    memory = build()
    memory.fill(0x1FFF, 3, 0x41)
    assert memory.read(0x1FFE, 5) == b"\0AAA\0"


def test_observers_hear_of_writes_and_of_nothing_else() -> None:
    memory = build()
    heard: list[tuple[int, int]] = []
    memory.observe_writes(lambda address, length: heard.append((address, length)))
    memory.write(0x10, b"abc")
    memory.load(ROM, b"x")
    memory.fill(0x20, 4)
    memory.view(0x30, 8, write=True)
    memory.read(0x10, 3)
    memory.view(0x30, 8)
    memory.announce(0x40, 2)
    with pytest.raises(GuestMemoryError):
        memory.write(0x7FFF, b"ab")
    assert heard == [(0x10, 3), (ROM, 1), (0x20, 4), (0x30, 8), (0x40, 2)]


def test_data_in_larger_items_counts_in_bytes() -> None:
    memory = build()
    memory.write(0, memoryview(b"\x01\0\0\0\x02\0\0\0").cast("I"))
    assert memory.read(0, 8) == b"\x01\0\0\0\x02\0\0\0"


@pytest.mark.parametrize(("address", "size"), [(0, 0x1000), (0x2FFF, 1), (0x7000, 0x1001), (0x7000, 0x4000)])
def test_overlaps_are_refused(address: int, size: int) -> None:
    memory = build()
    with pytest.raises(ConfigError, match="overlaps"):
        memory.add(MemoryRegion(address, memoryview(bytearray(size))))


def test_a_region_that_was_removed_is_gone() -> None:
    memory = build()
    memory.remove(memory.regions[1])
    assert memory.size == 0x2000 + 0x1000
    assert not memory.contains(0x2000, 1) and memory.contains(0x8000, 1)


def test_the_error_names_the_range() -> None:
    with pytest.raises(GuestMemoryError, match=r"\[0x5000, 0x5010\)") as caught:
        build().read(0x5000, 16)
    assert (caught.value.address, caught.value.length) == (0x5000, 16)
