"""The simulated host's memory: frames, places for guest memory, nested page tables."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.errors import CapabilityMissing, ConfigError, HostError
from pyhv.hv.sim.frames import KERNEL, PAGE_1G, PAGE_2M, WINDOW, HostMemory
from pyhv.hv.sim.npt import DIRTY, LARGE, WRITABLE, NestedTables
from pyhv.memory import MemoryBacking

PAGE = 4096


@pytest.fixture
def host() -> Iterator[HostMemory]:
    memory = HostMemory()
    yield memory
    memory.close()


def allocate(host: HostMemory, address: int, size: int, hugepages: str = "none") -> int:
    """The host physical address of fresh guest memory."""
    region = host.allocate(address, size, MemoryBacking(hugepages), name="ram", readonly=False)
    return host.physical(region)


def test_frames_are_zero_and_apart(host: HostMemory) -> None:
    first, second = host.frame(), host.frame()
    assert first != second and first % PAGE == second % PAGE == 0 and first != 0
    host.page(first)[:] = b"\xff" * PAGE
    assert bytes(host.page(second)) == bytes(PAGE)
    host.free_frame(first)
    assert host.frame() == first and bytes(host.page(first)) == bytes(PAGE)


def test_guest_memory_is_congruent_for_large_pages(host: HostMemory) -> None:
    for address, size, align in (
        (0, 64 << 20, PAGE_2M),
        (0x10_0000, 8 << 20, PAGE_2M),
        (1 << 32, 3 << 30, PAGE_1G),
        (0x1000, 0x3000, PAGE),
    ):
        pa = allocate(host, address, size)
        assert pa >= KERNEL and (pa - address) % align == 0


def test_regions_never_overlap_and_gaps_are_used_again(host: HostMemory) -> None:
    regions = [host.allocate(i << 30, PAGE_2M, MemoryBacking(), name=f"r{i}", readonly=False) for i in range(8)]
    places = sorted(host.physical(r) for r in regions)
    assert all(b - a >= PAGE_2M for a, b in pairwise(places))
    freed = host.physical(regions[3])
    regions[3].buffer[:4] = b"used"
    regions[3].close()
    again = host.allocate(3 << 30, PAGE_2M, MemoryBacking(), name="again", readonly=False)
    assert host.physical(again) == freed and bytes(again.buffer[:4]) == bytes(4)


def test_discarded_memory_is_zero(host: HostMemory) -> None:
    region = host.allocate(0, 1 << 20, MemoryBacking(), name="ram", readonly=False)
    region.buffer[:5] = b"dirty"
    region.discard()
    assert bytes(region.buffer[:5]) == bytes(5)


def test_what_cannot_be_had(host: HostMemory) -> None:
    with pytest.raises(HostError, match="GiB"):
        allocate(host, 0, WINDOW)
    with pytest.raises(CapabilityMissing):
        allocate(host, 0, PAGE_2M, "2M")
    with pytest.raises(CapabilityMissing):
        host.allocate(0, PAGE, MemoryBacking(guest_memfd=True), name="ram", readonly=False)
    with pytest.raises(ConfigError):
        allocate(host, 0x800, PAGE)
    allocate(host, 0, PAGE_2M, "transparent") if _transparent() else None


def _transparent() -> bool:
    from pyhv.memory.backing import transparent_kind

    return bool(transparent_kind())


@pytest.fixture
def tables(host: HostMemory) -> NestedTables:
    return NestedTables(host)


@pytest.mark.parametrize(
    ("gpa", "hpa", "size", "levels"),
    [
        (0, 0x4000_0000, PAGE_2M, {2}),
        (0, 0x4000_1000, PAGE_2M, {1}),
        (PAGE, PAGE_1G + PAGE, 2 * PAGE_2M, {1, 2}),
        (PAGE_1G, PAGE_1G, 2 * PAGE_1G, {3}),
        (PAGE_1G - PAGE_2M - PAGE, 3 * PAGE_1G - PAGE_2M - PAGE, PAGE_1G + 2 * PAGE_2M, {1, 2, 3}),
        ((1 << 39) - PAGE, PAGE_1G, 2 * PAGE, {1}),
    ],
)
def test_the_largest_pages_that_fit(tables: NestedTables, gpa: int, hpa: int, size: int, levels: set[int]) -> None:
    tables.map(gpa, hpa, size)
    seen = set()
    for offset in range(0, size, PAGE_2M // 4 if size > PAGE_2M * 4 else PAGE):
        found = tables.lookup(gpa + offset + 5)
        assert found is not None
        entry, level, where = found
        assert where == hpa + offset + 5 and entry & WRITABLE and bool(entry & LARGE) == (level > 1)
        seen.add(level)
    for offset in (0, size - PAGE):
        found = tables.lookup(gpa + offset)
        assert found is not None and found[2] == hpa + offset
        seen.add(found[1])
    assert seen == levels
    assert tables.lookup(gpa - PAGE) is None if gpa else True
    assert tables.lookup(gpa + size) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2100), st.integers(0, 2100), st.integers(1, 1300), st.booleans(), st.booleans()),
        max_size=5,
    )
)
def test_any_set_of_ranges(ranges: list[tuple[int, int, int, bool, bool]]) -> None:
    host = HostMemory()
    tables = NestedTables(host)
    model: dict[int, tuple[int, bool]] = {}
    for gpn, hpn, pages, writable, small in ranges:
        if any(page in model for page in range(gpn, gpn + pages)):
            continue
        tables.map(gpn * PAGE, hpn * PAGE, pages * PAGE, writable=writable, small=small)
        model |= {gpn + i: (hpn + i, writable) for i in range(pages)}
    for page in range(0, 3500, 7):
        found = tables.lookup(page * PAGE)
        if page in model:
            assert found is not None
            assert (found[2] // PAGE, bool(found[0] & WRITABLE)) == model[page]
        else:
            assert found is None
    tables.clear()
    assert all(tables.lookup(page * PAGE) is None for page in model)
    host.close()


def test_a_page_that_was_mapped_for_now_leaves_nothing_behind(host: HostMemory, tables: NestedTables) -> None:
    tables.map(0, PAGE_1G, PAGE_2M)
    frames = host._next_frame
    for gpa in (5 << 40, 0x40_0000, PAGE_1G * 5):
        for _ in range(3):
            changes = tables.map_for_now(gpa, 0x7000)
            found = tables.lookup(gpa + 3)
            assert found is not None and found[2] == 0x7003
            tables.undo(changes)
            assert tables.lookup(gpa) is None
    assert host._next_frame - frames <= 3 * PAGE
    assert tables.lookup(0) is not None


def test_dirty_bits_are_taken_once(tables: NestedTables) -> None:
    tables.map(0x10_0000, PAGE_1G, 700 * PAGE, small=True)
    for page in (0, 1, 511, 699):
        table = tables._table(0x10_0000 + page * PAGE, 1)
        table[(0x10_0000 // PAGE + page) & 511] |= DIRTY
    assert list(tables.take_dirty(0x10_0000, 700 * PAGE, clear=False)) == [
        0x10_0000 + page * PAGE for page in (0, 1, 511, 699)
    ]
    assert len(list(tables.take_dirty(0x10_0000, 700 * PAGE))) == 4
    assert list(tables.take_dirty(0x10_0000, 700 * PAGE)) == []
