"""MSRs of a simulated guest: the permission map (APM vol. 2, 15.11), and what the host answers."""

import pytest
from conformance.bench import Bench
from hypothesis import given
from hypothesis import strategies as st

from pyhv.hv.config import VmConfig
from pyhv.hv.exits import Shutdown
from pyhv.hv.sim import SimHypervisor, msrs
from pyhv.x86 import msr

GP = 13


def bits(bitmap: bytes | bytearray, index: int) -> int | None:
    """The two bits of an MSR by the manual's arithmetic; None outside of the map."""
    for base, at in ((0, 0), (0xC000_0000, 0x800), (0xC001_0000, 0x1000)):
        if base <= index < base + 0x2000:
            number = at * 8 + (index - base) * 2
            return bitmap[number // 8] >> number % 8 & 3
    return None


@pytest.mark.parametrize("apic", [False, True])
def test_what_a_guest_reaches_without_an_exit(apic: bool) -> None:
    bitmap = msrs.permission_map(apic)
    assert len(bitmap) == 0x2000
    for index in (msr.LSTAR, msr.KERNEL_GS_BASE, msr.SYSENTER_EIP, msr.PAT, msr.FS_BASE):
        assert bits(bitmap, index) == 0
    for index in (msr.EFER, msr.TSC, msr.VM_CR, msr.VM_HSAVE_PA, msr.MTRR_DEF_TYPE, 0x1FFF, 0xC000_0080):
        assert bits(bitmap, index) == 3
    for index in (msr.APIC_BASE, msr.TSC_DEADLINE, 0x800, 0x83F):
        assert bits(bitmap, index) == (0 if apic else 3)


@given(st.integers(0, 0xC001_3000), st.integers(0, 3))
def test_one_register_changes_its_own_bits_alone(index: int, exits: int) -> None:
    bitmap = bytearray(b"\xff" * msrs.PERMISSION_MAP_SIZE)
    msrs.open_for(bitmap, index, exits=exits)
    expected = bits(bitmap, index)
    assert expected in (None, exits)
    assert sum(8 - byte.bit_count() for byte in bitmap) == (0 if expected is None else 2 - exits.bit_count())


@pytest.fixture
def bench() -> Bench:
    with Bench(SimHypervisor(), VmConfig()) as bench:
        bench.load("mov al, 0xD; out 0xe9, al; hlt", at=0x1800)
        bench.gate(GP, 0x1800)
        yield bench


def test_efer_hides_what_vmrun_needs(bench: Bench) -> None:
    bench.load(f"mov ecx, {msr.EFER}; rdmsr; out 0xe9, eax; or eax, 0x801; wrmsr; rdmsr; out 0xe9, eax", mode=64)
    assert bench.output(2) == [0x500, 0xD01]


@pytest.mark.parametrize(
    "code",
    [
        f"mov ecx, {msr.EFER}; mov eax, 0x1500; xor edx, edx; wrmsr",  # SVME
        f"mov ecx, {msr.EFER}; rdmsr; xor eax, 0x100; wrmsr",  # LME while paging
        f"mov ecx, {msr.EFER}; rdmsr; mov edx, 1; wrmsr",
        f"mov ecx, {msr.VM_CR}; rdmsr",
        f"mov ecx, {msr.VM_HSAVE_PA}; xor eax, eax; xor edx, edx; wrmsr",
        f"mov ecx, {msr.PAT}; mov eax, 2; xor edx, edx; wrmsr",
        "mov ecx, 0x12345678; rdmsr",
        "mov ecx, 0x40000000; wrmsr",
    ],
)
def test_refused_in_long_mode(bench: Bench, code: str) -> None:
    """Without an IDT for long mode the #GP becomes a triple fault."""
    bench.load(f"{code}; out 0xe9, al", mode=64)
    system = bench.vcpu.system
    system.idt.limit = 0
    bench.vcpu.system = system
    bench.expect(Shutdown)


def test_a_filter_takes_precedence_over_direct_access(bench: Bench) -> None:
    from pyhv.hv.exits import Rdmsr, Wrmsr

    bench.vm.filter_msrs([msr.LSTAR], write=False)
    bench.load(f"mov ecx, {msr.LSTAR}; mov eax, 7; xor edx, edx; wrmsr; rdmsr; out 0xe9, eax; wrmsr", mode=64)
    assert bench.expect(Rdmsr).index == msr.LSTAR
    bench.vcpu.complete_msr(9)
    assert bench.output(1) == [9]
    bench.vm.filter_msrs([msr.LSTAR], read=False)
    bench.load(f"mov ecx, {msr.LSTAR}; rdmsr; out 0xe9, eax; wrmsr; out 0xe9, eax", mode=64)
    assert bench.output(1) == [7]
    assert bench.expect(Wrmsr).value == 7
    bench.vcpu.complete_msr(0)
    bench.output(1)
    bench.vm.filter_msrs([])
    bench.load(f"mov ecx, {msr.LSTAR}; rdmsr; out 0xe9, eax", mode=64)
    assert bench.output(1) == [7]


def test_the_time_stamp_counter_says_that_it_counts_at_p0s_frequency(bench: Bench) -> None:
    """HWCR.TscFreqSel after RESET; Linux complains of the firmware where it is clear."""
    assert bench.vcpu.get_msrs([msr.HWCR])[msr.HWCR] >> 24 & 1
    bench.vcpu.set_msrs({msr.HWCR: 0})
    bench.vcpu.reset()
    assert bench.vcpu.get_msrs([msr.HWCR])[msr.HWCR] >> 24 & 1


def test_the_time_stamp_counter_is_the_guests_to_set(bench: Bench) -> None:
    bench.load(
        "mov ecx, 0x10; xor eax, eax; mov edx, 5; wrmsr; rdtsc; mov eax, edx; out 0xe9, eax; rdmsr; mov eax, edx; "
        "out 0xe9, eax"
    )
    assert bench.output(2) == [5, 5]
