"""Address spaces: any accesses to any claims, against a byte-wise model."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.bus import UNCLAIMED_KEYS, AddressSpace, Deferred, IoFunctions, Mapping, mmio_space, port_space
from pyhv.errors import ConfigError

LIMIT = 64


@dataclass
class Ram:
    """A device that stores bytes and checks what it is called with."""

    length: int
    width: int
    data: bytearray = field(default_factory=bytearray)
    calls: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data = bytearray(range(100, 100 + self.length))

    def _check(self, offset: int, size: int) -> None:
        assert size in (1, 2, 4, 8) and size <= self.width
        assert offset >= 0 and offset + size <= self.length

    def read(self, offset: int, size: int) -> int:
        self._check(offset, size)
        self.calls.append(("r", offset, size))
        return int.from_bytes(self.data[offset : offset + size], "little") | 1 << 8 * size

    def write(self, offset: int, size: int, value: int) -> None:
        self._check(offset, size)
        assert 0 <= value < 1 << 8 * size
        self.calls.append(("w", offset, size))
        self.data[offset : offset + size] = value.to_bytes(size, "little")


widths = st.sampled_from([1, 2, 4, 8])
claims = st.lists(st.tuples(st.integers(0, LIMIT - 1), st.integers(1, 12), widths, st.booleans()), max_size=8)
accesses = st.lists(
    st.tuples(st.booleans(), st.integers(0, LIMIT + 4), st.integers(1, 8), st.integers(0, (1 << 64) - 1)), max_size=30
)


@settings(max_examples=150)
@given(claims, accesses)
def test_every_byte_goes_where_it_belongs(
    wanted: list[tuple[int, int, int, bool]], done: list[tuple[bool, int, int, int]]
) -> None:
    space = AddressSpace("test", LIMIT)
    owner: dict[int, tuple[Ram, int]] = {}
    for base, length, width, lazy in wanted:
        taken = range(base, base + length)
        ram = Ram(length, width)
        fits = taken.stop <= LIMIT and not any(byte in owner for byte in taken)
        if lazy:
            if fits:
                space.defer(
                    base,
                    length,
                    Deferred("lazy", lambda b=base, n=length, r=ram, w=width: space.map(b, n, r, "lazy", w)),
                )
        elif fits:
            space.map(base, length, ram, "eager", width)
        else:
            with pytest.raises(ConfigError, match=r"eager: .*(overlaps|outside)"):
                space.map(base, length, ram, "eager", width)
        if fits:
            owner |= {byte: (ram, byte - base) for byte in taken}
    for write, address, size, value in done:
        value &= (1 << 8 * size) - 1
        places = [owner.get(address + i) for i in range(size)]
        missed = sum(space.unclaimed.values())
        if write:
            space.write(address, size, value)
            for i, place in enumerate(places):
                if place is not None:
                    assert place[0].data[place[1]] == value >> 8 * i & 0xFF
        else:
            expected = bytes(0xFF if place is None else place[0].data[place[1]] for place in places)
            assert space.read(address, size).to_bytes(size, "little") == expected
        gaps = sum(1 for i, p in enumerate(places) if p is None and (i == 0 or places[i - 1] is not None))
        assert sum(space.unclaimed.values()) - missed == gaps, "each gap of an access is counted once"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=12), st.data())
def test_claims_are_given_back(ranges: list[tuple[int, int]], data: st.DataObject) -> None:
    space = AddressSpace("test", LIMIT)
    held: list[Mapping] = []
    for base, length in ranges:
        if held and data.draw(st.booleans()):
            space.unmap(held.pop(data.draw(st.integers(0, len(held) - 1))))
        free = all(m.end <= base or base + length <= m.base for m in held)
        if free:
            held.append(space.map(base, length, Ram(length, 4), "ram"))
        else:
            with pytest.raises(ConfigError):
                space.map(base, length, Ram(length, 4), "ram")
    assert list(space.mappings) == sorted(held, key=lambda m: m.base)
    for address in range(LIMIT):
        assert space.find(address) == next((m for m in held if m.base <= address < m.end), None)
    stranger = Mapping(0, LIMIT, Ram(LIMIT, 4), "stranger", 4)
    space.unmap(stranger)
    assert len(space.mappings) == len(held)


def test_wide_accesses_split_as_an_isa_bridge_does() -> None:
    space = port_space()
    narrow, wide = Ram(2, 1), Ram(4, 4)
    space.map(0x70, 2, narrow, "narrow", 1)
    space.map(0x72, 4, wide, "wide", 4)
    space.write(0x70, 4, 0x44332211)
    assert narrow.calls == [("w", 0, 1), ("w", 1, 1)] and wide.calls == [("w", 0, 2)]
    assert space.read(0x6F, 8) & 0xFF == 0xFF
    assert space.unclaimed == {0x6F: 1, 0x76: 1}


def test_a_deferred_device_is_made_once_by_the_first_touch() -> None:
    space = port_space()
    made: list[str] = []

    def build() -> None:
        made.append("made")
        for base in (0x20, 0xA0):
            space.map(base, 2, Ram(2, 1), "pic", 1)

    unit = Deferred("pic", build)
    space.defer(0x20, 2, unit)
    space.defer(0xA0, 2, unit)
    assert space.read(0x1F, 1) == 0xFF and not made
    with pytest.raises(ConfigError, match=r"mine: port \[0xa1, 0xa2\) overlaps pic \[0xa0, 0xa2\)"):
        space.map(0xA1, 1, Ram(1, 1), "mine", 1)
    assert space.read(0xA0, 2) == 0x6564
    space.write(0x21, 1, 7)
    assert made == ["made"]


def test_a_deferred_range_that_its_device_does_not_claim() -> None:
    space = port_space()
    space.defer(0x100, 4, Deferred("partly", lambda: space.map(0x102, 1, Ram(1, 1), "partly", 1)))
    assert space.read(0x100, 4) == 0xFF64FFFF
    assert space.unclaimed == {0x100: 1, 0x103: 1}


def test_the_ends_of_the_spaces() -> None:
    for space, end in ((port_space(), 0x10000), (mmio_space(), 1 << 52)):
        last = Ram(1, 1)
        space.map(end - 1, 1, last, "last", 1)
        assert space.read(end - 1, 4) == 0xFFFFFF64
        space.write(end - 1, 4, 0x55667788)
        assert last.data == b"\x88"
        for base, length in ((end, 1), (end - 1, 2), (-1, 1), (0, 0), (0, -1)):
            with pytest.raises(ConfigError, match="outside"):
                space.map(base, length, Ram(1, 1), "lost", 1)


def test_unclaimed_addresses_do_not_fill_memory() -> None:
    space = mmio_space()
    for n in range(UNCLAIMED_KEYS * 3):
        space.write(n * 64, 4, n)
    assert len(space.unclaimed) == UNCLAIMED_KEYS + 1
    assert Counter(space.unclaimed).total() == UNCLAIMED_KEYS * 3


def test_functions_as_a_handler() -> None:
    seen: list[tuple[int, int, int]] = []
    space = port_space()
    space.map(0x80, 1, IoFunctions(lambda offset, size: 0x123, lambda *args: seen.append(args)), "post", 1)
    assert space.read(0x80, 1) == 0x23
    space.write(0x80, 1, 0x42)
    assert seen == [(0, 1, 0x42)]
