"""The silicon's decoder against a second one (iced-x86): lengths, memory operands, immediates, and what is #UD."""

import random
from typing import Any

import pytest
from bare_cpu import CODE, CODE_16, DATA, REAL, BareCpu

from pyhv.hv.config import VmConfig
from pyhv.hv.sim.hypervisor import SimHypervisor
from pyhv.hv.sim.native import ffi, lib

iced = pytest.importorskip("iced_x86", reason="needs iced-x86: pip install -e '.[dev]'")

CASES = 12_000
_PREFIXES = (0x66, 0xF2, 0xF3, 0x67, 0x2E, 0x36, 0x64, 0x65, 0xF0)


def random_bytes(rng: random.Random, bits: int) -> bytes:
    """15 bytes that begin with an instruction, more often than noise one with prefixes or of the later opcode maps."""
    out = bytearray()
    while rng.random() < 0.3:
        out.append(rng.choice(_PREFIXES))
    if bits == 64 and rng.random() < 0.4:
        out.append(0x40 | rng.randrange(16))
    kind = rng.randrange(10)
    if kind < 3:
        out.append(0x0F)
    elif kind == 3:
        out += b"\x0f\x38"
    elif kind == 4:
        out += b"\x0f\x3a"
    elif kind == 5:
        out += bytes((0xC4, rng.randrange(8) << 5 | rng.randrange(1, 4), rng.getrandbits(8)))
    elif kind == 6:
        out += bytes((0xC5, rng.getrandbits(8)))
    return bytes(out + rng.randbytes(15))[:15]


def _registers() -> dict[int, int]:
    names = (
        "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15",
        "EAX ECX EDX EBX ESP EBP ESI EDI R8D R9D R10D R11D R12D R13D R14D R15D",
        "AX CX DX BX SP BP SI DI",
    )
    out = {getattr(iced.Register, name): i for line in names for i, name in enumerate(line.split())}
    return out | {iced.Register.NONE: 16, iced.Register.RIP: 17, iced.Register.EIP: 17}


REGISTERS = _registers()
SEGMENTS = {getattr(iced.Register, name): i for i, name in enumerate(("ES", "CS", "SS", "DS", "FS", "GS"))}
_ABSENT_ENCODINGS = (iced.EncodingKind.EVEX, iced.EncodingKind.XOP, iced.EncodingKind.D3NOW)
_OTHERWISE = ("ud0", "vpermil2")
"""UD0: iced gives AMD's no ModRM; it is #UD in any length. VPERMIL2: iced tells the register in the immediate apart."""


def second_opinion(code: bytes, bits: int) -> Any:
    """What iced-x86 takes the bytes for, as an AMD processor would; None when they are no instruction."""
    instruction = iced.Decoder(bits, code, iced.DecoderOptions.AMD).decode()
    return None if instruction.is_invalid else instruction


def memory_operand(instruction: Any, asize: int, bits: int) -> tuple[int, ...]:
    mask = 0xFFFF if asize == 2 else 0xFFFF_FFFF
    displacement = instruction.memory_displacement
    base, index = REGISTERS[instruction.memory_base], REGISTERS[instruction.memory_index]
    if base == 17:
        displacement -= instruction.len
    segment = SEGMENTS[instruction.memory_segment]
    if bits == 64 and segment < 4:
        segment = 3  # all the same there
    scale = instruction.memory_index_scale if index != 16 else 1
    return base, index, scale, displacement & mask, segment


def format_difference(code: bytes, bits: int, instruction: Any, ours: Any) -> str:
    """Where the silicon's parse differs, empty when it does not."""
    length = lib.sim_decode_format(code, len(code), bits, ours)
    if instruction.encoding in _ABSENT_ENCODINGS or str(instruction).startswith(_OTHERWISE):
        return ""
    if length != instruction.len:
        return f"length {length}, not {instruction.len}"
    kinds = [instruction.op_kind(i) for i in range(instruction.op_count)]
    if ours.memory and iced.OpKind.MEMORY in kinds and not instruction.is_vsib:
        mask = 0xFFFF if ours.asize == 2 else 0xFFFF_FFFF
        segment = 3 if bits == 64 and ours.seg < 4 else ours.seg
        scale = 1 << ours.scale if ours.index != 16 else 1
        got = (ours.base, ours.index, scale, ours.disp & mask, segment)
        want = memory_operand(instruction, ours.asize, bits)
        if got != want:
            return f"memory operand {got}, not {want}"
    elif ours.memory and iced.OpKind.MEMORY not in kinds:
        return "a memory operand too many"
    if iced.OpKind.IMMEDIATE8_2ND in kinds:  # INSERTQ: the silicon has both as one
        return ""
    immediates = [k for k in kinds if k in (iced.OpKind.IMMEDIATE8, iced.OpKind.IMMEDIATE16, iced.OpKind.IMMEDIATE32)]
    if len(immediates) == 1 and ours.imm_size:
        size = 8 * ours.imm_size
        want_immediate = instruction.immediate(kinds.index(immediates[0])) & (1 << size) - 1
        if ours.imm & (1 << size) - 1 != want_immediate:
            return f"immediate {ours.imm:#x}, not {want_immediate:#x}"
    return ""


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_lengths_and_operands(bits: int) -> None:
    rng = random.Random(bits)
    ours = ffi.new("SimFormat *")
    wrong, compared = [], 0
    for _ in range(CASES):
        code = random_bytes(rng, bits)
        instruction = second_opinion(code, bits)
        if instruction is None:
            continue
        compared += 1
        found = format_difference(code, bits, instruction, ours)
        if found:
            wrong.append(f"{code.hex()} {instruction}: {found}")
    assert compared > CASES // 3
    assert not wrong, f"{len(wrong)} of {compared}\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_every_prefix_of_an_instruction_is_too_short(bits: int) -> None:
    rng = random.Random(bits + 1)
    ours = ffi.new("SimFormat *")
    for _ in range(1000):
        code = random_bytes(rng, bits)
        length = lib.sim_decode_format(code, 15, bits, ours)
        if length > 0:
            assert [lib.sim_decode_format(code, n, bits, ours) for n in range(length)] == [0] * length, code.hex()
            assert lib.sim_decode_format(code, length, bits, ours) == length


class OneInstruction(BareCpu):
    """Says whether bytes raise #UD, by running them at CPL 0 with all that the simulated CPU can do enabled."""

    def __init__(self) -> None:
        super().__init__()
        self._hypervisor = SimHypervisor()
        entries, count = self._hypervisor.host_cpuid(VmConfig(cpu="max"))
        lib.sim_set_cpuid(self.machine, entries, count)
        self._stats = ffi.new("SimStats *")
        self.efer |= 1  # SYSCALL

    def _invalid_opcodes(self) -> int:
        lib.sim_stats(self.cpu, self._stats)
        return int(self._stats.exceptions[6])

    def is_undefined(self, code: bytes, mode: int) -> bool:
        self._tables()
        low = mode in (16, REAL)
        at = CODE_16 if low else CODE - 0x2001_0000 + 0x11_0000
        self.ram[at : at + 16] = code + b"\xf4"
        lib.sim_host_wrote(self.machine, at & ~4095, 4096)
        gpr = [0x5000 + i * 16 if low else DATA + i * 256 for i in range(16)]
        gpr[1] = 1
        assert lib.sim_set_state(self.cpu, self._state(gpr, CODE_16 if low else CODE, 2, mode)) == 0
        before = self._invalid_opcodes()
        for _ in range(64):
            if lib.sim_run(self.cpu, 1) != lib.SIM_STOP_MMIO:
                break
            lib.sim_access_done(self.cpu, 0)
        return self._invalid_opcodes() != before


_ABSENT_FEATURES = (
    "AVX512 AVX_ AVX10 AMX FMA4 XOP TBM LWP D3NOW PADLOCK SMM SMX VMX RAO_INT MOVDIR AESKLE RTM HLE CET WRMSRNS INVPCID MPX "
    "SGX UINTR ENQCMD PKU WAITPKG PTWRITE SEV_SNP GFNI VAES VPCLMULQDQ SHA512 SM3 SM4 MSRLIST CMPCCXADD SERIALIZE HRESET "
    "TSXLDTRK PREFETCHI FRED LKGS RDPID CLDEMOTE PCONFIG MCOMMIT INVLPGB SNP TSE WBNOINVD UDBG PBNDKB"
).split()
"""Extensions whose instructions the silicon may leave undefined; those that the host lends it, it may define."""
_UNDEFINED_BY_NAME = ("ud0", "ud1", "ud2")
_NOT_IN_REAL_MODE = ("arpl", "lar", "lsl", "lldt", "ltr", "sldt", "str", "verr", "verw", "syscall", "sysret", "sysexit")


def may_be_undefined(instruction: Any, mode: int) -> bool:
    """Whether #UD is right for what iced takes for an instruction."""
    name = str(instruction).split()[0]
    if name in _UNDEFINED_BY_NAME or name == "nop":  # 0F 0D with registers is #UD on AMD's processors
        return True
    if name in ("sysenter", "sysexit") and mode != REAL:  # AMD's processors have neither in long mode
        return True
    if any(_FEATURE_NAMES[f].startswith(tuple(_ABSENT_FEATURES)) for f in instruction.cpuid_features()):
        return True
    return mode == REAL and (name in _NOT_IN_REAL_MODE or instruction.encoding == iced.EncodingKind.VEX)


_FEATURE_NAMES = {value: name for name, value in vars(iced.CpuidFeature).items() if isinstance(value, int)}


@pytest.mark.parametrize("mode", [64, 32, 16, REAL])
def test_what_is_undefined(mode: int) -> None:
    bits = mode or 16
    rng = random.Random(f"undefined {mode}")
    cpu, ours = OneInstruction(), ffi.new("SimFormat *")
    wrong, undefined = [], 0
    for _ in range(CASES // 4):
        code = random_bytes(rng, bits)
        if lib.sim_decode_format(code, 15, bits, ours) <= 0:
            continue
        instruction, is_undefined = second_opinion(code, bits), cpu.is_undefined(code, mode)
        undefined += is_undefined
        if instruction is None and not is_undefined:
            if bits != 64 and code.lstrip(bytes(_PREFIXES))[:1] in (b"\xc4", b"\xc5"):
                continue  # the top bit of VEX.vvvv, ignored outside 64-bit mode; where it must be 1 the manuals differ
            wrong.append(f"{code.hex()} runs, and is no instruction")
        elif instruction is not None and is_undefined and not may_be_undefined(instruction, mode):
            wrong.append(f"{code.hex()} {instruction} is #UD")
    assert undefined > CASES // 40
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:20])
