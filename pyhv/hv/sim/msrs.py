"""Model-specific registers: which of them a guest reaches without an exit (APM vol. 2, 15.11), and what the host does
about the others."""

from __future__ import annotations

from pyhv.hv.sim import vmcb as v
from pyhv.memo import memo

EFER, PAT, DEBUGCTL = 0xC000_0080, 0x277, 0x1D9
APIC_BASE, TSC_DEADLINE = 0x1B, 0x6E0
X2APIC = range(0x800, 0x900)

IN_VMCB = {PAT: v.G_PAT >> 3, DEBUGCTL: v.DBGCTL >> 3}
"""MSRs that VMRUN switches: the VMCB's quadword with the guest's value."""
HIDDEN = frozenset({0xC001_0114, 0xC001_0115, 0xC001_0117, 0xC001_0118})
"""VM_CR, IGNNE, VM_HSAVE_PA, SVM_KEY: SVM itself is not offered to the guest."""

DIRECT = (
    *range(0xC000_0081, 0xC000_0085),  # STAR, LSTAR, CSTAR, SFMASK
    *range(0xC000_0100, 0xC000_0104),  # FS, GS, KERNEL_GS base, TSC_AUX
    *range(0x174, 0x177),  # SYSENTER
    PAT,
)
"""Reached without an exit, as KVM lets them; they are switched by VMRUN, VMLOAD and VMSAVE, or the guest's alone."""
APIC = (APIC_BASE, TSC_DEADLINE, *X2APIC)
"""Reached without an exit where the guest's local APIC is in the silicon."""

PERMISSION_MAP_SIZE = 0x2000
_RANGES = ((0, 0x0000), (0xC000_0000, 0x0800), (0xC001_0000, 0x1000))
EFER_WRITABLE = 0x1 | 0x100 | 0x800  # SCE, LME, NXE
EFER_LME, EFER_LMA = 0x100, 0x400


@memo()
def permission_map(apic: bool) -> bytes:
    """The 8 KiB map: two bits a register, read below write; set: exits."""
    out = bytearray(b"\xff" * PERMISSION_MAP_SIZE)
    for index in (*DIRECT, *(APIC if apic else ())):
        open_for(out, index)
    return bytes(out)


def open_for(bitmap: bytearray | memoryview, index: int, *, exits: int = 0) -> None:
    """Set an MSR's two bits: 1 exits on reads, 2 on writes. Those outside of the map always exit."""
    for base, offset in _RANGES:
        at = index - base
        if 0 <= at < 0x2000:
            byte, shift = offset + at // 4, at % 4 * 2
            bitmap[byte] = bitmap[byte] & ~(3 << shift) | exits << shift
