"""One vCPU of KVM: the run loop's edge, kicks, and its registers."""

from __future__ import annotations

import time

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, GuestMemoryError, HostError, VmmError
from pyhv.hv.exits import Interrupted, MmioRead, MmioWrite, PioIn, PioOut
from pyhv.hv.kvm import state
from pyhv.hv.kvm.decode import (
    EXIT_OFFSET,
    HYPERCALL_RESULT,
    IO,
    MMIO,
    MMIO_DATA,
    MSR_DATA,
    MSR_ERROR,
    decode,
    failed_run,
)
from pyhv.hv.kvm.native import ffi, lib, request, request_value
from pyhv.locks import allocate_lock
from pyhv.x86.registers import MpState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pyhv.hv.exits import Exit
    from pyhv.hv.kvm.stats import Statistics
    from pyhv.hv.kvm.vm import KvmVm
    from pyhv.x86.registers import (
        CpuidEntry,
        DebugRegisters,
        FpuRegisters,
        GeneralRegisters,
        SystemRegisters,
        VcpuEvents,
    )

_run = lib.pyhv_run
_EXIT_IO: int = lib.KVM_EXIT_IO
_EXIT_MMIO: int = lib.KVM_EXIT_MMIO
_EINTR = -4
_READY_OFFSET = 12
_SYNC_OFFSET: int = ffi.offsetof("struct kvm_run", "s")
_REGS_SIZE: int = ffi.sizeof("struct kvm_regs")
_MAX_CPUID_ENTRIES = 256


class KvmVcpu:
    """See `pyhv.hv.api.Vcpu`. What goes beyond the seam: `settle`, `tsc_khz`, `tsc_offset`, `smi`, `statistics`.

    An Interrupted exit can also come without a kick: from any signal, and at most ten times a second on the main
    thread, where it bounds how long a Ctrl-C can wait.
    """

    def __init__(self, vm: KvmVm, index: int) -> None:
        self.index = index
        self._vm = vm
        self._lock = allocate_lock()
        self._reply = (0, 0)
        self._statistics: Statistics | None = None
        self.fd = request_value(vm.fd, "KVM_CREATE_VCPU", index)
        self._map_size = vm.hypervisor.vcpu_map_size
        error = ffi.new("int *")
        pointer = lib.pyhv_map(self.fd, self._map_size, 0, error)
        if pointer == ffi.NULL:
            lib.pyhv_close(self.fd)
            raise HostError(f"mapping vCPU {index}: errno {error[0]}")
        self._run = ffi.cast("struct kvm_run *", pointer)
        self.pages = ffi.buffer(pointer, self._map_size)
        self._control: Any = ffi.new(
            "struct pyhv_vcpu *", {"run": self._run, "fd": self.fd, "signal": vm.hypervisor.kick_signal}
        )

    def run(self) -> Exit:
        """Enter the guest. Errors of the backend come back as InternalError exits with registers."""
        reason = _run(self._control)
        if reason == _EXIT_IO:
            direction, size, port, count, offset = IO.unpack_from(self.pages, EXIT_OFFSET)
            if direction:
                return PioOut(port, size, count, self.pages[offset : offset + size * count])
            self._reply = (offset, size * count)
            return PioIn(port, size, count)
        if reason == _EXIT_MMIO:
            address, data, length, is_write = MMIO.unpack_from(self.pages, EXIT_OFFSET)
            if is_write:
                return MmioWrite(address, data[:length])
            self._reply = (MMIO_DATA, length)
            return MmioRead(address, length)
        if reason == _EINTR:
            return Interrupted()
        if reason < 0:
            return failed_run(self, self._run, -reason)
        return decode(self, self._run, reason)

    def settle(self) -> None:
        """Finish the instruction behind the last exit without running another one.

        Until then RIP and the destination registers of a PIO, MMIO or MSR exit may be those from before the instruction
        (Documentation/virt/kvm/api.rst, KVM_RUN): what saves registers calls this first. A kick that was pending is
        still pending afterwards.
        """
        pending = self._run.immediate_exit
        self._run.immediate_exit = 1
        reason = _run(self._control)
        if reason != _EINTR:
            raise VmmError(f"vCPU {self.index}: the last exit's instruction did not finish (exit {reason})")
        if pending:
            self._run.immediate_exit = 1

    def complete_read(self, data: bytes) -> None:
        """Answer a PioIn or MmioRead. Raises VmmError when the length is not what was asked for."""
        offset, length = self._reply
        if len(data) != length:
            raise VmmError(f"vCPU {self.index}: a read of {length} bytes was answered with {len(data)}")
        self.pages[offset : offset + length] = data

    def complete_hypercall(self, result: int) -> None:
        """Answer a Hypercall; the low 64 bits count."""
        self.pages[HYPERCALL_RESULT : HYPERCALL_RESULT + 8] = (result & (1 << 64) - 1).to_bytes(8, "little")

    def complete_msr(self, value: int | None) -> None:
        """Answer Rdmsr or Wrmsr; None injects #GP."""
        self.pages[MSR_ERROR : MSR_ERROR + 1] = b"\x01" if value is None else b"\x00"
        if value is not None:
            self.pages[MSR_DATA : MSR_DATA + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")

    def kick(self) -> None:
        """Make the current or the next `run` return Interrupted; harmless after `close`."""
        with self._lock:
            if self._control is not None:
                lib.pyhv_kick(self._control)

    @property
    def ready_for_interrupt(self) -> bool:
        return bool(self._run.ready_for_interrupt_injection)

    @property
    def request_interrupt_window(self) -> bool:
        return bool(self._run.request_interrupt_window)

    @request_interrupt_window.setter
    def request_interrupt_window(self, wanted: bool) -> None:
        self.pages[0] = b"\x01" if wanted else b"\x00"

    def interrupt(self, vector: int) -> None:
        """Inject an external interrupt. Raises KvmError (EEXIST) while an earlier one has not been taken."""
        request(self.fd, "KVM_INTERRUPT", ffi.new("struct kvm_interrupt *", {"irq": vector}))
        self.pages[_READY_OFFSET] = b"\x00"

    @property
    def has_lapic(self) -> bool:
        """Whether the local APIC is in the kernel."""
        return self._vm.config.irqchip != "none"

    def nmi(self) -> None:
        request_value(self.fd, "KVM_NMI")

    def smi(self) -> None:
        """Raise a system management interrupt. Raises CapabilityMissing where KVM was built without them."""
        request_value(self.fd, "KVM_SMI")

    @property
    def general(self) -> GeneralRegisters:
        if self._control.synced & lib.KVM_SYNC_X86_REGS:
            return state.unpack_general(self.pages[_SYNC_OFFSET : _SYNC_OFFSET + _REGS_SIZE])
        self._run.kvm_valid_regs |= self._vm.hypervisor.sync_regs & lib.KVM_SYNC_X86_REGS
        regs = ffi.new("struct kvm_regs *")
        request(self.fd, "KVM_GET_REGS", regs)
        return state.unpack_general(ffi.buffer(regs))

    @general.setter
    def general(self, registers: GeneralRegisters) -> None:
        packed = state.pack_general(registers)
        request(self.fd, "KVM_SET_REGS", ffi.from_buffer(packed))
        self._control.synced &= ~lib.KVM_SYNC_X86_REGS

    @property
    def system(self) -> SystemRegisters:
        if self._vm.hypervisor.has_sregs2:
            sregs2 = ffi.new("struct kvm_sregs2 *")
            request(self.fd, "KVM_GET_SREGS2", sregs2)
            registers = state.unpack_system(ffi.buffer(sregs2))
            if sregs2.flags & lib.KVM_SREGS2_FLAGS_PDPTRS_VALID:
                p = sregs2.pdptrs
                registers.pdptrs = (p[0], p[1], p[2], p[3])
            return registers
        sregs = ffi.new("struct kvm_sregs *")
        request(self.fd, "KVM_GET_SREGS", sregs)
        return state.unpack_system(ffi.buffer(sregs))

    @system.setter
    def system(self, registers: SystemRegisters) -> None:
        packed = state.pack_system(registers)
        if self._vm.hypervisor.has_sregs2:
            sregs2 = ffi.new("struct kvm_sregs2 *")
            ffi.buffer(sregs2)[: len(packed)] = packed
            if registers.pdptrs is not None:
                sregs2.pdptrs = registers.pdptrs
                sregs2.flags = lib.KVM_SREGS2_FLAGS_PDPTRS_VALID
            request(self.fd, "KVM_SET_SREGS2", sregs2)
        else:
            sregs = ffi.new("struct kvm_sregs *")
            ffi.buffer(sregs)[: len(packed)] = packed
            request(self.fd, "KVM_SET_SREGS", sregs)

    @property
    def fpu(self) -> FpuRegisters:
        if self._vm.hypervisor.extensions["XSAVE"]:
            return state.from_xsave(self.xsave)
        fpu = ffi.new("struct kvm_fpu *")
        request(self.fd, "KVM_GET_FPU", fpu)
        return state.from_fpu(fpu)

    @fpu.setter
    def fpu(self, registers: FpuRegisters) -> None:
        # KVM_SET_FPU leaves MXCSR and XSTATE_BV as they are: it is for hosts without XSAVE only.
        if self._vm.hypervisor.extensions["XSAVE"]:
            self.xsave = state.into_xsave(self.xsave, registers)
        else:
            request(self.fd, "KVM_SET_FPU", state.to_fpu(registers))

    @property
    def debug(self) -> DebugRegisters:
        debug = ffi.new("struct kvm_debugregs *")
        request(self.fd, "KVM_GET_DEBUGREGS", debug)
        return state.from_debug(debug)

    @debug.setter
    def debug(self, registers: DebugRegisters) -> None:
        request(self.fd, "KVM_SET_DEBUGREGS", state.to_debug(registers))

    @property
    def events(self) -> VcpuEvents:
        events = ffi.new("struct kvm_vcpu_events *")
        request(self.fd, "KVM_GET_VCPU_EVENTS", events)
        return state.from_events(events)

    @events.setter
    def events(self, events: VcpuEvents) -> None:
        packed = state.to_events(
            events,
            payload=self._vm.exception_payload,
            triple_fault=self._vm.triple_fault_event,
            smm=self._vm.hypervisor.extensions["X86_SMM"] > 0,
        )
        request(self.fd, "KVM_SET_VCPU_EVENTS", packed)

    @property
    def mp_state(self) -> MpState:
        mp = ffi.new("struct kvm_mp_state *")
        request(self.fd, "KVM_GET_MP_STATE", mp)
        return MpState(mp.mp_state)

    @mp_state.setter
    def mp_state(self, mp_state: MpState) -> None:
        request(self.fd, "KVM_SET_MP_STATE", ffi.new("struct kvm_mp_state *", {"mp_state": int(mp_state)}))

    @property
    def xsave(self) -> bytes:
        """The XSAVE area in the standard format, 4096 bytes or more where dynamic features are on."""
        size = self._vm.xsave_size
        area = ffi.new("uint8_t[]", size)
        request(self.fd, "KVM_GET_XSAVE2" if self._vm.has_xsave2 else "KVM_GET_XSAVE", area)
        return bytes(ffi.buffer(area))

    @xsave.setter
    def xsave(self, area: bytes) -> None:
        if len(area) > self._vm.xsave_size:
            raise CapabilityMissing(
                f"an XSAVE area of {len(area)} bytes does not fit this host's {self._vm.xsave_size}"
            )
        request(self.fd, "KVM_SET_XSAVE", ffi.new("uint8_t[]", area.ljust(self._vm.xsave_size, b"\0")))

    @property
    def xcr0(self) -> int:
        xcrs = ffi.new("struct kvm_xcrs *")
        request(self.fd, "KVM_GET_XCRS", xcrs)
        for i in range(min(xcrs.nr_xcrs, 16)):
            if xcrs.xcrs[i].xcr == 0:
                return int(xcrs.xcrs[i].value)
        return 1

    @xcr0.setter
    def xcr0(self, value: int) -> None:
        request(self.fd, "KVM_SET_XCRS", ffi.new("struct kvm_xcrs *", {"nr_xcrs": 1, "xcrs": [{"value": value}]}))

    @property
    def lapic(self) -> bytes:
        """The local APIC's register page, 1024 bytes (APM vol. 2, 16.3.2)."""
        lapic = ffi.new("struct kvm_lapic_state *")
        request(self.fd, "KVM_GET_LAPIC", lapic)
        return bytes(ffi.buffer(lapic))

    @lapic.setter
    def lapic(self, registers: bytes) -> None:
        if len(registers) != 1024:
            raise ConfigError(f"local APIC: 1024 bytes are needed, not {len(registers)}")
        request(self.fd, "KVM_SET_LAPIC", ffi.from_buffer(registers))

    def set_cpuid(self, entries: Sequence[CpuidEntry]) -> None:
        self.set_raw_cpuid(state.pack_cpuid(entries))

    def set_raw_cpuid(self, cpuid: Any) -> None:
        """CPUID from a `struct kvm_cpuid2`."""
        request(self.fd, "KVM_SET_CPUID2", cpuid)

    def get_cpuid(self) -> list[CpuidEntry]:
        cpuid = ffi.new("struct kvm_cpuid2 *", {"nent": _MAX_CPUID_ENTRIES, "entries": _MAX_CPUID_ENTRIES})
        request(self.fd, "KVM_GET_CPUID2", cpuid)
        return state.unpack_cpuid(cpuid)

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        wanted = list(indices)
        values: dict[int, int] = {}
        while wanted:
            msrs = state.pack_msrs(dict.fromkeys(wanted, 0))
            done = request(self.fd, "KVM_GET_MSRS", msrs)
            for i in range(done):
                values[msrs.entries[i].index] = msrs.entries[i].data
            wanted = wanted[done + 1 :]
        return values

    def set_msrs(self, values: Mapping[int, int]) -> None:
        if not values:
            return
        done = request(self.fd, "KVM_SET_MSRS", state.pack_msrs(values))
        if done < len(values):
            index, value = list(values.items())[done]
            raise CapabilityMissing(f"vCPU {self.index}: MSR {index:#x} does not take {value:#x} on this host")

    def set_guest_debug(self, *, single_step: bool = False, breakpoints: Sequence[int] = ()) -> None:
        if len(breakpoints) > 4:
            raise ConfigError(f"breakpoints: the CPU has 4 hardware breakpoints, not {len(breakpoints)}")
        debug = ffi.new("struct kvm_guest_debug *")
        if single_step:
            debug.control |= lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_SINGLESTEP
        if breakpoints:
            debug.control |= lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_USE_HW_BP
            debug.debugreg[7] = 0x400
            for i, address in enumerate(breakpoints):
                debug.debugreg[i] = address
                debug.debugreg[7] |= 2 << (2 * i)  # Gn, with type "execute" and length 1 (APM vol. 2, 13.1.1.3)
        request(self.fd, "KVM_SET_GUEST_DEBUG", debug)

    def translate(self, linear: int) -> int | None:
        translation = ffi.new("struct kvm_translation *", {"linear_address": linear})
        request(self.fd, "KVM_TRANSLATE", translation)
        return int(translation.physical_address) if translation.valid else None

    def instruction_bytes(self, limit: int = 15) -> bytes:
        """Up to `limit` bytes at CS:RIP, as many as can be read."""
        try:
            linear = self.system.cs.base + self.general.rip & (1 << 64) - 1
            out = b""
            while len(out) < limit:
                physical = self.translate(linear + len(out) & (1 << 64) - 1)
                if physical is None:
                    break
                out += self._vm.memory.read(physical, min(limit - len(out), 4096 - physical % 4096))
            return out
        except (HostError, GuestMemoryError):
            return b""

    def reset(self) -> None:
        """The state after RESET (APM vol. 2, 14.1.3): index 0 at the reset vector, others waiting for a SIPI."""
        from pyhv.hv.kvm.reset import reset_vcpu

        reset_vcpu(self)

    def dump(self) -> str:
        """The registers as text, with the bytes at RIP where they can be read."""
        from pyhv.x86.dump import format_registers

        try:
            return format_registers(self.index, self.general, self.system, self.instruction_bytes())
        except HostError as error:
            return f"vCPU {self.index}: the registers cannot be read ({error})"

    @property
    def tsc_khz(self) -> int:
        """The guest's TSC frequency in kHz."""
        return request_value(self.fd, "KVM_GET_TSC_KHZ")

    @tsc_khz.setter
    def tsc_khz(self, khz: int) -> None:
        request_value(self.fd, "KVM_SET_TSC_KHZ", khz)

    def _tsc_offset_attribute(self, value: Any) -> Any:
        return ffi.new(
            "struct kvm_device_attr *",
            {
                "group": lib.KVM_VCPU_TSC_CTRL,
                "attr": lib.KVM_VCPU_TSC_OFFSET,
                "addr": int(ffi.cast("uintptr_t", value)),
            },
        )

    @property
    def tsc_offset(self) -> int:
        """What is added to the host's TSC, modulo 2^64."""
        value = ffi.new("uint64_t *")
        request(self.fd, "KVM_GET_DEVICE_ATTR", self._tsc_offset_attribute(value))
        return int(value[0])

    @tsc_offset.setter
    def tsc_offset(self, offset: int) -> None:
        """Raises CapabilityMissing where KVM takes the offset and ignores it."""
        value = ffi.new("uint64_t *", offset & (1 << 64) - 1)
        request(self.fd, "KVM_SET_DEVICE_ATTR", self._tsc_offset_attribute(value))
        if self.tsc_offset != value[0]:
            raise CapabilityMissing("this host's KVM does not offset the TSC")

    def notify_paused(self) -> None:
        """Tell a guest that uses kvm-clock that it stood still, so that its watchdogs stay quiet (KVM_KVMCLOCK_CTRL).

        Without a kvm-clock in the guest this does nothing.
        """
        lib.pyhv_ioctl_value(self.fd, lib.KVM_KVMCLOCK_CTRL, 0)

    def statistics(self) -> dict[str, int]:
        """KVM's counters of this vCPU by name."""
        if self._statistics is None:
            from pyhv.hv.kvm.stats import Statistics

            self._statistics = Statistics(self.fd)
        return self._statistics.read()

    def close(self) -> None:
        """Unmap and close; kicks the vCPU out first if another thread still runs it. Idempotent."""
        with self._lock:
            control, self._control = self._control, None
        if control is None:
            return
        deadline = time.monotonic() + 5
        while control.thread:
            lib.pyhv_kick(control)
            if time.monotonic() > deadline:
                raise VmmError(f"vCPU {self.index} is still running and cannot be closed")
            time.sleep(0.001)
        if self._statistics is not None:
            self._statistics.close()
        self.pages = ffi.buffer(ffi.NULL, 0)
        lib.pyhv_unmap(self._run, self._map_size)
        self._run = ffi.NULL
        lib.pyhv_close(self.fd)
        self.fd = -1
