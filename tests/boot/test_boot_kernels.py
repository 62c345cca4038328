"""Kernels that others built: the project's guests, and Debian's, where they have been built or fetched."""

from pathlib import Path

import pytest
from boot_images import MIB, guest_memory

from pyhv import boot
from pyhv.boot.symbols import SymbolTable

ROOT = Path(__file__).parents[2]
GUESTS = ROOT / "guests" / "build"
KERNELS = ROOT / "build" / "kernels"


def existing(path: Path, command: str) -> Path:
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: run `{command}`")
    return path


@pytest.mark.parametrize(
    ("name", "format"), [("hello.elf", "multiboot"), ("hello64.elf", "pvh"), ("hello16.bin", "flat")]
)
def test_the_guests_are_recognised(name: str, format: str) -> None:
    path = existing(GUESTS / name, "make guests")
    state = boot.load(guest_memory(), path, cpus=1, ram_size=16 * MIB)
    assert state.format == format
    if format != "flat":
        assert SymbolTable.open(path).lookup(state.entry) == ("_start", 0)


@pytest.mark.parametrize("name", ["cloud", "generic"])
def test_debians_kernels_load_packed_and_unpacked(name: str) -> None:
    path = existing(KERNELS / name / "vmlinuz", "make kernels")
    memory = guest_memory(128 * MIB)
    packed = boot.load(memory, path, cpus=1, ram_size=128 * MIB, cmdline="console=ttyS0")
    assert packed.format == "bzimage" and packed.entry == 16 * MIB + 0x200
    if name == "cloud":
        unpacked = boot.load(guest_memory(128 * MIB), path, cpus=1, ram_size=128 * MIB, unpack=True)
        assert unpacked.entry == 16 * MIB and unpacked.system.cs.l


@pytest.mark.parametrize(("name", "long"), [("memtest86+x64.bin", True), ("memtest86+ia32.bin", False)])
def test_memtest_loads(name: str, long: bool) -> None:
    path = existing(KERNELS / "memtest86+" / "root" / "boot" / name, "make kernels")
    state = boot.load(guest_memory(), path, cpus=1, ram_size=16 * MIB)
    assert state.format == "bzimage" and state.system.cs.l == long
