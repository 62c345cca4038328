"""Model-specific registers by name (APM vol. 2, appendix A; Documentation/virt/kvm/x86/msr.rst)."""

from __future__ import annotations

TSC = 0x10
APIC_BASE = 0x1B
TSC_ADJUST = 0x3B
SPEC_CTRL = 0x48
MTRR_CAP = 0xFE
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
MCG_CAP, MCG_STATUS = 0x179, 0x17A
MISC_ENABLE = 0x1A0
DEBUGCTL = 0x1D9
PAT = 0x277
MTRR_DEF_TYPE = 0x2FF
TSC_DEADLINE = 0x6E0
X2APIC_FIRST, X2APIC_LAST = 0x800, 0x8FF
XSS = 0xDA0
EFER = 0xC000_0080
STAR, LSTAR, CSTAR, SFMASK = 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084
FS_BASE, GS_BASE, KERNEL_GS_BASE = 0xC000_0100, 0xC000_0101, 0xC000_0102
TSC_AUX = 0xC000_0103
HWCR = 0xC001_0015
VM_CR, VM_HSAVE_PA = 0xC001_0114, 0xC001_0117
AVIC_DOORBELL = 0xC001_011B
GHCB, SEV_STATUS = 0xC001_0130, 0xC001_0131
KVM_WALL_CLOCK, KVM_SYSTEM_TIME = 0x4B56_4D00, 0x4B56_4D01
KVM_ASYNC_PF, KVM_STEAL_TIME, KVM_PV_EOI = 0x4B56_4D02, 0x4B56_4D03, 0x4B56_4D04
KVM_POLL_CONTROL, KVM_ASYNC_PF_INT, KVM_ASYNC_PF_ACK = 0x4B56_4D05, 0x4B56_4D06, 0x4B56_4D07

PAT_RESET = 0x0007_0406_0007_0406
"""Write-back, write-through, uncached-minus, uncached, twice (APM vol. 2, 7.8.1)."""

NAMES: dict[int, str] = {
    value: name
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, int) and name != "PAT_RESET"
}

RESET_VALUES: dict[int, int] = {
    TSC: 0,
    SYSENTER_CS: 0,
    SYSENTER_ESP: 0,
    SYSENTER_EIP: 0,
    DEBUGCTL: 0,
    PAT: PAT_RESET,
    MTRR_DEF_TYPE: 0,
    TSC_DEADLINE: 0,
    XSS: 0,
    STAR: 0,
    LSTAR: 0,
    CSTAR: 0,
    SFMASK: 0,
    KERNEL_GS_BASE: 0,
    TSC_AUX: 0,
    VM_HSAVE_PA: 0,
    KVM_WALL_CLOCK: 0,
    KVM_SYSTEM_TIME: 0,
    KVM_ASYNC_PF: 0,
    KVM_STEAL_TIME: 0,
    KVM_PV_EOI: 0,
}
"""What RESET leaves (APM vol. 2, table 14-1); those of a paravirtual interface are off."""


def name(index: int) -> str:
    """A register's name, or its number in hexadecimal."""
    if X2APIC_FIRST <= index <= X2APIC_LAST:
        return f"X2APIC+{index - X2APIC_FIRST:#x}"
    return NAMES.get(index, f"{index:#x}")
