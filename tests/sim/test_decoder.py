"""The silicon's decoder against a second one (iced-x86): lengths, memory operands, immediates, and what is #UD."""

import random
from typing import Any

import pytest

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
