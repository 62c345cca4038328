"""`Machine.unpack`: which way a bzImage is entered, by the field, the backend and the image."""

import gzip
import struct
from pathlib import Path

import pytest
import tiny
from boot.boot_images import MIB, BzImage, Load, elf
from conformance.asm import assemble

import pyhv
from pyhv.hv.select import Selection, select

ROOT = Path(__file__).parents[2]
PACKED, UNPACKED = 1, 2
ENTRY = 0x200


def exits_with(status: int) -> bytes:
    return assemble(tiny.exit(status), bits=64)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A bzImage whose own entry reports PACKED, and whose payload reports UNPACKED."""
    return image(
        tmp_path, gzip.compress(vmlinux := elf(64, 2 * MIB, [Load(2 * MIB, exits_with(UNPACKED))])), len(vmlinux)
    )


def image(directory: Path, payload: bytes, size: int) -> Path:
    data = bytearray(BzImage(payload=payload + struct.pack("<I", size)).build())
    at = (data[0x1F1] + 1) * 512 + ENTRY
    code = exits_with(PACKED)
    data[at : at + len(code)] = code
    path = directory / "bzImage"
    path.write_bytes(data)
    return path


def entered(kernel: Path, backend: Selection, unpack: str) -> int | None:
    result = pyhv.run(pyhv.Machine(kernel, unpack=unpack, memory="64M"), backend=backend, timeout=30)
    assert result.outcome is pyhv.Outcome.FAILED, result.report()
    return result.guest_status


def test_by_the_field(kernel: Path, backend: Selection) -> None:
    assert entered(kernel, backend, "yes") == UNPACKED
    assert entered(kernel, backend, "no") == PACKED
    assert entered(kernel, backend, "auto") == (UNPACKED if backend.name == "sim" else PACKED)


def test_a_payload_of_an_unknown_packing(tmp_path: Path, backend: Selection) -> None:
    kernel = image(tmp_path, b"not packed by anything known", 28)
    assert entered(kernel, backend, "auto") == PACKED
    with pytest.raises(pyhv.BootError, match="the payload's packing is not known"):
        pyhv.Vm(pyhv.Machine(kernel, unpack="yes", memory="64M"), backend=backend)


def test_after_a_reset(kernel: Path, backend: Selection) -> None:
    with pyhv.Vm(pyhv.Machine(kernel, unpack="yes", memory="64M"), backend=backend) as vm:
        vm.reset()
        assert vm.run(30).guest_status == UNPACKED


def test_debians_kernel_is_entered_directly() -> None:
    try:
        sim = select("sim")
    except pyhv.HostError as error:
        pytest.skip(f"no simulator here: {error}")
    kernel = ROOT / "build" / "kernels" / "cloud" / "vmlinuz"
    if not kernel.exists():
        pytest.skip("build/kernels/cloud is missing: run `make kernels`")
    machine = pyhv.Machine(kernel, cmdline="console=ttyS0 earlyprintk=ttyS0", memory="256M")
    with pyhv.start(machine, backend=sim) as vm:
        assert vm.boot.entry == 16 * MIB
        vm.console.expect(r"Linux version 6\.", timeout=60)
