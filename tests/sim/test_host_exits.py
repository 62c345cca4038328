"""What the simulated host makes of #VMEXITs that the conformance kit does not reach."""

from collections.abc import Iterator

import pytest
from conformance.bench import IDT, Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.errors import ConfigError, VmmError
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import Halt, InternalError, MmioRead, MmioWrite, PioIn, PioOut, Shutdown
from pyhv.hv.sim import SimHypervisor
from pyhv.hv.sim import vmcb as v
from pyhv.x86.registers import GeneralRegisters

HOLE = 0xC000_0000
HANDLER = 0x1800
UD, GP, PF = 6, 13, 14


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(SimHypervisor(), VmConfig()) as bench:
        yield bench


def catch(bench: Bench, vector: int) -> None:
    """A handler that reports the vector and halts."""
    bench.load(f"mov al, {vector}; out 0xe9, al; hlt", at=HANDLER)
    bench.gate(vector, HANDLER)


def paging(bench: Bench) -> None:
    """32-bit paging in 4 MiB pages: the first, and a hole beside it; another leads to the device hole."""
    memory = bench.vm.memory
    memory.write_uint(0x10_0000, 4, 0x83)
    memory.write_uint(0x10_0000 + 4 * 2, 4, HOLE | 0x83)
    system = bench.vcpu.system
    system.cr3, system.cr4, system.cr0 = 0x10_0000, 0x10, 0x8000_0011
    bench.vcpu.system = system


# Instructions that the guest must not have


@pytest.mark.parametrize(
    "instruction", ["vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga", "monitor", "mwait", "rsm"]
)
def test_what_cpuid_does_not_show_is_undefined(bench: Bench, instruction: str) -> None:
    catch(bench, UD)
    bench.load(f"{instruction}; mov al, 1; out 0xe9, al")
    assert bench.output(1) == [UD]


def test_hypercalls_answer_as_kvm(bench: Bench) -> None:
    bench.load("mov eax, 99; vmmcall; out 0xe9, eax; mov eax, 1; vmmcall; out 0xe9, eax")
    assert bench.output(2) == [(1 << 32) - 1000, 0]


@pytest.mark.parametrize(
    ("index", "low", "allowed"),
    [(0, 3, True), (0, 1, True), (0, 0, False), (0, 2, False), (0, 5, False), (1, 1, False)],
)
def test_xsetbv(bench: Bench, index: int, low: int, allowed: bool) -> None:
    catch(bench, GP)
    bench.load(
        f"mov eax, cr4; or eax, 0x40600; mov cr4, eax; mov ecx, {index}; mov eax, {low}; xor edx, edx; xsetbv; "
        "xor ecx, ecx; xgetbv; out 0xe9, al"
    )
    assert bench.output(1) == ([low] if allowed else [GP])
    assert bench.vcpu.xcr0 == (low if allowed else 1)


# Port I/O


def test_single_stepping_over_an_emulated_instruction(bench: Bench) -> None:
    catch(bench, 1)
    bench.load("pushfd; or dword ptr [esp], 0x100; popfd; in al, 0x10; nop")
    bench.expect(PioIn)
    bench.vcpu.complete_read(b"\x42")
    assert bench.output(1) == [1]
    assert bench.vcpu.debug.dr6 & 1 << 14
    general = bench.vcpu.general
    pushed = bench.vm.memory.read_uint(general.rsp, 4)
    assert pushed == 0x1000 + len(b"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\xe4\x10")


def test_a_string_output_from_a_missing_page_is_a_page_fault(bench: Bench) -> None:
    catch(bench, PF)
    bench.load("mov esi, 0x500000; mov ecx, 4; mov dx, 0x300; rep outsb; mov al, 1; out 0xe9, al")
    paging(bench)
    assert bench.output(1) == [PF]
    assert bench.vcpu.system.cr2 == 0x50_0000


def test_a_string_output_that_runs_into_a_missing_page(bench: Bench) -> None:
    catch(bench, PF)
    bench.vm.add_memory(0x20_0000, 0x20_0000)
    bench.vm.memory.write(0x3F_FFFD, b"abc")
    bench.load("mov esi, 0x3FFFFD; mov ecx, 8; mov dx, 0x300; rep outsb; mov al, 1; out 0xe9, al")
    paging(bench)
    got = b""
    while len(got) < 3:
        exit = bench.expect(PioOut)
        assert exit.port == 0x300
        got += exit.data
    assert got == b"abc"
    assert bench.output(1) == [PF]
    assert (bench.vcpu.general.rcx, bench.vcpu.general.rsi, bench.vcpu.system.cr2) == (5, 0x40_0000, 0x40_0000)


def test_a_string_input_into_a_missing_page_is_a_page_fault(bench: Bench) -> None:
    catch(bench, PF)
    bench.load("mov edi, 0x500000; mov ecx, 2; mov dx, 0x300; rep insb; mov al, 1; out 0xe9, al")
    paging(bench)
    exit = bench.run()
    if isinstance(exit, PioIn):
        bench.vcpu.complete_read(bytes(exit.size * exit.count))
        exit = bench.run()
    assert isinstance(exit, PioOut) and exit.data == bytes([PF])


def test_a_string_output_from_a_device(bench: Bench) -> None:
    bench.load(f"mov esi, {HOLE}; mov ecx, 3; mov dx, 0x300; rep outsw; out 0xe9, al")
    for i in range(3):
        assert bench.expect(MmioRead) == MmioRead(HOLE + 2 * i, 2)
        bench.vcpu.complete_read(bytes([i, 0x80]))
        assert bench.expect(PioOut) == PioOut(0x300, 2, 1, bytes([i, 0x80]))
    bench.output(1)
    assert (bench.vcpu.general.rcx, bench.vcpu.general.rsi) == (0, HOLE + 6)


def test_a_string_input_into_a_device_backwards(bench: Bench) -> None:
    bench.load(f"std; mov edi, {HOLE + 4}; mov ecx, 3; mov dx, 0x300; rep insb; cld; out 0xe9, al")
    given, written = 0, []
    while len(written) < 3:
        exit = bench.run()
        if isinstance(exit, PioIn):
            bench.vcpu.complete_read(bytes(range(0x41 + given, 0x41 + given + exit.count)))
            given += exit.count
        else:
            written.append(exit)
    assert written == [MmioWrite(HOLE + 4 - i, bytes([0x41 + i])) for i in range(3)]
    bench.output(1)
    assert (bench.vcpu.general.rcx, bench.vcpu.general.rdi) == (0, HOLE + 1)


def test_answers_that_nobody_asked_for(bench: Bench) -> None:
    bench.load("out 0xe9, al; in al, 0x10")
    bench.output(1)
    for answer in (bench.vcpu.complete_read, bench.vcpu.complete_msr, bench.vcpu.complete_hypercall):
        with pytest.raises(VmmError):
            answer(b"1" if answer == bench.vcpu.complete_read else 1)  # type: ignore[arg-type, operator]


# Memory that nothing backs


def test_code_in_a_hole_is_all_ones(bench: Bench) -> None:
    catch(bench, UD)
    bench.load(f"mov eax, {HOLE}; jmp eax")
    assert bench.output(1) == [UD]


def test_page_tables_in_a_hole_fault(bench: Bench) -> None:
    bench.load("nop; nop")
    system = bench.vcpu.system
    system.cr3, system.cr0 = HOLE, 0x8000_0011
    bench.vcpu.system = system
    bench.vm.memory.fill(IDT, 0x800)
    assert isinstance(bench.run(), Shutdown | InternalError)


def test_a_hole_is_a_device_again_after_it_was_a_bus_of_ones(bench: Bench) -> None:
    bench.load(f"mov al, 6; out 0xe9, al; mov eax, [{HOLE + 8}]; mov [{HOLE + 8}], ebx; hlt", at=HANDLER)
    bench.gate(UD, HANDLER)
    bench.load(f"mov ebx, 0x77; mov eax, {HOLE}; jmp eax")
    assert bench.output(1) == [UD]
    assert bench.expect(MmioRead) == MmioRead(HOLE + 8, 4)
    bench.vcpu.complete_read(bytes(4))
    assert bench.expect(MmioWrite) == MmioWrite(HOLE + 8, b"\x77\0\0\0")


def test_a_stack_on_a_device_is_written_like_one(bench: Bench) -> None:
    bench.load("push eax; pop ebx; mov eax, ebx; out 0xe9, eax")
    bench.vcpu.general = GeneralRegisters(rip=0x1000, rsp=HOLE + 0x100, rax=0x1234)
    assert bench.expect(MmioWrite) == MmioWrite(HOLE + 0xFC, b"\x34\x12\0\0")
    assert bench.expect(MmioRead) == MmioRead(HOLE + 0xFC, 4)
    bench.vcpu.complete_read(b"\x78\x56\0\0")
    assert bench.output(1) == [0x5678]


# The end


def test_a_state_that_vmrun_refuses(bench: Bench) -> None:
    bench.load("nop")
    system = bench.vcpu.system
    system.cr0 = 0x2000_0011  # NW without CD
    bench.vcpu.system = system
    exit = bench.expect(InternalError)
    assert exit.name == "VMEXIT_INVALID" and "cr0 0000000020000011" in exit.registers


def test_an_exit_that_nobody_asked_for_is_named(bench: Bench) -> None:
    bench.load("mov eax, dr7")
    vcpu = bench.vcpu
    vcpu.vmcb.word[v.INTERCEPT_DR >> 2] = 1 << 7  # type: ignore[attr-defined]
    exit = bench.expect(InternalError)
    assert exit.name == "VMEXIT_DR7_READ" and exit.instruction.startswith(b"\x0f\x21\xf8")


def test_a_halt_without_any_event_to_come(bench: Bench) -> None:
    bench.load("cli; hlt")
    assert isinstance(bench.run(), Halt)


def test_configurations_that_are_refused() -> None:
    sim = SimHypervisor()
    for config in (VmConfig(irqchip="odd"), VmConfig(vcpus=0), VmConfig(vcpus=256), VmConfig(cpu="odd")):
        with pytest.raises(ConfigError):
            sim.create_vm(config)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=120), st.sampled_from([16, 32, 64]), st.integers(0, (1 << 64) - 1))
def test_random_bytes_as_code_end_in_an_exit_of_the_seam(code: bytes, mode: int, junk: int) -> None:
    with Bench(SimHypervisor(), VmConfig(vcpus=2)) as bench:
        bench.vm.quantum = lambda vcpu: 2000
        bench.load("nop", mode=mode)
        bench.vm.memory.write(0x1000, code)
        bench.vcpu.general = GeneralRegisters(rip=0x1000, rsp=0x8000, rbx=junk, rsi=junk >> 7, rdi=junk >> 13, rcx=40)
        for _ in range(40):
            exit = bench.vcpu.run()
            if isinstance(exit, PioIn):
                bench.vcpu.complete_read(bytes(exit.size * exit.count))
            elif isinstance(exit, MmioRead):
                bench.vcpu.complete_read(bytes(exit.size))
            elif isinstance(exit, Shutdown | InternalError | Halt):
                break
        assert bench.vcpu.dump()
