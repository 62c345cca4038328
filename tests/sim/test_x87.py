"""The x87 unit: against the real CPU, and what only a system sees of it."""

import ctypes
import random
import struct
from pathlib import Path

import pytest
import vec_cases
from bare_cpu import (
    CODE,
    CODE_16,
    CR0_EM,
    CR0_MP,
    CR0_NE,
    CR0_TS,
    DATA,
    GP,
    MF,
    NM,
    PF,
    RAX,
    RBX,
    RDI,
    REAL,
    REAL_DATA,
    UD,
    BareCpu,
)
from vec_native import NO_EXCEPTION, Oracle, assert_same, differences, make_cases, make_oracle

FNINIT, FLD1, FLDZ, FDIVRP, FWAIT, FNOP = "dbe3", "d9e8", "d9ee", "def1", "9b", "d9d0"
FNSTSW_AX, FNCLEX, FNSTENV, FLDENV, FNSAVE, FRSTOR = "dfe0", "dbe2", "d937", "d927", "dd37", "dd27"
UNMASK_ZERO_DIVIDE = 0x37B


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return make_oracle(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def cpu() -> BareCpu:
    out = BareCpu()
    out.area[:] = bytes(4096)
    out.area[0:2] = b"\x7f\x03"
    out.area[24:28] = struct.pack("<I", 0x1F80)
    return out


def gpr_at(address: int, rax: int = 0) -> list[int]:
    gpr = [0] * 16
    gpr[RDI], gpr[RAX] = address, rax
    return gpr


def code(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts))


def test_same_as_the_real_cpu(oracle: Oracle, tmp_path: Path) -> None:
    assert_same(make_cases(vec_cases.X87, random.Random(87), tmp_path, 16, x87=True), BareCpu(), oracle)


SEQUENCES = [
    "fadd dword ptr [rdi]; fnstenv [rdi+64]",
    "fld tbyte ptr [rdi+5]; fnsave [rdi+128]",
    "fld1; fldpi; fpatan; fnstenv [rdi+8]",
    "fistp qword ptr [rdi]; fincstp; fnstenv [rdi+64]",
    "ffree st(2); fnop; fnsave [rdi+64]; frstor [rdi+64]",
    "fldcw [rdi]; fnstsw ax; fnstenv [rdi+64]",
    "fnstenv [rdi+64]; fldenv [rdi+64]; fnstenv [rdi+96]",
    "fxch st(3); fdecstp; fnsave [rdi+64]",
    "movq mm1, [rdi]; fnstenv [rdi+64]",
    "fld st(1); emms; fnstenv [rdi+64]",
]


def test_pointers_same_as_the_real_cpu(oracle: Oracle, tmp_path: Path) -> None:
    """What FNSTENV and FNSAVE say of the last instruction; selectors aside, which are the operating system's."""
    rng = random.Random(88)
    cases = make_cases(SEQUENCES, rng, tmp_path, 6, x87=True)
    for case in cases:
        case.gpr[RDI] = case.rdi = DATA + 512
    wrong = []
    for case in cases:
        cpu = BareCpu()
        found = [line for line in differences(case, cpu, oracle) if not line.startswith("memory")]
        assert not found, (case.text, found)
        if oracle.state.vector != NO_EXCEPTION:
            continue
        native = bytearray(ctypes.string_at(oracle.data, 8192))
        got = bytearray(cpu.data())
        for match in (64, 96, 128, 8):
            for image in (native, got):  # FCS and FDS
                image[512 + match + 16 : 512 + match + 18] = image[512 + match + 24 : 512 + match + 26] = b"\0\0"
        if native != got:
            wrong.append(case.text)
    assert not wrong


@pytest.mark.parametrize(("cr0", "vector"), [(CR0_EM, NM), (CR0_TS, NM), (0, None)])
@pytest.mark.parametrize("instruction", [FLD1, FNINIT, FNSTSW_AX, FNCLEX, "d937", "d93f"])
def test_device_not_available(cpu: BareCpu, instruction: str, cr0: int, vector: int | None) -> None:
    cpu.cr0 |= cr0
    assert cpu.run(code(instruction), gpr_at(DATA)).vector == vector


@pytest.mark.parametrize(("mp", "ts", "vector"), [(1, 1, NM), (1, 0, None), (0, 1, None), (0, 0, None)])
def test_fwait_looks_at_mp(cpu: BareCpu, mp: int, ts: int, vector: int | None) -> None:
    cpu.cr0 = cpu.cr0 & ~CR0_MP | (CR0_MP if mp else 0) | (CR0_TS if ts else 0)
    assert cpu.run(code(FWAIT)).vector == vector


def test_an_exception_waits_for_the_next_instruction(cpu: BareCpu) -> None:
    """The division itself completes; #MF comes at the next instruction that waits, and names that one."""
    cpu.area[0:2] = struct.pack("<H", UNMASK_ZERO_DIVIDE)
    got = cpu.run(code(FLD1, FLDZ, "d8f9", FNSTSW_AX, FNOP))
    assert (got.vector, got.rip) == (MF, CODE + 8)
    assert got.gpr[RAX] & 0xB8FF == 0xB084  # B, ES, ZE; TOP is 6
    assert struct.unpack_from("<HQ", got.area, 6) == (0x0F9, CODE + 4)


@pytest.mark.parametrize("waiting", [FWAIT, FLD1, "d92f", FRSTOR, FLDENV, "0ffcc1", "0f77"])
def test_what_waits(cpu: BareCpu, waiting: str) -> None:
    cpu.area[0:4] = struct.pack("<HH", UNMASK_ZERO_DIVIDE, 4)
    assert cpu.run(code(waiting), gpr_at(DATA)).vector == MF


@pytest.mark.parametrize(
    "control", [FNINIT, FNCLEX, FNSTSW_AX, FNSTENV, FNSAVE, "d93f", "dd3f", "0fae07", "0fae0f", "dbe0"]
)
def test_what_does_not_wait(cpu: BareCpu, control: str) -> None:
    cpu.area[0:4] = struct.pack("<HH", UNMASK_ZERO_DIVIDE, 4)
    assert cpu.run(code(control), gpr_at(DATA)).vector is None


def test_unmasked_overflow_keeps_memory(cpu: BareCpu) -> None:
    """FSTP of a number too large, with overflow unmasked: nothing is stored, nothing popped, #MF is pending."""
    cpu.area[0:5] = struct.pack("<HHB", 0x377, 7 << 11, 0x80)
    cpu.area[32:42] = struct.pack("<QH", 1 << 63, 0x7000)
    cpu.set_data(b"\x55" * 16)
    got = cpu.run(code("d91f"), gpr_at(DATA))
    assert got.vector is None
    assert cpu.data(0, 16) == b"\x55" * 16
    fsw, ftw = struct.unpack_from("<HB", got.area, 2)
    assert (fsw & 0x38FF, ftw) == (7 << 11 | 0x88, 0x80)


def test_a_store_that_faults_does_not_pop(cpu: BareCpu) -> None:
    cpu.area[0:5] = struct.pack("<HHB", 0x37F, 6 << 11, 0xC0)
    got = cpu.run(code("dd1f"), gpr_at(DATA + 8192 - 4))
    assert (got.vector, got.cr2) == (PF, DATA + 8192)
    assert struct.unpack_from("<HB", got.area, 2) == (6 << 11, 0xC0)
    assert cpu.run(code("dd37"), gpr_at(DATA + 8192 - 100)).vector == PF
    assert cpu.data(8192 - 100, 100) == bytes(100)


def _environment(cpu: BareCpu, mode: int, instructions: str) -> bytes:
    """Runs FLD from memory and a store of the environment at 5000h; the 16- and 32-bit modes share addresses."""
    gpr = [0] * 16
    gpr[RDI], gpr[3] = 0x5000, 0x5000
    cpu.ram[0x5000:0x5080] = bytes(128)
    assert cpu.run(bytes.fromhex(instructions), gpr, mode=mode).vector is None
    return bytes(cpu.ram[0x5000:0x5080])


@pytest.mark.parametrize(
    ("mode", "prefix", "at"), [(32, "", CODE), (32, "66", CODE), (16, "", CODE_16), (16, "66", CODE_16)]
)
def test_environment_in_protected_mode(cpu: BareCpu, mode: int, prefix: str, at: int) -> None:
    long = (mode == 32) != bool(prefix)
    env = _environment(cpu, mode, "d907" + prefix + "d937")
    selector = {32: 0x18, 16: 0x20}[mode]
    if long:
        fcw, fsw, ftw, fip, fcs, fop, fdp, fds = struct.unpack_from("<HxxHxxHxxIHHIH", env)
        assert (fip, fcs, fop, fdp, fds) == (at, selector, 0x107, 0x5000, 0x10)
    else:
        fcw, fsw, ftw, fip, fcs, fdp, fds = struct.unpack_from("<7H", env)
        assert (fip, fcs, fdp, fds) == (at & 0xFFFF, selector, 0x5000, 0x10)
        assert env[14:28] == bytes(14)
    assert (fcw, fsw, ftw) == (0x37F, 7 << 11, 0x7FFF)


@pytest.mark.parametrize("prefix", ["", "66"])
def test_environment_in_real_mode(cpu: BareCpu, prefix: str) -> None:
    """Linear addresses and the opcode, in pieces; and back again."""
    cpu.ram[REAL_DATA : REAL_DATA + 0x100] = bytes(256)
    gpr = [0] * 16
    gpr[RBX] = 0x10
    # fld dword [bx]; fnstenv [bx+20h]; fldenv [bx+20h]; fnstenv [bx+60h]
    got = cpu.run(code("d907", prefix, "d97720", prefix, "d96720", prefix, "d97760"), gpr, mode=REAL)
    assert got.vector is None
    env = bytes(cpu.ram[REAL_DATA + 0x30 : REAL_DATA + 0x50])
    if prefix:
        fcw, fsw, ftw, fip_low, fip_high, fdp_low, fdp_high = struct.unpack_from("<HxxHxxHxxHxxIHxxI", env)
        assert (fip_low, fip_high) == (CODE_16 & 0xFFFF, (CODE_16 >> 16) << 12 | 0x107)
        assert (fdp_low, fdp_high) == (REAL_DATA + 0x10, 0)
    else:
        fcw, fsw, ftw, fip_low, fip_high, fdp_low, fdp_high = struct.unpack_from("<7H", env)
        assert (fip_low, fip_high, fdp_low, fdp_high) == (CODE_16, 0x107, REAL_DATA + 0x10, 0)
    assert (fcw, fsw, ftw) == (0x37F, 7 << 11, 0x7FFF)
    again = bytes(cpu.ram[REAL_DATA + 0x70 : REAL_DATA + 0x90])
    assert again[: 28 if prefix else 14] == env[: 28 if prefix else 14]


@pytest.mark.parametrize("vex", ["c5f058c1", "c4e27d18c1"])
def test_vex_in_real_mode_is_undefined(cpu: BareCpu, vex: str) -> None:
    assert cpu.run(code(vex), mode=REAL).vector == UD


def test_sse_in_real_mode(cpu: BareCpu) -> None:
    cpu.ram[REAL_DATA + 0x10 : REAL_DATA + 0x20] = bytes(range(16))
    gpr = [0] * 16
    gpr[RBX] = 0x10
    assert cpu.run(code("f30f6f0f"), gpr, mode=REAL).area[176:192] == bytes(range(16))
    gpr[RBX] = 0xFFF8  # past the segment's end
    assert cpu.run(code("f30f6f0f"), gpr, mode=REAL).vector == GP


@pytest.mark.parametrize("prefix", ["", "66"])
def test_environment_goes_round(cpu: BareCpu, prefix: str) -> None:
    """FNSAVE, FRSTOR, FNSAVE again: the same image twice, registers and tags of all kinds included."""
    cpu.area[2:5] = struct.pack("<HB", 3 << 11, 0b0111_0110)
    rng = random.Random(5)
    for i in range(8):
        cpu.area[32 + 16 * i : 42 + 16 * i] = rng.randbytes(10)
    got = cpu.run(code(prefix, "dd37", prefix, "dd27", prefix, "ddb780000000"), gpr_at(DATA))
    assert got.vector is None
    assert cpu.data(0, 108) == cpu.data(128, 108)
    assert struct.unpack_from("<H", cpu.data(), 2 if prefix else 4)[0] == 3 << 11


def test_registers_turn_with_top(cpu: BareCpu) -> None:
    """The image holds ST order, the unit physical registers: FINCSTP turns it."""
    cpu.area[4:5] = b"\xff"
    for i in range(8):
        cpu.area[32 + 16 * i : 42 + 16 * i] = struct.pack("<QH", 1 << 63 | i, 0x3FFF)
    got = cpu.run(code("d9f7", "d9f7"))
    assert [got.area[32 + 16 * i] for i in range(8)] == [2, 3, 4, 5, 6, 7, 0, 1]
    got = cpu.run(code(FNINIT))
    assert [got.area[32 + 16 * i] for i in range(8)] == list(range(8))
    assert struct.unpack_from("<HHB", got.area) == (0x37F, 0, 0)


def test_reset_state() -> None:
    """After RESET: control word 0040h, all tags zero; INIT changes nothing of it."""
    cpu = BareCpu()
    assert struct.unpack_from("<HHB", cpu.area) == (0x40, 0, 0xFF)
    assert struct.unpack_from("<I", cpu.area, 24)[0] == 0x1F80


@pytest.mark.parametrize(
    "undefined",
    [
        "d90f",
        "db27",
        "db37",
        "dd2f",
        "d9d1",
        "d9e2",
        "d9e6",
        "d9ef",
        "dae8",
        "dbe5",
        "dbf8",
        "ddf0",
        "ded8",
        "dfe1",
        "dff8",
        "f0d8c0",
    ],
)
def test_undefined_encodings(cpu: BareCpu, undefined: str) -> None:
    assert cpu.run(code(undefined), gpr_at(DATA)).vector == UD


def test_fcmov_and_fcomi_need_cpuid() -> None:
    without_cmov = BareCpu(without=((1, 0, 3, 15),))
    assert without_cmov.run(code("dac1")).vector == UD
    assert without_cmov.run(code("dbf1")).vector == UD


def test_without_ne_the_vector_is_still_taken(cpu: BareCpu) -> None:
    """CR0.NE clear: there is no FERR# wire to an interrupt controller here; the exception is not lost."""
    cpu.cr0 &= ~CR0_NE
    cpu.area[0:4] = struct.pack("<HH", UNMASK_ZERO_DIVIDE, 4)
    assert cpu.run(code(FWAIT)).vector == MF
