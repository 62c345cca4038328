"""Debian's own drivers on disks and persistent memory: what a guest wrote is on the host, and the other way."""

import hashlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from qcow2_files import assert_whole, create, walk

import pyhv
from pyhv.block.open import open_image
from pyhv.hv.select import Selection

KERNEL = Path(__file__).resolve().parents[2] / "build" / "kernels" / "cloud" / "vmlinuz"
SIZE = 6 << 20
SCRIPT = """
    set -e
    cat /sys/block/vda/serial; echo
    echo $(ls /sys/block/vda/mq | wc -l) queues, $(cat /sys/block/vda/ro) read-only
    cat /sys/block/vdb/queue/write_cache
    sha256sum < /dev/vda
    cat /dev/vda > /dev/vdb
    cat /dev/vda > /dev/vdc
    cat /dev/vda > /dev/vdd
    blkdiscard -z -o 1048576 -l 1048576 /dev/vdb
    blkdiscard -o 1048576 -l 1048576 /dev/vdc
    blkdiscard -z -o 1048576 -l 1048576 /dev/vdc
    sync /dev/vdb /dev/vdc /dev/vdd
    head -c 1000000 /dev/vda > /dev/pmem0
    sync /dev/pmem0
    tail -c 1000000 /dev/pmem0 | sha256sum
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_disks_of_every_kind(sim: Selection, tmp_path: Path) -> None:
    if not KERNEL.exists():
        pytest.skip("build/kernels/cloud/vmlinuz is missing: run `make kernels`")
    source, raw, memory = tmp_path / "source", tmp_path / "raw", tmp_path / "memory"
    contents = random.Random(1).randbytes(SIZE)
    source.write_bytes(contents)
    raw.write_bytes(bytes(SIZE))
    memory.write_bytes(bytes(1_000_000) + contents[1_000_000 : 4 << 20])
    qcow2 = create(tmp_path / "qcow2", SIZE)
    disks = [
        pyhv.Disk(source, readonly=True, serial="the source", queues=2),
        pyhv.Disk(raw, transport="mmio"),
        pyhv.Disk(qcow2, format="qcow2"),
        pyhv.Disk(source, overlay=True, transport="mmio"),
        pyhv.Pmem(memory),
    ]
    result = pyhv.run_command(
        KERNEL,
        ["sh", "-c", SCRIPT],
        backend="sim",
        timeout=180,
        cmdline="cryptomgr.notests",
        devices=disks,
        cpus=2,
    )
    assert result.status == 0, (result.error, result.stderr, result.machine.console[-2000:])
    assert result.stdout.decode().splitlines() == [
        "the source",
        "2 queues, 1 read-only",
        "write back",
        f"{digest(contents)}  -",
        f"{digest(contents[3 << 20 : 4 << 20][-1_000_000:])}  -",
    ]
    expected = contents[: 1 << 20] + bytes(1 << 20) + contents[2 << 20 :]
    assert digest(raw.read_bytes()) == digest(expected)
    assert_whole(qcow2, expected)
    assert source.read_bytes() == contents
    assert digest(memory.read_bytes()) == digest(contents[: 4 << 20])
    assert walk(qcow2).check() == ([], [])


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A file, and a block device that is that file."""
    path = tmp_path / "device"
    with open(path, "wb") as file:
        file.truncate(SIZE)
    try:
        done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("losetup is not there (package mount)")
    if done.returncode:
        pytest.skip(f"no loop device can be made: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield path, device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_block_devices_of_the_host(loop: tuple[Path, str]) -> None:
    path, device = loop
    image = open_image(device)
    assert image.size == SIZE
    image.write(1000, b"hello")
    image.write(8192, b"x" * 40960)
    image.write_zeroes(12288, 8192, unmap=True)
    image.write_zeroes(24577, 100, unmap=False)
    image.discard(32768, 4096)
    image.discard(100, 1000)
    image.flush()
    expected = bytearray(SIZE)
    expected[1000:1005] = b"hello"
    expected[8192:49152] = b"x" * 40960
    expected[12288:20480] = bytes(8192)
    expected[24577:24677] = bytes(100)
    expected[32768:36864] = image.read(32768, 4096)
    assert image.read(0, SIZE) == expected
    with pytest.raises(OSError, match="outside"):
        image.write(SIZE - 1, b"xx")
    with pytest.raises(pyhv.ConfigError, match="in use"):
        open_image(device)
    image.close()
    assert path.read_bytes() == expected
