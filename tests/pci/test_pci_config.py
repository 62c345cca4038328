"""Configuration space: both ways to it, what is there, and what software can change."""

import pytest
from pci_rig import COMMAND, MASTER, Rig, function

from pyhv.errors import ConfigError
from pyhv.pci import BarKind, PciFunction

ADDRESS, DATA = 0xCF8, 0xCFC


def test_the_host_bridge_is_there_and_nothing_else():
    rig = Rig()
    assert rig.read(0, 0) == 0x0008_1B36
    assert rig.read(0, 8) >> 8 == 0x06_0000
    assert all(rig.read(slot, 0) == 0xFFFF_FFFF for slot in range(1, 32))


def test_mechanism_1():
    rig = Rig(function(revision=7))
    rig.ports.write(ADDRESS, 4, 0x8000_0800)
    assert rig.ports.read(ADDRESS, 4) == 0x8000_0800
    assert rig.ports.read(DATA, 4) == 0x5678_1234
    assert rig.ports.read(DATA + 2, 2) == 0x5678
    assert rig.ports.read(DATA + 1, 1) == 0x12
    rig.ports.write(ADDRESS, 4, 0x8000_0808)
    assert rig.ports.read(DATA, 1) == 7
    rig.ports.write(ADDRESS, 4, 0x8000_0804)
    rig.ports.write(DATA, 2, MASTER)
    assert rig.read(1, COMMAND, 2) == MASTER
    rig.ports.write(DATA + 1, 1, 1)
    assert rig.read(1, COMMAND, 2) == 1 << 8 | MASTER


def test_the_way_kernels_probe_for_mechanism_1():
    """Linux: a byte to 0xcfb, then bit 31 must stay; SeaBIOS: the same without the byte."""
    rig = Rig()
    rig.ports.write(0xCFB, 1, 1)
    before = rig.ports.read(ADDRESS, 4)
    rig.ports.write(ADDRESS, 4, 0x8000_0000)
    assert rig.ports.read(ADDRESS, 4) == 0x8000_0000
    rig.ports.write(ADDRESS, 4, before)
    assert rig.ports.read(ADDRESS, 4) == 0


def test_there_is_no_mechanism_2():
    rig = Rig()
    for port in (0xCFB, 0xCF8, 0xCFA):
        rig.ports.write(port, 1, 0)
    assert (rig.ports.read(0xCF8, 1), rig.ports.read(0xCFA, 1)) == (0xFF, 0xFF)


@pytest.mark.parametrize("address", [0x0000_0000, 0x0000_0800, 0x8001_0000, 0x80FF_F800])
def test_no_function_reads_as_ones_and_swallows_writes(address):
    rig = Rig(function())
    rig.ports.write(ADDRESS, 4, address)
    for size in (1, 2, 4):
        assert rig.ports.read(DATA, size) == (1 << 8 * size) - 1
        rig.ports.write(DATA, size, 0)
    assert rig.read(1, 0) == 0x5678_1234


@pytest.mark.parametrize(("port", "size"), [(0xCF8, 4), (0xCF8, 2), (0xCFA, 1)])
def test_addresses_do_not_reset_the_machine(port, size):
    """0x80000600 names an offset whose second byte resets when it is written alone."""
    rig = Rig()
    rig.ports.write(port, size, 0x8000_0600 & (1 << 8 * size) - 1)
    assert rig.control.calls == []


def test_the_byte_within_the_address_resets_the_machine():
    rig = Rig()
    rig.ports.write(ADDRESS, 4, 0x8000_0000)
    rig.ports.write(0xCF9, 1, 2)
    assert rig.ports.read(0xCF9, 1) == 2
    assert rig.control.calls == []
    rig.ports.write(0xCF9, 1, 6)
    assert rig.control.calls == [("reset", "reset control register")]
    assert rig.ports.read(ADDRESS, 4) == 0x8000_0000


def test_accesses_of_any_alignment_reach_the_bytes():
    rig = Rig(function(revision=0x5A))
    expected = bytes(rig.read(1, offset, 1) for offset in range(64))
    for offset in range(48):
        for size in (1, 2, 4, 8):
            assert rig.read(1, offset, size).to_bytes(size, "little") == expected[offset : offset + size]
    rig.write(1, 0x0B, 0xFFFF_FFFF)
    assert (rig.read(1, 0x0C, 1), rig.read(1, 0x0D, 1), rig.read(1, 0x0E, 1)) == (0xFF, 0xF8, 0)


def test_extended_space_is_empty():
    rig = Rig(function())
    rig.write(1, 0x100, 0xFFFF_FFFF)
    assert rig.read(1, 0x100) == 0 and rig.read(1, 0xFFC) == 0
    assert rig.read(1, 0xFFE) >> 16 == 0
    assert rig.read(3, 0x100) == 0xFFFF_FFFF


def test_identity_and_status_cannot_be_written():
    rig = Rig(function(subsystem_vendor=0x1AF4, subsystem=0x1100))
    before = [rig.read(1, offset) for offset in range(0, 64, 4)]
    for offset in (*range(0, 4, 4), 8, *range(0x10, 0x3C, 4)):
        rig.write(1, offset, 0xFFFF_FFFF)
    rig.write(1, 0x06, 0xFFFF, 2)
    assert [rig.read(1, offset) for offset in range(0, 64, 4)] == before
    assert rig.read(1, 0x2C) == 0x1100_1AF4


def test_only_commands_of_ranges_that_there_are_can_be_set():
    plain, both = function(), function(interrupt_pin=1)
    both.add_bar(0, 16, plain.config, kind=BarKind.IO)
    both.add_bar(1, 4096, plain.config)
    rig = Rig(plain, both)
    for slot in (1, 2):
        rig.command(slot, 0xFFFF)
    assert rig.read(1, COMMAND, 2) == 0x144
    assert rig.read(2, COMMAND, 2) == 0x547


def test_a_reset_of_the_bus():
    device = function(interrupt_pin=1)
    rig = Rig(device)
    rig.command(1, MASTER)
    rig.write(1, 0x3C, 0x5A, 1)
    device.interrupt(True)
    rig.bus.reset()
    assert rig.read(1, COMMAND) == 0
    assert rig.read(1, 0x3C) == 0x100
    assert not any(rig.levels.values())


def test_functions_take_slots_then_share_them():
    rig = Rig(*(function() for _ in range(31)))
    assert [f.devfn >> 3 for f in rig.bus.functions] == list(range(32))
    assert rig.read(1, 0x0E, 1) == 0
    assert rig.bus.add(function(device=0x9999)) == 1
    assert rig.read(1, 0x0E, 1) == 0x80 and rig.read(2, 0x0E, 1) == 0
    assert rig.mmio.read(0xE000_0000 | 1 << 15 | 1 << 12, 4) == 0x9999_1234
    rig.bus.reset()
    assert rig.read(1, 0x0E, 1) == 0x80
    for _ in range(31 * 7 - 1):
        rig.bus.add(function())
    with pytest.raises(ConfigError, match="full, with 249 functions"):
        rig.bus.add(function())


def test_capabilities_are_a_list():
    device = function()
    first = device.add_capability(0x09, bytes(range(3)))
    second = device.add_capability(0x0A, b"\x11\x22\x33\x44\x55", b"\x0f")
    assert (first, second) == (0x40, 0x48)
    rig = Rig(device)
    assert rig.read(1, COMMAND) >> 16 & 0x10
    assert (rig.capability(1, 0x09), rig.capability(1, 0x0A)) == (first, second)
    rig.write(1, second, 0xFFFF_FFFF)
    assert rig.read(1, second) == 0x221F_000A
    with pytest.raises(ConfigError, match="no room"):
        device.add_capability(0x09, bytes(0xB0))


@pytest.mark.parametrize(
    ("index", "size", "kind", "said"),
    [
        (0, 24, BarKind.MEMORY32, "power of two"),
        (0, 8, BarKind.MEMORY32, "power of two"),
        (0, 512, BarKind.IO, "power of two"),
        (6, 16, BarKind.MEMORY32, "no such register"),
        (5, 16, BarKind.MEMORY64, "no such register"),
        (2, 16, BarKind.MEMORY32, "taken"),
        (1, 16, BarKind.MEMORY64, "taken"),
        (3, 16, BarKind.IO, "taken"),
    ],
)
def test_ranges_that_cannot_be(index, size, kind, said):
    device = function()
    device.add_bar(2, 16, device.config, kind=BarKind.MEMORY64)
    with pytest.raises(ConfigError, match=said):
        device.add_bar(index, size, device.config, kind=kind)


@pytest.mark.parametrize("pin", [-1, 5])
def test_pins_that_cannot_be(pin):
    with pytest.raises(ConfigError, match="interrupt pin"):
        PciFunction(vendor=1, device=2, class_code=3, interrupt_pin=pin)


