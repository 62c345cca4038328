"""A vCPU without an outer VMRUN: the guest has the simulated processor to itself, SVM included (VmConfig feature "+svm").

So that hypervisors can run in it. There are no nested tables below it and no VMCB of the host's: memory is mapped into the
silicon as it is, CPUID and MSRs are the silicon's own, and device accesses stop the run.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, VmmError
from pyhv.hv.exits import InterruptWindow, MmioRead, MmioWrite, PioIn, PioOut
from pyhv.hv.sim import walk
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.power import LVT_LINT0, VIRTUAL_WIRE
from pyhv.hv.sim.string_pio import BUFFER_SIZE
from pyhv.hv.sim.vcpu import FLAG_IF, SimVcpu
from pyhv.hv.sim.vmcb import attributes, segment
from pyhv.x86.dump import format_registers
from pyhv.x86.registers import (
    DebugRegisters,
    DescriptorTable,
    FpuRegisters,
    GeneralRegisters,
    SystemRegisters,
    VcpuEvents,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyhv.hv.exits import Exit
    from pyhv.x86.registers import CpuidEntry

_EXTINT, _MMIO, _PIO = lib.SIM_STOP_EXTINT, lib.SIM_STOP_MMIO, lib.SIM_STOP_PIO
_SEGMENTS = {
    "cs": "cs", "ds": "ds", "es": "es", "fs": "fs", "gs": "gs", "ss": "ss", "tr": "tr", "ldt": "ldtr",
}  # fmt: skip
_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


class BareVcpu(SimVcpu):
    """See `pyhv.hv.api.Vcpu`."""

    def _prepare(self) -> None:
        self.inside = True
        self._vector: int | None = None

    def leave_guest(self) -> None:
        """There is no VMCB to leave to. Raises VmmError when the machine is gone."""
        if self.native is None:
            raise VmmError(f"vCPU {self.index}: the machine is closed")

    def _power_on(self, *, init: bool = False) -> None:
        lib.sim_reset(self.native, init)
        self.inside = True
        self._halted = self.unfinished = False
        self._vector = None
        self._later.clear()
        self._reply = None
        now = self.cpu_state()
        now.gpr[2] = self.features.signature()
        lib.sim_set_state(self.native, now)
        if not init:
            self.fpu = FpuRegisters()
        if self.index == 0:
            page = bytearray(self.lapic)
            page[LVT_LINT0 : LVT_LINT0 + 4] = VIRTUAL_WIRE.to_bytes(4, "little")
            self.lapic = bytes(page)

    def _can_wake(self) -> bool:
        if lib.sim_cpu_wakes(self.native) or self._vector is not None:
            self._halted = self._waiting = False
        return not self.sleeping

    def _take_init(self) -> None:
        """The silicon takes INIT by itself; the stop says that this CPU waits for a start-up message."""
        self._waiting = True

    def _stopped(self, reason: int) -> Exit | None:
        if reason == _MMIO:
            return self._mmio()
        if reason == _PIO:
            return self._port()
        if reason == _EXTINT:
            return self._external()
        return super()._stopped(reason)

    def _mmio(self) -> Exit:
        self.device_time()
        access = lib.sim_access(self.native)
        size = access.size
        if access.write:
            data = access.data.to_bytes(8, "little")[:size]
            lib.sim_access_done(self.native, 0)
            return MmioWrite(access.addr, data)
        self.expect_reply(_finish, size)
        return MmioRead(access.addr, size)

    def _port(self) -> Exit:
        self.device_time()
        access = lib.sim_access(self.native)
        port, size = access.addr, access.size
        if access.string:
            count = max(1, min(access.count, BUFFER_SIZE // size))
            if not access.write:
                self.expect_reply(_finish_string, size * count)
                return PioIn(port, size, count)
            moved = lib.sim_string_io(self.native, self.string_buffer, count, 0)
            if moved:
                return PioOut(port, size, moved, bytes(ffi.buffer(self.string_buffer, moved * size)))
        if access.write:
            data = access.data.to_bytes(8, "little")[:size]
            lib.sim_access_done(self.native, 0)
            return PioOut(port, size, 1, data)
        self.expect_reply(_finish, size)
        return PioIn(port, size, 1)

    # Interrupts: the 8259's line is LINT0

    def _external(self) -> Exit | None:
        lib.sim_lapic_lint(self.native, 0, 0)
        if self._vector is not None:
            lib.sim_extint_vector(self.native, self._vector)
            self._vector = None
            if self._window:
                lib.sim_lapic_lint(self.native, 0, 1)
            return None
        self._window = False
        return InterruptWindow()

    @property
    def ready_for_interrupt(self) -> bool:
        if self._vector is not None or self._waiting or self._reply is not None or not self._accepts_extint():
            return False
        now = self.cpu_state()
        return bool(now.in_guest or (now.gif and now.rflags & FLAG_IF and not now.shadow))

    def _window_open(self) -> bool:
        return False

    def _set_window(self, wanted: bool) -> None:
        self._window = wanted
        lib.sim_lapic_lint(self.native, 0, wanted or self._vector is not None)

    def interrupt(self, vector: int) -> None:
        """Raise INTR and answer its acknowledge cycle. Raises VmmError while an earlier one has not been taken."""
        if self._vector is not None:
            raise VmmError(f"vCPU {self.index}: an event is waiting to be injected already")
        self._vector = vector
        lib.sim_lapic_lint(self.native, 0, 1)

    # Registers

    @property
    def general(self) -> GeneralRegisters:
        self.leave_guest()
        now = self.cpu_state()
        return GeneralRegisters(rip=now.rip, rflags=now.rflags, **{name: now.gpr[i] for i, name in enumerate(_NAMES)})

    @general.setter
    def general(self, registers: GeneralRegisters) -> None:
        self.leave_guest()
        new = self.cpu_state()
        try:
            for i, name in enumerate(_NAMES):
                new.gpr[i] = getattr(registers, name)
            new.rip, new.rflags = registers.rip, registers.rflags | 2
        except OverflowError as error:
            raise ConfigError(f"general registers: {error}") from None
        lib.sim_set_state(self.native, new)

    @property
    def system(self) -> SystemRegisters:
        self.leave_guest()
        now = self.cpu_state()
        out = SystemRegisters(
            gdt=DescriptorTable(now.gdtr.base, now.gdtr.limit),
            idt=DescriptorTable(now.idtr.base, now.idtr.limit),
            cr0=now.cr0,
            cr2=now.cr2,
            cr3=now.cr3,
            cr4=now.cr4,
            cr8=now.cr8,
            efer=now.efer,
            apic_base=now.apic_base,
        )
        for name, native in _SEGMENTS.items():
            s = getattr(now, native)
            setattr(out, name, segment(s.selector, s.attrib, s.limit, s.base))
        return out

    @system.setter
    def system(self, registers: SystemRegisters) -> None:
        self.leave_guest()
        new = self.cpu_state()
        try:
            for name, native in _SEGMENTS.items():
                s, target = getattr(registers, name), getattr(new, native)
                target.selector, target.attrib, target.limit, target.base = s.selector, attributes(s), s.limit, s.base
            for table, target in ((registers.gdt, new.gdtr), (registers.idt, new.idtr)):
                if not 0 <= table.limit <= 0xFFFF:
                    raise OverflowError(f"a descriptor table's limit is {table.limit:#x}")
                target.limit, target.base = table.limit, table.base
            for name in ("cr0", "cr2", "cr3", "cr4", "efer", "apic_base"):
                setattr(new, name, getattr(registers, name))
            new.cr8 = registers.cr8 & 0xF
        except OverflowError as error:
            raise ConfigError(f"system registers: {error}") from None
        new.cpl = registers.ss.dpl if registers.cr0 & 1 else 0
        if lib.sim_set_state(self.native, new):
            raise ConfigError("system registers: paging without protection")

    @property
    def debug(self) -> DebugRegisters:
        dr = self.cpu_state().dr
        return DebugRegisters((dr[0], dr[1], dr[2], dr[3]), dr[6], dr[7])

    @debug.setter
    def debug(self, registers: DebugRegisters) -> None:
        new = self.cpu_state()
        for i, address in enumerate(registers.db):
            new.dr[i] = address
        new.dr[6], new.dr[7] = registers.dr6, registers.dr7
        lib.sim_set_state(self.native, new)

    @property
    def events(self) -> VcpuEvents:
        now = self.cpu_state()
        return VcpuEvents(
            interrupt_injected=self._vector is not None,
            interrupt_vector=self._vector or 0,
            interrupt_shadow=now.shadow,
            nmi_masked=bool(now.nmi_masked),
            nmi_pending=bool(now.nmi_pending),
        )

    @events.setter
    def events(self, events: VcpuEvents) -> None:
        if events.exception_injected or events.exception_pending or events.nmi_injected:
            raise CapabilityMissing("events: a bare simulated processor takes no injected exceptions")
        self.change_state(
            nmi_masked=events.nmi_masked, nmi_pending=events.nmi_pending, shadow=1 if events.interrupt_shadow else 0
        )

    def set_cpuid(self, entries: Sequence[CpuidEntry]) -> None:
        raise CapabilityMissing("cpuid: with +svm it is the simulated processors' own, set when the machine is made")

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        self.leave_guest()
        out, value = {}, self.vm.msr_value
        for index in indices:
            if lib.sim_rdmsr(self.native, index, value) == 0:
                out[index] = int(value[0])
        return out

    def _put_msr(self, index: int, value: int) -> bool:
        return bool(lib.sim_wrmsr(self.native, index, value) == 0)

    def linear_rip(self) -> int:
        now = self.cpu_state()
        return int(
            now.rip if now.efer & walk.EFER_LMA and now.cs.attrib & 0x200 else now.cs.base + now.rip & 0xFFFF_FFFF
        )

    def translate(self, linear: int) -> int | None:
        """The guest physical address behind a linear one; None where not mapped. Inside VMRUN both stages are walked."""
        self.leave_guest()
        gpa, pa = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        return int(pa[0]) if lib.sim_translate(self.native, linear, gpa, pa) == 0 else None

    def dump(self) -> str:
        """The registers as text for a report, with the bytes at RIP where they can be read."""
        self.leave_guest()
        where = "\ninside VMRUN" if self.cpu_state().in_guest else ""
        return format_registers(self.index, self.general, self.system, self.code_bytes()) + where


def _finish(vcpu: SimVcpu, data: bytes) -> None:
    lib.sim_access_done(vcpu.native, int.from_bytes(data, "little"))


def _finish_string(vcpu: SimVcpu, data: bytes) -> None:
    size = lib.sim_access(vcpu.native).size
    ffi.buffer(vcpu.string_buffer)[: len(data)] = data
    lib.sim_string_io(vcpu.native, vcpu.string_buffer, len(data) // size, 1)
