"""The bare machine (feature "+svm"): the same guests without an outer VMRUN, with SVM for their own use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance import apic
from conformance.asm import assemble
from conformance.bench import Bench, long_mode, protected_mode, real_mode

import pyhv
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import InterruptWindow, IoapicEoi, MmioRead, MmioWrite, PioIn, PioOut, Shutdown
from pyhv.hv.sim import SimHypervisor
from pyhv.irq import Msi
from pyhv.x86 import msr
from pyhv.x86.registers import DebugRegisters, FpuRegisters, GeneralRegisters, SystemRegisters, VcpuEvents

SVM = ("+svm",)
HANDLER = 0x1800
DEVICE = 0xC000_0000


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(SimHypervisor(), VmConfig(features=SVM)) as bench:
        yield bench


def run(path: Path, cpus: int, features: tuple[str, ...]) -> pyhv.Result:
    machine = pyhv.Machine(path, memory="32M", cpus=cpus, features=features)
    return pyhv.run(machine, backend="sim", timeout=60)


@pytest.mark.parametrize(
    ("name", "cpus"),
    [("hello", 1), ("hello64", 1), ("hello16", 1), ("irq", 1), ("mmio", 1), ("paging", 1), ("sensitive", 1), ("smp", 4),
     ("fail", 1), ("panic", 1), ("triple", 1)],
)  # fmt: skip
def test_guests_end_as_under_vmrun(guest: Callable[[str], Path], name: str, cpus: int) -> None:
    bare, under = run(guest(name), cpus, SVM), run(guest(name), cpus, ())
    assert (bare.outcome, bare.guest_status, bare.console) == (under.outcome, under.guest_status, under.console)
    assert run(guest(name), cpus, SVM).instructions == bare.instructions


def test_a_guest_runs_a_guest_of_its_own(bench: Bench) -> None:
    """VMRUN without nested paging: the inner guest's CPUID comes out as an exit, counted by the outer one."""
    inner = "mov ebx, 0x77; cpuid; hlt"
    bench.vm.memory.write(0x7000, assemble(inner, bits=32, org=0x7000))
    vmcb = 0x1_0000
    bench.load(
        f"""
        mov ecx, {msr.EFER}; rdmsr; or eax, 0x1000; wrmsr
        mov ecx, {msr.VM_HSAVE_PA}; mov eax, 0x11000; xor edx, edx; wrmsr
        mov eax, {vmcb}; mov edi, eax
        mov dword ptr [edi+0x0C], {1 << 18}; mov dword ptr [edi+0x10], 1; mov dword ptr [edi+0x58], 1
        mov dword ptr [edi+0x410], 0xC9B0008; mov dword ptr [edi+0x414], -1
        mov dword ptr [edi+0x420], 0xC930010; mov dword ptr [edi+0x424], -1
        mov dword ptr [edi+0x430], 0xC930010; mov dword ptr [edi+0x434], -1
        mov dword ptr [edi+0x4D0], 0x1000; mov dword ptr [edi+0x558], 0x11
        mov dword ptr [edi+0x560], 0x400; mov dword ptr [edi+0x568], 0xFFFF0FF0
        mov dword ptr [edi+0x570], 2; mov dword ptr [edi+0x578], 0x7000; mov dword ptr [edi+0x5D8], 0x9000
        vmrun
        mov eax, [edi+0x70]; out 0xe9, eax; mov eax, ebx; out 0xe9, eax; mov eax, [edi+0x578]; out 0xe9, eax
        """
    )
    assert bench.output(3) == [0x72, 0x77, 0x7005]
    statistics = bench.vm.statistics()
    assert statistics["vmruns"] == statistics["exit.CPUID"] == 1


def test_svm_is_shown_and_its_registers_are_there(bench: Bench) -> None:
    bench.load("mov eax, 0x80000001; cpuid; mov eax, ecx; out 0xe9, eax; mov eax, 0x8000000A; cpuid; out 0xe9, edx"
               .replace("out 0xe9, edx", "mov eax, edx; out 0xe9, eax"))  # fmt: skip
    features, svm = bench.output(2)
    assert features & 4 and svm & 1
    assert bench.vcpu.get_msrs([msr.VM_HSAVE_PA]) == {msr.VM_HSAVE_PA: 0}


def test_devices(bench: Bench) -> None:
    bench.load(
        f"mov eax, [{DEVICE}]; out 0xe9, eax; mov word ptr [{DEVICE + 2}], 0x1234; in al, 0x10; out 0xe9, al; "
        "mov esi, 0x5000; mov ecx, 3; mov dx, 0x300; rep outsb; mov edi, 0x6000; mov ecx, 2; rep insw; out 0xe9, al"
    )
    bench.vm.memory.write(0x5000, b"abc")
    assert bench.expect(MmioRead) == MmioRead(DEVICE, 4)
    bench.vcpu.complete_read(b"\x78\x56\x34\x12")
    assert bench.output(1) == [0x12345678]
    assert bench.expect(MmioWrite) == MmioWrite(DEVICE + 2, b"\x34\x12")
    assert bench.expect(PioIn) == PioIn(0x10, 1, 1)
    bench.vcpu.complete_read(b"\x99")
    assert bench.output(1) == [0x99]
    got = b""
    while len(got) < 3:
        got += bench.expect(PioOut).data
    assert got == b"abc"
    given = b"\x01\x02\x03\x04"
    while given:
        exit = bench.expect(PioIn)
        bench.vcpu.complete_read(given[: exit.size * exit.count])
        given = given[exit.size * exit.count :]
    bench.output(1)
    assert bench.vm.memory.read(0x6000, 4) == b"\x01\x02\x03\x04"


def test_interrupts(bench: Bench) -> None:
    bench.vm.memory.write(HANDLER, assemble(apic.handler("handler", 9), bits=32, org=HANDLER))
    bench.gate(0x40, HANDLER)
    bench.load(apic.ENABLE + "out 0xe9, al\n" + apic.WAIT)
    bench.output(1)
    bench.vm.signal_msi(Msi(apic.LAPIC, 0x40))
    assert bench.output(1) == [9]
    bench.gate(0x50, HANDLER)
    bench.vm.signal_msi(Msi(apic.LAPIC, 0x50 | 1 << 15 | 1 << 14))
    assert bench.output(1) == [9]
    assert bench.expect(IoapicEoi) == IoapicEoi(0x50)


def test_external_interrupts_and_their_window(bench: Bench) -> None:
    bench.ivt(0x08, HANDLER)
    bench.load("mov al, 8; out 0xe9, al; iret", mode=16, at=HANDLER)
    bench.load("cli; mov al, 1; out 0xe9, al; sti; nop; again: jmp again", mode=16)
    bench.output(1)
    vcpu = bench.vcpu
    assert not vcpu.ready_for_interrupt
    vcpu.request_interrupt_window = True
    bench.expect(InterruptWindow)
    assert vcpu.ready_for_interrupt
    vcpu.interrupt(0x08)
    assert not vcpu.ready_for_interrupt
    assert bench.output(1) == [8]


def test_a_triple_fault(bench: Bench) -> None:
    bench.load("ud2")
    bench.vm.memory.fill(0x2000, 0x800)
    bench.expect(Shutdown)


@pytest.mark.parametrize("mode", [real_mode, protected_mode, long_mode])
def test_registers_round_trip(bench: Bench, mode: Callable[[SystemRegisters], SystemRegisters]) -> None:
    vcpu = bench.vcpu
    general = GeneralRegisters(rax=1, rbx=2, rcx=3, rsi=4, r15=5, rip=0x1000, rsp=0x8000, rflags=0x246)
    vcpu.general = general
    assert vcpu.general == general
    system = mode(vcpu.system)
    vcpu.system = system
    back = vcpu.system
    assert (back.cs, back.ds, back.gdt, back.cr0, back.cr4, back.efer) == (
        system.cs, system.ds, system.gdt, system.cr0, system.cr4, system.efer,
    )  # fmt: skip
    vcpu.debug = DebugRegisters((1, 2, 3, 4), 0xFFFF0FF0, 0x400)
    assert vcpu.debug == DebugRegisters((1, 2, 3, 4), 0xFFFF0FF0, 0x400)
    vcpu.fpu = FpuRegisters(xmm=tuple(bytes([i] * 16) for i in range(16)))
    assert vcpu.fpu.xmm[3] == bytes([3] * 16)
    vcpu.set_msrs({msr.LSTAR: 0x1000})
    assert vcpu.get_msrs([msr.LSTAR, 0x12345678]) == {msr.LSTAR: 0x1000}
    assert vcpu.translate(0x1234) in (0x1234, None)
    assert "cr0" in vcpu.dump()


def test_what_a_bare_machine_lacks(bench: Bench) -> None:
    vcpu = bench.vcpu
    for refused in (
        lambda: bench.vm.set_dirty_logging(bench.ram, True),
        lambda: bench.vm.remove_memory(bench.ram),
        lambda: bench.vm.filter_msrs([0x10]),
        lambda: vcpu.set_cpuid([]),
        lambda: setattr(vcpu, "events", VcpuEvents(exception_injected=True)),
        lambda: SimHypervisor().create_vm(VmConfig(features=SVM, irqchip="none")),
    ):
        with pytest.raises(CapabilityMissing):
            refused()
    with pytest.raises(ConfigError):
        vcpu.general = GeneralRegisters(rax=1 << 64)
