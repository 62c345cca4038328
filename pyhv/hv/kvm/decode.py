"""Exits of KVM_RUN in the seam's types; the two frequent ones are decoded by the vCPU itself."""

from __future__ import annotations

import os
import struct

from pyhv._types import TYPE_CHECKING
from pyhv.hv.exits import (
    ApicAccess,
    Debug,
    DirtyRingFull,
    Halt,
    Hypercall,
    InternalError,
    Interrupted,
    InterruptWindow,
    IoapicEoi,
    MemoryFault,
    Rdmsr,
    Shutdown,
    SystemEvent,
    SystemEventKind,
    Wrmsr,
)
from pyhv.hv.kvm.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyhv.hv.exits import (
        Exit,
    )
    from pyhv.hv.kvm.vcpu import KvmVcpu

EXIT_OFFSET = 32
"""Of the exit's own fields in `struct kvm_run`."""
IO = struct.Struct("<BBHIQ")
MMIO = struct.Struct("<Q8sIB")
MMIO_DATA = EXIT_OFFSET + 8
HYPERCALL_RESULT = EXIT_OFFSET + 56
MSR_ERROR = EXIT_OFFSET
MSR_DATA = EXIT_OFFSET + 16

_UNNAMED = {
    lib.KVM_EXIT_UNKNOWN: "KVM_EXIT_UNKNOWN",
    lib.KVM_EXIT_EXCEPTION: "KVM_EXIT_EXCEPTION",
    lib.KVM_EXIT_HYPERV: "KVM_EXIT_HYPERV",
    lib.KVM_EXIT_AP_RESET_HOLD: "KVM_EXIT_AP_RESET_HOLD",
    lib.KVM_EXIT_X86_BUS_LOCK: "KVM_EXIT_X86_BUS_LOCK",
    lib.KVM_EXIT_XEN: "KVM_EXIT_XEN",
    lib.KVM_EXIT_NOTIFY: "KVM_EXIT_NOTIFY",
}
_SUBERRORS = {
    1: "an instruction could not be emulated",
    2: "exceptions came together in a way that cannot be",
    3: "an exit came while an event was being delivered",
    4: "the hardware left the guest for a reason that KVM does not know",
}
_MSR_REASONS = {
    lib.KVM_MSR_EXIT_REASON_INVAL: "invalid",
    lib.KVM_MSR_EXIT_REASON_UNKNOWN: "unknown",
    lib.KVM_MSR_EXIT_REASON_FILTER: "filter",
}
_EVENTS = {
    1: SystemEventKind.SHUTDOWN,
    2: SystemEventKind.RESET,
    3: SystemEventKind.CRASH,
    4: SystemEventKind.WAKEUP,
    5: SystemEventKind.SUSPEND,
    6: SystemEventKind.SEV_TERMINATE,
}


def internal_error(
    vcpu: KvmVcpu, name: str, detail: str, *, code: bytes = b"", data: tuple[int, ...] = ()
) -> InternalError:
    """An exit that ends the guest's run as a failure of the backend, with what can be known about it."""
    return InternalError(name, detail, vcpu.dump(), code or vcpu.instruction_bytes(), data)


def _internal(vcpu: KvmVcpu, run: Any) -> Exit:
    internal = run.exit.internal
    suberror = internal.suberror
    data = tuple(internal.data[i] for i in range(min(internal.ndata, 16)))
    code = b""
    failure = run.exit.emulation_failure
    if suberror == 1 and internal.ndata >= 3 and failure.flags & 1:
        size = min(failure.insn_size, 15)
        code = bytes(failure.insn_bytes[i] for i in range(size))
    detail = _SUBERRORS.get(suberror, "no description")
    return internal_error(vcpu, "KVM_EXIT_INTERNAL_ERROR", f"suberror {suberror}: {detail}", code=code, data=data)


def _fail_entry(vcpu: KvmVcpu, run: Any) -> Exit:
    failure = run.exit.fail_entry
    reason = failure.hardware_entry_failure_reason
    return internal_error(
        vcpu,
        "KVM_EXIT_FAIL_ENTRY",
        f"the hardware refused to enter the guest: reason {reason:#x} on CPU {failure.cpu}",
        data=(reason, failure.cpu),
    )


def _debug(vcpu: KvmVcpu, run: Any) -> Exit:
    debug = run.exit.debug
    return Debug(debug.pc, debug.dr6, debug.dr7, debug.exception)


def _system_event(vcpu: KvmVcpu, run: Any) -> Exit:
    event = run.exit.system_event
    kind = _EVENTS.get(event.type)
    data = tuple(event.data[i] for i in range(min(event.ndata, 16)))
    if kind is None:
        return internal_error(vcpu, "KVM_EXIT_SYSTEM_EVENT", f"unknown event type {event.type}", data=data)
    return SystemEvent(kind, data)


def _hypercall(vcpu: KvmVcpu, run: Any) -> Exit:
    call = run.exit.hypercall
    return Hypercall(call.nr, tuple(call.args[i] for i in range(6)))


def _msr_reason(reason: int) -> str:
    return _MSR_REASONS.get(reason, f"reason {reason:#x}")


def _memory_fault(vcpu: KvmVcpu, run: Any) -> Exit:
    fault = run.exit.memory_fault
    return MemoryFault(fault.gpa, fault.size, bool(fault.flags & lib.KVM_MEMORY_EXIT_FLAG_PRIVATE))


_DECODERS: dict[int, Callable[[KvmVcpu, Any], Exit]] = {
    lib.KVM_EXIT_HLT: lambda vcpu, run: Halt(),
    lib.KVM_EXIT_IRQ_WINDOW_OPEN: lambda vcpu, run: InterruptWindow(),
    lib.KVM_EXIT_SHUTDOWN: lambda vcpu, run: Shutdown(),
    lib.KVM_EXIT_FAIL_ENTRY: _fail_entry,
    lib.KVM_EXIT_INTR: lambda vcpu, run: Interrupted(),
    lib.KVM_EXIT_NMI: lambda vcpu, run: Interrupted(),
    lib.KVM_EXIT_SET_TPR: lambda vcpu, run: ApicAccess("set-tpr"),
    lib.KVM_EXIT_TPR_ACCESS: lambda vcpu, run: ApicAccess("tpr-access"),
    lib.KVM_EXIT_INTERNAL_ERROR: _internal,
    lib.KVM_EXIT_DEBUG: _debug,
    lib.KVM_EXIT_SYSTEM_EVENT: _system_event,
    lib.KVM_EXIT_IOAPIC_EOI: lambda vcpu, run: IoapicEoi(run.exit.eoi.vector),
    lib.KVM_EXIT_HYPERCALL: _hypercall,
    lib.KVM_EXIT_X86_RDMSR: lambda vcpu, run: Rdmsr(run.exit.msr.index, _msr_reason(run.exit.msr.reason)),
    lib.KVM_EXIT_X86_WRMSR: lambda vcpu, run: Wrmsr(
        run.exit.msr.index, run.exit.msr.data, _msr_reason(run.exit.msr.reason)
    ),
    lib.KVM_EXIT_DIRTY_RING_FULL: lambda vcpu, run: DirtyRingFull(),
    lib.KVM_EXIT_MEMORY_FAULT: _memory_fault,
}


def decode(vcpu: KvmVcpu, run: Any, reason: int) -> Exit:
    """Any exit but KVM_EXIT_IO and KVM_EXIT_MMIO; an unknown one becomes InternalError with its name or number."""
    decoder = _DECODERS.get(reason)
    if decoder is not None:
        return decoder(vcpu, run)
    name = _UNNAMED.get(reason, f"KVM exit {reason}")
    raw = tuple(run.exit.internal.data[i] for i in range(4))
    return internal_error(vcpu, name, "an exit that this program does not handle", data=raw)


def failed_run(vcpu: KvmVcpu, run: Any, code: int) -> Exit:
    """KVM_RUN ended with an errno other than EINTR and EAGAIN."""
    if code in (14, 133) and run.exit_reason == lib.KVM_EXIT_MEMORY_FAULT:  # EFAULT, EHWPOISON
        return _memory_fault(vcpu, run)
    return internal_error(
        vcpu, f"KVM_RUN: {os.strerror(code)}", f"errno {code}, exit reason {run.exit_reason}", data=(code,)
    )
