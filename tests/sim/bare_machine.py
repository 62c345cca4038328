"""A bare simulated machine for tests: the silicon's C interface (silicon/api.h) on a little memory, no hypervisor.

Every interrupt handler is `hlt; iret`: a vector that the CPU takes stops the run inside its handler.
"""

from typing import Any

from pyhv.hv.config import VmConfig
from pyhv.hv.sim.hypervisor import SimHypervisor
from pyhv.hv.sim.native import ffi, lib

RAM = 1 << 20
CODE = 0x1000
HANDLERS = 0x2000
STACK = 0x8000
FLAG_IF = 1 << 9


class Bare:
    """`cpus` processors in real mode, each in a loop of HLT with interrupts on."""

    def __init__(self, cpus: int = 1, features: tuple[str, ...] = ()) -> None:
        self.ram = ffi.new("uint8_t[]", RAM)
        self.machine = lib.sim_machine_new(self.ram, RAM, cpus, 1)
        entries, count = SimHypervisor().host_cpuid(VmConfig(vcpus=cpus, features=features))
        lib.sim_set_cpuid(self.machine, entries, count)
        lib.sim_set_time(self.machine, 1_000_000_000, 10, 1_000_000_000)
        self.cpus = [lib.sim_machine_cpu(self.machine, i) for i in range(cpus)]
        memory = ffi.buffer(self.ram)
        for vector in range(256):
            handler = HANDLERS + 4 * vector
            memory[vector * 4 : vector * 4 + 4] = handler.to_bytes(4, "little")
            memory[handler : handler + 2] = b"\xf4\xcf"  # hlt; iret
        memory[CODE : CODE + 4] = b"\xf4\xeb\xfd\x90"  # hlt; jmp to it
        for cpu in self.cpus:
            self.place(cpu)

    def place(self, cpu: Any) -> None:
        """Point a CPU at the loop, with interrupts on."""
        state = ffi.new("SimState *")
        lib.sim_get_state(cpu, state)
        for segment in (state.cs, state.ds, state.es, state.ss):
            segment.selector, segment.base, segment.limit = 0, 0, 0xFFFF
        state.idtr.base, state.idtr.limit = 0, 0x3FF
        state.rip, state.gpr[4], state.rflags, state.mp_state = CODE, STACK, 2 | FLAG_IF, 0
        assert lib.sim_set_state(cpu, state) == 0

    def close(self) -> None:
        lib.sim_machine_free(self.machine)

    def taken(self, index: int = 0, budget: int = 100) -> int | None:
        """Run until the CPU halts; the vector in whose handler it does, None for the loop."""
        cpu = self.cpus[index]
        while (reason := lib.sim_run(cpu, budget)) in (lib.SIM_STOP_EVENT, lib.SIM_STOP_EOI):
            pass
        assert reason == lib.SIM_STOP_HALT, reason
        state = ffi.new("SimState *")
        lib.sim_get_state(cpu, state)
        at = state.rip - 1 - HANDLERS
        return at // 4 if 0 <= at < 1024 else None

    def leave_handler(self, index: int = 0) -> int | None:
        """Go on after the HLT of a handler: IRET, and what follows."""
        state = ffi.new("SimState *")
        lib.sim_get_state(self.cpus[index], state)
        state.mp_state = 0
        lib.sim_set_state(self.cpus[index], state)
        return self.taken(index)

    def read(self, register: int, index: int = 0) -> int:
        """A local APIC register by its offset."""
        value = ffi.new("uint64_t *")
        lib.sim_lapic_mmio_read(self.cpus[index], register, 4, value)
        return int(value[0])

    def write(self, register: int, value: int, index: int = 0) -> None:
        lib.sim_lapic_mmio_write(self.cpus[index], register, 4, value)

    def rdmsr(self, msr: int, index: int = 0) -> int | None:
        """None: #GP."""
        value = ffi.new("uint64_t *")
        return int(value[0]) if lib.sim_rdmsr(self.cpus[index], msr, value) == 0 else None

    def wrmsr(self, msr: int, value: int, index: int = 0) -> bool:
        """False: #GP."""
        return bool(lib.sim_wrmsr(self.cpus[index], msr, value) == 0)

    def bits(self, base: int, index: int = 0) -> set[int]:
        """The vectors in ISR (100h), TMR (180h) or IRR (200h)."""
        return {32 * i + bit for i in range(8) for bit in range(32) if self.read(base + 16 * i, index) >> bit & 1}

    def msi(self, data: int, *, dest: int = 0, logical: bool = False, redirect: bool = False) -> int:
        """How many CPUs took it."""
        return int(lib.sim_msi(self.machine, 0xFEE0_0000 | dest << 12 | redirect << 3 | logical << 2, data))

    def tsc(self, index: int = 0) -> int:
        return int(lib.sim_tsc(self.cpus[index]))

    def pass_ticks(self, ticks: int, index: int = 0) -> None:
        """Let time go by."""
        lib.sim_idle_to(self.cpus[index], self.tsc(index) + ticks)
