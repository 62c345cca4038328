"""Register files between the VMCB, the silicon's own structures and the typed ones of `pyhv.x86.registers`."""

from __future__ import annotations

from struct import Struct, error

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.hv.sim import vmcb as v
from pyhv.x86.registers import FpuRegisters, GeneralRegisters, SystemRegisters, VcpuEvents

if TYPE_CHECKING:
    from typing import Any

    from pyhv.hv.sim.vmcb import Vmcb

GENERAL = Struct("<16Q")
"""The silicon's order: rax rcx rdx rbx rsp rbp rsi rdi r8 ... r15."""
_FXSAVE = Struct("<HHBxHQQII")
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_RIP, _RFLAGS, _CR0, _CR2, _CR3, _CR4, _EFER = (
    offset >> 3 for offset in (v.RIP, v.RFLAGS, v.CR0, v.CR2, v.CR3, v.CR4, v.EFER)
)
_VMCB_RAX, _VMCB_RSP = v.RAX >> 3, v.RSP >> 3
EFER_SVME = 0x1000
EFER_LMA, EFER_LME = 0x400, 0x100
XSAVE_SIZE = 4096
FXSAVE_SIZE = 512
FCW_INITIAL, MXCSR_INITIAL = 0x37F, 0x1F80


def read_general(gpr: Any, vmcb: Vmcb) -> GeneralRegisters:
    """`gpr` is a buffer of the silicon's sixteen; RAX, RSP, RIP and RFLAGS are the VMCB's."""
    _, rcx, rdx, rbx, _, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 = GENERAL.unpack(gpr)
    quad = vmcb.quad
    return GeneralRegisters(
        quad[_VMCB_RAX], rbx, rcx, rdx, rsi, rdi, quad[_VMCB_RSP], rbp,
        r8, r9, r10, r11, r12, r13, r14, r15, quad[_RIP], quad[_RFLAGS],
    )  # fmt: skip


def write_general(gpr: Any, vmcb: Vmcb, r: GeneralRegisters) -> None:
    """Raises ConfigError for a value beyond 64 bits, before anything has changed."""
    try:
        packed = GENERAL.pack(
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15
        )  # fmt: skip
        Struct("<2Q").pack(r.rip, r.rflags)
    except error as failure:
        raise ConfigError(f"general registers: {failure}") from None
    gpr[:] = packed
    quad = vmcb.quad
    quad[_VMCB_RAX], quad[_VMCB_RSP] = r.rax, r.rsp
    quad[_RIP], quad[_RFLAGS] = r.rip, r.rflags | 2


def read_system(vmcb: Vmcb, *, cr8: int, apic_base: int) -> SystemRegisters:
    """From a VMCB that VMSAVE has completed."""
    quad = vmcb.quad
    cs, ds, es, fs, gs, ss, tr, ldt = (vmcb.get_segment(name) for name in _SEGMENTS)
    return SystemRegisters(
        cs=cs,
        ds=ds,
        es=es,
        fs=fs,
        gs=gs,
        ss=ss,
        tr=tr,
        ldt=ldt,
        gdt=vmcb.get_table(v.GDTR),
        idt=vmcb.get_table(v.IDTR),
        cr0=quad[_CR0],
        cr2=quad[_CR2],
        cr3=quad[_CR3],
        cr4=quad[_CR4],
        cr8=cr8,
        efer=quad[_EFER] & ~EFER_SVME,
        apic_base=apic_base,
    )


def write_system(vmcb: Vmcb, r: SystemRegisters) -> None:
    """All but CR8 and the APIC base. Raises ConfigError for a value out of range."""
    quad = vmcb.quad
    kept = bytes(quad)
    try:
        for name in _SEGMENTS:
            vmcb.set_segment(name, getattr(r, name))
        vmcb.set_table(v.GDTR, r.gdt)
        vmcb.set_table(v.IDTR, r.idt)
        quad[_CR0], quad[_CR2], quad[_CR3], quad[_CR4] = r.cr0, r.cr2, r.cr3, r.cr4
        quad[_EFER] = r.efer | EFER_SVME
    except (error, ValueError, TypeError, OverflowError) as failure:
        quad[:] = memoryview(kept).cast("Q")
        raise ConfigError(f"system registers: {failure}") from None
    vmcb.cpl = r.ss.dpl if r.cr0 & 1 else 0


def read_fpu(area: Any) -> FpuRegisters:
    """From the legacy part of an XSAVE area (APM vol. 2, 11.4.4)."""
    data = bytes(area[:FXSAVE_SIZE])
    fcw, fsw, ftw, fop, fip, fdp, mxcsr, _ = _FXSAVE.unpack_from(data)
    return FpuRegisters(
        tuple(data[32 + 16 * i : 48 + 16 * i] for i in range(8)),
        tuple(data[160 + 16 * i : 176 + 16 * i] for i in range(16)),
        fcw,
        fsw,
        ftw,
        fop,
        fip,
        fdp,
        mxcsr,
    )


def write_fpu(area: Any, r: FpuRegisters) -> None:
    """Raises ConfigError where a register has the wrong size or does not fit."""
    if len(r.st) != 8 or len(r.xmm) != 16 or any(len(value) != 16 for value in (*r.st, *r.xmm)):
        raise ConfigError("FPU registers: 8 of st and 16 of xmm, 16 bytes each, are needed")
    try:
        head = _FXSAVE.pack(r.fcw, r.fsw, r.ftw, r.fop, r.fip, r.fdp, r.mxcsr, 0xFFFF)
    except error as failure:
        raise ConfigError(f"FPU registers: {failure}") from None
    area[: len(head) - 4] = head[:-4]
    area[32:416] = b"".join((*r.st, *r.xmm))


def read_xsave(area: Any, xcr0: int) -> bytes:
    """An XSAVE area in the standard format, every component present (11.5.2)."""
    image = bytearray(area)
    image[512:520] = (xcr0 | 3).to_bytes(8, "little")
    image[520:576] = bytes(56)
    return bytes(image)


def write_xsave(area: Any, image: bytes) -> None:
    """Components that the image lacks get their initial state."""
    new = bytearray(image.ljust(XSAVE_SIZE, b"\0"))
    present = int.from_bytes(new[512:520], "little")
    if not present & 1:
        new[0:24] = FCW_INITIAL.to_bytes(2, "little") + bytes(22)
        new[32:160] = bytes(128)
    if not present & 2:
        new[160:416] = bytes(256)
    if not present & 3:
        new[24:28] = MXCSR_INITIAL.to_bytes(4, "little")
    if not present & 4:
        new[576:832] = bytes(256)
    area[:] = bytes(new)


def read_events(vmcb: Vmcb, *, nmi_masked: bool, nmi_pending: bool) -> VcpuEvents:
    """What is injected, pending or held back."""
    inject = vmcb.quad[v.EVENTINJ >> 3]
    valid, kind, vector = inject & v.EVENT_VALID, inject & v.EVENT_TYPE_MASK, inject & 0xFF
    exception = bool(valid) and kind == v.EVENT_EXCEPTION
    has_error = exception and bool(inject & v.EVENT_ERROR_VALID)
    interrupt = bool(valid) and kind in (v.EVENT_INTR, v.EVENT_SOFT)
    return VcpuEvents(
        exception_injected=exception,
        exception_vector=vector if exception else 0,
        exception_has_error_code=has_error,
        exception_error_code=inject >> 32 if has_error else 0,
        interrupt_injected=interrupt,
        interrupt_vector=vector if interrupt else 0,
        interrupt_soft=interrupt and kind == v.EVENT_SOFT,
        interrupt_shadow=3 if vmcb.quad[v.INTERRUPT_SHADOW >> 3] & 1 else 0,
        nmi_injected=bool(valid) and kind == v.EVENT_NMI,
        nmi_pending=nmi_pending,
        nmi_masked=nmi_masked,
    )


def write_events(vmcb: Vmcb, e: VcpuEvents) -> None:
    """Injection and shadow; the NMI's state is the silicon's."""
    inject = 0
    if e.exception_injected or e.exception_pending:
        code = e.exception_error_code if e.exception_has_error_code else None
        inject = v.event(e.exception_vector, v.EVENT_EXCEPTION, code)
    elif e.nmi_injected:
        inject = v.event(2, v.EVENT_NMI)
    elif e.interrupt_injected:
        inject = v.event(e.interrupt_vector, v.EVENT_SOFT if e.interrupt_soft else v.EVENT_INTR)
    vmcb.quad[v.EVENTINJ >> 3] = inject
    vmcb.quad[v.INTERRUPT_SHADOW >> 3] = 1 if e.interrupt_shadow else 0
