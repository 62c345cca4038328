"""A simulated guest's register files, wherever they are: in its VMCB, or still in the CPU that ran it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, GuestMemoryError, VmmError
from pyhv.hv.sim import state, walk
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.cpuid_view import CpuidView
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.vmcb import Vmcb
from pyhv.x86.dump import format_registers
from pyhv.x86.registers import DebugRegisters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyhv.hv.sim.vm import SimVm
    from pyhv.x86.registers import CpuidEntry, FpuRegisters, GeneralRegisters, SystemRegisters, VcpuEvents

ASID = 1
CS_LONG = 1 << 9
_RIP, _CR0, _CR3, _CR4, _EFER = v.RIP >> 3, v.CR0 >> 3, v.CR3 >> 3, v.CR4 >> 3, v.EFER >> 3
_DR6, _DR7 = v.DR6 >> 3, v.DR7 >> 3


class GuestRegisters:
    """One vCPU's; see `pyhv.hv.api.Vcpu`. Every access brings the guest out into the VMCB first."""

    def __init__(self, vm: SimVm, index: int, entries: Sequence[CpuidEntry]) -> None:
        self.vm = vm
        self.index = index
        self.native: Any = lib.sim_machine_cpu(vm.native, index)
        pa = vm.host.frame()
        self.vmcb = Vmcb(vm.host.page(pa), pa)
        self.gpr: Any = lib.sim_gpr(self.native)
        self.features = CpuidView(entries)
        self.inside = False
        """Whether the guest's state is in the CPU, between two runs of the same VMRUN."""

    def leave_guest(self) -> None:
        """Bring the guest out into the VMCB. Raises VmmError when the machine is gone."""
        if self.inside:
            self.inside = False
            lib.sim_force_vmexit(self.native)
        elif self.native is None:
            raise VmmError(f"vCPU {self.index}: the machine is closed")

    def cpu_state(self) -> Any:
        """A SimState: what the CPU has now."""
        out = ffi.new("SimState *")
        lib.sim_get_state(self.native, out)
        return out

    def change_state(self, **fields: int) -> bool:
        """Change what is neither in the VMCB nor reached otherwise; False where the silicon refuses."""
        self.leave_guest()
        new = self.cpu_state()
        for name, value in fields.items():
            setattr(new, name, value)
        return bool(lib.sim_set_state(self.native, new) == 0)

    @property
    def general(self) -> GeneralRegisters:
        self.leave_guest()
        return state.read_general(ffi.buffer(self.gpr, state.GENERAL.size), self.vmcb)

    @general.setter
    def general(self, registers: GeneralRegisters) -> None:
        self.leave_guest()
        state.write_general(ffi.buffer(self.gpr, state.GENERAL.size), self.vmcb, registers)

    @property
    def system(self) -> SystemRegisters:
        self.leave_guest()
        lib.sim_vmsave(self.native, self.vmcb.pa)
        now = self.cpu_state()
        return state.read_system(self.vmcb, cr8=now.cr8, apic_base=now.apic_base)

    @system.setter
    def system(self, registers: SystemRegisters) -> None:
        self.leave_guest()
        lib.sim_vmsave(self.native, self.vmcb.pa)
        state.write_system(self.vmcb, registers)
        lib.sim_vmload(self.native, self.vmcb.pa)
        if not self.change_state(cr8=registers.cr8 & 0xF, apic_base=registers.apic_base):
            raise ConfigError(f"system registers: APIC base {registers.apic_base:#x} cannot be set")
        lib.sim_tlb_flush(self.native, ASID)

    def _area(self) -> Any:
        self.leave_guest()
        return ffi.buffer(lib.sim_xsave_area(self.native), state.XSAVE_SIZE)

    @property
    def fpu(self) -> FpuRegisters:
        return state.read_fpu(self._area())

    @fpu.setter
    def fpu(self, registers: FpuRegisters) -> None:
        state.write_fpu(self._area(), registers)

    @property
    def xsave(self) -> bytes:
        """The XSAVE area in the standard format, every component present."""
        return state.read_xsave(self._area(), self.xcr0)

    @xsave.setter
    def xsave(self, area: bytes) -> None:
        if len(area) > state.XSAVE_SIZE:
            raise CapabilityMissing(f"an XSAVE area of {len(area)} bytes does not fit the silicon's {state.XSAVE_SIZE}")
        state.write_xsave(self._area(), area)

    @property
    def xcr0(self) -> int:
        self.leave_guest()
        return int(self.cpu_state().xcr0)

    @xcr0.setter
    def xcr0(self, value: int) -> None:
        if not self.set_xcr0(value):
            raise ConfigError(f"xcr0: {value:#x} is not a set of states that this CPU has")

    def set_xcr0(self, value: int) -> bool:
        """As XSETBV does; False: #GP."""
        if not value & 1 or value & ~self.features.states() or value & 6 == 4:
            return False
        return self.change_state(xcr0=value)

    @property
    def debug(self) -> DebugRegisters:
        self.leave_guest()
        dr = self.cpu_state().dr
        quad = self.vmcb.quad
        return DebugRegisters((dr[0], dr[1], dr[2], dr[3]), quad[_DR6], quad[_DR7])

    @debug.setter
    def debug(self, registers: DebugRegisters) -> None:
        self.leave_guest()
        new = self.cpu_state()
        for i, address in enumerate(registers.db):
            new.dr[i] = address
        lib.sim_set_state(self.native, new)
        quad = self.vmcb.quad
        quad[_DR6], quad[_DR7] = registers.dr6 & 0xFFFF_FFFF, registers.dr7 & 0xFFFF_FFFF

    @property
    def events(self) -> VcpuEvents:
        self.leave_guest()
        now = self.cpu_state()
        return state.read_events(self.vmcb, nmi_masked=bool(now.nmi_masked), nmi_pending=bool(now.nmi_pending))

    @events.setter
    def events(self, events: VcpuEvents) -> None:
        self.leave_guest()
        state.write_events(self.vmcb, events)
        self.change_state(nmi_masked=events.nmi_masked, nmi_pending=events.nmi_pending)

    @property
    def lapic(self) -> bytes:
        """The local APIC's register page, 1024 bytes (APM vol. 2, 16.3.2)."""
        page = ffi.new("uint8_t[1024]")
        lib.sim_lapic_get(self.native, page)
        return bytes(ffi.buffer(page))

    @lapic.setter
    def lapic(self, registers: bytes) -> None:
        if len(registers) != 1024:
            raise ConfigError(f"local APIC: 1024 bytes are needed, not {len(registers)}")
        lib.sim_lapic_set(self.native, ffi.from_buffer(registers))

    def set_cpuid(self, entries: Sequence[CpuidEntry]) -> None:
        self.features = CpuidView(entries)

    def get_cpuid(self) -> list[CpuidEntry]:
        return list(self.features.entries)

    # Looking at the guest

    def linear_rip(self) -> int:
        """RIP as a linear address."""
        quad = self.vmcb.quad
        if quad[_EFER] & walk.EFER_LMA and self.vmcb.word[v.CS >> 2] >> 16 & CS_LONG:
            return quad[_RIP]
        return quad[(v.CS >> 3) + 1] + quad[_RIP] & 0xFFFF_FFFF

    def translate(self, linear: int) -> int | None:
        """The guest physical address behind a linear one, by the vCPU's current paging; None where not mapped."""
        self.leave_guest()
        quad = self.vmcb.quad
        return walk.translate(self.vm.memory, linear, cr0=quad[_CR0], cr3=quad[_CR3], cr4=quad[_CR4], efer=quad[_EFER])

    def code_bytes(self, count: int = 15) -> bytes:
        """The bytes at RIP, as many as can be read."""
        self.leave_guest()
        linear, out = self.linear_rip(), b""
        while len(out) < count:
            gpa = self.translate(linear + len(out))
            if gpa is None:
                break
            piece = min(count - len(out), 0x1000 - (gpa & 0xFFF))
            try:
                out += self.vm.memory.read(gpa, piece)
            except GuestMemoryError:
                break
        return out

    def dump(self) -> str:
        """The registers as text for a report, with the bytes at RIP where they can be read."""
        self.leave_guest()
        text = format_registers(self.index, self.general, self.system, self.code_bytes())
        return f"{text}\nvmcb {self.vmcb.dump()}"
