"""Register files between KVM's structures and the typed ones of `pyhv.x86.registers`."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.hv.kvm.native import ffi, lib
from pyhv.x86.registers import (
    CpuidEntry,
    DebugRegisters,
    DescriptorTable,
    FpuRegisters,
    GeneralRegisters,
    Segment,
    SystemRegisters,
    VcpuEvents,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

GENERAL = struct.Struct("<18Q")
_SEGMENT = "QIH10B"
_SYSTEM = struct.Struct("<" + _SEGMENT * 8 + "QH6x" * 2 + "7Q")
_SEGMENT_FIELDS = 13
_FXSAVE = struct.Struct("<HHBxHQQI")
_XSTATE_BV = 512
_X87, _SSE = 1, 2


def pack_general(r: GeneralRegisters) -> bytes:
    """`struct kvm_regs`. Raises ConfigError for a value beyond 64 bits."""
    try:
        return GENERAL.pack(
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp,
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rip, r.rflags,
        )  # fmt: skip
    except struct.error as error:
        raise ConfigError(f"general registers: {error}") from None


def unpack_general(data: Any) -> GeneralRegisters:
    """From `struct kvm_regs`."""
    return GeneralRegisters(*GENERAL.unpack_from(data))


def _segment(fields: tuple[int, ...]) -> Segment:
    base, limit, selector, kind, present, dpl, db, s, long, g, avl, unusable, _ = fields
    return Segment(
        base,
        limit,
        selector,
        kind,
        bool(present),
        dpl,
        bool(db),
        bool(s),
        bool(long),
        bool(g),
        bool(avl),
        bool(unusable),
    )


def _segment_fields(s: Segment) -> tuple[int, ...]:
    return (s.base, s.limit, s.selector, s.type, s.present, s.dpl, s.db, s.s, s.l, s.g, s.avl, s.unusable, 0)


def unpack_system(data: Any) -> SystemRegisters:
    """From the common part of `struct kvm_sregs` and `struct kvm_sregs2`."""
    f = _SYSTEM.unpack_from(data)
    segments = [_segment(f[i : i + _SEGMENT_FIELDS]) for i in range(0, 8 * _SEGMENT_FIELDS, _SEGMENT_FIELDS)]
    cs, ds, es, fs, gs, ss, tr, ldt = segments
    gdt_base, gdt_limit, idt_base, idt_limit, cr0, cr2, cr3, cr4, cr8, efer, apic_base = f[8 * _SEGMENT_FIELDS :]
    gdt, idt = DescriptorTable(gdt_base, gdt_limit), DescriptorTable(idt_base, idt_limit)
    return SystemRegisters(cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, cr8, efer, apic_base)


def pack_system(r: SystemRegisters) -> bytes:
    """The common part of `struct kvm_sregs` and `struct kvm_sregs2`. Raises ConfigError for a value out of range."""
    fields: list[int] = []
    for segment in (r.cs, r.ds, r.es, r.fs, r.gs, r.ss, r.tr, r.ldt):
        fields += _segment_fields(segment)
    fields += (r.gdt.base, r.gdt.limit, r.idt.base, r.idt.limit)
    fields += (r.cr0, r.cr2, r.cr3, r.cr4, r.cr8, r.efer, r.apic_base)
    try:
        return _SYSTEM.pack(*fields)
    except struct.error as error:
        raise ConfigError(f"system registers: {error}") from None


def from_fpu(f: Any) -> FpuRegisters:
    """From `struct kvm_fpu`."""
    return FpuRegisters(
        tuple(bytes(ffi.buffer(f.fpr[i])) for i in range(8)),
        tuple(bytes(ffi.buffer(f.xmm[i])) for i in range(16)),
        f.fcw,
        f.fsw,
        f.ftwx,
        f.last_opcode,
        f.last_ip,
        f.last_dp,
        f.mxcsr,
    )


def to_fpu(r: FpuRegisters) -> Any:
    """To `struct kvm_fpu`. Raises ConfigError where a register is not 16 bytes."""
    _check_fpu(r)
    return ffi.new(
        "struct kvm_fpu *",
        {
            "fpr": [list(value) for value in r.st],
            "xmm": [list(value) for value in r.xmm],
            "fcw": r.fcw,
            "fsw": r.fsw,
            "ftwx": r.ftw,
            "last_opcode": r.fop,
            "last_ip": r.fip,
            "last_dp": r.fdp,
            "mxcsr": r.mxcsr,
        },
    )


def from_xsave(area: bytes) -> FpuRegisters:
    """From the legacy part of an XSAVE area (APM vol. 2, 11.5.10); registers in their initial state read as such."""
    fcw, fsw, ftw, fop, fip, fdp, mxcsr = _FXSAVE.unpack_from(area)
    present = int.from_bytes(area[_XSTATE_BV : _XSTATE_BV + 8], "little")
    if not present & _X87:
        fcw, fsw, ftw, fop, fip, fdp = 0x37F, 0, 0, 0, 0, 0
    st = tuple(area[32 + 16 * i : 48 + 16 * i] if present & _X87 else bytes(16) for i in range(8))
    xmm = tuple(area[160 + 16 * i : 176 + 16 * i] if present & _SSE else bytes(16) for i in range(16))
    return FpuRegisters(st, xmm, fcw, fsw, ftw, fop, fip, fdp, mxcsr)


def into_xsave(area: bytes, r: FpuRegisters) -> bytes:
    """An XSAVE area with its x87 and SSE registers replaced. Raises ConfigError where a register is not 16 bytes."""
    _check_fpu(r)
    out = bytearray(area)
    _FXSAVE.pack_into(out, 0, r.fcw, r.fsw, r.ftw, r.fop, r.fip, r.fdp, r.mxcsr)
    out[32:160] = b"".join(r.st)
    out[160:416] = b"".join(r.xmm)
    out[_XSTATE_BV] |= _X87 | _SSE
    return bytes(out)


def _check_fpu(r: FpuRegisters) -> None:
    if len(r.st) != 8 or len(r.xmm) != 16 or any(len(value) != 16 for value in (*r.st, *r.xmm)):
        raise ConfigError("FPU registers: 8 of st and 16 of xmm, 16 bytes each, are needed")


def from_debug(d: Any) -> DebugRegisters:
    """From `struct kvm_debugregs`."""
    return DebugRegisters((d.db[0], d.db[1], d.db[2], d.db[3]), d.dr6, d.dr7)


def to_debug(r: DebugRegisters) -> Any:
    """To `struct kvm_debugregs`."""
    return ffi.new("struct kvm_debugregs *", {"db": list(r.db), "dr6": r.dr6, "dr7": r.dr7})


def from_events(e: Any) -> VcpuEvents:
    """From `struct kvm_vcpu_events`."""
    return VcpuEvents(
        exception_injected=bool(e.exception.injected),
        exception_vector=e.exception.nr,
        exception_has_error_code=bool(e.exception.has_error_code),
        exception_pending=bool(e.exception.pending),
        exception_error_code=e.exception.error_code,
        exception_payload=e.exception_payload if e.exception_has_payload else None,
        interrupt_injected=bool(e.interrupt.injected),
        interrupt_vector=e.interrupt.nr,
        interrupt_soft=bool(e.interrupt.soft),
        interrupt_shadow=e.interrupt.shadow,
        nmi_injected=bool(e.nmi.injected),
        nmi_pending=bool(e.nmi.pending),
        nmi_masked=bool(e.nmi.masked),
        sipi_vector=e.sipi_vector if e.flags & lib.KVM_VCPUEVENT_VALID_SIPI_VECTOR else None,
        smm=bool(e.smi.smm),
        smm_pending=bool(e.smi.pending),
        triple_fault_pending=bool(e.triple_fault.pending),
    )


def to_events(r: VcpuEvents, *, payload: bool, triple_fault: bool, smm: bool) -> Any:
    """To `struct kvm_vcpu_events`; the flags say which optional capabilities the VM has on."""
    flags = lib.KVM_VCPUEVENT_VALID_NMI_PENDING | lib.KVM_VCPUEVENT_VALID_SHADOW
    if r.sipi_vector is not None:
        flags |= lib.KVM_VCPUEVENT_VALID_SIPI_VECTOR
    if smm:
        flags |= lib.KVM_VCPUEVENT_VALID_SMM
    if payload:
        flags |= lib.KVM_VCPUEVENT_VALID_PAYLOAD
    if triple_fault:
        flags |= lib.KVM_VCPUEVENT_VALID_TRIPLE_FAULT
    return ffi.new(
        "struct kvm_vcpu_events *",
        {
            "exception": {
                "injected": r.exception_injected,
                "nr": r.exception_vector,
                "has_error_code": r.exception_has_error_code,
                "pending": r.exception_pending,
                "error_code": r.exception_error_code,
            },
            "interrupt": {
                "injected": r.interrupt_injected,
                "nr": r.interrupt_vector,
                "soft": r.interrupt_soft,
                "shadow": r.interrupt_shadow,
            },
            "nmi": {"injected": r.nmi_injected, "pending": r.nmi_pending, "masked": r.nmi_masked},
            "sipi_vector": r.sipi_vector or 0,
            "smi": {"smm": r.smm, "pending": r.smm_pending},
            "triple_fault": {"pending": r.triple_fault_pending},
            "flags": flags,
            "exception_has_payload": r.exception_payload is not None,
            "exception_payload": r.exception_payload or 0,
        },
    )


_CPUID = struct.Struct("<7I12x")
_MSR = struct.Struct("<I4xQ")
_WORD = (1 << 64) - 1


def pack_cpuid(entries: Sequence[CpuidEntry]) -> Any:
    """To `struct kvm_cpuid2`."""
    cpuid = ffi.new("struct kvm_cpuid2 *", {"nent": len(entries), "entries": len(entries)})
    view = ffi.buffer(cpuid, 8 + len(entries) * _CPUID.size)
    for i, e in enumerate(entries):
        flags = 0 if e.index is None else lib.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        _CPUID.pack_into(view, 8 + i * _CPUID.size, e.function, e.index or 0, flags, e.eax, e.ebx, e.ecx, e.edx)
    return cpuid


def unpack_cpuid(cpuid: Any) -> list[CpuidEntry]:
    """From `struct kvm_cpuid2`."""
    entries = []
    view = ffi.buffer(cpuid, 8 + cpuid.nent * _CPUID.size)
    for i in range(cpuid.nent):
        function, index, flags, eax, ebx, ecx, edx = _CPUID.unpack_from(view, 8 + i * _CPUID.size)
        significant = flags & lib.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        entries.append(CpuidEntry(function, index if significant else None, eax, ebx, ecx, edx))
    return entries


def pack_msrs(values: Mapping[int, int]) -> Any:
    """To `struct kvm_msrs`."""
    msrs = ffi.new("struct kvm_msrs *", {"nmsrs": len(values), "entries": len(values)})
    view = ffi.buffer(msrs, 8 + len(values) * _MSR.size)
    for i, (index, value) in enumerate(values.items()):
        _MSR.pack_into(view, 8 + i * _MSR.size, index, value & _WORD)
    return msrs
