"""Disks and persistent memory in whole machines: what a guest without an operating system writes is what the host finds."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from qcow2_files import assert_whole, create, walk

import pyhv
from pyhv.hv.select import Selection

SIZE = 1 << 20
FIRST, LENGTH = 8 * 512, 16 * 512
TIMEOUT = 120


def written() -> bytes:
    """What guests/lib/virtio_steps.c writes from sector 8 on."""
    return bytes((at * 7 + (at >> 8) * 13 + 5) & 0xFF for at in range(LENGTH))


def contents() -> bytes:
    return b"a line of text\n".ljust(512, b"\0") + bytes(range(256)) * ((SIZE - 512) // 256)


def after() -> bytes:
    before = contents()
    return before[:FIRST] + written() + before[FIRST + LENGTH :]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(contents())
    return path


def run(image: Path, backend: Selection, *devices: object) -> pyhv.Result:
    machine = pyhv.Machine(image, memory="64M", devices=devices)  # type: ignore[arg-type]
    result = pyhv.run(machine, backend=backend, timeout=TIMEOUT)
    assert result.outcome is pyhv.Outcome.PASSED, result.console
    return result


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_what_a_guest_writes_is_on_the_host(
    backend: Selection, guest: Callable[[str], Path], disk: Path, transport: str
) -> None:
    result = run(guest(f"virtio-{transport}"), backend, pyhv.Disk(disk, serial="serial-1", transport=transport))
    assert "block: 2048 sectors\nblock: read: a line of text\n" in result.console
    assert "block: flushed\nblock: id: serial-1\n" in result.console
    assert digest(disk.read_bytes()) == digest(after())
    assert result.deterministic == (backend.name == "sim")


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_qcow2(backend: Selection, guest: Callable[[str], Path], disk: Path, tmp_path: Path, transport: str) -> None:
    path = create(tmp_path / "disk.qcow2", SIZE, bits=12, backing=disk)
    run(guest(f"virtio-{transport}"), backend, pyhv.Disk(path, format="qcow2", backing=True, transport=transport))
    assert_whole(path, after(), contents())
    assert disk.read_bytes() == contents()
    assert walk(path).data[:4] == b"QFI\xfb"


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_what_a_guest_flushed_is_there_when_the_machine_is_killed(
    backend: Selection, guest: Callable[[str], Path], disk: Path, tmp_path: Path, format: str
) -> None:
    path, fields = disk, str(disk)
    if format == "qcow2":
        path = create(tmp_path / "disk.qcow2", SIZE, bits=9, backing=disk)
        fields = f"{path},format=qcow2,backing"
    command = [sys.executable, "-m", "pyhv", "run", str(guest("virtio-pci")), "--backend", backend.name, "--disk", fields]
    machine = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert machine.stdout is not None
    try:
        assert b"block: flushed\n" in iter(machine.stdout.readline, b"")
    finally:
        machine.kill()
        machine.communicate()
    if format == "qcow2":
        assert walk(path).check()[0] == []
        assert digest(walk(path).disk(contents())) == digest(after())
    else:
        assert digest(path.read_bytes()) == digest(after())


def test_an_overlay_is_forgotten(backend: Selection, guest: Callable[[str], Path], disk: Path) -> None:
    for _ in range(2):
        result = run(guest("virtio-pci"), backend, pyhv.Disk(disk, overlay=True), pyhv.Disk(disk, overlay=True))
        assert result.console.count("read: a line of text") == 2
        assert disk.read_bytes() == contents()


def test_the_simulator_repeats_itself(sim: Selection, guest: Callable[[str], Path], disk: Path) -> None:
    runs = [run(guest("virtio-pci"), sim, pyhv.Disk(disk, overlay=True, queues=2)) for _ in range(2)]
    assert runs[0].instructions == runs[1].instructions
    assert runs[0].console == runs[1].console


def test_a_read_only_disk_refuses_the_guest(backend: Selection, guest: Callable[[str], Path], disk: Path) -> None:
    machine = pyhv.Machine(guest("virtio-pci"), memory="64M", devices=[pyhv.Disk(disk, readonly=True)])
    result = pyhv.run(machine, backend=backend, timeout=TIMEOUT)
    assert result.outcome is pyhv.Outcome.FAILED and "BLOCK_OUT" in result.console
    assert disk.read_bytes() == contents()


def test_one_machine_has_the_image_at_a_time(backend: Selection, guest: Callable[[str], Path], disk: Path) -> None:
    machine = pyhv.Machine(guest("virtio-pci"), memory="64M", devices=[pyhv.Disk(disk)])
    before = len(os.listdir("/proc/self/fd"))
    with pyhv.Vm(machine, backend=backend), pytest.raises(pyhv.ConfigError, match="is in use by another disk or machine"):
        pyhv.Vm(machine, backend=backend)
    pyhv.run(machine, backend=backend, timeout=TIMEOUT).check()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # what was imported meanwhile


def test_a_driver_that_breaks_the_rules(sim: Selection, guest: Callable[[str], Path], disk: Path, tmp_path: Path) -> None:
    path = create(tmp_path / "disk.qcow2", 64 << 20)
    memory = tmp_path / "memory"
    with open(memory, "wb") as file:
        file.truncate(2 << 20)
    devices = [
        pyhv.Disk(disk),
        pyhv.Disk(path, format="qcow2", queues=4, transport="mmio"),
        pyhv.Pmem(memory),
    ]
    result = run(guest("virtio-hostile"), sim, *devices)
    assert "3 devices, " in result.console and " 0 failures" in result.console
    assert walk(path).check() == ([], [])
    assert disk.stat().st_size == SIZE and memory.stat().st_size == 2 << 20
