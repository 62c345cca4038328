"""Guest debugging: single steps and hardware breakpoints."""

import os

import pytest

from pyhv.errors import ConfigError
from pyhv.hv.api import Hypervisor
from pyhv.hv.exits import Debug

from .bench import CODE, Bench


@pytest.fixture
def debugged(backend: Hypervisor, bench: Bench) -> Bench:
    """A bench on a backend that can debug its guests."""
    if not backend.capabilities.guest_debug:
        pytest.skip("the backend cannot debug its guests")
    return bench


def test_single_steps_stop_after_each_instruction(debugged: Bench) -> None:
    debugged.load("mov eax, 1; inc eax; inc eax; nop; out 0xe9, al")
    debugged.vcpu.set_guest_debug(single_step=True)
    addresses = []
    for _ in range(4):
        exit = debugged.expect(Debug)
        addresses.append(exit.rip)
        assert debugged.vcpu.general.rip == exit.rip
    assert addresses == [CODE + 5, CODE + 6, CODE + 7, CODE + 8]
    assert debugged.vcpu.general.rax == 3
    debugged.vcpu.set_guest_debug()
    assert debugged.output(1) == [3]


NEEDS_BREAKPOINTS = pytest.mark.skipif(
    "PYHV_RIG" in os.environ, reason="QEMU's emulated VMRUN does not arm the guest's breakpoint registers"
)


@NEEDS_BREAKPOINTS
def test_a_breakpoint_stops_before_its_instruction(debugged: Bench) -> None:
    debugged.load("mov eax, 1; inc eax; inc eax; nop; out 0xe9, al")
    debugged.vcpu.set_guest_debug(breakpoints=[CODE + 6])
    exit = debugged.expect(Debug)
    assert exit.rip == CODE + 6
    assert debugged.vcpu.general.rax == 2
    debugged.vcpu.set_guest_debug()
    assert debugged.output(1) == [3]


@NEEDS_BREAKPOINTS
def test_four_breakpoints(debugged: Bench) -> None:
    debugged.load("nop; nop; nop; nop; nop; nop; out 0xe9, al")
    wanted = [CODE + 1, CODE + 2, CODE + 4, CODE + 5]
    debugged.vcpu.set_guest_debug(breakpoints=wanted)
    stops = []
    for _ in wanted:
        stops.append(debugged.expect(Debug).rip)
        debugged.vcpu.set_guest_debug(breakpoints=[address for address in wanted if address not in stops])
    assert stops == wanted
    debugged.output(1)


def test_a_fifth_breakpoint_is_refused(debugged: Bench) -> None:
    with pytest.raises(ConfigError):
        debugged.vcpu.set_guest_debug(breakpoints=[1, 2, 3, 4, 5])
