"""One virtual processor: a VMCB on one simulated CPU, and the loop that runs it."""

from __future__ import annotations

from pyhv._builtin import get_ident
from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, VmmError
from pyhv.hv.exits import Debug, Halt, InternalError, Interrupted, IoapicEoi, Shutdown
from pyhv.hv.sim import exits, msrs, power, string_pio
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.clock import DEVICE_TICKS, TICKS_PER_INSTRUCTION
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.registers import ASID, GuestRegisters
from pyhv.x86.registers import MpState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from pyhv.hv.exits import Exit
    from pyhv.hv.sim.vm import SimVm
    from pyhv.x86.registers import CpuidEntry

FLAG_IF, FLAG_TF = 1 << 9, 1 << 8
APIC_ENABLED = 1 << 11
LVT_MASKED, EXTINT = 1 << 16, 7 << 8
DR6_SINGLE_STEP = 1 << 14
MAX_BREAKPOINTS = 4
MAX_BORROWED = 16
MSR_REPLY, HYPERCALL_REPLY = -1, -2
_RIP, _RFLAGS, _SHADOW, _INJECT = v.RIP >> 3, v.RFLAGS >> 3, v.INTERRUPT_SHADOW >> 3, v.EVENTINJ >> 3
_EXITCODE = v.EXITCODE >> 3
_DR6, _DR7 = v.DR6 >> 3, v.DR7 >> 3
_BUDGET, _VMEXIT, _REQUEST = lib.SIM_STOP_BUDGET, lib.SIM_STOP_VMEXIT, lib.SIM_STOP_REQUEST
_EOI, _INIT, _EVENT = lib.SIM_STOP_EOI, lib.SIM_STOP_INIT, lib.SIM_STOP_EVENT
_DEBUG, _HALT, _SHUTDOWN = lib.SIM_STOP_DEBUG, lib.SIM_STOP_HALT, lib.SIM_STOP_SHUTDOWN
_vmrun, _run, _tsc = lib.sim_vmrun, lib.sim_run, lib.sim_tsc


class SimVcpu(GuestRegisters):
    """See `pyhv.hv.api.Vcpu`. Outside of `run`, and after any access to its registers, its guest is in the VMCB."""

    def __init__(self, vm: SimVm, index: int, entries: Sequence[CpuidEntry]) -> None:
        super().__init__(vm, index, entries)
        self.unfinished = False
        """A device access was answered, and its instruction has not been restarted yet."""
        self.turn_over = True
        """Whether the last Interrupted was the end of this vCPU's turn."""
        self._kicked = False
        self._halted = False
        self._window = False
        self._waiting = index != 0 and vm.config.irqchip != "none"
        self._turn = 0
        self._in_turn = False
        """Whether the turn that `_turn` counts has begun and is not over."""
        self._reply: tuple[Callable[[SimVcpu, Any], None], int] | None = None
        self._stepping = False
        self._breakpoints: tuple[int, ...] = ()
        self._borrowed: list[list[tuple[int, int]]] = []
        self._string: Any = None
        self._later: list[Exit] = []
        self._prepare()
        self._power_on()

    def _prepare(self) -> None:
        power.prepare(self)

    def _power_on(self, *, init: bool = False) -> None:
        power.reset(self, init=init)
        self.inside = self._halted = self.unfinished = False
        self._later.clear()
        self._reply = None

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
        used_up = self._turn <= 0 or vm.cuts_turn(self, self._turn)  # by what came of the last exit
        if self._in_turn and used_up and vm.takes_turns and not self._kicked:
            return self._turn_ends()
        while True:
            if self._kicked:
                self._kicked = False
                self.turn_over = False
                return Interrupted()
            if self.sleeping and not self._wake():
                if self._kicked:
                    continue
                self._turn = 0
                self._in_turn = False
                return Halt()
            if self._turn <= 0:
                self._turn = vm.quantum(self)
                self._in_turn = True
            before = vm.enter(self)
            budget = 1 if self._borrowed else vm.budget(self._turn)
            if self.inside:
                reason = _run(self.native, budget)
            else:
                self.unfinished = False
                self.inside = True
                reason = _vmrun(self.native, self.vmcb.pa, budget)
            self._turn -= vm.leave(_tsc(self.native), before)
            if vm.cuts_turn(self, self._turn):
                self._turn = 0
            if reason == _VMEXIT:
                self.inside = False
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
                return self._turn_ends()

    def _turn_ends(self) -> Interrupted:
        """The others' turn."""
        self._turn = 0
        self._in_turn = False
        self.turn_over = True
        return Interrupted()

    def _stopped(self, reason: int) -> Exit | None:
        if reason == _REQUEST:
            if self.vm.attend(self, self._turn):
                self._turn = 0
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
                power.start_up(self, vector[0])

    def _set_waiting(self, waiting: bool) -> None:
        self._waiting = waiting
        self._halted = False
        lib.sim_set_mp_state(self.native, int(waiting))

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

    def device_time(self) -> None:
        """An access to a device: time passes, of this vCPU's turn as well."""
        self._turn -= DEVICE_TICKS // TICKS_PER_INSTRUCTION
        self.vm.charge()

    def end_turn(self) -> None:
        """Let the other vCPUs run."""
        self._turn = 0

    def expect_reply(self, finish: Callable[[SimVcpu, bytes], None], size: int) -> None:
        """The next `complete_read` of `size` bytes goes to `finish`."""
        self._reply = (finish, size)

    def expect_msr(self, finish: Callable[[SimVcpu, int | None], None]) -> None:
        """The next `complete_msr` goes to `finish`."""
        self._reply = (finish, MSR_REPLY)

    def expect_hypercall(self, finish: Callable[[SimVcpu, int], None]) -> None:
        """The next `complete_hypercall` goes to `finish`."""
        self._reply = (finish, HYPERCALL_REPLY)

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
        self._finish(HYPERCALL_REPLY, result)

    def complete_msr(self, value: int | None) -> None:
        """Answer Rdmsr or Wrmsr; None injects #GP."""
        self._finish(MSR_REPLY, value)

    def kick(self) -> None:
        """Make the current or the next `run` return Interrupted; harmless after `close`."""
        self._kicked = True
        self.vm.stop_silicon()

    @property
    def kicked(self) -> bool:
        """Whether the next `run` returns at once."""
        return self._kicked

    # Interrupts

    def _accepts_extint(self) -> bool:
        if self.vm.config.irqchip == "none":
            return True
        lint0 = self.lapic[power.LVT_LINT0 : power.LVT_LINT0 + 4]
        lvt = int.from_bytes(lint0, "little")
        return not self.cpu_state().apic_base & APIC_ENABLED or lvt & (LVT_MASKED | EXTINT) == EXTINT

    def _window_open(self) -> bool:
        quad = self.vmcb.quad
        return bool(self._window and quad[_RFLAGS] & FLAG_IF and not quad[_SHADOW] & 1)

    @property
    def ready_for_interrupt(self) -> bool:
        if self.unfinished or self._waiting or self._reply is not None:
            return False
        if self.inside:
            now = self.cpu_state()
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
        self.vm.send_nmi(self.native)

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

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        self.leave_guest()
        return {index: value for index in indices if (value := msrs.read(self, index)) is not None}

    def set_msrs(self, values: Mapping[int, int]) -> None:
        self.leave_guest()
        for index, value in values.items():
            if not 0 <= value < 1 << 64 or not self._put_msr(index, value):
                raise CapabilityMissing(f"vCPU {self.index}: MSR {index:#x} does not take {value:#x} on this machine")

    def _put_msr(self, index: int, value: int) -> bool:
        return msrs.put(self, index, value)

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
        linear = self.linear_rip()
        hits = sum(1 << i for i, address in enumerate(self._breakpoints) if address == linear)
        dr6 = 0xFFFF_0FF0 | hits | (DR6_SINGLE_STEP if self._stepping and not hits else 0)
        return Debug(linear, dr6, self.debug.dr7, exits.DB)

    def reset(self) -> None:
        """The state after RESET: index 0 at the reset vector, others waiting for a SIPI."""
        self.leave_guest()
        self.set_guest_debug()
        self._set_window(False)
        self._power_on()
        self._set_waiting(self.index != 0 and self.vm.config.irqchip != "none")

    def forget(self) -> None:
        """The machine is going away."""
        self.native = None

    def close(self) -> None:
        """Nothing is held that the VM does not give back."""
