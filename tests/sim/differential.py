"""Random programs on two backends: running, comparing, and shrinking what differs."""

import random
import struct
from dataclasses import dataclass
from pathlib import Path

import vec_cases
from native_cpu import AREA_SIZE, CODE, DATA_SIZE, GPR_NAMES, STACK_TOP, Ending, RingThree
from programs import BASE, STATUS, Step, Writer, after
from vec_native import random_area, random_xmm

_FLAGS = STATUS | 0x400 | 1 << 18 | 1 << 21 | 1 << 14 | 1 << 8
_RF = 1 << 16


@dataclass(slots=True)
class Program:
    """Steps, and the state that they start from."""

    steps: list[Step]
    gpr: list[int]
    rflags: int
    area: bytes
    data: bytes

    @property
    def code(self) -> bytes:
        return b"".join(step.code for step in self.steps)

    def undefined_at(self, rip: int) -> int:
        """The flags that are undefined when the step at `rip` has begun; None of them is known to be defined."""
        undefined, at = 0, CODE
        for step in self.steps:
            following = after(step, undefined)
            if rip == at:
                return undefined
            if rip < at + len(step.code):
                return undefined | following
            at, undefined = at + len(step.code), following
        return undefined

    def readable(self) -> bool:
        """Whether no step reads an undefined flag."""
        undefined = 0
        for step in self.steps:
            if step.reads & undefined:
                return False
            undefined = after(step, undefined)
        return True


def make_programs(rng: random.Random, count: int, length: int, vector: list[str], where: Path) -> list[Program]:
    """`count` assembled programs of about `length` steps."""
    writer = Writer(rng, vector)
    all_steps = [writer.program(length) for _ in range(count)]
    codes = iter(vec_cases.assemble([step.text for steps in all_steps for step in steps], where))
    out = []
    for steps in all_steps:
        for step in steps:
            step.code = next(codes)
        gpr = [rng.getrandbits(rng.choice((64, 64, 32, 7))) for _ in range(16)]
        gpr[4], gpr[14], gpr[15] = STACK_TOP, rng.randrange(32), BASE
        area = bytearray(random_area(rng, False)[:AREA_SIZE])
        struct.pack_into("<Q", area, 512, 3)
        data = bytearray(rng.randbytes(DATA_SIZE))
        for at in range(0, DATA_SIZE, 16):
            if rng.random() < 0.5:
                data[at : at + 16] = random_xmm(rng)
        out.append(Program(steps, gpr, 0x202 | rng.getrandbits(12) & STATUS, bytes(area), bytes(data)))
    return out


def run(program: Program, cpu: RingThree) -> Ending:
    return cpu.run(program.code, program.gpr, program.rflags, program.area, program.data)


def compare(program: Program, native: Ending, simulated: Ending) -> list[str]:
    """Where two runs of the program ended differently."""
    out = []

    def check(name: str, want: object, got: object) -> None:
        if want != got:
            out.append(f"{name}: native {want}, simulated {got}")

    for name in ("vector", "error", "cr2", "rip"):
        check(name, getattr(native, name), getattr(simulated, name))
    if out:
        return out
    undefined = program.undefined_at(native.rip)
    check("rflags", hex(native.rflags & _FLAGS & ~undefined), hex(simulated.rflags & _FLAGS & ~undefined))
    check("RF", native.rflags & _RF, simulated.rflags & _RF)
    for name, want, got in zip(GPR_NAMES, native.gpr, simulated.gpr, strict=True):
        check(name, hex(want), hex(got))
    for what, want_bytes, got_bytes in (
        ("data", native.data, simulated.data),
        ("stack", native.stack, simulated.stack),
    ):
        if want_bytes != got_bytes:
            at = next(i for i, (a, b) in enumerate(zip(want_bytes, got_bytes, strict=True)) if a != b)
            check(f"{what}+{at:#x}", want_bytes[at : at + 16].hex(), got_bytes[at : at + 16].hex())
    want_area, got_area = standard(native.area), standard(simulated.area)
    check("FCW FSW FTW", want_area[:5].hex(), got_area[:5].hex())
    check("MXCSR", want_area[24:28].hex(), got_area[24:28].hex())
    for i in range(8):
        check(f"ST{i}", want_area[32 + 16 * i : 42 + 16 * i].hex(), got_area[32 + 16 * i : 42 + 16 * i].hex())
    for i in range(16):
        check(f"XMM{i}", want_area[160 + 16 * i : 176 + 16 * i].hex(), got_area[160 + 16 * i : 176 + 16 * i].hex())
    return out


def standard(area: bytes) -> bytes:
    """The XSAVE image with what XSTATE_BV calls initial filled in."""
    out = bytearray(area)
    present = struct.unpack_from("<Q", area, 512)[0]
    if not present & 1:
        out[:24] = b"\x7f\x03" + bytes(22)
        out[32:160] = bytes(128)
    if not present & 2:
        out[160:416] = bytes(256)
    return bytes(out)


def shrink(program: Program, native: RingThree, simulated: RingThree) -> Program:
    """The same difference, or another one, with as few steps as leaving out one at a time comes to."""
    smaller = True
    while smaller:
        smaller = False
        for i in reversed(range(len(program.steps))):
            steps = program.steps[:i] + program.steps[i + 1 :]
            candidate = Program(steps, program.gpr, program.rflags, program.area, program.data)
            if candidate.readable() and compare(candidate, run(candidate, native), run(candidate, simulated)):
                program, smaller = candidate, True
    return program


def report(program: Program, native: RingThree, simulated: RingThree) -> str:
    """What differs, with what is needed to see it again."""
    lines = [f"  {step.code.hex():24} {step.text}" for step in program.steps]
    registers = " ".join(f"{name}={value:x}" for name, value in zip(GPR_NAMES, program.gpr, strict=True))
    found = compare(program, run(program, native), run(program, simulated))
    return "\n".join([*lines, f"  from {registers} rflags={program.rflags:x}", *(f"    {line}" for line in found[:8])])
