"""CPUID."""

from collections.abc import Sequence
from dataclasses import replace

from pyhv.x86.registers import CpuidEntry


def build(
    template: str,
    supported: Sequence[CpuidEntry],
    *,
    emulated: Sequence[CpuidEntry] = (),
    features: Sequence[str] = (),
    apic_id: int = 0,
    vcpus: int = 1,
    tsc_deadline: bool = True,
    in_backend_apic: bool = True,
) -> list[CpuidEntry]:
    out = []
    for e in supported:
        if e.function == 1:
            e = replace(e, ebx=e.ebx & 0xFFFF | vcpus << 16 | apic_id << 24, ecx=e.ecx | 1 << 31 | tsc_deadline << 24)
        out.append(e)
    return out
