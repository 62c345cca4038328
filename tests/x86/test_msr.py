"""MSR names."""

from pyhv.x86 import msr


def test_names() -> None:
    assert msr.name(msr.EFER) == "EFER"
    assert msr.name(0x80B) == "X2APIC+0xb"
    assert msr.name(0x1234) == "0x1234"


def test_numbers_are_those_of_the_manuals() -> None:
    assert (msr.EFER, msr.LSTAR, msr.KERNEL_GS_BASE, msr.TSC_AUX) == (0xC0000080, 0xC0000082, 0xC0000102, 0xC0000103)
    assert (msr.VM_CR, msr.VM_HSAVE_PA, msr.GHCB) == (0xC0010114, 0xC0010117, 0xC0010130)
    assert (msr.APIC_BASE, msr.TSC_ADJUST, msr.PAT, msr.TSC_DEADLINE) == (0x1B, 0x3B, 0x277, 0x6E0)


def test_no_number_has_two_names() -> None:
    numbers = [value for name, value in vars(msr).items() if name.isupper() and isinstance(value, int)]
    assert len(set(numbers)) == len(numbers)


def test_reset_values_are_of_known_registers() -> None:
    assert set(msr.RESET_VALUES) <= set(msr.NAMES)
