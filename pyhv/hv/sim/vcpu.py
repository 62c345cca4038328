"""One virtual processor: a VMCB on one simulated CPU, and the loop that runs it."""

from __future__ import annotations

from pyhv._builtin import get_ident
from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, GuestMemoryError, VmmError
from pyhv.hv.exits import Debug, Halt, InternalError, Interrupted, IoapicEoi, Shutdown
from pyhv.hv.sim import exits, msrs, state, string_pio, walk
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.vmcb import Vmcb
from pyhv.x86.dump import format_registers
from pyhv.x86.registers import (
    DebugRegisters,
    FpuRegisters,
    GeneralRegisters,
    MpState,
    SystemRegisters,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from pyhv.hv.exits import Exit
    from pyhv.hv.sim.vm import SimVm
    from pyhv.x86.registers import (
        CpuidEntry,
        VcpuEvents,
    )

ASID = 1
FLAG_IF, FLAG_TF = 1 << 9, 1 << 8
CR4_OSXSAVE = 1 << 18
APIC_ENABLED = 1 << 11
LVT_LINT0, LVT_MASKED, EXTINT = 0x350, 1 << 16, 7 << 8
LINT0_VIRTUAL_WIRE = 0x700
DR6_SINGLE_STEP = 1 << 14
MAX_BREAKPOINTS = 4
MAX_BORROWED = 16
INTERCEPTS1 = (
    v.INTR
    | v.NMI
    | v.SMI
    | v.INIT
    | v.CPUID
    | v.INVD
    | v.HLT
    | v.INVLPGA
    | v.IOIO_PROT
    | v.MSR_PROT
    | v.SHUTDOWN
    | v.RSM
)
INTERCEPTS2 = (
    v.VMRUN | v.VMMCALL | v.VMLOAD | v.VMSAVE | v.STGI | v.CLGI | v.SKINIT | v.MONITOR | v.MWAIT | v.XSETBV | v.RDPRU
)
_RIP, _RFLAGS, _SHADOW, _INJECT = v.RIP >> 3, v.RFLAGS >> 3, v.INTERRUPT_SHADOW >> 3, v.EVENTINJ >> 3
_EXITCODE = v.EXITCODE >> 3
_CR0, _CR4, _EFER, _DR6, _DR7 = v.CR0 >> 3, v.CR4 >> 3, v.EFER >> 3, v.DR6 >> 3, v.DR7 >> 3
_BUDGET, _VMEXIT, _REQUEST = lib.SIM_STOP_BUDGET, lib.SIM_STOP_VMEXIT, lib.SIM_STOP_REQUEST
_EOI, _INIT, _EVENT = lib.SIM_STOP_EOI, lib.SIM_STOP_INIT, lib.SIM_STOP_EVENT
_DEBUG, _HALT, _SHUTDOWN = lib.SIM_STOP_DEBUG, lib.SIM_STOP_HALT, lib.SIM_STOP_SHUTDOWN
_vmrun, _run, _tsc = lib.sim_vmrun, lib.sim_run, lib.sim_tsc


class SimVcpu:
    """See `pyhv.hv.api.Vcpu`. Outside of `run`, and after any access to its registers, its guest is in the VMCB."""

    def __init__(self, vm: SimVm, index: int, entries: Sequence[CpuidEntry]) -> None:
        self.vm = vm
        self.index = index
        self.native: Any = lib.sim_machine_cpu(vm.native, index)
        pa = vm.host.frame()
        self.vmcb = Vmcb(vm.host.page(pa), pa)
        self.gpr: Any = lib.sim_gpr(self.native)
        self.unfinished = False
        """A device access was answered, and its instruction has not been restarted yet."""
        self.turn_over = True
        """Whether the last Interrupted was the end of this vCPU's turn."""
        self._inside = False
        self._kicked = False
        self._halted = False
        self._window = False
        self._waiting = index != 0 and vm.config.irqchip != "none"
        self._turn = 0
        self._reply: tuple[Callable[[SimVcpu, Any], None], int] | None = None
        self._entries = tuple(entries)
        self._cpuid_cache: dict[tuple[int, int], CpuidEntry | None] = {}
        self._stepping = False
        self._breakpoints: tuple[int, ...] = ()
        self._borrowed: list[list[tuple[int, int]]] = []
        self._string: Any = None
        self._later: list[Exit] = []
        self._control()
        lib.sim_vapic_enable(self.native, vm.config.irqchip != "none")
        self._power_on()

    def _control(self) -> None:
        """The VMCB's control area, with the intercepts that a hypervisor like KVM sets."""
        vmcb, vm = self.vmcb, self.vm
        quad, word = vmcb.quad, vmcb.word
        pause = v.PAUSE if vm.config.vcpus > 1 else 0
        word[v.INTERCEPT_MISC1 >> 2] = INTERCEPTS1 | pause
        word[v.INTERCEPT_MISC2 >> 2] = INTERCEPTS2
        quad[v.IOPM_BASE_PA >> 3] = vm.iopm
        quad[v.MSRPM_BASE_PA >> 3] = vm.msrpm
        word[v.GUEST_ASID >> 2] = ASID
        word[v.INT_CTL >> 2] = v.V_INTR_MASKING
        quad[v.NP_ENABLE >> 3] = 1
        quad[v.N_CR3 >> 3] = vm.tables.root
        quad[v.G_PAT >> 3] = 0x0007_0406_0007_0406

    def _power_on(self, init: bool = False) -> None:
        """The registers after RESET, or INIT (APM vol. 2, table 14-1)."""
        vmcb, native = self.vmcb, self.native
        kept = vmcb.quad[_CR0] & 0x6000_0000
        lib.sim_reset(native, init)
        state.write_system(vmcb, SystemRegisters(cr0=0x10 | kept if init else 0x6000_0010))
        vmcb.quad[v.DBGCTL >> 3] = 0
        vmcb.quad[_DR6], vmcb.quad[_DR7] = 0xFFFF_0FF0, 0x400
        if not init:
            vmcb.quad[v.G_PAT >> 3] = 0x0007_0406_0007_0406
            state.write_fpu(self._area(), FpuRegisters())  # as FNINIT leaves it: what KVM and QEMU start with
        for offset in (v.STAR, v.LSTAR, v.CSTAR, v.SFMASK, v.KERNEL_GS_BASE):
            vmcb.quad[offset >> 3] = 0
        for offset in (v.SYSENTER_CS, v.SYSENTER_ESP, v.SYSENTER_EIP):
            vmcb.quad[offset >> 3] = 0
        state.write_general(
            ffi.buffer(self.gpr, state.GENERAL.size), vmcb, GeneralRegisters(rip=0xFFF0, rdx=self._signature())
        )
        lib.sim_vmload(native, vmcb.pa)
        vmcb.quad[_INJECT] = vmcb.quad[_SHADOW] = 0
        vmcb.word[v.INT_CTL >> 2] = v.V_INTR_MASKING
        self._inside = self._halted = self.unfinished = False
        self._later.clear()
        self._reply = None
        if self.index == 0 and self.vm.config.irqchip != "none":
            self._virtual_wire()

    def _virtual_wire(self) -> None:
        """LINT0 passes the 8259's interrupts on, as firmware leaves it and as KVM does for the boot processor."""
        page = bytearray(self.lapic)
        page[LVT_LINT0 : LVT_LINT0 + 4] = LINT0_VIRTUAL_WIRE.to_bytes(4, "little")
        self.lapic = bytes(page)

    def _signature(self) -> int:
        return next((e.eax for e in self._entries if e.function == 1), 0x600)

    # Running

    def run(self) -> Exit:
        """Run the guest until something needs the VMM, or this vCPU's turn is over."""
        vm = self.vm
        vm.owner = get_ident()
        if vm.inbox:
            vm.drain()
        self._reply = None
        if self._later and not self._kicked:
            return self._later.pop(0)
        while True:
            if self._kicked:
                self._kicked = False
                self.turn_over = False
                return Interrupted()
            if self.sleeping and not self._wake():
                if self._kicked:
                    continue
                self._turn = 0
                return Halt()
            if self._turn <= 0:
                self._turn = vm.quantum(self)
            before = vm.enter(self)
            budget = 1 if self._borrowed else vm.budget(self._turn)
            if self._inside:
                reason = _run(self.native, budget)
            else:
                self.unfinished = False
                self._inside = True
                reason = _vmrun(self.native, self.vmcb.pa, budget)
            self._turn -= vm.leave(_tsc(self.native), before)
            if vm.cuts_turn(self, self._turn):
                self._turn = 0
            if reason == _VMEXIT:
                self._inside = False
                if self._borrowed and self.vmcb.quad[_EXITCODE] != v.EXIT_NPF:
                    self._give_back()
                exit = exits.handle(self)
            elif reason == _BUDGET:
                if self._borrowed:
                    self._give_back()
                exit = None
            else:
                exit = self._stopped(reason)
            if exit is not None:
                return exit
            if self._turn <= 0 and vm.takes_turns:
                self.turn_over = True
                return Interrupted()

    def _stopped(self, reason: int) -> Exit | None:
        if reason == _REQUEST:
            self.vm.drain()
            return None
        if reason == _EOI:
            vector = lib.sim_eoi_vector(self.native)
            return IoapicEoi(vector) if vector >= 0 else None
        if reason == _EVENT:
            self._turn = 0
            return None
        if reason == _INIT:
            self._take_init()
            return None
        if reason == _DEBUG:
            return self._debug_exit()
        if reason == _HALT:
            self._halted = True
            return None
        if reason == _SHUTDOWN:
            return Shutdown()
        detail = ffi.string(lib.sim_error(self.native)).decode(errors="replace")
        if reason != lib.SIM_STOP_ERROR:
            detail = f"stopped for a reason that the host does not know: {reason}"
        return InternalError("SIM_ERROR", detail, self.dump(), self.code_bytes())

    def _wake(self) -> bool:
        """Whether a halted or waiting vCPU can run now; on a machine of one CPU time passes until it can."""
        vm = self.vm
        while True:
            if self._can_wake():
                return True
            if vm.takes_turns or self._kicked or not vm.skip_idle():
                return False

    def _can_wake(self) -> bool:
        if self._waiting:
            self._take_init()
        elif self.vmcb.quad[_INJECT] & v.EVENT_VALID or self._window_open() or lib.sim_cpu_wakes(self.native):
            self._halted = False
        return not self.sleeping

    @property
    def sleeping(self) -> bool:
        """Halted, or waiting for a start-up message."""
        return self._halted or self._waiting

    def _take_init(self) -> None:
        """INIT and start-up messages that the local APIC holds for this vCPU."""
        vector = ffi.new("uint32_t *")
        while kind := lib.sim_take_init(self.native, vector):
            self.leave_guest()
            if kind == 1:
                self._power_on(init=True)
                self._set_waiting(self.index != 0)
            elif self._waiting:
                self._set_waiting(False)
                system = self._read_system()
                system.cs.selector, system.cs.base = (vector[0] & 0xFF) << 8, (vector[0] & 0xFF) << 12
                state.write_system(self.vmcb, system)
                self.vmcb.quad[_RIP] = 0

    def _set_waiting(self, waiting: bool) -> None:
        self._waiting = waiting
        self._halted = False
        lib.sim_set_mp_state(self.native, int(waiting))

    def leave_guest(self) -> None:
        """Bring the guest out into the VMCB."""
        if self._inside:
            self._inside = False
            lib.sim_force_vmexit(self.native)

    # For the exit handlers

    def skip(self, rip: int) -> None:
        """The instruction at hand is done: go on at `rip`."""
        quad = self.vmcb.quad
        quad[_RIP] = rip
        quad[_SHADOW] = 0
        if quad[_RFLAGS] & FLAG_TF:
            quad[_DR6] |= DR6_SINGLE_STEP
            self.inject(exits.DB)

    def inject(self, vector: int, error: int | None = None) -> None:
        """Deliver an exception on the next entry."""
        self.vmcb.quad[_INJECT] = v.event(vector, v.EVENT_EXCEPTION, error)

    def halt(self) -> None:
        """HLT."""
        self._halted = True

    def end_turn(self) -> None:
        """Let the other vCPUs run."""
        self._turn = 0

    def expect_reply(self, finish: Callable[[SimVcpu, bytes], None], size: int) -> None:
        """The next `complete_read` of `size` bytes goes to `finish`."""
        self._reply = (finish, size)

    def expect_msr(self, finish: Callable[[SimVcpu, int | None], None]) -> None:
        """The next `complete_msr` goes to `finish`."""
        self._reply = (finish, -1)

    def expect_hypercall(self, finish: Callable[[SimVcpu, int], None]) -> None:
        """The next `complete_hypercall` goes to `finish`."""
        self._reply = (finish, -2)

    def open_bus(self, address: int) -> bool:
        """Let one instruction find what an address bus without a device gives, all ones, in the page at `address`.

        Its page-table walks may need several such pages; False where it needs more than any walk does.
        """
        if len(self._borrowed) >= MAX_BORROWED:
            self._give_back()
            return False
        self._borrowed.append(self.vm.tables.map_for_now(address, self.vm.open_bus()))
        return True

    def _give_back(self) -> None:
        """One instruction later, the pages are gone again."""
        while self._borrowed:
            self.vm.tables.undo(self._borrowed.pop())
        lib.sim_tlb_flush(self.native, ASID)

    def close_window(self) -> None:
        """The interrupt window that was asked for is open."""
        self._set_window(False)

    @property
    def string_buffer(self) -> Any:
        """Room for the items of a string I/O instruction."""
        if self._string is None:
            self._string = ffi.new("uint8_t[]", string_pio.BUFFER_SIZE)
        return self._string

    def later(self, exit: Exit) -> None:
        """Return an exit from the next `run`, before the guest goes on."""
        self._later.append(exit)

    # Answers

    def _finish(self, size: int, value: Any) -> None:
        reply = self._reply
        if reply is None or reply[1] != size:
            wanted = "nothing was asked" if reply is None else f"{reply[1]} bytes were asked for"
            raise VmmError(f"vCPU {self.index}: an answer of {size} bytes where {wanted}")
        self._reply = None
        reply[0](self, value)

    def complete_read(self, data: bytes) -> None:
        """Answer a PioIn or MmioRead. Raises VmmError when the length is not what was asked for."""
        self._finish(len(data), data)

    def complete_hypercall(self, result: int) -> None:
        """Answer a Hypercall; the low 64 bits count."""
        self._finish(-2, result)

    def complete_msr(self, value: int | None) -> None:
        """Answer Rdmsr or Wrmsr; None injects #GP."""
        self._finish(-1, value)

    def kick(self) -> None:
        """Make the current or the next `run` return Interrupted; harmless after `close`."""
        self._kicked = True
        with self.vm.native_lock:
            if self.native is not None:
                lib.sim_stop_request(self.native)

    # Interrupts

    def _accepts_extint(self) -> bool:
        if self.vm.config.irqchip == "none":
            return True
        page = self.lapic
        lvt = int.from_bytes(page[LVT_LINT0 : LVT_LINT0 + 4], "little")
        return not self._state().apic_base & APIC_ENABLED or lvt & (LVT_MASKED | EXTINT) == EXTINT

    def _window_open(self) -> bool:
        quad = self.vmcb.quad
        return bool(self._window and quad[_RFLAGS] & FLAG_IF and not quad[_SHADOW] & 1)

    @property
    def ready_for_interrupt(self) -> bool:
        if self.unfinished or self._waiting or self._reply is not None:
            return False
        if self._inside:
            now = self._state()
            flags, shadow = now.rflags, now.shadow
            inject = 0
        else:
            quad = self.vmcb.quad
            flags, shadow, inject = quad[_RFLAGS], quad[_SHADOW] & 1, quad[_INJECT]
        return bool(flags & FLAG_IF and not shadow and not inject & v.EVENT_VALID) and self._accepts_extint()

    @property
    def request_interrupt_window(self) -> bool:
        return self._window

    @request_interrupt_window.setter
    def request_interrupt_window(self, wanted: bool) -> None:
        if wanted != self._window:
            self.leave_guest()
            self._set_window(wanted)

    def _set_window(self, wanted: bool) -> None:
        """By a virtual interrupt that is intercepted just before it would be taken (15.21.4)."""
        self._window = wanted
        word = self.vmcb.word
        if wanted:
            word[v.INT_CTL >> 2] |= v.V_IRQ | v.V_INTR_PRIO_MASK | v.V_IGN_TPR
            word[v.INTERCEPT_MISC1 >> 2] |= v.VINTR
        else:
            word[v.INT_CTL >> 2] &= ~(v.V_IRQ | v.V_INTR_PRIO_MASK | v.V_IGN_TPR)
            word[v.INTERCEPT_MISC1 >> 2] &= ~v.VINTR

    def interrupt(self, vector: int) -> None:
        """Inject an external interrupt. Raises VmmError while an earlier event has not been taken."""
        self.leave_guest()
        quad = self.vmcb.quad
        if quad[_INJECT] & v.EVENT_VALID:
            raise VmmError(f"vCPU {self.index}: an event is waiting to be injected already")
        quad[_INJECT] = v.event(vector, v.EVENT_INTR)
        self._halted = False

    def nmi(self) -> None:
        lib.sim_nmi(self.native)

    # Registers

    def _state(self) -> Any:
        out = ffi.new("SimState *")
        lib.sim_get_state(self.native, out)
        return out

    def _change_state(self, **fields: int) -> bool:
        """Change what is neither in the VMCB nor reached otherwise; False where the silicon refuses."""
        self.leave_guest()
        new = self._state()
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

    def _read_system(self) -> SystemRegisters:
        self.leave_guest()
        lib.sim_vmsave(self.native, self.vmcb.pa)
        now = self._state()
        return state.read_system(self.vmcb, cr8=now.cr8, apic_base=now.apic_base)

    @property
    def system(self) -> SystemRegisters:
        return self._read_system()

    @system.setter
    def system(self, registers: SystemRegisters) -> None:
        self.leave_guest()
        lib.sim_vmsave(self.native, self.vmcb.pa)
        state.write_system(self.vmcb, registers)
        lib.sim_vmload(self.native, self.vmcb.pa)
        if not self._change_state(cr8=registers.cr8 & 0xF, apic_base=registers.apic_base):
            raise ConfigError(f"system registers: APIC base {registers.apic_base:#x} cannot be set")
        lib.sim_tlb_flush(self.native, ASID)

    def _area(self) -> Any:
        return ffi.buffer(lib.sim_xsave_area(self.native), state.XSAVE_SIZE)

    @property
    def fpu(self) -> FpuRegisters:
        return state.read_fpu(self._area())

    @fpu.setter
    def fpu(self, registers: FpuRegisters) -> None:
        state.write_fpu(self._area(), registers)

    @property
    def debug(self) -> DebugRegisters:
        self.leave_guest()
        dr = self._state().dr
        quad = self.vmcb.quad
        return DebugRegisters((dr[0], dr[1], dr[2], dr[3]), quad[_DR6], quad[_DR7])

    @debug.setter
    def debug(self, registers: DebugRegisters) -> None:
        self.leave_guest()
        new = self._state()
        for i, address in enumerate(registers.db):
            new.dr[i] = address
        lib.sim_set_state(self.native, new)
        quad = self.vmcb.quad
        quad[_DR6], quad[_DR7] = registers.dr6 & 0xFFFF_FFFF, registers.dr7 & 0xFFFF_FFFF

    @property
    def events(self) -> VcpuEvents:
        self.leave_guest()
        now = self._state()
        return state.read_events(self.vmcb, nmi_masked=bool(now.nmi_masked), nmi_pending=bool(now.nmi_pending))

    @events.setter
    def events(self, events: VcpuEvents) -> None:
        self.leave_guest()
        state.write_events(self.vmcb, events)
        self._change_state(nmi_masked=events.nmi_masked, nmi_pending=events.nmi_pending)

    @property
    def mp_state(self) -> MpState:
        if self._waiting:
            return MpState.UNINITIALIZED
        return MpState.HALTED if self._halted else MpState.RUNNABLE

    @mp_state.setter
    def mp_state(self, mp_state: MpState) -> None:
        if mp_state not in (MpState.RUNNABLE, MpState.HALTED, MpState.UNINITIALIZED):
            raise ConfigError(f"mp_state: {mp_state.name} cannot be set on the simulated machine")
        self.leave_guest()
        self._set_waiting(mp_state is MpState.UNINITIALIZED)
        self._halted = mp_state is MpState.HALTED

    @property
    def xsave(self) -> bytes:
        """The XSAVE area in the standard format, every component present."""
        area = bytearray(self._area())
        area[512:520] = (self._state().xcr0 | 3).to_bytes(8, "little")
        area[520:576] = bytes(56)
        return bytes(area)

    @xsave.setter
    def xsave(self, area: bytes) -> None:
        if len(area) > state.XSAVE_SIZE:
            raise CapabilityMissing(f"an XSAVE area of {len(area)} bytes does not fit the silicon's {state.XSAVE_SIZE}")
        image = bytearray(area.ljust(state.XSAVE_SIZE, b"\0"))
        present = int.from_bytes(image[512:520], "little")
        if not present & 1:
            image[0:24] = (0x37F).to_bytes(2, "little") + bytes(22)
            image[32:160] = bytes(128)
        if not present & 2:
            image[160:416] = bytes(256)
        if not present & 3:
            image[24:28] = (0x1F80).to_bytes(4, "little")
        if not present & 4:
            image[576:832] = bytes(256)
        self._area()[:] = bytes(image)

    @property
    def xcr0(self) -> int:
        return int(self._state().xcr0)

    @xcr0.setter
    def xcr0(self, value: int) -> None:
        if not self.set_xcr0(value):
            raise ConfigError(f"xcr0: {value:#x} is not a set of states that this CPU has")

    def set_xcr0(self, value: int) -> bool:
        """As XSETBV does; False: #GP."""
        entry = self._lookup(0xD, 0)
        known = entry.eax | entry.edx << 32 if entry is not None else 1
        if not value & 1 or value & ~known or value & 6 == 4:
            return False
        return self._change_state(xcr0=value)

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

    # CPUID and MSRs

    def set_cpuid(self, entries: Sequence[CpuidEntry]) -> None:
        self._entries = tuple(entries)
        self._cpuid_cache = {}

    def get_cpuid(self) -> list[CpuidEntry]:
        return list(self._entries)

    def _lookup(self, function: int, index: int) -> CpuidEntry | None:
        key = (function, index)
        if key not in self._cpuid_cache:
            found = (e for e in self._entries if e.function == function and e.index in (None, index))
            self._cpuid_cache[key] = next(found, None)
            if len(self._cpuid_cache) > 256:
                self._cpuid_cache = {key: self._cpuid_cache[key]}
        return self._cpuid_cache[key]

    def cpuid(self, function: int, index: int) -> tuple[int, int, int, int]:
        """What the instruction gives now: the entry, and what follows the guest's own settings."""
        entry = self._lookup(function, index)
        if entry is None:
            if function in (0xB, 0x1F) and (first := self._lookup(function, 1)) is not None:
                return 0, 0, index & 0xFF, first.edx
            return 0, 0, 0, 0
        eax, ebx, ecx, edx = entry.eax, entry.ebx, entry.ecx, entry.edx
        if function == 1:
            if self.vmcb.quad[_CR4] & CR4_OSXSAVE:
                ecx |= 1 << 27
            if self.vm.config.irqchip != "none" and not self._state().apic_base & APIC_ENABLED:
                edx &= ~(1 << 9)
        elif function == 0xD and index < 2:
            ebx = self._xsave_size(self.xcr0)
        return eax, ebx, ecx, edx

    def _xsave_size(self, components: int) -> int:
        size = 576
        for bit in range(2, 63):
            if components >> bit & 1 and (entry := self._lookup(0xD, bit)) is not None:
                size = max(size, entry.ebx + entry.eax)
        return size

    def read_msr(self, index: int) -> int | None:
        """A guest's RDMSR; None: #GP."""
        if index == msrs.EFER:
            return self.vmcb.quad[_EFER] & ~state.EFER_SVME
        if index in msrs.IN_VMCB:
            return self.vmcb.quad[msrs.IN_VMCB[index]]
        if index in msrs.HIDDEN:
            return None
        value = self.vm.msr_value
        return int(value[0]) if lib.sim_rdmsr(self.native, index, value) == 0 else None

    def write_msr(self, index: int, value: int) -> bool:
        """A guest's WRMSR; False: #GP."""
        quad = self.vmcb.quad
        if index == msrs.EFER:
            old = quad[_EFER]
            if value & ~(msrs.EFER_WRITABLE | msrs.EFER_LMA):
                return False
            if (value ^ old) & msrs.EFER_LME and quad[_CR0] >> 31:
                return False
            quad[_EFER] = value & ~msrs.EFER_LMA | old & msrs.EFER_LMA | state.EFER_SVME
            return True
        if index in msrs.IN_VMCB:
            if index == msrs.PAT and any(value >> s & 0xFF not in (0, 1, 4, 5, 6, 7) for s in range(0, 64, 8)):
                return False
            quad[msrs.IN_VMCB[index]] = value
            return True
        return index not in msrs.HIDDEN and lib.sim_wrmsr(self.native, index, value) == 0

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        self.leave_guest()
        return {index: value for index in indices if (value := self.read_msr(index)) is not None}

    def set_msrs(self, values: Mapping[int, int]) -> None:
        self.leave_guest()
        for index, value in values.items():
            if not 0 <= value < 1 << 64 or not self._set_msr(index, value):
                raise CapabilityMissing(f"vCPU {self.index}: MSR {index:#x} does not take {value:#x} on this machine")

    def _set_msr(self, index: int, value: int) -> bool:
        if index == msrs.EFER and not value & ~(msrs.EFER_WRITABLE | msrs.EFER_LMA):
            self.vmcb.quad[_EFER] = value | state.EFER_SVME
            return True
        if index == msrs.APIC_BASE:
            return self._change_state(apic_base=value)
        return self.write_msr(index, value)

    # Debugging

    def set_guest_debug(self, *, single_step: bool = False, breakpoints: Sequence[int] = ()) -> None:
        """Raises ConfigError for more than four breakpoints, as hardware has them."""
        if len(breakpoints) > MAX_BREAKPOINTS:
            raise ConfigError(f"breakpoints: at most {MAX_BREAKPOINTS}, not {len(breakpoints)}")
        self.leave_guest()
        for address in self._breakpoints:
            lib.sim_debug_breakpoint(self.native, address, 0)
        self._breakpoints = tuple(dict.fromkeys(breakpoints))
        for address in self._breakpoints:
            lib.sim_debug_breakpoint(self.native, address, 1)
        self._stepping = single_step
        lib.sim_debug_step(self.native, single_step)

    def _debug_exit(self) -> Debug:
        self.leave_guest()
        lib.sim_vmsave(self.native, self.vmcb.pa)
        linear = self._linear_rip()
        hits = sum(1 << i for i, address in enumerate(self._breakpoints) if address == linear)
        dr6 = 0xFFFF_0FF0 | hits | (DR6_SINGLE_STEP if self._stepping and not hits else 0)
        return Debug(linear, dr6, self.vmcb.quad[_DR7], exits.DB)

    # Looking at the guest

    def _linear_rip(self) -> int:
        quad = self.vmcb.quad
        attributes = self.vmcb.word[v.CS >> 2] >> 16
        if quad[_EFER] & msrs.EFER_LMA and attributes & 0x200:
            return quad[_RIP]
        return quad[(v.CS >> 3) + 1] + quad[_RIP] & 0xFFFF_FFFF

    def translate(self, linear: int) -> int | None:
        """The guest physical address behind a linear one, by the vCPU's current paging; None where not mapped."""
        self.leave_guest()
        quad = self.vmcb.quad
        gpa = walk.translate(
            self.vm.memory, linear, cr0=quad[_CR0], cr3=quad[v.CR3 >> 3], cr4=quad[_CR4], efer=quad[_EFER]
        )
        return gpa

    def code_bytes(self, count: int = 15) -> bytes:
        """The bytes at RIP, as many as can be read."""
        self.leave_guest()
        linear, out = self._linear_rip(), b""
        while len(out) < count:
            at = linear + len(out)
            gpa = self.translate(at)
            if gpa is None:
                break
            piece = min(count - len(out), 0x1000 - (gpa & 0xFFF))
            try:
                out += self.vm.memory.read(gpa, piece)
            except GuestMemoryError:
                break
        return out

    def reset(self) -> None:
        """The state after RESET: index 0 at the reset vector, others waiting for a SIPI."""
        self.leave_guest()
        self.set_guest_debug()
        self._set_window(False)
        self._power_on()
        self._set_waiting(self.index != 0 and self.vm.config.irqchip != "none")

    def dump(self) -> str:
        """The registers as text for a report, with the bytes at RIP where they can be read."""
        self.leave_guest()
        text = format_registers(self.index, self.general, self._read_system(), self.code_bytes())
        return f"{text}\nvmcb {self.vmcb.dump()}"

    def forget(self) -> None:
        """The machine is going away."""
        self.native = None

    def close(self) -> None:
        """Nothing is held that the VM does not give back."""
