"""Register files: what is written is read back, and is what the guest sees."""

import pytest

from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.record import field_names, replace
from pyhv.x86 import msr
from pyhv.x86.registers import DebugRegisters, FpuRegisters, GeneralRegisters, MpState, SystemRegisters, VcpuEvents

from .bench import STACK, Bench, long_mode, protected_mode, real_mode
from .conftest import Maker


def test_general_registers_round_trip(bench: Bench) -> None:
    values = {name: 0x0101_0101_0101_0101 * (i + 1) for i, name in enumerate(field_names(GeneralRegisters))}
    values |= {"rip": 0x1000, "rflags": 0x246}
    registers = GeneralRegisters(**values)
    bench.vcpu.general = registers
    assert bench.vcpu.general == registers


def test_general_registers_are_what_the_guest_has(bench: Bench) -> None:
    bench.load("out 0xe9, eax; mov eax, ebx; out 0xe9, eax; mov eax, esi; out 0xe9, eax; add edi, 1; out 0xe9, al")
    bench.vcpu.general = replace(bench.vcpu.general, rax=0x11, rbx=0x22, rsi=0x33, rdi=0x44)
    assert bench.output(3) == [0x11, 0x22, 0x33]
    bench.output(1)
    general = bench.vcpu.general
    assert (general.rdi, general.rsp) == (0x45, STACK)
    bench.vcpu.general = replace(general, rdx=5)
    assert bench.vcpu.general.rdx == 5


def test_reads_after_every_exit_are_of_that_exit(bench: Bench) -> None:
    bench.load("xor ebx, ebx; again: inc ebx; out 0xe9, al; jmp again")
    for expected in range(1, 20):
        bench.output(1)
        general = bench.vcpu.general
        assert general.rbx == expected
        if expected == 10:
            bench.vcpu.general = replace(general, rbx=10)
            assert bench.vcpu.general.rbx == 10


def test_a_value_that_does_not_fit_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError):
        bench.vcpu.general = GeneralRegisters(rax=1 << 64)
    system = bench.vcpu.system
    system.gdt.limit = 1 << 16
    with pytest.raises(ConfigError):
        bench.vcpu.system = system


@pytest.mark.parametrize("mode", [real_mode, protected_mode, long_mode])
def test_system_registers_round_trip(bench: Bench, mode: object) -> None:
    bench.map_pages()
    assert callable(mode)
    system: SystemRegisters = mode(bench.vcpu.system)
    system.cr2 = 0x1234_5000
    bench.vcpu.system = system
    back = bench.vcpu.system
    for name in field_names(SystemRegisters):
        if name not in ("tr", "ldt", "pdptrs"):
            assert getattr(back, name) == getattr(system, name), name


def test_the_state_after_reset(bench: Bench) -> None:
    bench.load("mov eax, 0x1234; wait: out 0xe9, al; jmp wait", mode=64)
    bench.output(3)
    bench.vcpu.set_msrs({msr.LSTAR: 0x1000})
    bench.vcpu.reset()
    system, general = bench.vcpu.system, bench.vcpu.general
    assert (system.cs.base, system.cs.selector, general.rip) == (0xFFFF0000, 0xF000, 0xFFF0)
    assert (general.rax, general.rsp, general.rflags) == (0, 0, 2)
    assert (system.cr0 & 0x8000_0001, system.cr3, system.cr4, system.efer) == (0, 0, 0, 0)
    assert system.apic_base == 0xFEE0_0900
    assert bench.vcpu.mp_state is MpState.RUNNABLE
    assert bench.vcpu.get_msrs([msr.LSTAR, msr.PAT]) == {msr.LSTAR: 0, msr.PAT: msr.PAT_RESET}
    assert bench.vcpu.fpu == FpuRegisters()
    bench.load("mov eax, 0x77; out 0xe9, al")
    assert bench.output(1) == [0x77]


def test_reset_of_an_application_processor(make: Maker) -> None:
    bench = make(vcpus=2)
    bench.add_vcpu()
    other = bench.add_vcpu()
    other.mp_state = MpState.RUNNABLE
    other.reset()
    assert other.mp_state is MpState.UNINITIALIZED
    assert other.system.apic_base == 0xFEE0_0800


def test_the_x87_starts_as_fninit_leaves_it(bench: Bench) -> None:
    """Exceptions masked, stack empty: so KVM and QEMU start, and kernels written for them use it at once."""
    assert bench.vcpu.fpu == FpuRegisters(fcw=0x37F, fsw=0, ftw=0, mxcsr=0x1F80)


def test_fpu_registers_round_trip(bench: Bench) -> None:
    registers = FpuRegisters(
        st=tuple(bytes([i + 1] * 10 + [0] * 6) for i in range(8)),
        xmm=tuple(bytes([i + 17] * 16) for i in range(16)),
        fcw=0x27F,
        fsw=0x3800,
        ftw=0xFF,
        mxcsr=0x1FA0,
    )
    bench.vcpu.fpu = registers
    back = bench.vcpu.fpu
    assert (back.st, back.xmm, back.fcw, back.fsw, back.ftw, back.mxcsr) == (
        registers.st,
        registers.xmm,
        registers.fcw,
        registers.fsw,
        registers.ftw,
        registers.mxcsr,
    )
    with pytest.raises(ConfigError):
        bench.vcpu.fpu = FpuRegisters(xmm=(b"",) * 16)


def test_debug_registers_round_trip(bench: Bench) -> None:
    registers = DebugRegisters((0x1000, 0x2000, 0x3000, 0x4000), 0xFFFF0FF0, 0x400)
    bench.vcpu.debug = registers
    assert bench.vcpu.debug == registers


def test_events_round_trip(bench: Bench) -> None:
    events = bench.vcpu.events
    assert not events.nmi_masked and not events.interrupt_injected
    bench.vcpu.events = VcpuEvents(nmi_masked=True, interrupt_shadow=1)
    back = bench.vcpu.events
    assert back.nmi_masked and not back.nmi_pending


def test_an_exception_that_is_injected_reaches_the_guest(bench: Bench) -> None:
    bench.load("mov al, 0xD; out 0xe9, al; pop eax; out 0xe9, eax", at=0x1800)
    bench.gate(13, 0x1800)
    bench.load("nop; nop; mov al, 1; out 0xe9, al")
    bench.vcpu.events = VcpuEvents(
        exception_injected=True, exception_vector=13, exception_has_error_code=True, exception_error_code=0x1230
    )
    assert bench.output(2) == [0xD, 0x1230]


def test_xsave_round_trip_and_its_legacy_part(bench: Bench) -> None:
    bench.vcpu.fpu = FpuRegisters(xmm=tuple(bytes([i] * 16) for i in range(16)))
    area = bench.vcpu.xsave
    assert area[160:416] == b"".join(bytes([i] * 16) for i in range(16))
    bench.vcpu.fpu = FpuRegisters()
    bench.vcpu.xsave = area
    assert bench.vcpu.fpu.xmm[7] == bytes([7] * 16)
    assert bench.vcpu.xcr0 & 1
    bench.vcpu.xcr0 = 1
    assert bench.vcpu.xcr0 == 1


def test_local_apic_round_trip(bench: Bench) -> None:
    page = bytearray(bench.vcpu.lapic)
    assert len(page) == 1024
    page[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")
    page[0x80:0x84] = (0x20).to_bytes(4, "little")
    bench.vcpu.lapic = bytes(page)
    bench.load("mov eax, [0xFEE00080]; out 0xe9, eax; mov eax, [0xFEE000F0]; out 0xe9, eax")
    assert bench.output(2) == [0x20, 0x1FF]
    with pytest.raises(ConfigError):
        bench.vcpu.lapic = b"short"


def test_mp_state_round_trip(bench: Bench) -> None:
    for state in (MpState.HALTED, MpState.RUNNABLE):
        bench.vcpu.mp_state = state
        assert bench.vcpu.mp_state is state


def test_msrs(bench: Bench) -> None:
    values = {msr.STAR: 0x0023_0010_0000_0000, msr.LSTAR: 0xFFFF_8000_0000_1000, msr.KERNEL_GS_BASE: 0x1234}
    bench.vcpu.set_msrs(values)
    assert bench.vcpu.get_msrs(values) == values
    bench.load(f"mov ecx, {msr.LSTAR}; rdmsr; out 0xe9, eax; mov eax, edx; out 0xe9, eax", mode=64)
    assert bench.output(2) == [0x1000, 0xFFFF_8000]


def test_unknown_msrs_are_left_out_of_reads_and_refused_in_writes(bench: Bench) -> None:
    assert bench.vcpu.get_msrs([0x1234_5678, msr.STAR, 0x1234_5679]).keys() == {msr.STAR}
    with pytest.raises(CapabilityMissing, match="0x12345678"):
        bench.vcpu.set_msrs({msr.STAR: 0, 0x1234_5678: 1})


def test_cpuid_is_what_was_set(bench: Bench) -> None:
    entries = bench.vcpu.get_cpuid()
    assert any(e.function == 0 for e in entries)
    named = [replace(e, ebx=0x64636261) if e.function == 0x8000_0002 else e for e in entries]
    bench.vcpu.set_cpuid(named)
    bench.load(
        "mov eax, 0x80000002; cpuid; mov eax, ebx; out 0xe9, eax; mov eax, 1; cpuid; mov eax, ecx; out 0xe9, eax"
    )
    name, features = bench.output(2)
    assert name == 0x64636261
    assert features >> 31, "the hypervisor bit"


def test_translate(bench: Bench) -> None:
    bench.load("nop", mode=64)
    assert bench.vcpu.translate(0x1234) == 0x1234
    assert bench.vcpu.translate(0xC000_1000) == 0xC000_1000
    assert bench.vcpu.translate(0x5000_0000) is None


def test_a_dump_names_registers_and_code(bench: Bench) -> None:
    bench.load("mov eax, 0xABCDEF01; out 0xe9, al; hlt")
    bench.output(1)
    text = bench.vcpu.dump()
    assert "00000000abcdef01" in text and "cr0" in text
