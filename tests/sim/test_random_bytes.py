"""Random bytes as an instruction, in ring 3 through KVM and in the simulator: the same fault, or the same effect."""

import random
import re
import struct
from typing import Any

import pytest
from differential import Program, compare, run
from native_cpu import CODE, DATA, DATA_SIZE, STACK_TOP, RingThree
from programs import STATUS, Step
from test_decoder import iced, random_bytes, second_opinion
from test_differential import native, simulated
from vec_native import random_area

__all__ = ["native", "simulated"]
CASES = 12_000
_WORDS = (
    "fs gs es cs ss ds cr0 cr2 cr3 cr4 cr8 dr syscall sysenter sysret cpuid xgetbv xsetbv call rdssp "
    "rdfsbase rdgsbase wrfsbase wrgsbase xsave xrstor fxsave fxrstor loop hlt int far retf rdtsc rdpmc "
    "rdpru rdpid rdrand rdseed vmmcall vmcall sgdt sidt sldt str smsw lar lsl verr verw monitorx mwaitx "
    "rdpkru wrpkru fnstenv fnsave fldenv frstor lfs lgs lss rcp rsqrt f2xm1 fyl2x fptan fpatan fsin fcos "
    "popf"
).split()
"""What depends on the operating system or the model of the CPU, or has a precision of its own; and far and back jumps."""
_MATCHES = re.compile("|".join(rf"\b{word}\b" if len(word) == 2 else rf"\b{word}" for word in _WORDS))
_FEATURES = tuple(
    "AVX VAES VPCL GFNI FMA XOP F16C SHA CET FSGS SVM VMX CLZERO RDPRU WBNOINVD MONITOR CLDEMOTE PKU RTM HLE TBM LWP".split()
)
_NAMES = {value: name for name, value in vars(iced.CpuidFeature).items() if isinstance(value, int)}
_FLAGS = {1: 0x800, 2: 0x80, 4: 0x40, 8: 0x10, 0x10: 1, 0x20: 4}
"""iced's bits of undefined flags, and where RFLAGS has them."""


def comparable(instruction: Any) -> bool:
    text = str(instruction)
    if re.search(_MATCHES, text) or text.startswith("nop") or instruction.memory_displ_size == 8:
        # a host that emulates what faults runs 0F 0D with registers, and takes an SS prefix for a stack access
        return False
    if instruction.near_branch_target < instruction.len and instruction.flow_control != iced.FlowControl.NEXT:
        return False
    return not any(_NAMES[feature].startswith(_FEATURES) for feature in instruction.cpuid_features())


def test_random_bytes_do_the_same(native: RingThree, simulated: RingThree) -> None:
    rng = random.Random("bytes")
    wrong, compared = [], 0
    for _ in range(CASES):
        code = random_bytes(rng, 64)
        instruction = second_opinion(code, 64)
        if instruction is None or not comparable(instruction):
            continue
        compared += 1
        undefined = sum(bit for key, bit in _FLAGS.items() if instruction.rflags_undefined & key)
        step = Step(str(instruction), STATUS, STATUS, undefined, code[: instruction.len])
        gpr = [DATA + 0x800 + 8 * rng.randrange(64) for _ in range(16)]
        gpr[1], gpr[4] = rng.randrange(4), STACK_TOP
        area = bytearray(random_area(rng, False)[:576])
        struct.pack_into("<Q", area, 512, 3)
        program = Program(
            [step], gpr, 0x202 | rng.getrandbits(12) & STATUS, bytes(area), rng.randbytes(256) * (DATA_SIZE // 256)
        )
        on_silicon, in_simulator = run(program, native), run(program, simulated)
        if (on_silicon.vector, in_simulator.vector) == (6, 13):
            continue  # a host that emulates what raises #GP may know the instruction not, and say #UD
        found = compare(program, on_silicon, in_simulator)
        if found:
            wrong.append(f"{step.code.hex()} {step.text}: " + "; ".join(found[:4]))
    assert compared > CASES // 5
    assert not wrong, f"{len(wrong)} of {compared}\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("code", ["f36e", "f36f", "f36c", "f26d"])
def test_string_io_without_permission_faults_even_for_a_count_of_zero(code: str, simulated: RingThree) -> None:
    gpr = [DATA] * 16
    gpr[1], gpr[4] = 0, STACK_TOP
    area = bytearray(576)
    ending = simulated.run(bytes.fromhex(code), gpr, 0x202, bytes(area), bytes(DATA_SIZE))
    assert (ending.vector, ending.rip) == (13, CODE)
