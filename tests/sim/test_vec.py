"""SSE, MMX, AVX and their relatives: against the real CPU, and the rules of when they may run at all."""

import random
import struct
from pathlib import Path

import pytest
import vec_cases
from bare_cpu import (
    CR0_EM,
    CR0_TS,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_OSXSAVE,
    DATA,
    DEVICE,
    GP,
    MF,
    NM,
    PF,
    RDI,
    UD,
    XF,
    BareCpu,
)
from vec_native import Oracle, assert_same, host_flags, make_cases, make_oracle

MXCSR_INIT = 0x1F80


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return make_oracle(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def cpu() -> BareCpu:
    out = BareCpu()
    out.area[:] = bytes(4096)
    out.area[0:2] = b"\x7f\x03"
    out.area[24:28] = struct.pack("<I", MXCSR_INIT)
    return out


def at(address: int) -> list[int]:
    gpr = [0] * 16
    gpr[RDI] = address
    return gpr


@pytest.mark.parametrize("isa", sorted(vec_cases.VECTOR))
def test_same_as_the_real_cpu(isa: str, oracle: Oracle, tmp_path: Path) -> None:
    if isa not in host_flags():
        pytest.skip(f"the host has no {isa}, so the silicon does not offer it")
    rng = random.Random(isa)
    assert_same(make_cases(vec_cases.VECTOR[isa], rng, tmp_path, 4), BareCpu(), oracle)


@pytest.mark.parametrize("isa", sorted(vec_cases.AVX))
def test_same_as_the_real_cpu_avx(isa: str, oracle: Oracle, tmp_path: Path) -> None:
    if not {isa, "avx2"} <= host_flags():
        pytest.skip(f"the host has no {isa}, so the silicon does not offer it")
    rng = random.Random(isa)
    assert_same(make_cases(vec_cases.AVX[isa], rng, tmp_path, 2), BareCpu(), oracle)


MOVUPS, ADDPS, PXOR, PADDB_MMX, CVTPI2PS = "0f1007", "0f58c1", "660fefc1", "0ffcc1", "0f2ac1"
VADDPS, PMOVMSKB_MMX, LDMXCSR, EMMS = "c5f058c1", "0fd7c1", "0fae17", "0f77"


@pytest.mark.parametrize("code", [MOVUPS, ADDPS, PXOR, CVTPI2PS, LDMXCSR])
@pytest.mark.parametrize(
    ("cr0", "cr4", "vector"),
    [(CR0_EM, 0, UD), (0, CR4_OSFXSR, UD), (CR0_TS, 0, NM), (CR0_TS | CR0_EM, 0, UD), (0, 0, None)],
)
def test_sse_needs_the_operating_system(cpu: BareCpu, code: str, cr0: int, cr4: int, vector: int | None) -> None:
    cpu.cr0 |= cr0
    cpu.cr4 &= ~cr4
    assert cpu.run(bytes.fromhex(code), at(DATA)).vector == vector


@pytest.mark.parametrize("code", [PADDB_MMX, PMOVMSKB_MMX, EMMS])
@pytest.mark.parametrize(("cr0", "fsw", "vector"), [(CR0_EM, 0, UD), (CR0_TS, 0, NM), (0, 1, MF), (0, 0, None)])
def test_mmx_needs_no_osfxsr_but_the_x87_unit(cpu: BareCpu, code: str, cr0: int, fsw: int, vector: int | None) -> None:
    cpu.cr0 |= cr0
    cpu.cr4 &= ~CR4_OSFXSR
    cpu.area[0:4] = struct.pack("<HH", 0x37E, fsw)
    assert cpu.run(bytes.fromhex(code)).vector == vector


@pytest.mark.skipif(not BareCpu.xcr0_supported() & 4, reason="the host has no AVX")
@pytest.mark.parametrize(
    ("cr0", "cr4", "xcr0", "vector"),
    [(0, 0, 7, None), (0, 0, 3, UD), (0, CR4_OSXSAVE, 7, UD), (CR0_TS, 0, 7, NM), (CR0_EM, 0, 7, None)],
)
def test_avx_needs_xcr0(cpu: BareCpu, cr0: int, cr4: int, xcr0: int, vector: int | None) -> None:
    cpu.cr0 |= cr0
    cpu.cr4 &= ~cr4
    cpu.xcr0 = xcr0
    assert cpu.run(bytes.fromhex(VADDPS)).vector == vector


@pytest.mark.parametrize(
    ("code", "vector"),
    [
        ("0f2807", GP),
        ("0f2907", GP),
        ("660f6f07", GP),
        ("660f7f07", GP),
        ("0f2b07", GP),
        ("660fe707", GP),
        ("0f5807", GP),
        ("660fef07", GP),
        ("0f1007", None),
        ("0f1107", None),
        ("f30f6f07", None),
        ("f30f5807", None),
        ("660f3a630700", None),
    ],
)
def test_alignment(cpu: BareCpu, code: str, vector: int | None) -> None:
    """Operands of 16 bytes must be aligned but for the moves that say otherwise, and PCMPxSTRx."""
    assert cpu.run(bytes.fromhex(code), at(DATA)).vector is None
    assert cpu.run(bytes.fromhex(code), at(DATA + 8)).vector == vector


def test_misaligned_exception_mask(cpu: BareCpu) -> None:
    """MXCSR.MM lifts the rule for loads with operation, not for MOVAPS."""
    cpu.area[24:28] = struct.pack("<I", MXCSR_INIT | 1 << 17)
    assert cpu.run(bytes.fromhex("0f5807"), at(DATA + 4)).vector is None
    assert cpu.run(bytes.fromhex("660fef07"), at(DATA + 4)).vector is None
    assert cpu.run(bytes.fromhex("0f2807"), at(DATA + 4)).vector == GP


def test_misaligned_fault_comes_before_the_page_fault(cpu: BareCpu) -> None:
    assert cpu.run(bytes.fromhex("0f2807"), at(DATA + 8192 + 8)).vector == GP
    assert cpu.run(bytes.fromhex("0f2807"), at(DATA + 8192)).vector == PF


def test_a_store_across_a_missing_page_writes_nothing(cpu: BareCpu) -> None:
    cpu.set_data(b"\xaa" * 8192)
    got = cpu.run(bytes.fromhex("f30f7f07"), at(DATA + 8192 - 8))
    assert (got.vector, got.error, got.cr2) == (PF, 2, DATA + 8192)
    assert cpu.data() == b"\xaa" * 8192


@pytest.mark.parametrize(("bits", "vector"), [(0xFFFF, None), (0x1_0000, GP), (0x4_0000, GP), (0x8000_0000, GP)])
def test_ldmxcsr_reserved_bits(cpu: BareCpu, bits: int, vector: int | None) -> None:
    cpu.set_data(struct.pack("<I", bits))
    got = cpu.run(bytes.fromhex(LDMXCSR), at(DATA))
    assert got.vector == vector
    assert struct.unpack_from("<I", got.area, 24)[0] == (bits if vector is None else MXCSR_INIT)


@pytest.mark.parametrize(("cr4", "vector"), [(CR4_OSXMMEXCPT, XF), (0, UD)])
def test_unmasked_exception(cpu: BareCpu, cr4: int, vector: int) -> None:
    """Division by zero, unmasked: the flag is set, the destination is not, and CR4 says which vector it is."""
    cpu.cr4 = cpu.cr4 & ~CR4_OSXMMEXCPT | cr4
    cpu.area[24:28] = struct.pack("<I", MXCSR_INIT & ~0x200)
    cpu.area[160:176] = struct.pack("<4f", 1, 1, 1, 1)
    got = cpu.run(bytes.fromhex("0f5ec1"))
    assert got.vector == vector
    assert struct.unpack_from("<4f", got.area, 160) == (1, 1, 1, 1)
    assert struct.unpack_from("<I", got.area, 24)[0] == MXCSR_INIT & ~0x200 | 4


@pytest.mark.parametrize("bit", [(1, 0, 3, 25), (1, 0, 3, 26)])
def test_masked_features_are_undefined(bit: tuple[int, int, int, int]) -> None:
    cpu = BareCpu(without=(bit,))
    code = {25: "0f58c1", 26: "660fefc1"}[bit[3]]
    assert cpu.run(bytes.fromhex(code)).vector == UD


@pytest.mark.parametrize(
    "code",
    [
        "f30f54c1",  # ANDPS has no F3 form
        "f20f28c1",
        "660f13c1",  # MOVLPD stores to memory only
        "0f2bc1",
        "0f7107",  # shifts by an immediate have no memory form
        "0f71c800",  # nor a member /1
        "0f73d800",  # PSRLDQ only with 66
        "f00f58c1",  # LOCK
        "c5f9e7c1",  # VMOVNTDQ to a register
        "c5f15bc1",  # VCVTPS2DQ with an operand in vvvv
        "c4e37919c100",  # VEXTRACTF128 with L = 0
        "c4e2fd18c1",  # VBROADCASTSS with W = 1
        "c5f977",  # VZEROUPPER with 66
        "66c5f058c1",  # a prefix before VEX
    ],
)
def test_undefined_encodings(cpu: BareCpu, code: str) -> None:
    """Prefixes, register forms and group members that name no instruction."""
    assert cpu.run(bytes.fromhex(code), at(DATA)).vector == UD


def test_mmx_write_enters_mmx_mode(cpu: BareCpu) -> None:
    """TOP becomes 0, all tags valid, and the register's exponent all ones."""
    cpu.area[2:5] = struct.pack("<HB", 5 << 11, 0)
    gpr = [0] * 16
    gpr[0] = 0x1122334455667788
    got = cpu.run(bytes.fromhex("480f6ed8"), gpr)  # movq mm3, rax
    assert struct.unpack_from("<HB", got.area, 2) == (0, 0xFF)
    assert got.area[32 + 48 : 42 + 48] == struct.pack("<QH", 0x1122334455667788, 0xFFFF)


@pytest.mark.parametrize("mode", [32, 16])
def test_outside_64_bit_mode(cpu: BareCpu, mode: int) -> None:
    """Addresses go through the segment; VEX is only reached with both top bits of its next byte set."""
    cpu.set_data(bytes(range(16)))
    cpu.ram[0x5000:0x5010] = bytes(range(100, 116))
    gpr = [0] * 16
    gpr[RDI], gpr[3] = 0x5000, 0x5000
    code = bytes.fromhex("f30f6f07")  # movdqu xmm0, [edi], or [bx]
    assert cpu.run(code, gpr, mode=mode).area[160:176] == bytes(range(100, 116))


def test_masked_store_takes_no_fault_for_bytes_not_chosen(cpu: BareCpu) -> None:
    cpu.set_data(bytes(8192))
    cpu.area[160:176] = bytes(range(1, 17))
    cpu.area[176:192] = b"\x80" * 8 + bytes(8)
    got = cpu.run(bytes.fromhex("660ff7c1"), at(DATA + 8192 - 8))
    assert got.vector is None
    assert cpu.data(8184, 8) == bytes(range(1, 9))
    cpu.area[176:192] = b"\x80" * 9 + bytes(7)
    cpu.set_data(bytes(8), 8184)
    assert cpu.run(bytes.fromhex("660ff7c1"), at(DATA + 8192 - 8)).vector == PF
    assert cpu.data(8184, 8) == bytes(8)


def test_random_bytes_in_the_vector_maps(cpu: BareCpu) -> None:
    """Whatever follows 0F, 0F 38, 0F 3A or VEX either runs or faults; the machine stays usable."""
    rng = random.Random(3)
    heads = [
        "0f{:02x}",
        "660f{:02x}",
        "f30f{:02x}",
        "f20f{:02x}",
        "0f38{:02x}",
        "660f38{:02x}",
        "660f3a{:02x}",
        "0f3a{:02x}",
        "c4e1{:02x}",
        "c5{:02x}",
        "c4e2{:02x}",
        "c4e3{:02x}",
        "d8{:02x}",
        "d9{:02x}",
        "da{:02x}",
        "db{:02x}",
        "dc{:02x}",
        "dd{:02x}",
        "de{:02x}",
        "df{:02x}",
    ]
    ours = {
        *range(0x10, 0x18),
        *range(0x28, 0x30),
        *range(0x50, 0x77),
        *range(0x78, 0x80),
        0xAE,
        0xC2,
        *range(0xC4, 0xC8),
        *range(0xD0, 0xFF),
    }
    for head in heads:
        for opcode in range(256):
            if head.endswith("0f{:02x}") and opcode not in ours:
                continue  # of the integer unit
            reg, rm = rng.choice("01235678"), rng.choice("0123567")  # not RSP
            modrm = rng.choice((0xC0 | int(rm), RDI)) | (int(reg) & 7) << 3
            tail = b"" if head[0] == "d" else bytes((modrm,))
            got = cpu.run(bytes.fromhex(head.format(opcode)) + tail + b"\xf4" * 6, at(DATA + 64))
            assert got.vector is None or got.vector < 20


def test_state_of_the_host_is_left_alone(cpu: BareCpu) -> None:
    """A guest's rounding mode does not leak into this process."""
    cpu.area[24:28] = struct.pack("<I", MXCSR_INIT | 0x6000)
    cpu.area[0:2] = struct.pack("<H", 0x0C7F)
    third = 1.0 / 3.0
    for code in ("f20f5ec1", "d9ebd9e8def9", ADDPS):
        cpu.run(bytes.fromhex(code))
    one = 1.0
    assert one / 3.0 == third


def test_operands_in_a_device(cpu: BareCpu) -> None:
    """Each part is accessed once, however often the instruction restarts."""
    got = cpu.run(bytes.fromhex(MOVUPS), at(DEVICE))
    assert cpu.accesses == [(0, 8, False, 0), (8, 8, False, 0)]
    assert got.area[160:176] == b"\1" * 8 + b"\2" * 8
    cpu.run(bytes.fromhex("d9e8dd1f"), at(DEVICE + 16))  # fld1; fstp qword [rdi]
    assert cpu.accesses == [(16, 8, True, 0x3FF0 << 48)]
    assert struct.unpack_from("<HB", cpu.area, 2) == (0, 0)


@pytest.mark.skipif(not BareCpu.xcr0_supported() & 4, reason="the host has no AVX")
def test_gather_from_a_device(cpu: BareCpu) -> None:
    cpu.area[192:208] = struct.pack("<4i", 0, 3, 1, 2)  # XMM2: indexes
    cpu.area[208:224] = b"\xff" * 8 + bytes(4) + b"\xff" * 4  # XMM3: mask
    got = cpu.run(bytes.fromhex("c4e261920c97"), at(DEVICE))  # vgatherdps xmm1, [rdi+xmm2*4], xmm3
    assert [access[0] for access in cpu.accesses] == [0, 12, 8]
    assert got.area[176:192] == b"\1" * 4 + b"\2" * 4 + bytes(4) + b"\3" * 4
    assert got.area[208:224] == bytes(16)


def test_any_image_is_safe(cpu: BareCpu) -> None:
    """The host may load any bytes as x87 and vector state (a snapshot, a debugger): the units run on."""
    rng = random.Random(12)
    code = bytes.fromhex(
        "d9e8 dec1 dd1f dfe0 0f58c1 f20f5ec1 0ffcc1 660f3a63c10c 0f77 0fae5710 dd3f 480fae8700040000 0fae1f 660fd7c1"
    )
    area = bytes(cpu.area)
    for _ in range(300):
        cpu.area[:] = rng.randbytes(4096)
        got = cpu.run(code, at(DATA))
        assert got.vector in (None, UD, GP, MF, XF)
    cpu.area[:] = area
    cpu.area[160:192] = struct.pack("<8f", *range(8))
    got = cpu.run(bytes.fromhex(ADDPS))
    assert struct.unpack_from("<4f", got.area, 160) == (4, 6, 8, 10)
