"""ACPI and MP tables: found where they are looked for, whole, and understood by Intel's own compiler."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import tiny
from boot_images import MIB, guest_memory, multiboot_elf

import pyhv
from pyhv import boot
from pyhv.boot import aml, firmware
from pyhv.boot.e820 import memory_map
from pyhv.boot.pci_root import PciRoot
from pyhv.chipset.layout import pci_memory64
from pyhv.memory import GuestMemory

CPU_COUNTS = [1, 2, 8, 255, 300]


WINDOW_64 = (1 << 32, 1 << 34)
NO_PCI = PciRoot(WINDOW_64)
FULL_PCI = PciRoot(WINDOW_64, (*((slot << 3, 1) for slot in range(1, 32)), (1 << 3 | 1, 2), (2 << 3 | 1, 0)))
"""A device in each slot, on pin A; slot 1 has another function on pin B, slot 2 one without a pin."""


def machine(cpus: int, more: bytes = b"", pci: PciRoot = NO_PCI) -> GuestMemory:
    memory = guest_memory(2 * MIB)
    firmware.build(cpus, pci, more).install(memory)
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
    assert set(tables(machine(cpus))) == {"RSDT", "XSDT", "FACP", "FACS", "APIC", "DSDT", "MCFG"}


def test_the_tables_lie_in_reserved_memory() -> None:
    built = firmware.build(255, FULL_PCI)
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


def test_mcfg_names_the_configuration_space_of_bus_0_which_is_reserved() -> None:
    table = tables(machine(1))["MCFG"]
    assert struct.unpack("<8xQHBB4x", table[36:]) == (0xE000_0000, 0, 0, 0)
    reserved = [(e.address, e.length) for e in memory_map(64 * MIB) if e.kind == 2]
    assert (0xE000_0000, 1 << 20) in reserved


def _floating_pointer(memory: GuestMemory) -> int:
    ebda = memory.read_uint(0x40E, 2) << 4
    return scan(memory, ebda, 1024, b"_MP_", 16)


@pytest.mark.parametrize("pci", [NO_PCI, FULL_PCI], ids=["empty", "full"])
@pytest.mark.parametrize("cpus", CPU_COUNTS)
def test_the_mp_table(cpus: int, pci: PciRoot) -> None:
    memory = machine(cpus, pci=pci)
    pointer = _floating_pointer(memory)
    assert memory.read(scan(memory, 0xF0000, 0x10000, b"_MP_", 16), 16) == memory.read(pointer, 16)
    at, length, revision = struct.unpack("<IBB", memory.read(pointer + 4, 6))
    assert (length, revision) == (1, 4)
    size = memory.read_uint(at + 4, 2)
    data = memory.read(at, size)
    assert data[:4] == b"PCMP" and sum(data) & 0xFF == 0
    count = struct.unpack_from("<H", data, 34)[0]
    position, kinds, processors, buses, wires = 44, [], [], {}, {}
    for _ in range(count):
        kind = data[position]
        kinds.append(kind)
        if kind == 0:
            processors.append((data[position + 1], data[position + 3]))
        if kind == 1:
            buses[data[position + 1]] = data[position + 2 : position + 8]
        if kind == 3 and data[position + 1] == 0:
            _, _, flags, bus, irq, _, pin = struct.unpack_from("<BBHBBBB", data, position)
            wires[bus, irq] = (pin, flags)
        position += 20 if kind == 0 else 8
    assert position == size and kinds == sorted(kinds)
    assert processors == [(i, 3 if i == 0 else 1) for i in range(min(cpus, 255))]
    assert buses == {0: b"PCI   ", 1: b"ISA   "}
    assert wires[1, 0] == (2, 0) and wires[1, 4] == (4, 0) and wires[1, 9] == (9, 0xD) and (1, 2) not in wires
    slots = {irq >> 2: pin for (bus, irq), (pin, flags) in wires.items() if bus == 0 and irq & 3 == 0 and flags == 0xF}
    assert slots == ({} if pci is NO_PCI else {slot: 16 + slot % 8 for slot in range(1, 32)})
    assert wires.get((0, 1 << 2 | 1)) == (None if pci is NO_PCI else (16 + 2, 0xF))


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


def disassemble(directory: Path, found: dict[str, bytes]) -> dict[str, str]:
    """Each table as Intel's disassembler understands it; the DSDT compiles again."""
    texts = {}
    for name, data in found.items():
        path = directory / f"{name.lower()}.dat"
        path.write_bytes(data)
        run = subprocess.run(["iasl", "-d", str(path)], capture_output=True, text=True, timeout=60)
        output = run.stdout + run.stderr
        assert run.returncode == 0, output
        assert "rror" not in output and "arning" not in output and "nvalid" not in output, output
        texts[name] = path.with_suffix(".dsl").read_text()
    run = subprocess.run(["iasl", "-we", str(directory / "dsdt.dsl")], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    return texts


needs_iasl = pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl is not installed (Debian: acpica-tools)")


@needs_iasl
@pytest.mark.parametrize(("cpus", "pci"), [(1, NO_PCI), (300, FULL_PCI)], ids=["small", "large"])
def test_intels_compiler_accepts_the_tables(tmp_path, cpus: int, pci: PciRoot) -> None:
    more = aml.device(
        "MORE",
        aml.name("_HID", aml.string("LNRO0005")),
        aml.name(
            "_CRS", aml.resources(aml.memory32(0xFED00000, 1024), aml.interrupt(17, active_low=True, shared=True))
        ),
        aml.method("_STA", 0, aml.returns(aml.integer(0xF))),
        aml.method("_DSM", 4, aml.returns(aml.buffer(b"\0" * 70)), serialized=True),
        aml.scope("\\_SB.PCI0", aml.name("AAAA", aml.integer(1 << 40))),
    )
    text = disassemble(tmp_path, tables(machine(cpus, more, pci)))["DSDT"]
    for part in ('EisaId ("PNP0A08")', "WordBusNumber", "QWordMemory", "DWordMemory", "Name (\\_S5", "Memory32Fixed"):
        assert part in text
    assert text.count("Name (_ADR, ") == len(pci.functions)


@needs_iasl
def test_interrupts_are_routed_as_the_board_is_wired(tmp_path) -> None:
    text = disassemble(tmp_path, tables(machine(1, pci=FULL_PCI)))["DSDT"]
    method = text[text.index("Method (_PRT") :].split("Device (")[0]
    words = {"Zero": 0, "One": 1}
    for part, first, wires in zip(method.split("Return")[1:], (16, 10), (8, 2), strict=True):
        found = re.findall(r"\b(?:Zero|One|0x\w+)\b", re.sub(r"Package \(.*?\)|//.*|/\*.*?\*/", "", part))
        numbers = [words[word] if word in words else int(word, 16) for word in found]
        entries = [tuple(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
        assert sorted(entries) == sorted(
            (slot << 16 | 0xFFFF, pin - 1, 0, first + (slot + pin - 1) % 8 % wires)
            for slot, pin in [*((slot, 1) for slot in range(1, 32)), (1, 2)]
        )


@needs_iasl
def test_a_machine_has_a_node_for_each_device(tmp_path, sim) -> None:
    from pyhv.peripherals.entropy import Entropy
    from pyhv.peripherals.watchdog import Watchdog

    devices = [Entropy(), Entropy(transport="mmio"), Entropy(transport="mmio"), Watchdog("wdat"), Watchdog("i6300esb")]
    machine = pyhv.Machine(tiny.image(tmp_path, tiny.exit(0)), format="flat", devices=devices)
    with pyhv.Vm(machine, backend=sim) as vm:
        found = tables(vm.memory)
    assert {"MCFG", "WDAT"} <= set(found)
    text = disassemble(tmp_path, found)["DSDT"]
    assert text.count('"LNRO0005"') == 2
    assert re.findall(r"Device \((S\w+)\)", text) == ["S08", "S10"]


def test_a_memory_that_leaves_no_room_has_no_window_above_it() -> None:
    assert pci_memory64(3 << 30) == (4 << 30, 20 << 30)
    assert pci_memory64((5 << 30) + 1) == (6 << 30, 22 << 30)
    base, end = pci_memory64((1 << 40) - (15 << 30))
    assert base == end
