"""ACPI and MP tables: found where they are looked for, whole, and understood by Intel's own compiler."""

import shutil
import struct
import subprocess

import pytest
from boot_images import MIB, guest_memory, multiboot_elf

from pyhv import boot
from pyhv.boot import aml, firmware
from pyhv.boot.e820 import memory_map
from pyhv.memory import GuestMemory

CPU_COUNTS = [1, 2, 8, 255, 300]


def machine(cpus: int, more: bytes = b"") -> GuestMemory:
    memory = guest_memory(2 * MIB)
    firmware.build(cpus, more).install(memory)
    return memory


def scan(memory: GuestMemory, start: int, length: int, signature: bytes, size: int) -> int:
    for address in range(start, start + length, 16):
        if memory.read(address, len(signature)) == signature and sum(memory.read(address, size)) & 0xFF == 0:
            return address
    raise AssertionError(f"{signature!r} not found")


def tables(memory: GuestMemory) -> dict[str, bytes]:
    """All tables by the XSDT, each checksum verified; the RSDT must list the same."""
    rsdp = scan(memory, 0xE0000, 0x20000, b"RSD PTR ", 20)
    assert sum(memory.read(rsdp, 36)) & 0xFF == 0
    revision, rsdt_at, length, xsdt_at = struct.unpack("<BIIQ", memory.read(rsdp + 15, 17))
    assert (revision, length) == (2, 36)

    def table(address: int) -> bytes:
        data = memory.read(address, memory.read_uint(address + 4, 4))
        assert sum(data) & 0xFF == 0, data[:4]
        return data

    rsdt, xsdt = table(rsdt_at), table(xsdt_at)
    short = struct.unpack(f"<{(len(rsdt) - 36) // 4}I", rsdt[36:])
    assert short == struct.unpack(f"<{(len(xsdt) - 36) // 8}Q", xsdt[36:])
    found = {"RSDT": rsdt, "XSDT": xsdt}
    for address in short:
        data = table(address)
        found[data[:4].decode()] = data
    fadt = found["FACP"]
    facs_at, dsdt_at = struct.unpack_from("<II", fadt, 36)
    assert struct.unpack_from("<QQ", fadt, 132) == (facs_at, dsdt_at)
    assert facs_at % 64 == 0
    found["FACS"] = memory.read(facs_at, 64)
    found["DSDT"] = table(dsdt_at)
    return found


@pytest.mark.parametrize("cpus", CPU_COUNTS)
def test_every_table_is_found_and_whole(cpus: int) -> None:
    assert set(tables(machine(cpus))) == {"RSDT", "XSDT", "FACP", "FACS", "APIC", "DSDT"}


def test_the_tables_lie_in_reserved_memory() -> None:
    built = firmware.build(255)
    reserved = [e for e in memory_map(64 * MIB) if e.kind == 2]
    for address, data in built.pieces[1:]:
        assert any(e.address <= address and address + len(data) <= e.end for e in reserved)


@pytest.mark.parametrize("cpus", CPU_COUNTS)
def test_the_madt_lists_processors_io_apic_and_overrides(cpus: int) -> None:
    madt = tables(machine(cpus))["APIC"]
    lapic, flags = struct.unpack_from("<II", madt, 36)
    assert (lapic, flags) == (0xFEE00000, 1)
    entries, position = [], 44
    while position < len(madt):
        entries.append(madt[position : position + madt[position + 1]])
        position += madt[position + 1]
    ids = [e[3] for e in entries if e[0] == 0] + [struct.unpack_from("<I", e, 4)[0] for e in entries if e[0] == 9]
    assert ids == list(range(cpus))
    assert [struct.unpack("<BBBBII", e) for e in entries if e[0] == 1] == [(1, 12, 0, 0, 0xFEC00000, 0)]
    overrides = [struct.unpack("<BBBBIH", e)[3:] for e in entries if e[0] == 2]
    assert overrides == [(0, 2, 0), (9, 9, 0xD)]
    assert [e[2:] for e in entries if e[0] == 4] == [b"\xff\0\0\x01"]


def test_the_fadt_describes_the_chipset() -> None:
    fadt = tables(machine(1))["FACP"]
    assert len(fadt) == 276 and fadt[8] == 6
    assert struct.unpack_from("<H", fadt, 46) == (9,)
    assert struct.unpack_from("<I", fadt, 48) == (0,)
    assert struct.unpack_from("<I4xI4x4xI", fadt, 56) == (0x600, 0x604, 0x608)
    assert (fadt[88], fadt[89], fadt[91]) == (4, 2, 4)
    assert struct.unpack_from("<BBBBQB", fadt, 116) == (1, 8, 0, 1, 0xCF9, 6)
    assert fadt[108] == 0x32
    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert flags & 1 << 10 and not flags & 1 << 8 and not flags & 1 << 20


def _floating_pointer(memory: GuestMemory) -> int:
    ebda = memory.read_uint(0x40E, 2) << 4
    return scan(memory, ebda, 1024, b"_MP_", 16)


@pytest.mark.parametrize("cpus", CPU_COUNTS)
def test_the_mp_table(cpus: int) -> None:
    memory = machine(cpus)
    pointer = _floating_pointer(memory)
    assert memory.read(scan(memory, 0xF0000, 0x10000, b"_MP_", 16), 16) == memory.read(pointer, 16)
    at, length, revision = struct.unpack("<IBB", memory.read(pointer + 4, 6))
    assert (length, revision) == (1, 4)
    size = memory.read_uint(at + 4, 2)
    data = memory.read(at, size)
    assert data[:4] == b"PCMP" and sum(data) & 0xFF == 0
    count = struct.unpack_from("<H", data, 34)[0]
    position, kinds, processors, wires = 44, [], [], {}
    for _ in range(count):
        kind = data[position]
        kinds.append(kind)
        if kind == 0:
            processors.append((data[position + 1], data[position + 3]))
        if kind == 3 and data[position + 1] == 0:
            _, _, flags, _, irq, _, pin = struct.unpack_from("<BBHBBBB", data, position)
            wires[irq] = (pin, flags)
        position += 20 if kind == 0 else 8
    assert position == size and kinds == sorted(kinds)
    assert processors == [(i, 3 if i == 0 else 1) for i in range(min(cpus, 255))]
    assert wires[0] == (2, 0) and wires[4] == (4, 0) and wires[9] == (9, 0xD) and 2 not in wires


def test_the_bios_data_area_and_harmless_interrupts() -> None:
    memory = machine(1)
    assert memory.read_uint(0x400, 2) == 0x3F8
    assert memory.read_uint(0x413, 2) == 639
    assert memory.read_uint(0x9FC00, 1) == 1
    for vector in range(256):
        offset, segment = struct.unpack("<HH", memory.read(vector * 4, 4))
        code = memory.read(segment * 16 + offset, 24)
        assert 0xCF in code, f"int {vector:#x} does not return"
    assert memory.read(0xFFFF0, 1) == b"\xea"


def test_loading_again_touches_few_pages_of_low_memory() -> None:
    memory = guest_memory()
    pages: set[int] = set()
    memory.observe_writes(lambda address, length: pages.update(range(address >> 12, (address + length - 1 >> 12) + 1)))
    boot.load(memory, multiboot_elf(), cpus=1, ram_size=16 * MIB)
    assert len([p for p in pages if p < 256]) <= 3
    assert len(pages) <= 6


@pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl is not installed (Debian: acpica-tools)")
@pytest.mark.parametrize("cpus", [1, 300])
def test_intels_compiler_accepts_the_tables(tmp_path, cpus: int) -> None:
    host_bridge = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_PRT", aml.package(aml.package(*(aml.integer(n) for n in (0xFFFF, 0, 0, 16))))),
        aml.name(
            "_CRS",
            aml.resources(
                aml.bus_numbers(0, 255),
                aml.io_window(0xD00, 0xFFFF),
                aml.memory_window32(0xC0000000, 0xFEBFFFFF),
                aml.memory_window64(1 << 40, (1 << 41) - 1),
                aml.memory32(0xFED00000, 1024),
                aml.interrupt(17, active_low=True, shared=True),
            ),
        ),
        aml.method("_STA", 0, aml.returns(aml.integer(0xF))),
        aml.method("_DSM", 4, aml.returns(aml.buffer(b"\0" * 70)), serialized=True),
        aml.scope("\\_SB.PCI0", aml.name("AAAA", aml.integer(1 << 40))),
    )
    for name, data in tables(machine(cpus, host_bridge)).items():
        path = tmp_path / f"{name.lower()}.dat"
        path.write_bytes(data)
        run = subprocess.run(["iasl", "-d", str(path)], capture_output=True, text=True, timeout=60)
        output = run.stdout + run.stderr
        assert run.returncode == 0, output
        assert "rror" not in output and "arning" not in output and "nvalid" not in output, output
    run = subprocess.run(["iasl", "-we", str(tmp_path / "dsdt.dsl")], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    text = (tmp_path / "dsdt.dsl").read_text()
    for part in ('EisaId ("PNP0A08")', "WordBusNumber", "QWordMemory", "DWordMemory", "Name (\\_S5", "Memory32Fixed"):
        assert part in text
