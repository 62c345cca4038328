"""Virtual time and turns: runs are the same bit for bit, timers land on their instruction, idle time is skipped."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from conformance import apic
from conformance.asm import assemble
from conformance.bench import Bench

import pyhv
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import Halt, Interrupted, PioOut
from pyhv.hv.sim import SimHypervisor
from pyhv.hv.sim.clock import DEVICE_TICKS, TICKS_PER_INSTRUCTION, WALL_START_NS, VirtualClock
from pyhv.hv.sim.vm import QUANTUM
from pyhv.irq import Msi
from pyhv.x86.registers import MpState

HANDLER = 0x1800


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(SimHypervisor(), VmConfig()) as bench:
        yield bench


def counted(path: Path, cpus: int, disturb: Callable[[pyhv.Vm], None] | None = None) -> tuple[object, ...]:
    """All that a run of a guest can be compared by."""
    machine = pyhv.Machine(path, memory="32M", cpus=cpus)
    with machine.start(backend="sim", seed=7) as vm:
        if disturb is not None:
            disturb(vm)
        result = vm.wait(60)
        statistics = vm.handle.statistics()
    for name in ("vmruns", "vmexits", "exit.INTR", "tlb_flushes", "tlb_hits", "tlb.asid1.hits"):
        statistics.pop(name, None)  # what looking from outside may add to
    return result.outcome, result.console, result.instructions, statistics["interrupts"], statistics.get("exception.PF")


@pytest.mark.parametrize(("name", "cpus"), [("irq", 1), ("smp", 1), ("smp", 4), ("paging", 1)])
def test_the_same_machine_runs_the_same_way(guest: Callable[[str], Path], name: str, cpus: int) -> None:
    assert counted(guest(name), cpus) == counted(guest(name), cpus)


def test_pauses_and_kicks_do_not_change_a_run(guest: Callable[[str], Path]) -> None:
    def disturb(vm: pyhv.Vm) -> None:
        for _ in range(15):
            if vm.outcome is None:
                vm.pause()
                vm.resume()
            for vcpu in vm.vcpus:
                vcpu.kick()

    assert counted(guest("smp"), 4, disturb) == counted(guest("smp"), 4)


def test_a_device_timer_fires_at_its_instruction(bench: Bench) -> None:
    bench.load("xor eax, eax; again: inc eax; jmp again")
    clock = bench.vm.clock
    assert clock is not None
    seen = []
    for count in (10, 1000, 12_345):
        clock.call_at(count * TICKS_PER_INSTRUCTION, lambda: seen.append((bench.vm.instructions(), clock.now_ns())))
    clock.call_at(20_000 * TICKS_PER_INSTRUCTION, bench.vcpu.kick)
    assert isinstance(bench.vcpu.run(), Interrupted)
    assert seen == [(n, n * TICKS_PER_INSTRUCTION) for n in (10, 1000, 12_345)]


def test_idle_time_is_skipped(bench: Bench) -> None:
    bench.vm.memory.write(HANDLER, assemble(apic.handler("handler", 9), bits=32, org=HANDLER))
    bench.gate(0x40, HANDLER)
    bench.load(apic.ENABLE + apic.WAIT)
    clock = bench.vm.clock
    assert clock is not None
    hour = 3_600_000_000_000
    clock.call_at(hour, lambda: bench.vm.signal_msi(Msi(apic.LAPIC, 0x40)))
    assert bench.output(1) == [9]
    assert hour <= clock.now_ns() < hour + 1_000_000
    assert (bench.vm.instructions() or 0) < 100
    assert isinstance(bench.run(), Halt), "nothing is left to wait for"


def test_a_device_access_takes_time(bench: Bench) -> None:
    bench.load("rdtsc; mov ebx, eax; out 0xe9, al; rdtsc; sub eax, ebx; out 0xe9, eax")
    assert bench.output(2)[1] == DEVICE_TICKS + 2 * TICKS_PER_INSTRUCTION


def test_processors_share_one_time(guest: Callable[[str], Path]) -> None:
    """Each reads the counter in turn: no processor is ever behind what another has seen."""
    with Bench(SimHypervisor(), VmConfig(vcpus=3)) as bench:
        for index in range(3):
            vcpu = bench.add_vcpu()
            code = "again: rdtsc; out 0xe9, eax; mov ecx, 3000; spin: dec ecx; jnz spin; jmp again"
            bench.load(code, vcpu=vcpu, at=0x6000 if index else 0x1000)
            vcpu.mp_state = type(vcpu.mp_state).RUNNABLE
        read: list[tuple[int, int]] = []

        def handle(vcpu: object, exit: object) -> bool:
            if isinstance(exit, PioOut):
                read.append((vcpu.index, int.from_bytes(exit.data, "little")))  # type: ignore[attr-defined]
            return len(read) == 60

        bench.run_all(handle)
        assert {index for index, _ in read} == {0, 1, 2}
        assert [tsc for _, tsc in read] == sorted(tsc for _, tsc in read)


def test_messages_from_other_threads_arrive(bench: Bench) -> None:
    bench.vm.memory.write(HANDLER, assemble(apic.handler("handler", 9), bits=32, org=HANDLER))
    bench.gate(0x40, HANDLER)
    bench.load(apic.ENABLE + "out 0xe9, al; sti; again: jmp again")
    message = Msi(apic.LAPIC, 0x40)
    bench.output(1)
    for _ in range(3):
        sender = threading.Timer(0.01, bench.vm.signal_msi, [message])
        sender.start()
        assert bench.output(1) == [9]
        sender.join()


def test_memory_that_another_thread_writes_is_executed_anew(bench: Bench) -> None:
    bench.load("again: jmp again")
    bench.vcpu.kick()
    bench.vcpu.run()

    def change() -> None:
        time.sleep(0.02)
        bench.vm.memory.write(0x1000, assemble("mov al, 7; out 0xe9, al; hlt", bits=32, org=0x1000))
        bench.vcpu.kick()

    writer = threading.Thread(target=change)
    writer.start()
    assert bench.output(1) == [7]
    writer.join()


def test_the_wall_clock_has_a_date_of_its_own() -> None:
    clock = VirtualClock()
    assert clock.wall_ns() == WALL_START_NS
    clock.advance_to(5)
    clock.set_wall(1_000)
    clock.advance_to(25)
    assert (clock.now_ns(), clock.wall_ns()) == (25, 1_020)


def test_timers_run_under_the_machines_lock() -> None:
    class Lock:
        held = 0

        def __enter__(self) -> None:
            self.held += 1

        def __exit__(self, *error: object) -> None:
            self.held -= 1

    lock, seen = Lock(), []
    clock = VirtualClock(lock)  # type: ignore[arg-type]
    clock.call_at(10, lambda: seen.append(lock.held))
    clock.advance_to(5)
    clock.advance_to(15)
    assert seen == [1] and lock.held == 0


def test_a_reset_forgets_the_code_that_ran(guest: Callable[[str], Path]) -> None:
    """Memory that is cleared behind the guest's back holds no instructions any more."""
    with Bench(SimHypervisor(), VmConfig()) as bench:
        bench.vm.memory.write(0x6000, assemble("mov al, 5; out 0xe9, al; ret", bits=32, org=0x6000))
        bench.load("mov eax, 0x6000; call eax; hlt")
        assert bench.output(1) == [5]
        bench.vcpu.reset()
        bench.ram.discard()
        bench.load("mov eax, 0x6000; mov ebx, 0x6000; call eax; hlt")
        bench.ram.buffer[0x6002] = 0xF4  # after `add [eax], al`, which zeros are; nobody is told
        assert isinstance(bench.run(), Halt)
        assert bench.vcpu.general.rip == 0x6003


def test_a_device_wakes_one_processor_while_another_is_busy() -> None:
    with Bench(SimHypervisor(), VmConfig(vcpus=2)) as bench:
        boot, other = bench.add_vcpu(), bench.add_vcpu()
        bench.vm.memory.write(HANDLER, assemble(apic.handler("handler", 9), bits=32, org=HANDLER))
        bench.gate(0x40, HANDLER)
        bench.load(apic.ENABLE + "out 0xe8, al\n" + apic.WAIT, at=0x6000, vcpu=other)
        other.mp_state = type(other.mp_state).RUNNABLE
        assert bench.output(1, port=0xE8, vcpu=other) == [0]
        assert isinstance(other.run(), Halt)
        bench.load("again: in al, 0x60; mov ecx, 100; spin: dec ecx; jnz spin; jmp again", vcpu=boot)
        reads, seen = [0], []

        def handle(vcpu: object, exit: object) -> bool:
            if isinstance(exit, PioOut):
                seen.append((vcpu.index, reads[0]))  # type: ignore[attr-defined]
            elif vcpu is boot and not isinstance(exit, Interrupted | Halt):
                reads[0] += 1
                boot.complete_read(b"\0")
                if reads[0] == 5:
                    bench.vm.signal_msi(Msi(apic.LAPIC | 1 << 12, 0x40))
            return bool(seen)

        bench.run_all(handle)
        assert seen[0][0] == 1 and seen[0][1] <= 6, "the message ends the busy processor's long turn"


START_THE_OTHER = """
    mov dword ptr [0x9000], 0
    mov dword ptr [0x9004], 0
    mov dword ptr [0x9008], 0
    mov dword ptr [0xfee000f0], 0x1ff
    mov dword ptr [0xfee00310], 0x01000000
    mov dword ptr [0xfee00300], 0x00004500
    mov ecx, 1000
1:  loop 1b
    mov dword ptr [0xfee00310], 0x01000000
    mov dword ptr [0xfee00300], 0x00004608
2:  cmp byte ptr [0x9000], 1
    jne 2b
"""
"""In 32-bit mode: have the other processor run what is at 0x8000, in real mode, until it stores 1 at 0x9000."""


def two_processors(directory: Path, first: str, second: str, *devices: pyhv.Device) -> pyhv.Result:
    """Run two programs, of which the first starts the second."""
    code = assemble(f".code16\n xor ax, ax\n mov ds, ax\n{second}", bits=64, org=0x8000)
    copy = "".join(f"mov byte ptr [{0x8000 + i:#x}], {byte}\n" for i, byte in enumerate(code))
    image = tiny.image(directory, f"{copy}{START_THE_OTHER}{first}{tiny.exit(0)}", 32)
    machine = pyhv.Machine(image, format="flat", memory="4M", cpus=2, devices=devices)
    return pyhv.run(machine, backend="sim", timeout=20)


@pytest.mark.parametrize("poll", ["in al, 0x80", "out 0x80, al", "mov eax, [0xd0000000]", "mov [0xd0000000], eax", "nop"])
def test_a_processor_that_polls_lets_the_other_have_its_turn(tmp_path: Path, poll: str) -> None:
    waits = "mov byte ptr [0x9000], 1\n1: cmp byte ptr [0x9004], 1\n jne 1b\n mov byte ptr [0x9008], 1\n2: hlt\n jmp 2b\n"
    polls = f"mov byte ptr [0x9004], 1\n3: {poll}\n cmp byte ptr [0x9008], 1\n jne 3b\n"
    two_processors(tmp_path, polls, waits).check()


class Waker(pyhv.PioDevice):
    """Wakes processor 1, by an NMI."""

    port = 0x300
    length = 1

    def write(self, offset: int, size: int, value: int) -> None:
        self.platform.send_msi(Msi(0xFEE0_1000, 0x400))


def test_a_device_that_wakes_a_processor_ends_the_turn_of_the_other(tmp_path: Path) -> None:
    sleeps = (
        "mov word ptr [8], offset handler\n mov word ptr [10], ax\n mov byte ptr [0x9000], 1\n1: hlt\n jmp 1b\n"
        "handler: mov byte ptr [0x9008], 1\n iret\n"
    )
    wakes = "mov ecx, 100000\n3: loop 3b\n mov dx, 0x300\n out dx, al\n4: cmp byte ptr [0x9008], 1\n jne 4b\n"
    result = two_processors(tmp_path, wakes, sleeps, Waker())
    result.check()
    assert result.instructions is not None and result.instructions < 200_000


class Caller(pyhv.PioDevice):
    """Raises IRQ 5."""

    port = 0x300
    length = 1

    def write(self, offset: int, size: int, value: int) -> None:
        self.platform.line(5).set(True)


def test_an_interrupt_of_the_8259_ends_the_turn_of_a_processor_that_does_not_take_it(tmp_path: Path) -> None:
    """It is the boot processor's, which sleeps; IRQ 5 is vector 0x0d."""
    sleeps = f"""
        mov dword ptr [{0x6000 + 0x0D * 8:#x}], offset handler + 0x80000
        mov dword ptr [{0x6004 + 0x0D * 8:#x}], 0x8e00
        lidt [idt]
        mov al, 0xdf
        out 0x21, al
        mov byte ptr [0x9004], 1
        sti
    1:  hlt
        jmp 1b
    idt:
        .word 0x7ff
        .long 0x6000
    handler:
    """
    waits = "mov byte ptr [0x9000], 1\n1: cmp byte ptr [0x9004], 1\n jne 1b\n"
    busy = f"{waits} mov ecx, 100000\n2: dec ecx\n jnz 2b\n mov dx, 0x300\n out dx, al\n3: jmp 3b\n"
    result = two_processors(tmp_path, sleeps, busy, Caller())
    result.check()
    assert result.instructions is not None and result.instructions < 400_000


def test_who_has_something_to_wake_for_comes_before_a_long_turn() -> None:
    with Bench(SimHypervisor(), VmConfig(vcpus=2)) as bench:
        boot, other = bench.add_vcpu(), bench.add_vcpu()
        bench.load("1: jmp 1b")
        bench.load("cli; 1: hlt; jmp 1b", at=0x6000, vcpu=other)
        other.mp_state = MpState.RUNNABLE
        assert isinstance(other.run(), Halt)
        before = bench.vm.instructions()
        bench.vm.post(lambda: bench.vm.signal_msi(Msi(0xFEE0_1000, 0x400)))
        assert isinstance(boot.run(), Interrupted)
        after = bench.vm.instructions()
        assert before is not None and after is not None and after - before <= 2 * QUANTUM
