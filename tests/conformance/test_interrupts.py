"""Interrupts: messages, external ones by the 8259's way, NMIs, EOIs of the user-space I/O APIC, and HLT."""

import threading

import pytest

from pyhv.hv.api import Hypervisor, Vcpu
from pyhv.hv.exits import Exit, Halt, Interrupted, InterruptWindow, IoapicEoi, PioOut, Shutdown
from pyhv.irq import Msi
from pyhv.x86.registers import MpState

from . import apic
from .asm import assemble
from .bench import Bench
from .conftest import Maker

HANDLER = 0x1800
SECOND = 0x1900
MSI_BASE = 0xFEE0_0000


def _waiting(bench: Bench) -> None:
    """A guest that has its local APIC on, says so, and halts with interrupts enabled."""
    bench.load(apic.ENABLE + "mov al, 1; out 0xe9, al\n" + apic.WAIT)
    assert bench.output(1) == [1]


def _handler(bench: Bench, vector: int, value: int, *, at: int = HANDLER, eoi: bool = True, sti: bool = True) -> None:
    bench.vm.memory.write(at, assemble(apic.handler("handler", value, eoi=eoi, sti=sti), bits=32, org=at))
    bench.gate(vector, at)


def test_a_message_wakes_a_halted_vcpu(bench: Bench) -> None:
    _handler(bench, 0x40, 7)
    _waiting(bench)
    for _ in range(3):
        bench.vm.signal_msi(Msi(MSI_BASE, 0x40))
        assert bench.output(1) == [7]


def test_a_message_that_comes_while_interrupts_are_off_waits(bench: Bench) -> None:
    _handler(bench, 0x41, 8)
    bench.load(apic.ENABLE + "cli; mov al, 1; out 0xe9, al; mov al, 2; out 0xe9, al; sti; nop; wait: hlt; jmp wait")
    assert bench.output(1) == [1]
    bench.vm.signal_msi(Msi(MSI_BASE, 0x41))
    assert bench.output(2) == [2, 8]


def test_the_higher_vector_comes_first(bench: Bench) -> None:
    _handler(bench, 0x50, 5)
    _handler(bench, 0x90, 9, at=SECOND)
    bench.load(apic.ENABLE + "mov al, 1; out 0xe9, al; mov al, 2; out 0xe9, al\n" + apic.WAIT)
    assert bench.output(1) == [1]
    bench.vm.signal_msi(Msi(MSI_BASE, 0x50))
    bench.vm.signal_msi(Msi(MSI_BASE, 0x90))
    assert bench.output(3) == [2, 9, 5]


def test_a_message_to_an_apic_that_is_not_there_is_lost_quietly(bench: Bench) -> None:
    _waiting(bench)
    bench.vm.signal_msi(Msi(MSI_BASE | 9 << 12, 0x40))


def test_an_nmi(bench: Bench) -> None:
    _handler(bench, 2, 0x22, eoi=False, sti=False)
    bench.load("mov al, 1; out 0xe9, al; cli; wait: jmp wait")
    assert bench.output(1) == [1]
    bench.vcpu.nmi()
    assert bench.output(1) == [0x22]


def test_an_external_interrupt_in_real_mode(make: Maker) -> None:
    bench = make()
    bench.ivt(0x08, HANDLER)
    bench.load("mov al, 8; out 0xe9, al; iret", mode=16, at=HANDLER)
    bench.load("sti; mov al, 1; out 0xe9, al; again: nop; mov al, 2; out 0xe9, al; jmp again", mode=16)
    assert bench.output(2) == [1, 2]
    assert bench.vcpu.ready_for_interrupt
    bench.vcpu.interrupt(0x08)
    assert 8 in bench.output(2)


def test_the_interrupt_window(make: Maker) -> None:
    bench = make()
    bench.ivt(0x08, HANDLER)
    bench.load("mov al, 8; out 0xe9, al; iret", mode=16, at=HANDLER)
    bench.load("cli; mov al, 1; out 0xe9, al; mov al, 2; out 0xe9, al; sti; nop; again: jmp again", mode=16)
    assert bench.output(1) == [1]
    assert not bench.vcpu.ready_for_interrupt
    bench.vcpu.request_interrupt_window = True
    assert bench.vcpu.request_interrupt_window
    assert bench.output(1) == [2]
    bench.expect(InterruptWindow)
    assert bench.vcpu.ready_for_interrupt
    bench.vcpu.request_interrupt_window = False
    bench.vcpu.interrupt(0x08)
    assert bench.output(1) == [8]


def test_an_external_interrupt_wakes_a_halted_vcpu(make: Maker) -> None:
    """As a PIC in user space does it: kick, look whether the guest can take it, inject, run."""
    bench = make()
    bench.ivt(0x20, HANDLER)
    bench.load("mov al, 0x20; out 0xe9, al; iret", mode=16, at=HANDLER)
    bench.load("sti; mov al, 1; out 0xe9, al; wait: hlt; mov al, 3; out 0xe9, al; jmp wait", mode=16)
    assert bench.output(1) == [1]
    for _ in range(3):
        if bench.hypervisor.capabilities.threads:
            while bench.vcpu.mp_state is not MpState.HALTED:  # a slow host may be kicked before it gets there
                timer = threading.Timer(0.01, bench.vcpu.kick)
                timer.start()
                while not isinstance(bench.run_once(bench.vcpu), Interrupted):
                    pass
                timer.join()
        else:
            bench.run_once(bench.vcpu)
        assert bench.vcpu.ready_for_interrupt
        bench.vcpu.interrupt(0x20)
        assert bench.output(2) == [0x20, 3]


def test_eois_of_level_triggered_pins_reach_the_vmm(bench: Bench) -> None:
    _handler(bench, 0x60, 6)
    level = Msi(MSI_BASE, 0x60 | 1 << 15 | 1 << 14)
    bench.vm.set_gsi_routes({11: level})
    _waiting(bench)
    bench.vm.signal_msi(level)
    exits = [bench.run(), bench.run()]
    eoi = IoapicEoi(0x60)
    assert eoi in exits, exits  # some KVMs without hardware end an interrupt now and then before its handler has run
    exits.remove(eoi)
    assert isinstance(exits[0], PioOut) and exits[0].data == b"\6", exits
    bench.vm.set_gsi_routes({11: Msi(MSI_BASE, 0x60)})
    bench.vm.signal_msi(Msi(MSI_BASE, 0x60))
    assert bench.output(1) == [6]
    bench.vm.signal_msi(Msi(MSI_BASE, 0x60))
    assert bench.output(1) == [6], "an edge has no EOI exit"


def test_hlt_exits_where_no_local_apic_is_in_the_backend(make: Maker, backend: Hypervisor) -> None:
    if "none" not in backend.capabilities.irqchips:
        pytest.skip("the backend always has local APICs")
    bench = make(irqchip="none")
    bench.load("hlt; mov al, 1; out 0xe9, al")
    bench.expect(Halt)
    assert bench.output(1) == [1]


def test_hlt_without_interrupts_can_be_kicked_out(bench: Bench, backend: Hypervisor) -> None:
    bench.load("cli; mov al, 1; out 0xe9, al; hlt; mov al, 2; out 0xe9, al")
    assert bench.output(1) == [1]
    if not backend.capabilities.threads:
        assert isinstance(bench.vcpu.run(), Halt | Interrupted)
        return
    timer = threading.Timer(0.02, bench.vcpu.kick)
    timer.start()
    assert isinstance(bench.vcpu.run(), Interrupted)
    timer.join()


def test_a_triple_fault_is_a_shutdown(bench: Bench) -> None:
    bench.load("ud2")
    bench.vm.memory.fill(0x2000, 0x800)
    bench.expect(Shutdown)


def test_interrupts_from_another_thread_while_the_guest_runs(bench: Bench, backend: Hypervisor) -> None:
    if not backend.capabilities.threads:
        pytest.skip("the backend has no threads")
    _handler(bench, 0x70, 7)
    _waiting(bench)
    got: list[int] = []
    vm = bench.vm

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        if isinstance(exit, PioOut):
            got.append(exit.data[0])
            if len(got) < 50:
                vm.signal_msi(Msi(MSI_BASE, 0x70))
        return len(got) == 50

    starter = threading.Timer(0.01, vm.signal_msi, [Msi(MSI_BASE, 0x70)])
    starter.start()
    bench.run_all(handle)
    starter.join()
    assert got == [7] * 50
