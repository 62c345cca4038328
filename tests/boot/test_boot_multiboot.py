"""Multiboot 1: the header, the address fields, and everything that the information structure says."""

import struct

import pytest
from boot_images import MIB, Load, elf, guest_memory, multiboot_elf, multiboot_header

from pyhv import boot
from pyhv.boot.state import BootState
from pyhv.errors import BootError
from pyhv.memory import GuestMemory


def start(
    image: bytes, memory: GuestMemory | None = None, size: int = 16 * MIB, **options
) -> tuple[BootState, GuestMemory]:
    memory = memory if memory is not None else guest_memory(size)
    return boot.load(memory, image, cpus=1, ram_size=size, **options), memory


def info_of(state: BootState, memory: GuestMemory) -> tuple[int, ...]:
    return struct.unpack("<29I", memory.read(state.general.rbx, 116))


def strings(memory: GuestMemory, address: int) -> bytes:
    return memory.read_cstring(address)


def test_the_processor_is_as_the_specification_says() -> None:
    state, _ = start(multiboot_elf())
    assert state.format == "multiboot"
    assert state.general.rax == 0x2BADB002
    assert state.general.rip == state.entry == MIB + 12
    assert state.general.rflags & (1 << 9 | 1 << 17) == 0
    assert state.system.cr0 & 1 and not state.system.cr0 & 1 << 31
    assert state.system.efer == 0 and state.system.cr4 == 0
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(state.system, name)
        assert (segment.base, segment.limit, segment.db, segment.l, segment.present) == (
            0,
            0xFFFFFFFF,
            True,
            False,
            True,
        )
    assert state.system.cs.type & 8 and not state.system.ds.type & 8


def test_the_descriptor_table_holds_what_the_segment_registers_say() -> None:
    state, memory = start(multiboot_elf())
    table = struct.unpack("<4Q", memory.read(state.system.gdt.base, state.system.gdt.limit + 1))
    assert table[state.system.cs.selector // 8] == 0x00CF9B000000FFFF
    assert table[state.system.ds.selector // 8] == 0x00CF93000000FFFF


def test_the_image_is_loaded_and_its_end_is_zero() -> None:
    memory = guest_memory()
    memory.load(MIB, b"\xaa" * 8192)
    image = multiboot_elf(b"\x11" * 100)
    state, _ = start(image, memory, zeroed=False)
    assert memory.read(MIB, 112) == multiboot_header(3) + b"\x11" * 100
    assert memory.read(MIB + 112, 4096) == bytes(4096)
    assert state.image == (MIB, MIB + 112 + 4096)


def test_memory_sizes_command_line_loader_name_and_map(tmp_path) -> None:
    path = tmp_path / "my kernel.elf"
    path.write_bytes(multiboot_elf())
    memory = guest_memory()
    state = boot.load(memory, path, cpus=1, ram_size=16 * MIB, cmdline="one two=3")
    info = info_of(state, memory)
    assert info[0] & 0x25F == 0x24D | info[0] & 0x12
    assert info[1] == 639 and info[2] == 15 * 1024
    assert strings(memory, info[4]) == str(path).encode() + b" one two=3"
    assert strings(memory, info[16]) == b"pyhv"
    entries = memory.read(info[12], info[11])
    parsed = []
    position = 0
    while position < len(entries):
        size, address, length, kind = struct.unpack_from("<IQQI", entries, position)
        parsed.append((address, length, kind))
        position += size + 4
    assert position == len(entries)
    assert (0, 0x9FC00, 1) in parsed and (MIB, 15 * MIB, 1) in parsed


def test_without_arguments_the_command_line_is_the_kernels_name() -> None:
    state, memory = start(multiboot_elf())
    assert strings(memory, info_of(state, memory)[4]) == b"image"


def test_modules_are_page_aligned_named_and_apart(tmp_path) -> None:
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    first.write_bytes(b"A" * 5000)
    second.write_bytes(b"")
    memory = guest_memory()
    state, _ = start(multiboot_elf(), memory, initrd=first, modules=[(second, "b says hi"), (b"C" * 10, "")])
    info = info_of(state, memory)
    assert info[0] & 8 and info[5] == 3
    listing = [struct.unpack("<4I", memory.read(info[6] + 16 * i, 16)) for i in range(3)]
    assert [strings(memory, m[2]) for m in listing] == [str(first).encode(), b"b says hi", b"image"]
    assert all(m[0] % 4096 == 0 for m in listing)
    assert [m[1] - m[0] for m in listing] == [5000, 0, 10]
    assert memory.read(listing[0][0], 5000) == b"A" * 5000
    assert memory.read(listing[2][0], 10) == b"C" * 10
    taken = [state.image, (state.notes["info"], state.notes["info_end"]), *[(m[0], m[1]) for m in listing]]
    for i, (a, b) in enumerate(taken):
        assert a >= MIB and all(b <= c or d <= a for c, d in taken[i + 1 :])


def test_one_initrd_option_may_name_several_modules_as_with_qemu(tmp_path) -> None:
    first, second = tmp_path / "a", tmp_path / "b,c"
    first.write_bytes(b"A")
    second.write_bytes(b"B")
    escaped = str(second).replace(",", ",,")
    state, memory = start(multiboot_elf(), initrd=f"{first} x y,{escaped} z")
    info = info_of(state, memory)
    listing = [struct.unpack("<4I", memory.read(info[6] + 16 * i, 16)) for i in range(info[5])]
    assert [strings(memory, m[2]) for m in listing] == [f"{first} x y".encode(), f"{second} z".encode()]


@pytest.mark.parametrize("address", [0x10000, MIB, 2 * MIB - 0x2000, 5 * MIB])
def test_structures_lie_above_1_mib_and_beyond_reach_of_a_small_heap(address: int) -> None:
    state, _ = start(multiboot_elf(address=address))
    first, end = state.image
    info = state.notes["info"]
    assert info >= MIB and (info >= end or state.notes["info_end"] <= first)
    if first >= MIB:
        assert info - end >= 128 << 10


def test_a_machine_of_little_memory_still_gets_its_structures() -> None:
    state, _ = start(multiboot_elf(address=MIB), size=MIB + 0x4000)
    assert state.notes["info"] >= state.image[1]
    assert state.notes["info_end"] <= MIB + 0x4000


def test_no_room_for_the_structures() -> None:
    with pytest.raises(BootError, match="no room for the boot information"):
        start(multiboot_elf(address=0x10000), size=MIB)


def test_no_room_for_a_module() -> None:
    with pytest.raises(BootError, match=r"no room for the module image .*--memory"):
        start(multiboot_elf(), size=4 * MIB, modules=[(bytes(4 * MIB), "big")])


def test_the_a_out_kludge_places_the_file_by_its_fields() -> None:
    prefix = b"\xee" * 16
    code = b"\xf4" * 100
    header = multiboot_header(1 << 16, 0x200010, 0x200000, 0x200000 + 80, 0x200000 + 4096, 0x200030)
    memory = guest_memory()
    memory.load(0x200000, b"\xaa" * 8192)
    state, _ = start(prefix + header + code, memory, zeroed=False)
    assert memory.read(0x200000, 80) == (prefix + header + code)[:80]
    assert memory.read(0x200000 + 80, 4096 - 80) == bytes(4096 - 80)
    assert memory.read(0x200000 + 4096, 1) == b"\xaa"
    assert state.entry == 0x200030
    assert state.image == (0x200000, 0x201000)


def test_the_kludge_with_zero_ends_loads_the_whole_file_and_clears_nothing() -> None:
    header = multiboot_header(1 << 16, 0x200000, 0x200000, 0, 0, 0x200020)
    image = header + b"\x77" * 1000
    state, memory = start(image)
    assert state.image == (0x200000, 0x200000 + len(image))
    assert memory.read(0x200000, len(image)) == image


def test_the_kludge_may_load_from_the_middle_of_the_file() -> None:
    image = b"\xcc" * 4096 + multiboot_header(1 << 16, 0x200000, 0x200000, 0, 0, 0x200020) + b"\x12" * 64
    _state, memory = start(image)
    assert memory.read(0x200000, 96) == image[4096:]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ((0x200000, 0x200001, 0, 0, 0x200010), "load_addr 0x200001 is above header_addr"),
        ((0x200100, 0x200000, 0, 0, 0x200010), "before the file"),
        ((0x200000, 0x200000, 0x1FFFFF, 0, 0x200010), "load_end_addr 0x1fffff is below load_addr"),
        ((0x200000, 0x200000, 0x200401, 0, 0x200010), "load_end_addr 0x200401 asks for 1025 bytes; the file has"),
        ((0x200000, 0x200000, 0, 0x200010, 0x200010), "bss_end_addr 0x200010 is below the end"),
        ((0x200000, 0x200000, 0, 0, 0x100000), "entry_addr 0x100000 is outside"),
        ((0xFFFFFFF0, 0xFFFFFFF0, 0, 0, 0xFFFFFFF0), "is not in the machine's memory"),
        ((0x200000, 0x200000, 0, 0xFFFFFFFF, 0x200010), "is not in the machine's memory"),
        ((0x0FFF000, 0x0FFF000, 0, 0x1000001, 0x0FFF000), "is not in the machine's memory"),
    ],
)
def test_address_fields_that_lie(fields: tuple[int, ...], what: str) -> None:
    image = multiboot_header(1 << 16, *fields) + bytes(900)
    with pytest.raises(BootError, match=what) as caught:
        start(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bit", range(3, 16))
def test_unknown_required_features_are_refused(bit: int) -> None:
    with pytest.raises(BootError, match="unknown features"):
        start(multiboot_elf(flags=1 << bit), format="multiboot")


def test_a_wish_for_a_video_mode_is_ignored() -> None:
    header = multiboot_header(7, 0, 0, 0, 0, 0, 0, 80, 25, 0)
    image = elf(32, MIB + 48, [Load(MIB, header + bytes(64))])
    state, memory = start(image)
    assert not info_of(state, memory)[0] & (1 << 11 | 1 << 12)


@pytest.mark.parametrize("position", [8192, 8192 - 8, 6, 4097])
def test_a_header_that_is_late_or_not_aligned_does_not_count(position: int) -> None:
    data = bytes(position) + multiboot_header(0) + bytes(64)
    with pytest.raises(BootError, match="no multiboot header"):
        start(data, format="multiboot")


def test_a_wrong_checksum_does_not_count_and_a_later_right_one_does() -> None:
    wrong = struct.pack("<3I", 0x1BADB002, 3, 0)
    image = elf(32, MIB + 24, [Load(MIB, wrong + multiboot_header(3) + bytes(64))])
    assert start(image)[0].format == "multiboot"
    with pytest.raises(BootError, match="no multiboot header"):
        start(elf(32, MIB, [Load(MIB, wrong + bytes(64))]), format="multiboot")


def test_neither_elf_nor_addresses() -> None:
    with pytest.raises(BootError, match="neither address fields"):
        start(multiboot_header(3) + bytes(100))


def test_a_kernel_linked_high_starts_at_its_physical_address() -> None:
    data = multiboot_header(3) + bytes(64)
    image = elf(32, 0xC0100010, [Load(MIB, data, vaddr=0xC0100000)])
    assert start(image)[0].entry == MIB + 16


def test_section_headers_and_symbols_are_handed_over() -> None:
    strtab = b"\0main\0"
    symtab = struct.pack("<IIIBBH", 0, 0, 0, 0, 0, 0) + struct.pack("<IIIBBH", 1, MIB, 4, 0x12, 0, 1)
    base = multiboot_elf()
    at = len(base)
    sections = [
        struct.pack("<10I", *([0] * 10)),
        struct.pack("<10I", 1, 2, 0, 0, at, len(symtab), 2, 1, 4, 16),
        struct.pack("<10I", 1, 3, 0, 0, at + len(symtab), len(strtab), 0, 0, 1, 0),
    ]
    image = bytearray(base + symtab + strtab + b"".join(sections))
    struct.pack_into("<I", image, 32, at + len(symtab) + len(strtab))
    struct.pack_into("<HHH", image, 46, 40, 3, 2)
    state, memory = start(bytes(image))
    info = info_of(state, memory)
    assert info[0] & 1 << 5
    count, size, table, index = info[7:11]
    assert (count, size, index) == (3, 40, 2)
    headers = [struct.unpack("<10I", memory.read(table + 40 * i, 40)) for i in range(3)]
    assert memory.read(headers[1][3], headers[1][5]) == symtab
    assert memory.read(headers[2][3], headers[2][5]) == strtab
    assert state.notes["info"] <= table and headers[2][3] + headers[2][5] <= state.notes["info_end"]


def test_damaged_section_headers_only_cost_the_symbols() -> None:
    image = bytearray(multiboot_elf())
    struct.pack_into("<I", image, 32, 0xFFFFFF00)
    struct.pack_into("<HHH", image, 46, 40, 60000, 2)
    state, memory = start(bytes(image))
    assert not info_of(state, memory)[0] & 1 << 5


def test_a_64_bit_elf_with_a_multiboot_header_is_entered_in_32_bit_mode() -> None:
    state, _ = start(multiboot_elf(bits=64))
    assert state.format == "multiboot" and not state.system.cs.l
