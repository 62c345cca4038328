"""The oracle of vec_oracle.c, and the comparison of single instructions on it and on the silicon."""

import ctypes
import platform
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import vec_cases
from bare_cpu import DATA, DATA_SIZE, RDI, RSP, BareCpu

STATUS = 0x8D5
NO_EXCEPTION = (1 << 64) - 1
_F32 = (
    0,
    0x80000000,
    0x3F800000,
    0xBF800000,
    0x7F800000,
    0xFF800000,
    0x7FC00000,
    0x7F800001,
    0xFFC12345,
    1,
    0x807FFFFF,
    0x00800000,
    0x7F7FFFFF,
    0x40490FDB,
    0x4F000000,
    0xCF000000,
    0x33800000,
    0x00400000,
    0x1F000000,
    0x20000000,
)
_F64 = (
    0,
    1 << 63,
    0x3FF << 52,
    0xBFF << 52,
    0x7FF << 52,
    0xFFF << 52,
    0x7FF8 << 48,
    (0x7FF << 52) | 1,
    0xFFF81234 << 32,
    1,
    0x800FFFFFFFFFFFFF,
    1 << 52,
    0x7FEFFFFFFFFFFFFF,
    0x400921FB54442D18,
    0x41E << 52,
    0xC1E << 52,
    0x3CA << 52,
    1 << 51,
    0x380 << 52,
    0x36A << 52,
    0x47F << 52,
    0x1FF << 52,
)
_F80 = (
    0,
    0x3FFF8000000000000000,
    0x4000C90FDAA22168C235,
    0xBFFF8000000000000000,
    0x3FFE8000000000000000,
    0x40008000000000000000,
    0x403E8000000000000000,
    0x7FFF8000000000000000,
    0xFFFF8000000000000000,
    0x7FFFC000000000000000,
)


class _State(ctypes.Structure):
    _fields_ = (
        ("fx", ctypes.c_uint8 * 1024),
        ("gpr", ctypes.c_uint64 * 16),
        ("rflags", ctypes.c_uint64),
        ("vector", ctypes.c_uint64),
        ("host_rsp", ctypes.c_uint64),
        ("code", ctypes.c_uint64),
        ("wide", ctypes.c_uint64),
    )


def host_flags() -> frozenset[str]:
    """The instruction-set flags of the host, as Linux names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":")[1].split()) | {"sse3"}
    return frozenset()


class Oracle:
    """The host's own CPU."""

    def __init__(self, where: Path) -> None:
        source, library = Path(__file__).with_name("vec_oracle.c"), where / "oracle.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        self._lib = ctypes.CDLL(str(library))
        self._lib.oracle_state.restype = ctypes.POINTER(_State)
        self._lib.oracle_data.restype = ctypes.c_void_p
        self.wide = "avx" in host_flags()
        assert self._lib.oracle_init(int(self.wide)) == 0, "the fixed addresses are taken"
        self.state = self._lib.oracle_state().contents
        self.data = self._lib.oracle_data()

    def run(self, code: bytes) -> None:
        """Runs from `state` and `data`; the result is there too."""
        self._lib.oracle_run(code, len(code))


_oracle: list[Oracle] = []  # its addresses are fixed: one a process


def make_oracle(where: Path) -> Oracle:
    """The oracle, or a skip that says what this host lacks."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("native comparison needs Linux on x86-64")
    for tool in ("gcc", "as", "objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"native comparison needs {tool}")
    if not _oracle:
        _oracle.append(Oracle(where))
    return _oracle[0]


def random_xmm(rng: random.Random) -> bytes:
    """16 bytes: numbers at the edges of the formats, ordinary numbers, text, noise."""
    kind = rng.random()
    if kind < 0.25:
        return rng.randbytes(16)
    if kind < 0.55:
        return struct.pack("<4I", *(rng.choice(_F32) for _ in range(4)))
    if kind < 0.8:
        return struct.pack("<2Q", *(rng.choice(_F64) for _ in range(2)))
    if kind < 0.9:
        return struct.pack("<4f", *(rng.uniform(-1000, 1000) for _ in range(4)))
    if kind < 0.95:
        return bytes(rng.choice((0, 0, 65, 66, 67, 255)) for _ in range(16))
    return struct.pack("<2d", *(rng.uniform(-1000, 1000) for _ in range(2)))


def random_st(rng: random.Random) -> bytes:
    """10 bytes: an extended-precision number of any kind, invalid encodings included."""
    kind = rng.random()
    if kind < 0.2:
        return rng.randbytes(10)
    if kind < 0.4:
        return struct.pack(
            "<QH", rng.getrandbits(64) | 1 << 63, 0x3FFF + rng.randrange(-70, 70) | rng.choice((0, 0x8000))
        )
    if kind < 0.5:
        mantissa = rng.choice((0, 1 << 63, 3 << 62, (1 << 63) | 1, 1, 1 << 62, (1 << 64) - 1))
        return struct.pack("<QH", mantissa, rng.choice((0, 0x7FFF, 0xFFFF, 0x8000, 1, 0x7FFE, 0x3FFF, 0xBFFF)))
    if kind < 0.6:
        mantissa = rng.randrange(1, 512) << 54 | 1 << 63
        exponent = rng.choice((0, 1, 2, 0x7FFE, 0x7FFD, 0x43FF, 0x3C00, 0x3F80, 0x407E, 0x407F))
        return struct.pack("<QH", mantissa, exponent)
    return rng.choice(_F80).to_bytes(10, "little")


def random_area(rng: random.Random, exceptions: bool) -> bytes:
    """An XSAVE image of x87, SSE and AVX state. `exceptions`: masks and rounding anyhow."""
    area = bytearray(832)
    fcw = 0x37F
    if rng.random() < 0.5:
        masks = rng.choice((0x3F, 0x3F, 0x3F, rng.getrandbits(6))) if exceptions else 0x3F
        fcw = 0x40 | masks | rng.choice((0, 2, 3)) << 8 | rng.randrange(4) << 10
    fsw = rng.choice((0, rng.randrange(8))) << 11 | rng.choice((0, 0x4700)) & rng.getrandbits(16)
    if rng.random() < 0.3:
        fsw |= rng.getrandbits(6) & fcw & 0x3F
    if exceptions and rng.random() < 0.05:
        fsw |= rng.getrandbits(6)
    pending = fsw & ~fcw & 0x3F
    if pending:
        fsw |= 0x8080
    struct.pack_into("<HHB", area, 0, fcw, fsw, rng.choice((0xFF, 0xFF, 0, rng.getrandbits(8))))
    if pending:
        struct.pack_into("<HQQ", area, 6, rng.getrandbits(11), rng.getrandbits(40), rng.getrandbits(40))
    mxcsr = 0x1F80
    if rng.random() < 0.6:
        masks = rng.choice((0x3F, 0x3F, rng.getrandbits(6))) if exceptions else 0x3F
        mxcsr = masks << 7 | rng.choice((0, rng.getrandbits(6))) | rng.choice((0, 0x40)) | rng.choice((0, 0x8000))
        mxcsr |= rng.randrange(4) << 13
    struct.pack_into("<I", area, 24, mxcsr)
    for i in range(8):
        area[32 + 16 * i : 42 + 16 * i] = random_st(rng)
    for at in (160, 576):
        for i in range(16):
            area[at + 16 * i : at + 16 * i + 16] = random_xmm(rng)
    struct.pack_into("<Q", area, 512, 7)
    return bytes(area)


@dataclass(slots=True)
class Case:
    """One instruction to compare: text for people, code for the CPUs, RDI, and what to put in memory."""

    text: str
    code: bytes
    rdi: int
    data: bytes
    area: bytes
    gpr: list[int] = field(default_factory=list)
    rflags: int = 2


def make_cases(templates: list[str], rng: random.Random, where: Path, count: int, x87: bool = False) -> list[Case]:
    """`count` instructions of each template with random operands."""
    filled = [(template, *vec_cases.fill(template, rng)) for template in templates for _ in range(count)]
    codes = vec_cases.assemble([text for _, text, _ in filled], where)
    cases = []
    for (template, text, rdi), code in zip(filled, codes, strict=True):
        # the silicon does not take PE apart for these when overflow or underflow is unmasked
        plain = any(name in template for name in ("vfm", "vfnm", "ps2ph", "dpp"))
        area = bytearray(random_area(rng, not plain))
        data = bytearray(rng.randbytes(256) * (DATA_SIZE // 256))
        for at in range(0, 4096, 16):
            data[at : at + 16] = random_st(rng) + rng.randbytes(6) if x87 else random_xmm(rng)
        if "ldmxcsr" in template:
            for at in range(0, DATA_SIZE, 4):
                data[at + 2 : at + 4] = b"\0\0" if rng.random() < 0.9 else b"\1\0"
        if "gather" in template:
            rdi = DATA + rng.choice((3000, 3000, 3000, 4000, 5600))
            for register in (2, 9):
                for at in (160 + 16 * register, 576 + 16 * register):
                    four = [rng.randrange(-300, 300) for _ in range(4)]
                    area[at : at + 16] = (
                        struct.pack("<4i", *four) if "erd" in template else struct.pack("<2q", *four[:2])
                    )
        gpr = [
            rng.choice(
                (rng.getrandbits(64), rng.getrandbits(32), rng.randrange(20), -rng.randrange(20) & (1 << 64) - 1)
            )
            for _ in range(16)
        ]
        gpr[RDI] = rdi
        cases.append(Case(text, code, rdi, bytes(data), bytes(area), gpr, 0x2 | rng.getrandbits(12) & STATUS))
    return cases


def differences(case: Case, cpu: BareCpu, oracle: Oracle) -> list[str]:
    """Runs the case on both and says where they differ."""
    state = oracle.state
    ctypes.memmove(oracle.data, case.data, DATA_SIZE)
    ctypes.memmove(state.fx, case.area, 832)
    for i in range(16):
        state.gpr[i] = case.gpr[i]
    state.rflags = case.rflags | 0x200
    oracle.run(case.code)
    native, native_data = bytes(state.fx), ctypes.string_at(oracle.data, DATA_SIZE)
    vector = None if state.vector == NO_EXCEPTION else state.vector

    cpu.set_data(case.data)
    cpu.area[:] = case.area + bytes(4096 - 832)
    got = cpu.run(case.code, case.gpr, case.rflags, rip=state.code)
    out = []

    def check(name: str, native_value: object, value: object) -> None:
        if native_value != value:
            out.append(f"{name}: native {native_value}, silicon {value}")

    check("vector", vector, got.vector)
    check("FCW FSW FTW", native[:5].hex(), got.area[:5].hex())
    if native[2] & 0x80:
        check("FOP FIP FDP", native[6:24].hex(), got.area[6:24].hex())
    check("MXCSR", native[24:28][::-1].hex(), got.area[24:28][::-1].hex())
    for i in range(8):
        at = 32 + 16 * i
        check(f"ST{i}", native[at : at + 10][::-1].hex(), got.area[at : at + 10][::-1].hex())
    high = native[576:832] if native[512] & 4 else bytes(256)
    for i in range(16):
        at = 160 + 16 * i
        check(f"XMM{i}", native[at : at + 16][::-1].hex(), got.area[at : at + 16][::-1].hex())
        if oracle.wide:
            check(f"YMM{i} high", high[16 * i : 16 * i + 16].hex(), got.area[576 + 16 * i : 592 + 16 * i].hex())
        if i != RSP:
            check(f"R{i}", hex(state.gpr[i]), hex(got.gpr[i]))
    check("flags", hex(state.rflags & STATUS), hex(got.rflags & STATUS))
    data = cpu.data()
    if data != native_data:
        at = next(i for i in range(DATA_SIZE) if data[i] != native_data[i])
        check(f"memory at RDI{DATA + at - case.rdi:+d}", native_data[at : at + 16].hex(), data[at : at + 16].hex())
    return out


def assert_same(cases: list[Case], cpu: BareCpu, oracle: Oracle) -> None:
    """All cases agree; otherwise names the first few that do not."""
    wrong = []
    for case in cases:
        found = differences(case, cpu, oracle)
        if found:
            wrong.append(
                f"{case.text} ({case.code.hex()}), FCW..FTW {case.area[:5].hex()}, MXCSR "
                f"{case.area[24:28][::-1].hex()}, flags {case.rflags:#x}:\n    " + "\n    ".join(found[:6])
            )
    assert not wrong, f"{len(wrong)} of {len(cases)} differ\n" + "\n".join(wrong[:5])
