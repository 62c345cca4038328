"""Any image, however broken: a state whose entry is in memory, or one of the errors that users are shown."""

import struct

import pytest
from boot_images import MIB, BzImage, Load, elf, guest_memory, multiboot_elf, multiboot_header, pvh_elf, xen_note
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyhv import boot
from pyhv.boot.symbols import SymbolTable
from pyhv.errors import BootError, CapabilityMissing, ConfigError

SIZE = 3 * MIB
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = {
    "multiboot": [
        multiboot_elf(),
        multiboot_elf(bits=64),
        multiboot_header(1 << 16, MIB, MIB, 0, 0, MIB) + bytes(100),
        multiboot_header(3 | 1 << 16, MIB, MIB, MIB + 64, MIB + 128, MIB) + bytes(100),
    ],
    "pvh": [pvh_elf(64), pvh_elf(32), elf(64, MIB, [Load(MIB, xen_note(MIB)), Load(MIB, xen_note(MIB), type=4)])],
    "bzimage": [
        BzImage().build(),
        BzImage(version=0x204, xloadflags=0).build(),
        BzImage(payload=b"\x1f\x8b\x08\0").build(),
        BzImage(payload=b"\x02\x21\x4c\x18\x02\0\0\0\x10a").build(),
    ],
    "elf": [elf(64, MIB, [Load(MIB, b"x" * 64, memsz=9000)]), elf(32, MIB, [Load(MIB, b"x"), Load(2 * MIB, b"y")])],
    "flat": [b"\xf4" * 512],
}
INTERESTING = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, MIB, SIZE, SIZE - 1, 0xFFF, 0xFEE00000]


def check(image: bytes, format: str, **options: object) -> None:
    """Load it; memory's own end is followed by nothing, so a write outside would be an error of another kind."""
    memory = guest_memory(SIZE)
    try:
        state = boot.load(memory, image, cpus=2, ram_size=SIZE, format=format, **options)  # type: ignore[arg-type]
    except (ConfigError, CapabilityMissing) as error:
        assert "\n" not in str(error)
        return
    first, end = state.image
    assert 0 <= first < end <= SIZE
    assert memory.contains(state.entry, 1)
    info, info_end = state.notes.get("info", SIZE), state.notes.get("info_end", SIZE)
    assert info_end <= SIZE and (info >= end or info_end <= first or (len(image) > 52 and image[:4] == b"\x7fELF"))


mutations = st.lists(
    st.tuples(
        st.integers(0, 0x700), st.sampled_from([1, 2, 4, 8]), st.sampled_from(INTERESTING) | st.integers(0, 1 << 63)
    ),
    min_size=1,
    max_size=6,
)


def mutate(image: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    out = bytearray(image)
    for position, width, value in changes:
        position %= len(out)
        patch = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")[: len(out) - position]
        out[position : position + len(patch)] = patch
    return bytes(out)


@pytest.mark.parametrize("format", SEEDS)
@EXAMPLES
@given(data=st.data())
def test_mutated_images(format: str, data: st.DataObject) -> None:
    image = mutate(data.draw(st.sampled_from(SEEDS[format])), data.draw(mutations))
    image = image[: data.draw(st.integers(0, len(image)) | st.just(len(image)))]
    forced = data.draw(st.sampled_from([format, "auto"]))
    check(image, forced, initrd=b"rd" * 100 if format != "flat" else None, unpack=data.draw(st.booleans()))
    SymbolTable.open(image).lookup(MIB)


@EXAMPLES
@given(st.binary(max_size=600), st.sampled_from(boot.FORMATS))
def test_arbitrary_bytes(image: bytes, format: str) -> None:
    check(image, format)


@EXAMPLES
@given(st.tuples(*[st.sampled_from(INTERESTING) | st.integers(0, 0xFFFFFFFF)] * 5), st.integers(0, 40))
def test_any_multiboot_address_fields(fields: tuple[int, ...], words: int) -> None:
    check(bytes(words * 4) + multiboot_header(1 << 16, *fields) + bytes(500), "multiboot", modules=[(b"m" * 5000, "m")])


@EXAMPLES
@given(
    st.lists(
        st.builds(
            Load,
            paddr=st.sampled_from([*INTERESTING, (1 << 64) - 1, MIB + 4096]) | st.integers(0, SIZE),
            data=st.binary(max_size=64),
            memsz=st.none() | st.sampled_from([0, 1, 8192, 1 << 40, (1 << 64) - 1]),
            offset=st.none() | st.sampled_from([0, 64, 1 << 40, (1 << 64) - 1]),
            filesz=st.none() | st.sampled_from([0, 1, 64, 1 << 33, (1 << 64) - 1]),
            type=st.sampled_from([1, 1, 4, 6]),
            vaddr=st.none() | st.just(0xFFFFFFFF80000000),
        ),
        max_size=4,
    ),
    st.sampled_from([MIB, 0, 0xFFFFFFFF80000000, SIZE - 1]),
    st.sampled_from(["elf", "pvh", "multiboot", "auto"]),
)
def test_any_program_headers(loads: list[Load], entry: int, format: str) -> None:
    check(elf(64, entry, loads), format)


@EXAMPLES
@given(st.integers(0, 1 << 34), st.none() | st.integers(0, 1 << 34), st.binary(max_size=100))
def test_any_flat_address(address: int, entry: int | None, image: bytes) -> None:
    check(image, "flat", load_address=address, entry=entry)


@EXAMPLES
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_command_line(cmdline: str | bytes) -> None:
    check(multiboot_elf(), "auto", cmdline=cmdline)
    check(BzImage(pref_address=MIB).build(), "auto", cmdline=cmdline)


def test_many_notes_do_not_take_forever() -> None:
    empty = struct.pack("<III", 0, 0, 0)
    check(elf(64, MIB, [Load(MIB, empty * 100000, type=4)]), "pvh")
    check(elf(64, MIB, [Load(MIB, empty * 40000, type=4)] + [Load(MIB, type=4, offset=64, filesz=400000)] * 500), "pvh")


def test_more_program_headers_than_any_kernel_has() -> None:
    with pytest.raises(BootError, match="513 program headers; at most 512"):
        boot.detect(elf(64, MIB, [Load(MIB, type=4)] * 513))


def test_symbol_tables_that_all_claim_the_whole_file() -> None:
    base = bytearray(multiboot_elf(bytes(1 << 20)))
    count = 20000
    struct.pack_into("<I", base, 32, len(base))
    struct.pack_into("<HHH", base, 46, 40, count, 0)
    section = struct.pack("<10I", 0, 2, 0, 0, 0, len(base), 0, 0, 4, 16)
    image = bytes(base) + section * count
    check(image, "multiboot")
    assert len(SymbolTable.open(image)) == 0
