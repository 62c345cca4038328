"""The processor's state at the entry points that the boot protocols know."""

from __future__ import annotations

from pyhv.x86.registers import DescriptorTable, GeneralRegisters, Segment, SystemRegisters

REAL_CR0 = 0x10
"""CR0.ET alone: caches on, no protection."""
PROTECTED_CR0 = 0x11
LONG_CR0 = 0x8000_0011
CR4_PAE = 0x20
EFER_LONG = 0x500
"""EFER.LME and LMA."""

CODE, DATA, TSS32 = 0xB, 0x3, 0xB
LIMIT_4G = 0xFFFF_FFFF
REAL_IDT = (0, 0x3FF)
SCRATCH_STACK = 0x7C00
"""Where protocols leave the stack undefined: below the place of a boot sector, above the BIOS data area."""


def _real(selector: int, base: int, kind: int = DATA) -> Segment:
    return Segment(base=base, limit=0xFFFF, selector=selector, type=kind)


def real(entry: int) -> tuple[GeneralRegisters, SystemRegisters]:
    """Real mode at a linear address. Beyond 1 MiB no selector reaches: CS keeps a base of its own, as after a reset."""
    base = entry & ~0xFFFF
    selector = base >> 4 if base <= 0xF_0000 else 0xF000
    system = SystemRegisters(
        cs=_real(selector, base, CODE),
        ds=_real(0, 0),
        es=_real(0, 0),
        fs=_real(0, 0),
        gs=_real(0, 0),
        ss=_real(0, 0),
        idt=DescriptorTable(*REAL_IDT),
        cr0=REAL_CR0,
    )
    return GeneralRegisters(rip=entry & 0xFFFF), system


def _flat(selector: int, *, code: bool = False, long: bool = False) -> Segment:
    return Segment(
        base=0,
        limit=LIMIT_4G,
        selector=selector,
        type=CODE if code else DATA,
        db=not long,
        l=long,
        g=True,
    )


def _segments(cs: int, ds: int, gdt: DescriptorTable, *, long: bool) -> SystemRegisters:
    return SystemRegisters(
        cs=_flat(cs, code=True, long=long),
        ds=_flat(ds),
        es=_flat(ds),
        fs=_flat(ds),
        gs=_flat(ds),
        ss=_flat(ds),
        tr=Segment(limit=0x67, selector=ds + 8, type=TSS32, s=False),
        gdt=gdt,
    )


def protected(
    entry: int, gdt: DescriptorTable, *, cs: int = 0x08, ds: int = 0x10
) -> tuple[GeneralRegisters, SystemRegisters]:
    """32-bit protected mode, flat 4 GiB segments, no paging, interrupts off; the task register has a TSS at 0."""
    system = _segments(cs, ds, gdt, long=False)
    system.idt = DescriptorTable(*REAL_IDT)
    system.cr0 = PROTECTED_CR0
    return GeneralRegisters(rip=entry), system


def long(
    entry: int, gdt: DescriptorTable, cr3: int, *, cs: int = 0x10, ds: int = 0x18
) -> tuple[GeneralRegisters, SystemRegisters]:
    """64-bit mode with the page tables at `cr3`, interrupts off (Documentation/x86/boot.rst, 64-bit boot protocol)."""
    system = _segments(cs, ds, gdt, long=True)
    system.idt = DescriptorTable(0, 0)
    system.cr0 = LONG_CR0
    system.cr3 = cr3
    system.cr4 = CR4_PAE
    system.efer = EFER_LONG
    return GeneralRegisters(rip=entry), system
