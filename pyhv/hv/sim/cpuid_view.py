"""One vCPU's CPUID: its entries, and what the instruction answers by them (APM vol. 3, CPUID and appendix E)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.hv.sim.registers import GuestRegisters
    from pyhv.x86.registers import CpuidEntry

LEGACY_XSAVE = 576
"""The legacy region and the header of an XSAVE area."""
OSXSAVE, APIC = 1 << 27, 1 << 9
CR4_OSXSAVE, APIC_ENABLED = 1 << 18, 1 << 11
_CR4 = 0x548 >> 3
_REMEMBERED = 256


class CpuidView:
    """Looks entries up, and remembers what was asked for."""

    __slots__ = ("_found", "entries")

    def __init__(self, entries: Sequence[CpuidEntry]) -> None:
        self.entries = tuple(entries)
        self._found: dict[tuple[int, int], CpuidEntry | None] = {}

    def lookup(self, function: int, index: int = 0) -> CpuidEntry | None:
        """The entry of a leaf and sub-leaf."""
        key = (function, index)
        if key not in self._found:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            matches = (e for e in self.entries if e.function == function and e.index in (None, index))
            self._found[key] = next(matches, None)
        return self._found[key]

    def signature(self) -> int:
        """Family, model, stepping, as EDX has them after RESET."""
        entry = self.lookup(1)
        return entry.eax if entry is not None else 0x600

    def states(self) -> int:
        """The extended states that XCR0 can enable."""
        entry = self.lookup(0xD)
        return entry.eax | entry.edx << 32 if entry is not None else 1

    def xsave_size(self, components: int) -> int:
        """Bytes that XSAVE writes in the standard format."""
        size = LEGACY_XSAVE
        for bit in range(2, 63):
            if components >> bit & 1 and (entry := self.lookup(0xD, bit)) is not None:
                size = max(size, entry.ebx + entry.eax)
        return size

    def answer(self, guest: GuestRegisters, function: int, index: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of the instruction now: the entry, and what follows the guest's own settings."""
        entry = self.lookup(function, index)
        if entry is None:
            if function in (0xB, 0x1F) and (first := self.lookup(function, 1)) is not None:
                return 0, 0, index & 0xFF, first.edx
            return 0, 0, 0, 0
        eax, ebx, ecx, edx = entry.eax, entry.ebx, entry.ecx, entry.edx
        if function == 1:
            if guest.vmcb.quad[_CR4] & CR4_OSXSAVE:
                ecx |= OSXSAVE
            if not guest.cpu_state().apic_base & APIC_ENABLED:
                edx &= ~APIC
        elif function == 0xD and index < 2:
            ebx = self.xsave_size(guest.xcr0)
        return eax, ebx, ecx, edx
