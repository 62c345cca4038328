"""What is what, and what users are told about files that are no kernels."""

import os
import subprocess
import sys

import pytest
from boot_images import MIB, BzImage, Load, elf, guest_memory, multiboot_elf, multiboot_header, pvh_elf, xen_note

from pyhv import boot
from pyhv.errors import ConfigError

BOTH_64 = elf(64, MIB, [Load(MIB, multiboot_header(3) + b"\xf4" * 64), Load(0, xen_note(MIB), type=4)])
BOTH_32 = elf(32, MIB, [Load(MIB, multiboot_header(3) + b"\xf4" * 64), Load(0, xen_note(MIB), type=4)])
KLUDGE_64 = elf(64, MIB, [Load(MIB, multiboot_header(1 << 16, MIB, MIB, 0, 0, MIB)), Load(0, xen_note(MIB), type=4)])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (BzImage().build(), "bzimage"),
        (multiboot_elf(), "multiboot"),
        (multiboot_elf(bits=64), "multiboot"),
        (multiboot_header(1 << 16, MIB, MIB, 0, 0, MIB), "multiboot"),
        (pvh_elf(64), "pvh"),
        (pvh_elf(32), "pvh"),
        (BOTH_32, "multiboot"),
        (BOTH_64, "pvh"),
        (KLUDGE_64, "multiboot"),
        (elf(64, MIB, [Load(MIB, b"x")]), "elf"),
        (elf(32, MIB, [Load(MIB, b"x")]), "elf"),
        (bytes(510) + b"\x55\xaa", "flat"),
        (bytes(510) + b"\x55\xaa" + bytes(1024), "flat"),
    ],
)
def test_formats(image: bytes, expected: str) -> None:
    assert boot.detect(image) == expected


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not a kernel: the file is empty"),
        (b"just some notes\n", "not a kernel: no bzImage, multiboot, PVH or ELF header; use --format flat"),
        (bytes(510) + b"\x55\xaa\0", "not a kernel: no bzImage"),
        (bytes(510) + b"\x55\xaa" + bytes(MIB), "looks like a disk image"),
        (b"\x1f\x8b\x08" + bytes(100), "not a kernel"),
    ],
)
def test_files_that_are_no_kernels(tmp_path, content: bytes, what: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=what) as caught:
        boot.load(guest_memory(), path, cpus=1, ram_size=16 * MIB)
    assert str(caught.value).startswith(f"kernel: {str(path)!r}: ") and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    for path, what in [
        (tmp_path / "none", "No such file"),
        (tmp_path, "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("a\0b", "null byte"),
    ]:
        with pytest.raises(ConfigError, match=what):
            boot.load(guest_memory(), path, cpus=1, ram_size=16 * MIB)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        boot.load(guest_memory(), tmp_path / "pipe", cpus=1, ram_size=16 * MIB)
    with pytest.raises(ConfigError, match=r"^initrd: '.*': No such file"):
        boot.load(guest_memory(), multiboot_elf(), cpus=1, ram_size=16 * MIB, initrd=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"^modules: '.*': No such file"):
        boot.load(guest_memory(), multiboot_elf(), cpus=1, ram_size=16 * MIB, modules=[(tmp_path / "none", "")])


def test_a_large_file_is_mapped(tmp_path) -> None:
    path = tmp_path / "vmlinux"
    with open(path, "wb") as file:
        file.write(pvh_elf())
        file.truncate(80 * MIB)
    assert boot.load(guest_memory(), path, cpus=1, ram_size=16 * MIB).format == "pvh"


def test_options_of_no_sense() -> None:
    memory = guest_memory()
    with pytest.raises(ConfigError, match=r"^format: 'coff' is not one of auto, flat"):
        boot.load(memory, multiboot_elf(), cpus=1, ram_size=16 * MIB, format="coff")
    with pytest.raises(ConfigError, match=r"^cpus: 0"):
        boot.load(memory, multiboot_elf(), cpus=0, ram_size=16 * MIB)
    with pytest.raises(ConfigError, match=r"^cpus: 10000"):
        boot.load(memory, multiboot_elf(), cpus=10000, ram_size=16 * MIB)
    with pytest.raises(ConfigError, match=r"^cmdline: .*cannot be encoded"):
        boot.load(memory, multiboot_elf(), cpus=1, ram_size=16 * MIB, cmdline="\ud800")
    with pytest.raises(ConfigError, match=r"^cmdline: contains a NUL"):
        boot.load(memory, multiboot_elf(), cpus=1, ram_size=16 * MIB, cmdline="a\0b")


def test_only_the_loader_in_use_is_imported() -> None:
    code = (
        "import sys, pyhv.boot\n"
        "assert not [m for m in sys.modules if m.startswith('pyhv.boot.')]\n"
        "from boot_images import *\n"
        "pyhv.boot.load(guest_memory(), multiboot_elf(), cpus=1, ram_size=16 << 20)\n"
        "print(' '.join(m for m in sys.modules if m.startswith('pyhv.boot.')))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.path.dirname(__file__)
    )
    loaded = out.stdout.split()
    assert "pyhv.boot.multiboot" in loaded
    assert not {"pyhv.boot.bzimage", "pyhv.boot.linux", "pyhv.boot.flat", "pyhv.boot.payload"} & set(loaded)
