"""Flat images: real mode at any address."""

import pytest
from boot_images import MIB, guest_memory

from pyhv import boot
from pyhv.errors import BootError, ConfigError
from pyhv.memory import GuestMemory, MemoryRegion

SECTOR = b"\xf4".ljust(510, b"\0") + b"\x55\xaa"


def start(image: bytes, **options):
    memory = guest_memory()
    return boot.load(memory, image, cpus=1, ram_size=16 * MIB, **options), memory


def test_a_boot_sector_needs_no_option() -> None:
    state, memory = start(SECTOR)
    assert state.format == "flat"
    cs = state.system.cs
    assert (cs.selector, cs.base, state.general.rip) == (0, 0, 0x7C00)
    assert state.system.cr0 & 0x80000001 == 0 and state.system.efer == 0
    assert state.general.rflags == 2 and state.general.rdx & 0xFF == 0x80
    assert memory.read(0x7C00, 512) == SECTOR


@pytest.mark.parametrize(
    ("address", "selector", "base", "ip"),
    [
        (0x500, 0, 0, 0x500),
        (0x8000, 0, 0, 0x8000),
        (0x10000, 0x1000, 0x10000, 0),
        (0x9F000, 0x9000, 0x90000, 0xF000),
        (0xFFFF0, 0xF000, 0xF0000, 0xFFF0),
        (0x200010, 0xF000, 0x200000, 0x10),
    ],
)
def test_any_address(address: int, selector: int, base: int, ip: int) -> None:
    state, memory = start(b"\xf4" * 16, format="flat", load_address=address)
    cs = state.system.cs
    assert (cs.selector, cs.base, state.general.rip) == (selector, base, ip)
    assert cs.base + state.general.rip == state.entry == address
    assert memory.read(address, 16) == b"\xf4" * 16


def test_an_entry_inside_the_image() -> None:
    state, _ = start(b"\xf4" * 600, format="flat", entry=0x7C00 + 599)
    assert state.general.rip == 0x7C00 + 599


@pytest.mark.parametrize("entry", [0x7BFF, 0x7C00 + 600, 0xFFFFFFF0])
def test_an_entry_outside_the_image(entry: int) -> None:
    with pytest.raises(BootError, match="is outside the image"):
        start(b"\xf4" * 600, format="flat", entry=entry)


def test_the_reset_vector_in_memory_below_4_gib() -> None:
    memory = guest_memory()
    memory.add(MemoryRegion(0xFFFF0000, memoryview(bytearray(0x10000)), readonly=True))
    image = bytes(0xFFF0) + b"\xf4" * 16
    state = boot.load(
        memory, image, cpus=1, ram_size=16 * MIB, format="flat", load_address=0xFFFF0000, entry=0xFFFFFFF0
    )
    assert (state.system.cs.base, state.general.rip) == (0xFFFF0000, 0xFFF0)


@pytest.mark.parametrize("address", [16 * MIB - 1, 0xFFFFFFFF, 1 << 40])
def test_outside_memory(address: int) -> None:
    with pytest.raises(BootError, match="is not in the machine's memory"):
        start(b"\xf4\xf4", format="flat", load_address=address)


def test_what_flat_images_do_not_take() -> None:
    with pytest.raises(ConfigError, match=r"^initrd: "):
        start(SECTOR, initrd=b"x")
    with pytest.raises(ConfigError, match=r"^modules: "):
        start(SECTOR, modules=[(b"x", "x")])
    with pytest.raises(ConfigError, match="empty"):
        start(b"", format="flat")


def test_memory_of_less_than_1_mib() -> None:
    memory = GuestMemory()
    memory.add(MemoryRegion(0, memoryview(bytearray(65536))))
    with pytest.raises(BootError, match=r"^memory: "):
        boot.load(memory, SECTOR, cpus=1, ram_size=65536)
