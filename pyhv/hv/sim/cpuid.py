"""What the silicon runs, as CPUID shows it (APM vol. 3, appendix E): the base of every CPU template on this backend.

Only what is executed is shown. Bits of the vector and x87 units come from the silicon, which runs some of them on the
host's own.
"""

from __future__ import annotations

from pyhv.hv.sim.native import lib
from pyhv.memo import memo
from pyhv.x86.registers import CpuidEntry

SIGNATURE = 0x0083_0F10
"""Family 17h, model 31h, stepping 0."""
BRAND = "pyhv simulated AMD-V processor"
PHYSICAL_BITS, LINEAR_BITS = 40, 48
KVM_FEATURE_NOP_IO_DELAY = 1 << 1

_VENDOR = b"AuthenticAMD"
_HYPERVISOR = b"KVMKVMKVM\0\0\0"
"""VMMCALL follows KVM's hypercall convention (Documentation/virt/kvm/x86/hypercalls.rst)."""


def _bits(*numbers: int) -> int:
    return sum(1 << n for n in numbers)


_1_ECX = _bits(13, 21, 22, 23, 30, 31)  # CX16, x2APIC, MOVBE, POPCNT, RDRAND, hypervisor
_1_EDX = _bits(1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19)
# VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH
_7_EBX = _bits(0, 3, 7, 8, 18, 19, 20)  # FSGSBASE BMI1 SMEP BMI2 RDSEED ADX SMAP
_7_ECX = _bits(2, 22)  # UMIP RDPID
_81_ECX = _bits(0, 4, 5, 8)  # LAHF, CR8 in legacy mode, ABM, PREFETCHW
_81_EDX = _bits(11, 20, 25, 26, 27, 29)  # SYSCALL NX FFXSR PAGE1GB RDTSCP LM
_81_EDX_SHARED = _bits(*range(10), *range(12, 18), 23, 24)
_SVM = 1 << 2
_LA57 = 1 << 16
_PCID = 1 << 17
_INVPCID = 1 << 10


def _text(text: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4))


def _unit(function: int, index: int, register: int) -> int:
    return int(lib.vec_cpuid_mask(function, index, register))


@memo()
def supported() -> tuple[CpuidEntry, ...]:
    """All features that a guest gets unless they are masked."""
    b, d, c = _text(_VENDOR)
    hb, hc, hd = _text(_HYPERVISOR)
    edx1 = _1_EDX | _unit(1, 0, 3)
    entries = [
        CpuidEntry(0, None, 0xD, b, c, d),
        CpuidEntry(1, None, SIGNATURE, 8 << 8, _1_ECX | _unit(1, 0, 2), edx1),
        CpuidEntry(7, 0, 0, _7_EBX | _unit(7, 0, 1), _7_ECX | _unit(7, 0, 2), _unit(7, 0, 3)),
        *_xsave(),
        CpuidEntry(0x4000_0000, None, 0x4000_0001, hb, hc, hd),
        CpuidEntry(0x4000_0001, None, KVM_FEATURE_NOP_IO_DELAY, 0, 0, 0),
        CpuidEntry(0x8000_0000, None, 0x8000_001F, b, c, d),
        CpuidEntry(
            0x8000_0001,
            None,
            SIGNATURE,
            0,
            _81_ECX | _unit(0x8000_0001, 0, 2),
            _81_EDX | edx1 & _81_EDX_SHARED | _unit(0x8000_0001, 0, 3),
        ),
    ]
    brand = BRAND.encode().ljust(48, b"\0")
    entries += [CpuidEntry(0x8000_0002 + i, None, *_text(brand[16 * i : 16 * i + 16])) for i in range(3)]
    entries += [
        CpuidEntry(0x8000_0005, None, 0xFF40_FF40, 0xFF40_FF40, 0x2008_0140, 0x2008_0140),
        CpuidEntry(0x8000_0006, None, 0x4800_6400, 0x6800_6400, 0x0200_6140, 0x0080_9140),
        CpuidEntry(0x8000_0007, None, 0, 0, 0, 1 << 8),  # invariant TSC
        CpuidEntry(0x8000_0008, None, LINEAR_BITS << 8 | PHYSICAL_BITS, _unit(0x8000_0008, 0, 1), 0, 0),
    ]
    return tuple(entries)


@memo()
def optional() -> tuple[CpuidEntry, ...]:
    """Features that the silicon runs but a guest gets only when they are asked for: process contexts, 5-level paging."""
    return (CpuidEntry(1, None, 0, 0, _PCID, 0), CpuidEntry(7, 0, 0, _INVPCID, _LA57, 0))


def _xsave() -> list[CpuidEntry]:
    if not _unit(1, 0, 2) >> 26 & 1:
        return []
    states = 3
    size = 512 + 64
    out = []
    if _unit(1, 0, 2) >> 28 & 1:
        states |= 4
        out.append(CpuidEntry(0xD, 2, 256, size, 0, 0))
        size += 256
    out.append(CpuidEntry(0xD, 0, states, size, size, 0))
    out.append(CpuidEntry(0xD, 1, _unit(0xD, 1, 0), size, 0, 0))
    return out


def with_svm(entries: list[CpuidEntry]) -> list[CpuidEntry]:
    """The same processor with SVM, as its host sees it, or a guest that has it to itself."""
    out = []
    for e in entries:
        if e.function == 0x8000_0001:
            e = CpuidEntry(e.function, e.index, e.eax, e.ebx, e.ecx | _SVM, e.edx)
        out.append(e)
    if not any(e.function == 0x8000_000A for e in entries):
        out.append(CpuidEntry(0x8000_000A, None, 1, 0x8000, 0, _bits(0, 3)))  # nested paging, nRIP
    return out
