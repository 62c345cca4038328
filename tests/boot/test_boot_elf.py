"""ELF files: hostile headers, and kernels without a protocol of their own."""

import struct

import pytest
from boot_images import MIB, Load, elf, guest_memory

from pyhv import boot
from pyhv.errors import BootError, ConfigError
from pyhv.memory import GuestMemory


def start(image: bytes, *, size: int = 16 * MIB, memory: GuestMemory | None = None, **options):
    memory = guest_memory(size) if memory is None else memory
    return boot.load(memory, image, cpus=1, ram_size=size, format="elf", **options), memory


def walk(memory: GuestMemory, cr3: int, address: int) -> int:
    """Translate by the guest's four-level tables."""
    table = cr3
    for shift in (39, 30, 21, 12):
        entry = memory.read_uint(table + (address >> shift & 511) * 8, 8)
        assert entry & 1, f"{address:#x} is not mapped"
        if entry & 0x80 or shift == 12:
            mask = (1 << shift) - 1
            return (entry & ~mask & 0xFFFFFFFFFF000) | address & mask
        table = entry & 0xFFFFFFFFFF000
    raise AssertionError


def test_a_64_bit_file_starts_in_long_mode_with_4_gib_mapped() -> None:
    state, memory = start(elf(64, MIB + 8, [Load(MIB, b"\xf4" * 64)]), cmdline="abc")
    assert state.format == "elf" and state.general.rip == MIB + 8
    assert state.system.cs.l and not state.system.cs.db
    assert state.system.efer == 0x500 and state.system.cr4 & 0x20
    assert state.system.cr0 & 0x80000001 == 0x80000001
    for address in (0, MIB, 0x12345678, 0xFEE00020, 0xFFFFFFFF):
        assert walk(memory, state.system.cr3, address) == address
    page = state.general.rsi
    assert memory.read(page + 0x202, 4) == b"HdrS"
    assert memory.read_cstring(memory.read_uint(page + 0x228, 4)) == b"abc"


def test_the_tables_lie_clear_of_the_image() -> None:
    state, _ = start(elf(64, MIB + 8, [Load(MIB, b"\xf4" * 64, memsz=3 * MIB)]))
    assert state.system.cr3 >= 4 * MIB and state.general.rsi >= 4 * MIB


def test_a_32_bit_file_starts_in_flat_protected_mode() -> None:
    state, memory = start(elf(32, MIB, [Load(MIB, b"\xf4" * 64)]))
    assert state.system.cr0 & 0x80000001 == 1
    assert state.system.cs.selector == 0x10 and state.system.ds.selector == 0x18
    assert state.system.cs.db and not state.system.cs.l
    assert memory.read(state.general.rsi + 0x202, 4) == b"HdrS"


def test_a_virtual_entry_moves_with_its_segment() -> None:
    high = 0xFFFFFFFF80000000
    state, _ = start(elf(64, high + 0x10, [Load(2 * MIB, b"\xf4" * 64, vaddr=high)]))
    assert state.entry == 2 * MIB + 0x10


def test_segments_may_lie_in_any_order_and_touch() -> None:
    image = elf(64, MIB, [Load(MIB + 64, b"B" * 64, memsz=100), Load(MIB, b"A" * 64), Load(0, b"", memsz=0)])
    state, memory = start(image)
    assert memory.read(MIB, 128) == b"A" * 64 + b"B" * 64
    assert state.image == (MIB, MIB + 164)


def test_zeros_are_written_over_the_firmware_below_1_mib() -> None:
    _, memory = start(elf(64, 0x8000, [Load(0x8000, b"\xf4" * 16, memsz=0xF8000 - 0x8000)]))
    assert memory.read(0x9FC00, 64) == bytes(64)


@pytest.mark.parametrize(
    ("load", "what"),
    [
        (Load(MIB, b"x" * 64, memsz=32), "p_filesz 64 is larger than p_memsz 32"),
        (Load(MIB, b"x" * 64, memsz=0), "p_filesz 64 is larger than p_memsz 0"),
        (Load(MIB, b"x" * 64, offset=1 << 40), "lie outside the file"),
        (Load(MIB, b"x" * 64, filesz=1 << 20, memsz=1 << 20), "lie outside the file"),
        (Load(MIB, b"x" * 64, offset=(1 << 64) - 32), "lie outside the file"),
        (Load((1 << 32) - 32, b"x" * 64), "is not in the machine's memory"),
        (Load(MIB, b"x" * 64, memsz=(1 << 64) - MIB), "is not in the machine's memory"),
        (Load(16 * MIB - 32, b"x" * 64), r"is not in the machine's memory \(16M\); give it more \(--memory\)$"),
        (Load(0xFEE00000, b"x" * 64), "is not in the machine's memory"),
    ],
)
def test_program_headers_that_lie(load: Load, what: str) -> None:
    with pytest.raises(BootError, match=what) as caught:
        start(elf(64, load.paddr, [load]))
    assert "\n" not in str(caught.value) and "program header 0" in str(caught.value)


def test_overlapping_segments() -> None:
    with pytest.raises(BootError, match="overlaps another segment"):
        start(elf(64, MIB, [Load(MIB, b"A" * 64), Load(MIB + 63, b"B" * 64)]))


def test_nothing_is_written_when_a_later_segment_is_wrong() -> None:
    memory = guest_memory()
    with pytest.raises(BootError):
        start(elf(64, MIB, [Load(MIB, b"A" * 64), Load(1 << 33, b"B" * 64)]), memory=memory)
    assert memory.read(MIB, 64) == bytes(64)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (b"\x7fELF", "truncated"),
        (elf(64, MIB, [Load(MIB, b"x")])[:40], "truncated"),
        (elf(64, MIB, [Load(MIB, b"x")])[:70], "program headers lie outside the file"),
        (elf(64, MIB, []), "no loadable segments"),
        (elf(64, MIB, [Load(MIB, b"x", type=6)]), "no loadable segments"),
        (elf(64, MIB, [Load(MIB, b"x")], machine=183), "machine 183 is not x86"),
        (elf(64, MIB, [Load(MIB, b"x")], machine=3), "machine 3 is not x86"),
        (elf(64, MIB, [Load(MIB, b"x")], kind=1), "type 1 is not an executable"),
        (elf(64, 1 << 40, [Load(1 << 40, b"x")]), "entry point 0x10000000000 is beyond 4 GiB"),
        (elf(64, 5, [Load(MIB, b"x")]), "entry point 0x5 lies in no segment"),
        (b"\x7fELF\x03" + elf(64, MIB, [])[5:], "class 3"),
        (b"\x7fELF\x02\x02" + elf(64, MIB, [])[6:], "not little-endian"),
    ],
)
def test_headers_that_lie(image: bytes, what: str) -> None:
    with pytest.raises(BootError, match=what):
        start(image)


def test_program_headers_of_another_size() -> None:
    image = bytearray(elf(64, MIB, [Load(MIB, b"x")]))
    struct.pack_into("<H", image, 54, 32)
    with pytest.raises(BootError, match="program headers of 32 bytes, not 56"):
        start(bytes(image))


def test_the_command_line_has_a_limit() -> None:
    image = elf(64, MIB, [Load(MIB, b"x")])
    start(image, cmdline="x" * 2047)
    with pytest.raises(ConfigError, match=r"^cmdline: 2048 bytes; this kernel takes at most 2047"):
        start(image, cmdline="x" * 2048)


def test_modules_are_not_for_linux() -> None:
    with pytest.raises(ConfigError, match=r"^modules: "):
        start(elf(64, MIB, [Load(MIB, b"x")]), modules=[(b"m", "m")])
