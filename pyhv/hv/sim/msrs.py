"""Model-specific registers: which of them a guest reaches without an exit (APM vol. 2, 15.11), and what the host does
about the others."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.native import lib
from pyhv.hv.sim.state import EFER_SVME
from pyhv.memo import memo

if TYPE_CHECKING:
    from pyhv.hv.sim.registers import GuestRegisters

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
EFER_FFXSR = 1 << 14
EFER_LME, EFER_LMA = 0x100, 0x400
CR0_PG = 1 << 31
CPUID_FFXSR = 1 << 25
MEMORY_TYPES = (0, 1, 4, 5, 6, 7)
"""What a field of the PAT can hold (7.8.1)."""
_EFER, _CR0 = v.EFER >> 3, v.CR0 >> 3


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


def _efer_known(guest: GuestRegisters) -> int:
    extended = guest.features.lookup(0x8000_0001)
    fast_fxsave = extended is not None and extended.edx & CPUID_FFXSR
    return EFER_WRITABLE | EFER_LMA | (EFER_FFXSR if fast_fxsave else 0)


def read(guest: GuestRegisters, index: int) -> int | None:
    """A guest's RDMSR; None: #GP."""
    quad = guest.vmcb.quad
    if index == EFER:
        return quad[_EFER] & ~EFER_SVME
    if index in IN_VMCB:
        return quad[IN_VMCB[index]]
    if index in HIDDEN:
        return None
    value = guest.vm.msr_value
    return int(value[0]) if lib.sim_rdmsr(guest.native, index, value) == 0 else None


def write(guest: GuestRegisters, index: int, value: int) -> bool:
    """A guest's WRMSR; False: #GP."""
    quad = guest.vmcb.quad
    if index == EFER:
        old = quad[_EFER]
        if value & ~_efer_known(guest) or ((value ^ old) & EFER_LME and quad[_CR0] & CR0_PG):
            return False
        quad[_EFER] = value & ~EFER_LMA | old & EFER_LMA | EFER_SVME
        return True
    if index in IN_VMCB:
        if index == PAT and any(value >> shift & 0xFF not in MEMORY_TYPES for shift in range(0, 64, 8)):
            return False
        quad[IN_VMCB[index]] = value
        return True
    return index not in HIDDEN and lib.sim_wrmsr(guest.native, index, value) == 0


def put(guest: GuestRegisters, index: int, value: int) -> bool:
    """Set an MSR from outside, where a guest's own rules of transition do not hold; False where it cannot have the value."""
    if index == EFER and not value & ~_efer_known(guest):
        guest.vmcb.quad[_EFER] = value | EFER_SVME
        return True
    if index == APIC_BASE:
        return guest.change_state(apic_base=value)
    return write(guest, index, value)
