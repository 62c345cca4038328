"""PVH: the note, the start info, the processor's state."""

import struct

import pytest
from boot_images import MIB, Load, elf, guest_memory, pvh_elf, split_memory, xen_note

from pyhv import boot
from pyhv.errors import BootError


def start(image: bytes, **options):
    memory = guest_memory()
    return boot.load(memory, image, cpus=1, ram_size=16 * MIB, **options), memory


@pytest.mark.parametrize("bits", [32, 64])
def test_entered_at_the_note_in_flat_32_bit_mode(bits: int) -> None:
    state, memory = start(pvh_elf(bits))
    assert state.format == "pvh"
    assert state.general.rip == MIB + 16
    assert state.general.rflags == 2
    assert state.system.cr0 & ~0x10 == 1 and state.system.cr4 == 0 and state.system.efer == 0
    assert (state.system.cs.base, state.system.cs.limit) == (0, 0xFFFFFFFF)
    assert (state.system.tr.base, state.system.tr.limit, state.system.tr.type) == (0, 0x67, 0xB)
    assert memory.read_uint(state.general.rbx, 4) == 0x336EC578


def test_an_8_byte_note_and_others_before_it() -> None:
    notes = xen_note(5, kind=6) + xen_note(7, name=b"GNU\0", kind=18) + xen_note(MIB + 8, size=8)
    state, _ = start(pvh_elf(note=notes))
    assert state.entry == MIB + 8


def test_start_info_points_at_everything(tmp_path) -> None:
    initrd = tmp_path / "rd"
    initrd.write_bytes(b"R" * 9000)
    state, memory = start(pvh_elf(), initrd=initrd, modules=[(b"M", "second one")], cmdline="console=ttyS0 x")
    info = struct.unpack("<IIIIQQQQII", memory.read(state.general.rbx, 56))
    _, version, flags, count, modules, cmdline, rsdp, table, entries, _ = info
    assert (version, flags, count) == (1, 0, 2)
    assert memory.read_cstring(cmdline) == b"console=ttyS0 x"
    assert memory.read(rsdp, 8) == b"RSD PTR "
    parsed = [struct.unpack("<QQII", memory.read(table + 24 * i, 24)) for i in range(entries)]
    assert (0, 0x9FC00, 1, 0) in parsed and (MIB, 15 * MIB, 1, 0) in parsed
    listing = [struct.unpack("<QQQQ", memory.read(modules + 32 * i, 32)) for i in range(2)]
    assert memory.read(listing[0][0], listing[0][1]) == b"R" * 9000
    assert memory.read(listing[1][0], listing[1][1]) == b"M"
    assert memory.read_cstring(listing[0][2]) == str(initrd).encode()
    assert memory.read_cstring(listing[1][2]) == b"second one"


def test_memory_above_4_gib_is_in_the_map() -> None:
    memory, size = split_memory(64 * MIB)
    state = boot.load(memory, pvh_elf(), cpus=1, ram_size=size)
    table, entries = struct.unpack("<QI", memory.read(state.general.rbx + 40, 12))
    parsed = [struct.unpack("<QQII", memory.read(table + 24 * i, 24)) for i in range(entries)]
    assert (1 << 32, 64 * MIB, 1, 0) in parsed
    assert (MIB, 3 * 1024 * MIB - MIB, 1, 0) in parsed


def test_without_the_note() -> None:
    with pytest.raises(BootError, match="no PVH entry note"):
        start(elf(64, MIB, [Load(MIB, b"\xf4" * 32)]), format="pvh")


@pytest.mark.parametrize(
    ("note", "what"),
    [
        (xen_note(5 * MIB), "entry point 0x500000 lies in no segment"),
        (xen_note(1 << 40, size=8), "lies in no segment"),
        (xen_note(0, size=0), "entry point of 0 bytes"),
        (xen_note(0, size=12), "entry point of 12 bytes"),
    ],
)
def test_a_note_that_lies(note: bytes, what: str) -> None:
    with pytest.raises(BootError, match=what):
        start(pvh_elf(note=note))


def test_a_truncated_note_does_not_count() -> None:
    with pytest.raises(BootError, match="no PVH entry note"):
        start(pvh_elf(note=xen_note(MIB)[:-2]), format="pvh")
