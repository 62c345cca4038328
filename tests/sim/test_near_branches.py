"""Forms of control transfers and of MOV to system registers that depend on AMD's reading of prefixes and ModRM."""

import pytest
from bare_cpu import CODE, DATA, UD, BareCpu

HANDLER_5 = 0x8050
"""A HLT at an address of 16 bits; CODE's own low 16 bits are zero."""
RSP = 4


@pytest.mark.parametrize(
    ("code", "moved", "pushed"),
    [
        ("66e9" + (HANDLER_5 - 4).to_bytes(2, "little").hex(), 0, None),
        ("66e8" + (HANDLER_5 - 4).to_bytes(2, "little").hex(), -2, 4),
        ("660f84" + (HANDLER_5 - 5).to_bytes(2, "little").hex(), 0, None),
        ("66ffe0", 0, None),
        ("66ffd0", -2, 3),
        ("666850806690" + "66c3", 0, None),
        ("4831c050" + "66c744240050806690" + "66c20800", 2, None),
    ],
)
def test_66_makes_a_near_branch_one_of_16_bits(code: str, moved: int, pushed: int | None) -> None:
    cpu = BareCpu()
    gpr = [0x1234_0000 + HANDLER_5, *[0] * 15]
    plain = cpu.run(b"\x90", gpr).gpr[RSP]
    got = cpu.run(bytes.fromhex(code), gpr, rflags=0x42)
    assert got.vector == 5
    assert got.gpr[RSP] - plain == moved
    if pushed is not None:
        assert int.from_bytes(cpu.ram[got.gpr[RSP] : got.gpr[RSP] + 2], "little") == pushed


@pytest.mark.parametrize("code", ["6648e900000000", "6648ffe0", "66480f8400000000", "667500"])
def test_rex_w_undoes_66_and_a_branch_not_taken_stays_here(code: str) -> None:
    cpu = BareCpu()
    length = len(code) // 2
    got = cpu.run(bytes.fromhex(code), [CODE + length, *[0] * 15], rflags=0x42)
    assert (got.vector, got.rip) == (None, CODE + length)


@pytest.mark.parametrize("modrm", ["20c0", "2000", "2080", "2044", "21f8", "2138", "21bc"])
def test_mod_does_not_count_in_moves_of_system_registers(modrm: str) -> None:
    cpu = BareCpu()
    got = cpu.run(bytes.fromhex("0f" + modrm), [DATA] * 16)
    assert (got.vector, got.rip) == (None, CODE + 3)


def test_movbe_with_f3_is_no_instruction() -> None:
    assert BareCpu().run(bytes.fromhex("f30f38f007"), [DATA] * 16).vector == UD
