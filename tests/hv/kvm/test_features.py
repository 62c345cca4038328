"""What KVM offers beyond the seam: coalesced I/O, rings that fill up, guest_memfd, clocks, register groups in kvm_run."""

import os
import threading

import pytest
from conformance.asm import assemble

from pyhv.errors import CapabilityMissing, ConfigError, HostError
from pyhv.hv.exits import DirtyRingFull, InternalError, Interrupted, MmioWrite, PioOut
from pyhv.hv.kvm.hypervisor import KvmHypervisor
from pyhv.hv.kvm.native import lib
from pyhv.hv.kvm.state import from_fpu, to_fpu
from pyhv.memory import MemoryBacking
from pyhv.record import replace
from pyhv.x86 import msr
from pyhv.x86.registers import FpuRegisters

from .conftest import Maker


def test_coalesced_ports_arrive_in_order_at_the_next_exit(kvm: KvmHypervisor, machine: Maker) -> None:
    if not kvm.extensions["COALESCED_PIO"]:
        pytest.skip("no coalesced port I/O here")
    made = machine(
        assemble("mov al, 1; out 0x70, al; mov ax, 0x302; out 0x70, ax; out 0xe9, al; out 0x70, al", bits=16)
    )
    made.vm.ioevents.add_coalesced(0x70, 2, pio=True)
    exit = made.run()
    assert isinstance(exit, PioOut) and exit.port == 0xE9
    assert made.vm.ioevents.drain_coalesced() == [PioOut(0x70, 1, 1, b"\x01"), PioOut(0x70, 2, 1, b"\x02\x03")]
    assert made.vm.ioevents.drain_coalesced() == []
    made.vm.ioevents.remove_coalesced(0x70, 2, pio=True)
    exit = made.run()
    assert isinstance(exit, PioOut) and exit.port == 0x70


def test_coalesced_memory_writes_and_a_ring_that_is_full(kvm: KvmHypervisor, machine: Maker) -> None:
    if not kvm.extensions["COALESCED_MMIO"]:
        pytest.skip("no coalesced memory-mapped I/O here")
    made = machine(assemble("mov cx, 400; again: mov [0], cl; loop again; out 0xe9, al", bits=16))
    system = made.vcpu.system
    system.ds.base = 0xC000_0000
    made.vcpu.system = system
    made.vm.ioevents.add_coalesced(0xC000_0000, 4)
    values = []
    while True:
        exit = made.run()
        values += [write.data[0] for write in made.vm.ioevents.drain_coalesced() if isinstance(write, MmioWrite)]
        if isinstance(exit, PioOut):
            break
        assert isinstance(exit, MmioWrite)  # the ring had no room for this one
        values.append(exit.data[0])
    assert values == [value & 0xFF for value in range(400, 0, -1)]


def test_a_dirty_ring_that_fills_up_exits(kvm: KvmHypervisor, machine: Maker) -> None:
    if not kvm.capabilities.dirty_ring:
        pytest.skip("no dirty rings here")
    code = "mov bx, 0; again: mov [bx], al; add bx, 0x1000; jnz again; mov ax, ds; add ax, 0x1000; mov ds, ax; out 0xe9, al"
    made = machine(assemble(code + "; mov bx, 0; jmp again", bits=16), dirty_ring=256)
    made.vm.set_dirty_logging(made.ram, True)
    full, seen = 0, set()
    for base in range(0x10_0000, 0x20_0000, 0x1_0000):
        system = made.vcpu.system
        system.ds.base = base
        made.vcpu.system = system
        made.vcpu.general = replace(made.vcpu.general, rip=0x1000, rbx=0)
        while not isinstance(exit := made.run(), PioOut):
            assert isinstance(exit, DirtyRingFull), exit
            full += 1
            made.vm.slots.harvest_rings()
        if base % 0x8_0000 == 0:
            seen |= set(made.vm.dirty_pages(made.ram))
    seen |= set(made.vm.dirty_pages(made.ram))
    assert set(range(0x10_0000, 0x20_0000, 0x1000)) <= seen


@pytest.mark.parametrize("entries", [3, 1, 1 << 30, 100])
def test_ring_sizes_that_cannot_be(machine: Maker, entries: int) -> None:
    with pytest.raises((ConfigError, CapabilityMissing)):
        machine(dirty_ring=entries)


def test_guest_memfd_is_memory_for_both_sides(kvm: KvmHypervisor, machine: Maker) -> None:
    made = machine(assemble("mov al, [0x10]; out 0xe9, al; mov byte ptr [0x20], 0x99; out 0xe9, al", bits=16))
    try:
        region = made.vm.add_memory(0x40_0000, 0x10_0000, backing=MemoryBacking(guest_memfd=True), name="private")
    except CapabilityMissing as error:
        pytest.skip(str(error))
    made.vm.memory.write(0x40_0010, b"\x77")
    system = made.vcpu.system
    system.ds.base = 0x40_0000
    made.vcpu.system = system
    exit = made.run()
    assert isinstance(exit, PioOut) and exit.data == b"\x77"
    made.run()
    assert made.vm.memory.read(0x40_0020, 1) == b"\x99"
    region.discard()
    assert made.vm.memory.read(0x40_0020, 1) == b"\0"
    made.vm.remove_memory(region)


def test_a_guest_memfd_backing_takes_no_huge_pages() -> None:
    with pytest.raises(ConfigError):
        MemoryBacking(hugepages="2M", guest_memfd=True)


def test_the_paravirtual_clock_can_be_set(machine: Maker) -> None:
    made = machine()
    first = made.vm.kvm_clock.read()
    made.vm.kvm_clock.set(replace(first, clock_ns=first.clock_ns + 1_000_000_000_000, realtime_ns=None))
    assert made.vm.kvm_clock.read().clock_ns >= first.clock_ns + 1_000_000_000_000
    made.vm.kvm_clock.set(made.vm.kvm_clock.read())
    made.vcpu.notify_paused()


def test_the_tsc_offset(machine: Maker) -> None:
    made = machine(assemble("rdtsc; out 0xe9, eax; mov eax, edx; out 0xe9, eax; jmp 0x1000", bits=16, org=0x1000))

    def tsc() -> int:
        low, high = made.run(), made.run()
        assert isinstance(low, PioOut) and isinstance(high, PioOut)
        return int.from_bytes(low.data + high.data, "little")

    offset = made.vcpu.tsc_offset
    before = tsc()
    try:
        made.vcpu.tsc_offset = offset + (1 << 50)
    except CapabilityMissing as error:
        assert made.vcpu.tsc_offset == offset
        pytest.skip(str(error))
    assert made.vcpu.tsc_offset == (offset + (1 << 50)) % (1 << 64)
    assert 0 < tsc() - before - (1 << 50) < 1 << 45


def test_the_tsc_frequency(machine: Maker) -> None:
    made = machine()
    khz = made.vcpu.tsc_khz
    assert khz > 100_000
    made.vcpu.tsc_khz = khz
    assert made.vcpu.tsc_khz == khz


def test_registers_come_with_the_exit_once_they_were_asked_for(kvm: KvmHypervisor, machine: Maker) -> None:
    if not kvm.sync_regs & lib.KVM_SYNC_X86_REGS:
        pytest.skip("no register groups in kvm_run here")
    made = machine(assemble("again: inc bx; out 0xe9, al; jmp again", bits=16))
    for expected in range(1, 5):
        made.run()
        assert made.vcpu.general.rbx == expected
    made.vcpu.general = replace(made.vcpu.general, rbx=0x100)
    assert made.vcpu.general.rbx == 0x100
    made.run()
    assert made.vcpu.general.rbx == 0x101


def test_fpu_registers_in_the_form_for_hosts_without_xsave() -> None:
    registers = FpuRegisters(st=tuple(bytes([i]) * 16 for i in range(8)), fcw=0x27F, mxcsr=0x1FA0, fip=5)
    assert from_fpu(to_fpu(registers)) == registers


def test_a_restored_clock_and_state_survive_a_move_between_vms(kvm: KvmHypervisor, machine: Maker) -> None:
    """Everything that the typed register files hold, from one VM into another."""
    source = machine(assemble("mov cx, 5; again: inc bx; out 0xe9, al; jmp again", bits=16))
    for _ in range(3):
        source.run()
    source.vcpu.settle()
    target = machine(assemble("mov cx, 5; again: inc bx; out 0xe9, al; jmp again", bits=16))
    a, b = source.vcpu, target.vcpu
    b.set_cpuid(a.get_cpuid())
    b.system, b.xcr0, b.xsave, b.lapic = a.system, a.xcr0, a.xsave, a.lapic
    saved = a.get_msrs(kvm.msr_indices)
    settable = {index: value for index, value in saved.items() if b.get_msrs([index]).get(index) != value}
    settable.pop(msr.TSC, None)
    for index, value in settable.items():
        b.set_msrs({index: value})
    b.debug, b.general, b.events, b.mp_state = a.debug, a.general, a.events, a.mp_state
    exit = target.run()
    assert isinstance(exit, PioOut) and b.general.rbx == 4


def test_settling_finishes_the_instruction_and_keeps_a_kick(machine: Maker) -> None:
    made = machine(assemble("xor ax, ax; in al, 0x10; out 0xe9, al; jmp .", bits=16, org=0x1000))
    made.run()
    made.vcpu.complete_read(b"\x42")
    made.vcpu.settle()
    assert made.vcpu.general.rax == 0x42 and made.vcpu.general.rip == 0x1004
    made.vcpu.kick()
    made.vcpu.settle()
    assert isinstance(made.vcpu.run(), Interrupted)
    exit = made.run()
    assert isinstance(exit, PioOut) and exit.data == b"\x42"


def test_many_vms_at_once_on_threads(kvm: KvmHypervisor, machine: Maker) -> None:
    machines = [machine() for _ in range(8)]
    counts = [0] * len(machines)

    def loop(index: int) -> None:
        for _ in range(200):
            if isinstance(machines[index].run(), PioOut):
                counts[index] += 1

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(len(machines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == [200] * len(machines)


def test_a_vm_that_a_child_process_inherits_is_refused_there(machine: Maker) -> None:
    made = machine()
    pid = os.fork()
    if pid == 0:
        try:
            exit = made.vcpu.run()
            os._exit(0 if isinstance(exit, InternalError) else 1)
        except HostError:
            os._exit(0)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert isinstance(made.run(), PioOut)
