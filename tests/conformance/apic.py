"""Guest code around the local APIC that several tests share (APM vol. 2, chapter 16)."""

LAPIC = 0xFEE0_0000

ENABLE = f"mov dword ptr [{LAPIC + 0xF0}], 0x1FF\n"
"""Software-enable, spurious vector 0xFF."""

EOI = f"mov dword ptr [{LAPIC + 0xB0}], 0\n"

WAIT = "sti; wait: hlt; jmp wait\n"


def handler(label: str, value: int, *, eoi: bool = True, sti: bool = True) -> str:
    """A 32-bit handler that reports `value` at port 0xe9.

    It returns without IRET, which KVM's instruction emulator lacks in protected mode; `sti` for the interrupted code.
    """
    return f"{label}: push eax; mov al, {value}; out 0xe9, al\n{EOI if eoi else ''}pop eax; {'sti;' if sti else ''} ret 8\n"
