"""MSRs that are handed to user space."""

import pytest

from pyhv.hv.api import Hypervisor
from pyhv.hv.exits import Rdmsr, Wrmsr

from .bench import Bench

INDEX = 0xC001_1234


@pytest.fixture
def filtered(backend: Hypervisor, bench: Bench) -> Bench:
    """A bench whose backend hands INDEX and a neighbour to user space."""
    if not backend.capabilities.msr_exits:
        pytest.skip("the backend does not hand MSRs to user space")
    bench.vm.filter_msrs([INDEX, INDEX + 2, 0x10_0000])
    return bench


def test_a_read_is_answered(filtered: Bench) -> None:
    filtered.load(f"mov ecx, {INDEX}; rdmsr; out 0xe9, eax; mov eax, edx; out 0xe9, eax")
    exit = filtered.expect(Rdmsr)
    assert exit.index == INDEX
    filtered.vcpu.complete_msr(0x1122334455667788)
    assert filtered.output(2) == [0x55667788, 0x11223344]


def test_a_write_shows_its_value(filtered: Bench) -> None:
    filtered.load(f"mov ecx, {INDEX + 2}; mov eax, 0x55667788; mov edx, 0x11223344; wrmsr; out 0xe9, al")
    exit = filtered.expect(Wrmsr)
    assert (exit.index, exit.value) == (INDEX + 2, 0x1122334455667788)
    filtered.vcpu.complete_msr(0)
    assert filtered.output(1) == [0x88]


@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
def test_a_refused_access_is_a_general_protection_fault(filtered: Bench, instruction: str) -> None:
    filtered.load("mov al, 0xD; out 0xe9, al", at=0x1800)
    filtered.gate(13, 0x1800)
    filtered.load(f"mov ecx, {INDEX}; {instruction}; mov al, 1; out 0xe9, al")
    filtered.expect(Rdmsr if instruction == "rdmsr" else Wrmsr)
    filtered.vcpu.complete_msr(None)
    assert filtered.output(1) == [0xD]


def test_a_new_filter_replaces_the_old(filtered: Bench) -> None:
    filtered.vm.filter_msrs([INDEX + 2], write=False)
    filtered.load("mov al, 0xD; out 0xe9, al", at=0x1800)
    filtered.gate(13, 0x1800)
    filtered.load(f"mov ecx, {INDEX + 2}; rdmsr; out 0xe9, al; wrmsr; mov al, 1; out 0xe9, al")
    filtered.expect(Rdmsr)
    filtered.vcpu.complete_msr(5)
    assert filtered.output(2)[0] == 5


def test_registers_that_are_not_named_stay_with_the_backend(filtered: Bench) -> None:
    filtered.load("mov ecx, 0x277; rdmsr; out 0xe9, eax")
    assert filtered.output(1) == [0x00070406]
