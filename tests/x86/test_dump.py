"""Register dumps."""

from pyhv.x86.dump import format_registers
from pyhv.x86.registers import GeneralRegisters, SystemRegisters


def test_a_dump_shows_every_register_and_the_code() -> None:
    general = GeneralRegisters(*range(0x1000, 0x1012))
    text = format_registers(3, general, SystemRegisters(cr2=0xDEAD), b"\x0f\x0b")
    assert text.startswith("vCPU 3:")
    for value in range(0x1000, 0x1011):
        assert f"{value:016x}" in text
    assert "000000000000dead" in text and "0f 0b" in text and "f000" in text


def test_a_dump_without_code() -> None:
    assert "code " not in format_registers(0, GeneralRegisters(), SystemRegisters()).splitlines()[-1]
