"""INTx, MSI and MSI-X: what is sent, what waits behind a mask, and what becomes of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pci_rig import BAR, COMMAND, INTX_DISABLE, LINE, MASTER, MEMORY, PIN, STATUS, Rig, function

from pyhv.errors import ConfigError
from pyhv.irq import Msi
from pyhv.pci import PciFunction

TABLE = 0xE200_0000
MSI, MSIX = 0x05, 0x11
ENABLE_MSIX, MASK_ALL = 0x8000, 0x4000
LAPIC = 0xFEE0_1000


def with_msix(vectors: int = 4) -> tuple[Rig, PciFunction]:
    """A function whose table is at TABLE, allowed to send."""
    device = function(interrupt_pin=1)
    rig = Rig()
    device.add_msix(vectors, 2, rig.source)
    rig.bus.add(device)
    rig.write(1, BAR + 8, TABLE)
    rig.command(1, MEMORY | MASTER)
    return rig, device


def control(rig: Rig, value: int) -> None:
    rig.write(1, rig.capability(1, MSIX) + 2, value, 2)


def entry(rig: Rig, vector: int, data: int, *, masked: bool = False, address: int = LAPIC) -> None:
    for word, value in enumerate((address & 0xFFFF_FFFF, address >> 32, data, int(masked))):
        rig.mmio.write(TABLE + 16 * vector + 4 * word, 4, value)


def pending(rig: Rig) -> int:
    return rig.mmio.read(TABLE + 0x800, 8)


# INTx


def test_pins_reach_their_wires_on_both_controllers():
    devices = [function(interrupt_pin=1 + number // 2 % 4) for number in range(12)]
    rig = Rig(*devices)
    for slot, device in enumerate(devices, 1):
        wire = (slot + device.interrupt_pin - 1) % 8
        assert rig.read(slot, PIN, 1) == device.interrupt_pin
        device.interrupt(True)
        assert rig.level(16 + wire) and rig.level(10 + wire % 2)
        device.interrupt(False)
        assert not any(rig.levels.values())
    rig.bus.assign()
    assert [rig.read(slot, LINE, 1) for slot in (1, 2, 3, 4)] == [11, 10, 10, 11]
    assert rig.bus.level_irqs == 1 << 10 | 1 << 11
    assert rig.bus.pins[0] == (1 << 3, 1) and len(rig.bus.pins) == 12


def test_a_shared_wire_is_high_while_anyone_drives_it():
    devices = [function(interrupt_pin=1) for _ in range(9)]
    rig = Rig(*devices)
    devices[0].interrupt(True)
    devices[8].interrupt(True)
    devices[0].interrupt(False)
    assert rig.level(17)
    devices[8].interrupt(False)
    assert not rig.level(17)


def test_the_command_disables_the_wire_and_status_tells_on():
    device = function(interrupt_pin=1)
    rig = Rig(device)
    rig.command(1, INTX_DISABLE)
    device.interrupt(True)
    assert rig.read(1, STATUS, 2) & 8 and not rig.level(17)
    rig.command(1, 0)
    assert rig.level(17)
    rig.command(1, INTX_DISABLE)
    assert not rig.level(17)
    device.interrupt(False)
    rig.command(1, 0)
    assert not rig.read(1, STATUS, 2) & 8 and not rig.level(17)


def test_messages_replace_the_wire():
    rig, device = with_msix()
    device.interrupt(True)
    assert rig.level(17)
    control(rig, ENABLE_MSIX)
    assert not rig.level(17) and rig.read(1, STATUS, 2) & 8
    control(rig, 0)
    assert rig.level(17)


# MSI-X


def test_the_capability_says_where_table_and_pending_bits_are():
    rig, _ = with_msix(5)
    at = rig.capability(1, MSIX)
    assert rig.read(1, at + 2, 2) == 4
    assert (rig.read(1, at + 4), rig.read(1, at + 8)) == (2, 0x802)
    rig.write(1, at + 4, 0xFFFF_FFFF)
    control(rig, 0xFFFF)
    assert (rig.read(1, at + 4), rig.read(1, at + 2, 2)) == (2, 0xC004)
    assert [rig.mmio.read(TABLE + 16 * v + 12, 4) for v in range(5)] == [1] * 5
    assert rig.mmio.read(TABLE + 16 * 5, 8) == 0


def test_a_vector_sends_its_message():
    rig, device = with_msix()
    entry(rig, 2, 0x4041)
    device.msix.fire(2)
    assert rig.sent == [] and pending(rig) == 0
    control(rig, ENABLE_MSIX)
    device.msix.fire(2)
    device.msix.fire(2)
    assert rig.sent == [Msi(LAPIC, 0x4041)] * 2
    entry(rig, 2, 0x42)
    device.msix.fire(2)
    assert rig.sent[2:] == [Msi(LAPIC, 0x42)]


@pytest.mark.parametrize("how", ["vector", "function", "master"])
def test_what_is_masked_waits_and_is_sent_once(how):
    rig, device = with_msix()
    control(rig, ENABLE_MSIX | (MASK_ALL if how == "function" else 0))
    entry(rig, 1, 0x31, masked=how == "vector")
    entry(rig, 3, 0x33)
    if how == "master":
        rig.command(1, MEMORY)
    for _ in range(3):
        device.msix.fire(1)
    assert rig.sent == [] and pending(rig) == 2
    if how == "vector":
        device.msix.fire(3)
        assert rig.sent.pop() == Msi(LAPIC, 0x33)
        rig.mmio.write(TABLE + 16 + 8, 4, 0x35)
        rig.mmio.write(TABLE + 16 + 12, 1, 0)
    elif how == "function":
        control(rig, ENABLE_MSIX)
    else:
        rig.command(1, MEMORY | MASTER)
    assert rig.sent == [Msi(LAPIC, 0x35 if how == "vector" else 0x31)] and pending(rig) == 0


def test_a_mask_of_the_vector_holds_when_that_of_the_function_goes():
    rig, device = with_msix()
    control(rig, ENABLE_MSIX | MASK_ALL)
    entry(rig, 0, 0x30, masked=True)
    device.msix.fire(0)
    control(rig, ENABLE_MSIX)
    assert rig.sent == [] and pending(rig) == 1
    rig.mmio.write(TABLE + 12, 4, 0)
    assert rig.sent == [Msi(LAPIC, 0x30)]


def test_switching_off_forgets_what_waits():
    rig, device = with_msix()
    control(rig, ENABLE_MSIX)
    entry(rig, 0, 0x30, masked=True)
    device.msix.fire(0)
    control(rig, 0)
    control(rig, ENABLE_MSIX)
    rig.mmio.write(TABLE + 12, 4, 0)
    assert rig.sent == []


def test_pending_bits_are_read_only_and_entries_keep_reserved_bits_zero():
    rig, _ = with_msix()
    control(rig, ENABLE_MSIX)
    rig.mmio.write(TABLE + 0x800, 8, 0xFF)
    assert pending(rig) == 0
    rig.mmio.write(TABLE, 8, (1 << 64) - 1)
    rig.mmio.write(TABLE + 8, 8, (1 << 64) - 1)
    assert rig.mmio.read(TABLE, 8) == (1 << 64) - 4
    assert rig.mmio.read(TABLE + 8, 8) == 0x1_FFFF_FFFF


@pytest.mark.parametrize("address", [0, 0xFED0_0000, 0xFEF0_0000, 0x1_FEE0_0000, (1 << 64) - 4])
def test_messages_to_nobody_are_lost(address):
    rig, device = with_msix()
    control(rig, ENABLE_MSIX)
    entry(rig, 0, 0x30, address=address)
    device.msix.fire(0)
    assert rig.sent == [] and pending(rig) == 0
    entry(rig, 0, 0x30)
    device.msix.fire(0)
    entry(rig, 0, 0x30, address=address)
    device.msix.fire(0)
    assert rig.sent == [Msi(LAPIC, 0x30)]


@pytest.mark.parametrize("vector", [4, 5, 0xFFFF, -1])
def test_vectors_that_there_are_not_send_nothing(vector):
    rig, device = with_msix()
    control(rig, ENABLE_MSIX)
    device.msix.fire(vector)
    assert rig.sent == [] and rig.sources == []


def test_sources_are_made_when_needed_and_given_back():
    rig, device = with_msix()
    control(rig, ENABLE_MSIX)
    entry(rig, 3, 0x33)
    assert rig.sources == []
    device.msix.fire(3)
    assert len(rig.sources) == 1
    device.close()
    device.close()
    assert rig.sources[0].closed


def test_a_reset_masks_all_vectors():
    rig, device = with_msix()
    control(rig, ENABLE_MSIX)
    entry(rig, 0, 0x30, masked=True)
    device.msix.fire(0)
    rig.bus.reset()
    assert not device.msix.enabled
    rig.write(1, BAR + 8, TABLE)
    rig.command(1, MEMORY | MASTER)
    assert pending(rig) == 0 and rig.mmio.read(TABLE + 12, 4) == 1 and rig.mmio.read(TABLE, 4) == 0


def test_a_table_of_2048_vectors():
    rig, device = with_msix(2048)
    at = rig.capability(1, MSIX)
    assert rig.read(1, at + 2, 2) == 2047
    assert rig.read(1, at + 8) == 0x8002
    rig.write(1, BAR + 8, 0xFFFF_FFFF)
    assert rig.read(1, BAR + 8) == 0xFFFF_0000
    rig.write(1, BAR + 8, TABLE)
    control(rig, ENABLE_MSIX)
    device.msix.fire(2047)
    assert rig.mmio.read(TABLE + 0x8000 + 255, 1) == 0x80


@pytest.mark.parametrize("vectors", [0, 2049])
def test_tables_that_cannot_be(vectors):
    with pytest.raises(ConfigError, match="MSI-X vectors"):
        function().add_msix(vectors, 0, lambda: None)


# MSI


def with_msi(vectors: int = 4) -> tuple[Rig, PciFunction, int]:
    device = function(interrupt_pin=1)
    rig = Rig()
    device.add_msi(vectors, rig.source)
    rig.bus.add(device)
    rig.command(1, MASTER)
    at = rig.capability(1, MSI)
    rig.write(1, at + 4, LAPIC)
    rig.write(1, at + 12, 0x40, 2)
    return rig, device, at


def enable_msi(rig: Rig, at: int, allocated: int) -> None:
    rig.write(1, at + 2, 1 | allocated << 4, 2)


def test_msi_control():
    rig, _, at = with_msi(8)
    assert rig.read(1, at + 2, 2) == 3 << 1 | 1 << 7 | 1 << 8
    rig.write(1, at + 2, 0xFFFF, 2)
    assert rig.read(1, at + 2, 2) == 3 << 1 | 1 << 7 | 1 << 8 | 7 << 4 | 1
    rig.write(1, at + 0x10, 0xFFFF_FFFF)
    rig.write(1, at + 0x14, 0xFFFF_FFFF)
    assert (rig.read(1, at + 0x10), rig.read(1, at + 0x14)) == (0xFF, 0)
    rig.write(1, at + 4, 0xFFFF_FFFF)
    assert rig.read(1, at + 4) == 0xFFFF_FFFC


def test_vectors_are_in_the_low_bits_of_the_data():
    rig, device, at = with_msi()
    device.msi.fire(1)
    assert rig.sent == []
    enable_msi(rig, at, 2)
    for vector in (0, 3):
        device.msi.fire(vector)
    assert rig.sent == [Msi(LAPIC, 0x40), Msi(LAPIC, 0x43)]
    enable_msi(rig, at, 0)
    device.msi.fire(3)
    assert rig.sent[2:] == [Msi(LAPIC, 0x40)]
    enable_msi(rig, at, 7)
    rig.write(1, at + 12, 0x4F, 2)
    device.msi.fire(1)
    assert rig.sent[3:] == [Msi(LAPIC, 0x4D)]


def test_masked_vectors_wait():
    rig, device, at = with_msi()
    enable_msi(rig, at, 2)
    rig.write(1, at + 0x10, 0b0110)
    for vector in range(4):
        device.msi.fire(vector)
    assert [m.data for m in rig.sent] == [0x40, 0x43]
    assert rig.read(1, at + 0x14) == 0b0110
    rig.write(1, at + 0x10, 0b0100)
    assert [m.data for m in rig.sent[2:]] == [0x41]
    rig.write(1, at + 0x10, 0, 1)
    assert [m.data for m in rig.sent[3:]] == [0x42]
    assert rig.read(1, at + 0x14) == 0


def test_msi_waits_for_the_bus():
    rig, device, at = with_msi(1)
    enable_msi(rig, at, 0)
    rig.command(1, 0)
    device.msi.fire(0)
    assert rig.sent == [] and rig.read(1, at + 0x14) == 1
    rig.command(1, MASTER)
    assert [m.data for m in rig.sent] == [0x40]


def test_msi_switched_off_forgets_and_gives_the_wire_back():
    rig, device, at = with_msi(1)
    device.interrupt(True)
    enable_msi(rig, at, 0)
    assert not rig.level(17)
    rig.write(1, at + 0x10, 1)
    device.msi.fire(0)
    rig.write(1, at + 2, 0, 2)
    assert rig.level(17) and rig.read(1, at + 0x14) == 0
    device.close()


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_numbers_of_msi_vectors_that_cannot_be(vectors):
    with pytest.raises(ConfigError, match="MSI vectors"):
        function().add_msi(vectors, lambda: None)


# Anything

ACCESS = st.tuples(
    st.sampled_from(("config", "table", "port", "fire", "wire")),
    st.integers(0, 0xFFF),
    st.sampled_from((1, 2, 4, 8)),
    st.none() | st.integers(0, (1 << 64) - 1) | st.sampled_from((0, 1, LAPIC, 0x8000, 0xC000, 0xFFFF_FFFF)),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(ACCESS, max_size=60))
def test_nothing_that_software_does_raises_or_reads_too_wide(accesses):
    device = function(interrupt_pin=1)
    rig = Rig()
    device.add_msi(4, rig.source)
    device.add_msix(3, 2, rig.source)
    rig.bus.add(device)
    rig.bus.assign()
    for where, offset, size, value in accesses:
        base = rig.read(1, BAR + 8) & ~0xF
        if where == "fire":
            device.msi.fire(offset & 3)
            device.msix.fire(offset & 3)
        elif where == "wire":
            device.interrupt(bool(offset & 1))
        elif where == "port":
            port, size = 0xCF8 + (offset & 7), min(size, 4)
            if value is None:
                assert 0 <= rig.ports.read(port, size) < 1 << 8 * size
            else:
                rig.ports.write(port, size, value & (1 << 8 * size) - 1)
        else:
            address = base + offset if where == "table" else 0xE000_8000 + (offset & 0xFF)
            if value is None:
                assert 0 <= rig.mmio.read(address, size) < 1 << 8 * size
            else:
                rig.mmio.write(address, size, value & (1 << 8 * size) - 1)
    assert rig.read(1, 0) == 0x5678_1234 and rig.read(0, 0) == 0x0008_1B36
    assert rig.read(1, COMMAND + 2, 2) & 0x10
    assert all(m.address & ~0xFFFFF == 0xFEE0_0000 for m in rig.sent)
