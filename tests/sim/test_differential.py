"""Random programs, natively in ring 3 through KVM and in the simulator: everything that they can change is the same."""

import os
import platform
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import differential
import programs
import pytest
from native_cpu import RingThree
from vec_native import host_flags

from pyhv.errors import HostError
from pyhv.hv.select import select

_NEEDED = {"bmi1", "bmi2", "adx", "movbe", "popcnt", "abm", "cx16", "sse4_2", "lahf_lm"}
SCALE = int(os.environ.get("PYHV_DIFFERENTIAL", "1"))
"""How many times as many programs: for a long search."""


@pytest.fixture(scope="module")
def simulated() -> Iterator[RingThree]:
    cpu = RingThree(select("sim").hypervisor)
    yield cpu
    cpu.close()


@pytest.fixture(scope="module")
def native() -> Iterator[RingThree]:
    if platform.machine() != "x86_64" or shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("programs need an x86-64 host with binutils")
    if "PYHV_RIG" in os.environ:
        pytest.skip("the rig's CPU is an emulated one: it has errors of its own, and proves nothing about silicon")
    try:
        hypervisor = select("kvm").hypervisor
    except HostError as error:
        pytest.skip(f"no KVM to run programs natively: {error}")
    lacking = _NEEDED - host_flags()
    if lacking:
        pytest.skip(f"the host's CPU has no {', '.join(sorted(lacking))}")
    cpu = RingThree(hypervisor)
    yield cpu
    cpu.close()


@pytest.mark.parametrize("length", [1, 4, 24])
def test_random_programs_end_alike(length: int, native: RingThree, simulated: RingThree, tmp_path: Path) -> None:
    templates = programs.mixed_templates(set(host_flags()))
    rng = random.Random(f"programs of {length}")
    count = SCALE * 12_000 // (length + 8)
    wrong = []
    for program in differential.make_programs(rng, count, length, templates, tmp_path):
        if differential.compare(program, differential.run(program, native), differential.run(program, simulated)):
            small = differential.shrink(program, native, simulated)
            wrong.append(differential.report(small, native, simulated))
            if len(wrong) == 5:
                break
    assert not wrong, "\n\n".join(wrong)


def test_a_difference_is_found_and_shrunk(simulated: RingThree, tmp_path: Path) -> None:
    """The comparison itself: against a CPU whose BSWAP is a NOP."""

    class Broken(RingThree):
        def run(self, code: bytes, *state: object) -> differential.Ending:
            return super().run(code.replace(b"\x0f\xc8", b"\x66\x90"), *state)  # type: ignore[arg-type]

    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("programs need binutils")
    rng = random.Random("shrinking")
    program = differential.make_programs(rng, 1, 12, ["addps X, Y"], tmp_path)[0]
    bswap = programs.Step("bswap eax", code=b"\x0f\xc8")
    program.steps = [step for step in program.steps if b"\x0f\xc8" not in step.code]
    program.steps.insert(3, bswap)
    broken = Broken(select("sim").hypervisor)
    try:
        small = differential.shrink(program, simulated, broken)
        assert small.steps == [bswap]
        assert "rax: native" in differential.report(small, simulated, broken)
    finally:
        broken.close()
