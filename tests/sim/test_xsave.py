"""FXSAVE, FXRSTOR, the XSAVE family and XCR0."""

import random
import struct

import pytest
from bare_cpu import CR0_EM, CR0_TS, CR4_OSXSAVE, DATA, GP, NM, PF, RAX, RCX, RDI, RDX, UD, BareCpu

FXSAVE, FXRSTOR, FXSAVE64, FXRSTOR64 = "0fae07", "0fae0f", "480fae07", "480fae0f"
XSAVE, XRSTOR, XSAVEOPT, XSAVEC, XSAVES, XRSTORS = "0fae27", "0fae2f", "0fae37", "0fc727", "0fc72f", "0fc71f"
XSETBV, XGETBV = "0f01d1", "0f01d0"
HAS_AVX = bool(BareCpu.xcr0_supported() & 4)
BV = 512


@pytest.fixture
def cpu() -> BareCpu:
    out = BareCpu()
    rng = random.Random(9)
    area = bytearray(4096)
    struct.pack_into("<HHB", area, 0, 0x27F, 2 << 11, 0x5A)
    struct.pack_into("<I", area, 24, 0x1FA0)
    for i in range(8):
        area[32 + 16 * i : 42 + 16 * i] = rng.randbytes(10)
    area[160:416] = rng.randbytes(256)
    if HAS_AVX:
        area[576:832] = rng.randbytes(256)
    out.area[:] = bytes(area)
    out.set_data(b"\xcc" * 8192)
    return out


def regs(address: int = DATA, mask: int = (1 << 64) - 1) -> list[int]:
    gpr = [0] * 16
    gpr[RDI], gpr[RAX], gpr[RDX] = address, mask & 0xFFFF_FFFF, mask >> 32
    return gpr


def run(cpu: BareCpu, text: str, address: int = DATA, mask: int = (1 << 64) - 1, mode: int = 64) -> int | None:
    return cpu.run(bytes.fromhex(text), regs(address, mask), mode=mode).vector


def clear(cpu: BareCpu) -> None:
    """Another state than that of the fixture."""
    cpu.area[:] = bytes(4096)
    cpu.area[0:2] = b"\x7f\x03"
    cpu.area[24:28] = struct.pack("<I", 0x1F80)


def header(xstate: int, compact: int = 0, rest: bytes = bytes(48)) -> bytes:
    return struct.pack("<QQ", xstate, compact) + rest


def registers(area: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    return area[:5], area[24:28], area[32:160], area[160:416]


@pytest.mark.parametrize(("save", "restore"), [(FXSAVE, FXRSTOR), (FXSAVE64, FXRSTOR64)])
def test_fxsave_round_trip(cpu: BareCpu, save: str, restore: str) -> None:
    before = bytes(cpu.area)
    assert run(cpu, save) is None
    assert cpu.data(416, 96) == b"\xcc" * 96  # reserved and available bytes stay
    assert struct.unpack("<I", cpu.data(28, 4))[0] in (0xFFFF, 0x2FFFF)
    clear(cpu)
    assert run(cpu, restore) is None
    assert registers(bytes(cpu.area)) == registers(before)


def test_fxsave_outside_64_bit_mode_has_eight_xmm_registers(cpu: BareCpu) -> None:
    before = bytes(cpu.area)
    cpu.ram[0x5000:0x5200] = b"\xcc" * 512
    assert run(cpu, FXSAVE, 0x5000, mode=32) is None
    assert cpu.ram[0x5000 + 160 : 0x5000 + 288] == before[160:288]
    assert cpu.ram[0x5000 + 288 : 0x5200] == b"\xcc" * 224
    clear(cpu)
    cpu.area[288:416] = b"\x77" * 128
    assert run(cpu, FXRSTOR, 0x5000, mode=32) is None
    assert bytes(cpu.area[160:416]) == before[160:288] + b"\x77" * 128


@pytest.mark.parametrize("text", [FXSAVE, FXRSTOR])
def test_fxsave_faults(cpu: BareCpu, text: str) -> None:
    cpu.set_data(bytes(512))
    assert run(cpu, text, DATA + 8) == GP
    assert run(cpu, text, DATA + 8192 - 256) == PF
    cpu.cr0 |= CR0_TS
    assert run(cpu, text) == NM
    cpu.cr0 = cpu.cr0 & ~CR0_TS | CR0_EM
    assert run(cpu, text) == NM


def test_fxrstor_refuses_reserved_mxcsr_bits_and_changes_nothing(cpu: BareCpu) -> None:
    before = bytes(cpu.area)
    cpu.set_data(bytes(512))
    cpu.set_data(struct.pack("<I", 0x1_0000), 24)
    assert run(cpu, FXRSTOR) == GP
    assert registers(bytes(cpu.area)) == registers(before)


def test_error_pointers_are_saved_only_with_an_exception_pending(cpu: BareCpu) -> None:
    struct.pack_into("<HHBxHQQ", image := bytearray(24), 0, 0x37F, 0, 0, 0x123, 0x1111_2222_3333, 0x4444_5555_6666)
    cpu.area[0:24] = bytes(image)
    run(cpu, FXSAVE64)
    assert cpu.data(6, 18) == bytes(18)
    cpu.area[0:4] = struct.pack("<HH", 0x37E, 1)
    run(cpu, FXSAVE64)
    assert struct.unpack("<HQQ", cpu.data(6, 18)) == (0x123, 0x1111_2222_3333, 0x4444_5555_6666)
    assert struct.unpack("<H", cpu.data(2, 2))[0] == 0x8081


def test_fast_fxsave_leaves_xmm_out(cpu: BareCpu) -> None:
    """EFER.FFXSR, 64-bit mode, CPL 0."""
    before = bytes(cpu.area)
    cpu.efer = 0xD00 | 1 << 14
    run(cpu, FXSAVE64)
    assert cpu.data(160, 256) == b"\xcc" * 256
    assert cpu.data(24, 4) == before[24:28]


@pytest.mark.parametrize("text", [XSAVE, XRSTOR, XSAVEOPT, XSAVEC, XSAVES, XRSTORS])
def test_xsave_faults(cpu: BareCpu, text: str) -> None:
    cpu.set_data(bytes(1024))
    if text == XRSTORS:
        cpu.set_data(header(0, 1 << 63), BV)
    assert run(cpu, text) is None
    assert run(cpu, text, DATA + 16) == GP
    assert run(cpu, text, DATA + 8192 - 512) == PF
    cpu.cr0 |= CR0_TS
    assert run(cpu, text) == NM
    cpu.cr4 &= ~CR4_OSXSAVE
    assert run(cpu, text) == UD


@pytest.mark.parametrize("mask", range(8 if HAS_AVX else 4))
@pytest.mark.parametrize("save", [XSAVE, XSAVEOPT, XSAVEC, XSAVES])
def test_xsave_saves_what_is_asked_for(cpu: BareCpu, save: str, mask: int) -> None:
    """And restores it, leaving the rest alone."""
    before = bytes(cpu.area)
    cpu.set_data(bytes(64), BV)
    assert run(cpu, save, mask=mask) is None
    compact = save in (XSAVEC, XSAVES)
    assert struct.unpack("<QQ", cpu.data(BV, 16)) == (mask, (mask | 1 << 63) if compact else 0)
    for bit, at, size in ((1, 32, 128), (2, 160, 256), (4, 576, 256)):
        assert (cpu.data(at, size) == before[at : at + size]) == bool(mask & bit), hex(at)
        if not mask & bit:
            assert cpu.data(at, size) == b"\xcc" * size
    clear(cpu)
    if mask & 1:
        cpu.data(6, 18)
    assert run(cpu, XRSTORS if save == XSAVES else XRSTOR, mask=mask) is None
    after = bytes(cpu.area)
    assert (after[:5] == before[:5]) == bool(mask & 1)
    for bit, at, size in ((1, 32, 128), (2, 160, 256), (4, 576, 256)):
        assert after[at : at + size] == (before[at : at + size] if mask & bit else bytes(size))


def test_initial_state_is_left_out(cpu: BareCpu) -> None:
    """XSTATE_BV tells what is in use; XSAVEOPT does not write the rest, XSAVE does."""
    clear(cpu)
    cpu.area[160:164] = b"abcd"
    cpu.set_data(bytes(64), BV)
    assert run(cpu, XSAVEOPT) is None
    assert struct.unpack("<Q", cpu.data(BV, 8))[0] == 2
    assert cpu.data(32, 128) == b"\xcc" * 128
    assert cpu.data(160, 4) == b"abcd"
    assert run(cpu, XSAVE) is None
    assert struct.unpack("<Q", cpu.data(BV, 8))[0] == 2
    assert cpu.data(32, 128) == bytes(128)


def test_what_the_image_lacks_is_initialised(cpu: BareCpu) -> None:
    """XRSTOR with XSTATE_BV 0: FNINIT's state, zeros; MXCSR still comes from memory in the standard format."""
    cpu.set_data(bytes(1024))
    cpu.set_data(struct.pack("<I", 0x1F00), 24)
    assert run(cpu, XRSTOR) is None
    area = bytes(cpu.area)
    assert struct.unpack_from("<HHB", area) == (0x37F, 0, 0)
    assert area[32:416] == bytes(384) and area[576:832] == bytes(256)
    assert struct.unpack_from("<I", area, 24)[0] == 0x1F00
    cpu.set_data(header(0, 1 << 63 | 3), BV)
    assert run(cpu, XRSTOR) is None
    assert struct.unpack_from("<I", cpu.area, 24)[0] == 0x1F80


@pytest.mark.parametrize(
    ("content", "vector"),
    [
        (header(3), None),
        (header(8), GP),
        (header(1 << 63), GP),
        (header(1, 1), GP),
        (header(1, 0, b"\1" + bytes(47)), GP),
        (header(1, 0, bytes(47) + b"\1"), None),
        (header(1, 1 << 63 | 3), None),
        (header(2, 1 << 63 | 1), GP),
        (header(0, 1 << 63 | 8), GP),
        (header(1, 1 << 63 | 3, bytes(47) + b"\1"), GP),
    ],
)
def test_xrstor_header(cpu: BareCpu, content: bytes, vector: int | None) -> None:
    """Components that XCR0 has not, reserved bytes (24-63 only matter in the compact format)."""
    before = bytes(cpu.area)
    cpu.set_data(bytes(1024))
    cpu.set_data(content, BV)
    assert run(cpu, XRSTOR) == vector
    if vector:
        assert registers(bytes(cpu.area)) == registers(before)


def test_xrstors_takes_the_compact_format_only(cpu: BareCpu) -> None:
    cpu.set_data(bytes(1024))
    assert run(cpu, XRSTORS) == GP


@pytest.mark.parametrize(
    ("value", "vector"), [(1, None), (3, None), (0, GP), (2, GP), (5, GP), (0x13, GP), (1 << 63 | 1, GP)]
)
def test_xsetbv(cpu: BareCpu, value: int, vector: int | None) -> None:
    gpr = regs(mask=value)
    gpr[RCX] = 0
    got = cpu.run(bytes.fromhex(XSETBV + XGETBV), gpr)
    assert got.vector == vector
    if vector is None:
        assert got.gpr[RAX] == value and got.gpr[RDX] == 0


def test_xsetbv_knows_one_register(cpu: BareCpu) -> None:
    gpr = regs(mask=1)
    gpr[RCX] = 1
    assert cpu.run(bytes.fromhex(XSETBV), gpr).vector == GP


def test_xgetbv_of_what_is_in_use(cpu: BareCpu) -> None:
    gpr = regs()
    gpr[RCX] = 1
    assert cpu.run(bytes.fromhex(XGETBV), gpr).gpr[RAX] == cpu.xcr0
    clear(cpu)
    assert cpu.run(bytes.fromhex(XGETBV), gpr).gpr[RAX] == 0
    gpr[RCX] = 2
    assert cpu.run(bytes.fromhex(XGETBV), gpr).vector == GP


def test_xcr0_limits_what_is_saved(cpu: BareCpu) -> None:
    cpu.xcr0 = 1
    cpu.set_data(bytes(64), BV)
    assert run(cpu, XSAVE) is None
    assert struct.unpack("<Q", cpu.data(BV, 8))[0] == 1
    assert cpu.data(160, 256) == b"\xcc" * 256
