"""Guests that mean harm end with a typed verdict, in time, and leave nothing behind."""

import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path

import hostile_guests as guests
import pytest
import tiny
from hostile_guests import Hostile

import pyhv
from pyhv.hv.select import Selection

TIME = 0.25
"""Seconds for each guest: what still runs then is a verdict, too."""
GAVE_UP = re.compile(r"KVM_EXIT_(INTERNAL_ERROR|FAIL_ENTRY): ")
"""How KVM says that it cannot go on: its emulator, which runs ring 0 where there is no AMD-V, lacks instructions."""
SLACK = 48 << 20


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module", autouse=True)
def no_leak() -> Iterator[None]:
    """All of these guests together leave no descriptor and no memory."""
    fds, memory = len(os.listdir("/proc/self/fd")), resident()
    yield
    assert len(os.listdir("/proc/self/fd")) <= fds + 2, "each backend keeps its own one open"
    assert resident() < memory + SLACK


def judge(result: pyhv.Result) -> None:
    """A typed verdict: the guest's own end, the end of its time, or a KVM that says by name that it gave up."""
    if result.outcome is pyhv.Outcome.ERROR:
        assert result.backend == "kvm" and GAVE_UP.match(result.detail), result.report()
        assert "rip " in result.registers, result.report()
    else:
        assert not re.search(r"Error|Exception|Traceback", result.detail), result.report()


def run(guest: Hostile, directory: Path, backend: Selection, time: float = TIME) -> pyhv.Result:
    image = tiny.image(directory, guest.source, guest.bits)
    machine = pyhv.Machine(image, format="flat", memory=guests.RAM, cpus=guest.cpus)
    result = pyhv.run(machine, backend=backend, timeout=time)
    judge(result)
    return result


@pytest.mark.parametrize("guest", [*guests.JUMPS, *guests.STRINGS], ids=str)
def test_one_bad_thing(guest: Hostile, tmp_path: Path, backend: Selection) -> None:
    run(guest, tmp_path, backend)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_random_code(tmp_path: Path, backend: Selection, bits: int) -> None:
    for seed in range(16):
        run(guests.random_code(bits, seed), tmp_path, backend, 0.1)


@pytest.mark.parametrize("seed", range(1, 5))
def test_chipset_storms(tmp_path: Path, backend: Selection, seed: int) -> None:
    run(guests.chipset_storm(seed), tmp_path, backend, 2 * TIME)


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("cpus", [1, 3])
def test_mmio_storms(tmp_path: Path, backend: Selection, seed: int, cpus: int) -> None:
    run(guests.mmio_storm(seed, cpus), tmp_path, backend, 2 * TIME)


@pytest.mark.parametrize("seed", range(1, 4))
def test_fw_cfg_storms(tmp_path: Path, backend: Selection, seed: int) -> None:
    run(guests.fw_cfg_storm(seed), tmp_path, backend, 4 * TIME)


@pytest.mark.parametrize(
    ("first", "last", "step"),
    [
        (0, 0x3F7, 1),
        (0x3F9, 0xFFF, 1),
        (0x1000, 0x1FFF, 61),
        (0x2000, 0x20FF, 1),
        (0x2100, 0xFFFF, 257),
        (0xFFFC, 0xFFFF, 1),
    ],
    ids=lambda value: f"{value:#x}",
)
def test_every_port(tmp_path: Path, backend: Selection, first: int, last: int, step: int) -> None:
    """Every width, out and in; a port that ends the machine is noted, and the next machine goes on behind it."""
    ended = {}
    while first <= last:
        image = tiny.image(tmp_path, guests.every_port(first, last, step))
        machine = pyhv.Machine(image, format="flat", memory=guests.RAM)
        with machine.start(backend=backend) as vm:
            result = vm.wait(60)
            judge(result)
            if vm.memory.read_uint(0x9004, 4):
                break
            at = vm.memory.read_uint(0x9000, 2)
        assert result.outcome is not pyhv.Outcome.ERROR, result.report()
        assert at >= first
        ended[at] = result.outcome
        first = at + step
    known = {0x5F, 0x60, 0x61, 0x62, 0x63, 0x64, 0x8F, 0x90, 0x91, 0x92, *range(0xF1, 0xF8), *range(0x502, 0x506)}
    assert set(ended) <= known | set(range(0x601, 0x606)) | set(range(0xCF6, 0xCFA)), ended
