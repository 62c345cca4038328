"""Registers as text, for reports."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhv.x86.registers import DescriptorTable, GeneralRegisters, Segment, SystemRegisters


def _segment(name: str, s: Segment) -> str:
    kind = "unusable" if s.unusable else "code" if s.s and s.type & 8 else "data" if s.s else "system"
    width = "l" if s.l else "d" if s.db else "-"
    return (
        f"{name:<4}{s.selector:04x} base {s.base:016x} limit {s.limit:08x} type {s.type:x} dpl {s.dpl} {width} {kind}"
    )


def _table(name: str, t: DescriptorTable) -> str:
    return f"{name:<9}base {t.base:016x} limit {t.limit:08x}"


def format_registers(index: int, g: GeneralRegisters, s: SystemRegisters, code: bytes = b"") -> str:
    """A dump of one vCPU; `code` holds the bytes at RIP where they are known."""
    lines = [
        f"vCPU {index}: rip {g.rip:016x} rflags {g.rflags:08x}",
        f"rax {g.rax:016x} rbx {g.rbx:016x} rcx {g.rcx:016x} rdx {g.rdx:016x}",
        f"rsi {g.rsi:016x} rdi {g.rdi:016x} rsp {g.rsp:016x} rbp {g.rbp:016x}",
        f"r8  {g.r8:016x} r9  {g.r9:016x} r10 {g.r10:016x} r11 {g.r11:016x}",
        f"r12 {g.r12:016x} r13 {g.r13:016x} r14 {g.r14:016x} r15 {g.r15:016x}",
        f"cr0 {s.cr0:016x} cr2 {s.cr2:016x} cr3 {s.cr3:016x} cr4 {s.cr4:016x}",
        f"cr8 {s.cr8:016x} efer {s.efer:015x} apic {s.apic_base:015x}",
    ]
    lines += [_segment(name, getattr(s, name)) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")]
    lines += [_table("gdt", s.gdt), _table("idt", s.idt)]
    if code:
        lines.append(f"code {code.hex(' ')}")
    return "\n".join(lines)
