"""Running vCPUs: the loop around `Vcpu.run`, and who calls it.

`VcpuLoop` turns exits into bus accesses and verdicts. On backends with threads each vCPU has one thread of its own; on the
others one thread lets the vCPUs take turns.
"""

from __future__ import annotations

from time import thread_time_ns

from pyhv._types import TYPE_CHECKING
from pyhv.errors import PyhvError
from pyhv.hv import exits as x
from pyhv.result import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread
    from typing import Any

    from pyhv.chipset.pic import Pic
    from pyhv.hv.api import Vcpu
    from pyhv.vm import Vm

RECENT_EXITS = 12


class VcpuLoop:
    """One vCPU, its exit counts and its recent exits. Its methods belong to the thread that runs the vCPU."""

    def __init__(self, vm: Vm, vcpu: Vcpu) -> None:
        self.vm = vm
        self.vcpu = vcpu
        self.counts: dict[type[Any], int] = {}
        self.recent: list[x.Exit] = []
        self.registers = ""
        self.cpu_ns = 0
        self._pc = vm.pc if vcpu.index == 0 else None
        self._ports = vm.pc.ports
        self._mmio = vm.pc.mmio
        self._lock = vm.lock
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            x.PioOut: self._pio_out,
            x.PioIn: self._pio_in,
            x.MmioWrite: self._mmio_write,
            x.MmioRead: self._mmio_read,
            x.IoapicEoi: self._ioapic_eoi,
            x.Interrupted: self._nothing,
            x.InterruptWindow: self._interrupt_window,
            x.ApicAccess: self._nothing,
            x.Halt: self._halt,
            x.Shutdown: self._shutdown,
            x.SystemEvent: self._system_event,
            x.Rdmsr: self._rdmsr,
            x.Wrmsr: self._wrmsr,
            x.Hypercall: self._hypercall,
            x.Debug: self._debug,
            x.MemoryFault: self._memory_fault,
            x.DirtyRingFull: self._dirty_ring_full,
            x.InternalError: self._internal_error,
        }

    def step(self) -> x.Exit:
        """Run to the next exit, count it and handle it."""
        exit = self.run_raw()
        self.handle(exit)
        return exit

    def run_raw(self) -> x.Exit:
        """Run to the next exit and count it; the caller handles it."""
        pc = self._pc
        if pc is not None and (pic := pc.pic) is not None and pic.output:
            self._offer_extint(pic)
        exit = self.vcpu.run()
        kind = type(exit)
        counts = self.counts
        counts[kind] = counts.get(kind, 0) + 1
        recent = self.recent
        recent.append(exit)
        if len(recent) >= 2 * RECENT_EXITS:
            del recent[:RECENT_EXITS]
        return exit

    def handle(self, exit: x.Exit) -> None:
        """Do what the exit asks for."""
        handler = self._handlers.get(type(exit))
        if handler is None:
            self.vm.fail(f"an exit that the machine does not know: {exit!r}")
        else:
            handler(exit)

    def loop(self) -> None:
        """Run until the machine stops, on a thread of its own."""
        try:
            self.run_until_end()
        except BaseException as error:
            self.vm.fail(f"{type(error).__name__}: {error}", error)

    def run_until_end(self) -> None:
        """Run until the machine stops; an error becomes the verdict, never lost. KeyboardInterrupt gets through."""
        vm = self.vm
        run_raw, handlers, running = self.run_raw, self._handlers, vm.running
        began = thread_time_ns()
        try:
            while running():
                exit = run_raw()
                handlers[type(exit)](exit)
        except PyhvError as error:
            vm.fail(str(error), error)
        except Exception as error:
            vm.fail(f"{type(error).__name__}: {error}", error)
        finally:
            self.cpu_ns += thread_time_ns() - began
        self.take_dump()

    def take_dump(self) -> None:
        """Keep the registers if the run ended badly."""
        outcome = self.vm.outcome
        if outcome is not None and not outcome.ok and outcome is not Outcome.FAILED:
            try:
                self.registers = self.vcpu.dump()
            except PyhvError as error:
                self.registers = f"registers cannot be read: {error}"

    def _offer_extint(self, pic: Pic) -> None:
        vcpu = self.vcpu
        with self._lock:
            if not pic.output:
                return
            if vcpu.ready_for_interrupt:
                vcpu.interrupt(pic.acknowledge())
                vcpu.request_interrupt_window = pic.output
            else:
                vcpu.request_interrupt_window = True

    def _nothing(self, exit: x.Exit) -> None:
        pass

    def _interrupt_window(self, exit: x.InterruptWindow) -> None:
        self.vcpu.request_interrupt_window = False

    def _pio_out(self, exit: x.PioOut) -> None:
        size, data = exit.size, exit.data
        with self._lock:
            if exit.count == 1:
                self._ports.write(exit.port, size, int.from_bytes(data, "little"))
                return
            for at in range(0, size * exit.count, size):
                self._ports.write(exit.port, size, int.from_bytes(data[at : at + size], "little"))

    def _pio_in(self, exit: x.PioIn) -> None:
        size = exit.size
        with self._lock:
            if exit.count == 1:
                data = self._ports.read(exit.port, size).to_bytes(size, "little")
            else:
                read = self._ports.read
                data = b"".join(read(exit.port, size).to_bytes(size, "little") for _ in range(exit.count))
        self.vcpu.complete_read(data)

    def _mmio_write(self, exit: x.MmioWrite) -> None:
        data = exit.data
        with self._lock:
            self._mmio.write(exit.address, len(data), int.from_bytes(data, "little"))

    def _mmio_read(self, exit: x.MmioRead) -> None:
        with self._lock:
            value = self._mmio.read(exit.address, exit.size)
        self.vcpu.complete_read(value.to_bytes(exit.size, "little"))

    def _ioapic_eoi(self, exit: x.IoapicEoi) -> None:
        with self._lock:
            self.vm.pc.end_of_interrupt(exit.vector)

    def _halt(self, exit: x.Halt) -> None:
        self.vm.vcpu_halted(self)

    def _shutdown(self, exit: x.Shutdown) -> None:
        self.vm.end(Outcome.TRIPLE_FAULT, f"vCPU {self.vcpu.index} shut down (triple fault)")

    def _system_event(self, exit: x.SystemEvent) -> None:
        vm, kind = self.vm, exit.kind
        if kind is x.SystemEventKind.SHUTDOWN:
            vm.end(Outcome.POWER_OFF, "system event")
        elif kind is x.SystemEventKind.RESET:
            vm.control.reset("system event")
        elif kind is x.SystemEventKind.CRASH:
            vm.control.panic("system event")
        elif kind is x.SystemEventKind.SEV_TERMINATE:
            vm.end(Outcome.PANIC, "the encrypted guest asked to be terminated")

    def _rdmsr(self, exit: x.Rdmsr) -> None:
        handlers = self.vm.msr_handlers.get(exit.index)
        with self._lock:
            self.vcpu.complete_msr(handlers[0](exit.index) if handlers else None)

    def _wrmsr(self, exit: x.Wrmsr) -> None:
        handlers = self.vm.msr_handlers.get(exit.index)
        with self._lock:
            taken = handlers is not None and handlers[1](exit.index, exit.value)
        self.vcpu.complete_msr(0 if taken else None)

    def _hypercall(self, exit: x.Hypercall) -> None:
        self.vcpu.complete_hypercall(-1000)  # KVM_ENOSYS (Documentation/virt/kvm/x86/hypercalls.rst)

    def _debug(self, exit: x.Debug) -> None:
        self.vm.debug_stop(self, exit)

    def _memory_fault(self, exit: x.MemoryFault) -> None:
        kind = "private" if exit.private else "shared"
        self.vm.fail(f"memory fault: {kind} [{exit.address:#x}, {exit.address + exit.size:#x})")

    def _dirty_ring_full(self, exit: x.DirtyRingFull) -> None:
        self.vm.fail("a dirty ring is full, but machines are made without one")

    def _internal_error(self, exit: x.InternalError) -> None:
        where = f" at instruction {exit.instruction.hex(' ')}" if exit.instruction else ""
        self.registers = exit.registers
        self.vm.fail(f"{exit.name}: {exit.detail}{where}")


def start_threads(loops: list[VcpuLoop], name: str) -> list[Thread]:
    """One daemon thread a vCPU, started."""
    from threading import Thread

    threads = []
    for loop in loops:
        thread = Thread(target=loop.loop, name=f"{name}-vcpu{loop.vcpu.index}", daemon=True)
        thread.start()
        threads.append(thread)
    return threads
