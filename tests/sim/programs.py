"""Random programs for ring 3 of long mode: steps of assembler text with what they do to the flags.

R15 holds an address in the middle of the data window and R14 a small index; no step changes them, and RSP stays within
the stack. What the APM (vol. 3) leaves undefined is tracked from step to step: no step reads an undefined flag.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import vec_cases
from native_cpu import DATA, STACK_TOP

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
STATUS = CF | PF | AF | ZF | SF | OF
BASE = DATA + 0x1000
"""What R15 holds."""
CONDITIONS = {
    "o": OF, "no": OF, "b": CF, "ae": CF, "z": ZF, "nz": ZF, "be": CF | ZF, "a": CF | ZF, "s": SF, "ns": SF,
    "p": PF, "np": PF, "l": SF | OF, "ge": SF | OF, "le": SF | OF | ZF, "g": SF | OF | ZF,
}  # fmt: skip
_LEGACY = ("ax", "cx", "dx", "bx", "bp", "si", "di")
_NEW = tuple(f"r{i}" for i in range(8, 14))
REGISTERS = {
    8: tuple("r" + name for name in _LEGACY) + _NEW,
    4: tuple("e" + name for name in _LEGACY) + tuple(f"{name}d" for name in _NEW),
    2: _LEGACY + tuple(f"{name}w" for name in _NEW),
    1: ("al", "cl", "dl", "bl", "bpl", "sil", "dil", *(f"{name}b" for name in _NEW)),
}
_HIGH = ("ah", "ch", "dh", "bh")
_POINTER = {1: "byte", 2: "word", 4: "dword", 8: "qword", 10: "tbyte", 16: "xmmword"}
_FILLERS = ("mov r11d, 0x55", "lea rdi, [rdi+3]", "not rsi", "nop word ptr [rax+rax]")


@dataclass(slots=True)
class Step:
    """Instructions that only make sense together, mostly one. `undefined`: flags that are undefined after it."""

    text: str
    reads: int = 0
    defines: int = 0
    undefined: int = 0
    code: bytes = b""


class Writer:
    """Makes steps from a random generator."""

    def __init__(self, rng: random.Random, vector: list[str]) -> None:
        self.rng = rng
        self._vector = vector
        self._kinds: list[tuple[int, Callable[[], Step]]] = [
            (20, self.arithmetic), (6, self.unary), (6, self.moves), (4, self.extend), (5, self.multiply),
            (3, self.divide), (10, self.shift), (3, self.double_shift), (5, self.bit_test), (4, self.bit_scan),
            (5, self.bmi), (2, self.carry_chain), (3, self.crc_movbe), (5, self.exchange), (3, self.wide_exchange),
            (6, self.condition), (7, self.string), (5, self.stack), (3, self.lea), (3, self.convert),
            (4, self.flag_bits), (5, self.branch), (1, self.fault), (12, self.vector),
        ]  # fmt: skip

    def program(self, length: int) -> list[Step]:
        """`length` steps or a few more; not yet assembled."""
        weights = [weight for weight, _ in self._kinds]
        out: list[Step] = []
        undefined = 0
        for _ in range(length):
            step = self.rng.choices(self._kinds, weights)[0][1]()
            if step.reads & undefined:
                out.append(Step("add bl, cl", defines=STATUS))
                undefined = 0
            out.append(step)
            undefined = after(step, undefined)
        return out

    def reg(self, size: int) -> str:
        if size == 1 and self.rng.random() < 0.25:
            return self.rng.choice(_HIGH)
        return self.rng.choice(REGISTERS[size])

    def size(self) -> int:
        return self.rng.choice((1, 2, 4, 4, 8, 8))

    def wide_size(self) -> int:
        return self.rng.choice((2, 4, 8))

    def pair(self, size: int) -> tuple[str, str]:
        """Two registers that one instruction can name: AH and its like go with no REX prefix."""
        first, second = self.reg(size), self.reg(size)
        if first in _HIGH or second in _HIGH:
            plain = (*_HIGH, "al", "cl", "dl", "bl")
            first, second = (name if name in plain else self.rng.choice(plain) for name in (first, second))
        return first, second

    def address(self, span: int = 16, aligned: int = 1) -> str:
        rng = self.rng
        at = rng.choice((rng.randrange(-0x300, 0x300), rng.randrange(-0x300, 0x300), rng.randrange(-16, 1)))
        at -= at % aligned
        kind = rng.randrange(10)
        if aligned > 1 or kind < 4:
            return f"[r15{at:+d}]"
        if kind < 7:
            return f"[r15+r14*{rng.choice((1, 2, 4, 8))}{at:+d}]"
        if kind == 7:
            return f"[rip+{0x400800 + at}]"
        if kind == 8:
            return f"[r15d{at:+d}]"
        return f"{rng.choice(('', 'fs:', 'gs:', 'ss:'))}[{BASE + at:#x}]"

    def memory(self, size: int) -> str:
        return f"{_POINTER[size]} ptr {self.address()}"

    def place(self, size: int, share: float = 0.3) -> str:
        """A register or memory."""
        return self.memory(size) if self.rng.random() < share else self.reg(size)

    def immediate(self, size: int) -> str:
        bits = min(size * 8, 32)
        value = self.rng.choice((self.rng.getrandbits(bits), self.rng.randrange(-4, 5), 1 << self.rng.randrange(bits)))
        value &= (1 << bits) - 1
        return str(value - (1 << bits) if value >> (bits - 1) else value)

    def operands(self, size: int) -> str:
        kind = self.rng.randrange(5)
        if kind < 2:
            return ", ".join(self.pair(size))
        if kind == 2:
            register = self.rng.choice(REGISTERS[size])
            return f"{register}, {self.memory(size)}"
        if kind == 3:
            return f"{self.memory(size)}, {self.rng.choice(REGISTERS[size])}"
        return f"{self.place(size)}, {self.immediate(size)}"

    def arithmetic(self) -> Step:
        name = self.rng.choice("add or adc sbb and sub xor cmp test".split())
        operands = self.operands(self.size())
        if name == "test" and " ptr " in operands.split(",")[1]:
            operands = ",".join(reversed(operands.split(",")))
        lock = "lock " if " ptr " in operands.split(",")[0] and name not in ("cmp", "test") else ""
        form = self.rng.choice(("", "{load} ", "{store} ")) if " ptr " not in operands else ""
        if lock and self.rng.random() < 0.7:
            lock = ""
        return Step(
            f"{lock}{form}{name} {operands}",
            CF if name in ("adc", "sbb") else 0,
            STATUS,
            AF if name in ("and", "or", "xor", "test") else 0,
        )

    def unary(self) -> Step:
        name = self.rng.choice("inc dec neg not".split())
        operand = self.place(self.size())
        lock = "lock " if "ptr" in operand and self.rng.random() < 0.2 else ""
        defines = {"neg": STATUS, "not": 0}.get(name, STATUS & ~CF)
        return Step(f"{lock}{name} {operand}", 0, defines)

    def moves(self) -> Step:
        if self.rng.random() < 0.2:
            return Step(f"movabs {self.rng.choice(REGISTERS[8])}, {self.rng.getrandbits(64)}")
        if self.rng.random() < 0.1:
            name = self.rng.choice(("al", "ax", "eax", "rax"))
            where = f"[{BASE + self.rng.randrange(64)}]"
            return Step(f"movabs {where}, {name}" if self.rng.random() < 0.5 else f"movabs {name}, {where}")
        return Step(f"mov {self.operands(self.size())}")

    def extend(self) -> Step:
        to = self.wide_size()
        name = self.rng.choice(("movzx", "movsx"))
        if to == 8 and self.rng.random() < 0.3:
            return Step(f"movsxd {self.rng.choice(REGISTERS[8])}, {self.place(4)}")
        source = self.rng.choice((1, 2)) if to > 2 else 1
        operand = self.memory(source) if self.rng.random() < 0.3 else self.rng.choice(REGISTERS[source])
        return Step(f"{name} {self.rng.choice(REGISTERS[to])}, {operand}")

    def multiply(self) -> Step:
        undefined = SF | ZF | AF | PF
        if self.rng.random() < 0.5:
            return Step(f"{self.rng.choice(('mul', 'imul'))} {self.place(self.size())}", 0, STATUS, undefined)
        size = self.wide_size()
        text = f"imul {self.reg(size)}, {self.place(size)}"
        if self.rng.random() < 0.5:
            text += f", {self.immediate(self.rng.choice((1, size)))}"
        return Step(text, 0, STATUS, undefined)

    def divide(self) -> Step:
        size = self.size()
        name = self.rng.choice(("div", "idiv"))
        if self.rng.random() < 0.1:
            return Step(f"{name} {self.place(size)}", 0, STATUS, STATUS)
        low = {1: "al", 2: "ax", 4: "eax", 8: "rax"}[size]
        before = {
            (1, "div"): "mov ah, 0",
            (1, "idiv"): "cbw",
            (2, "idiv"): "cwd",
            (4, "idiv"): "cdq",
            (8, "idiv"): "cqo",
        }.get((size, name), f"mov edx, {self.rng.randrange(3)}")
        divisor = self.rng.choice(("bl", "bh", "r8b") if size == 1 else [REGISTERS[size][i] for i in (1, 3, 7)])
        head = f"mov {low}, {self.immediate(size)}; " if self.rng.random() < 0.3 else ""
        return Step(f"{head}{before}; {name} {divisor}", 0, STATUS, STATUS)

    def shift(self) -> Step:
        size = self.size()
        name = self.rng.choice("rol ror rcl rcr shl shr sar".split())
        rotate = name in ("rol", "ror", "rcl", "rcr")
        reads = CF if name in ("rcl", "rcr") else 0
        defined = CF | OF if rotate else STATUS
        undefined = OF if rotate else OF | AF
        operand = self.place(size)
        if self.rng.random() < 0.4:
            # a count of zero leaves the flags alone, so nothing is certain
            return Step(f"{name} {operand}, cl", reads, 0, undefined)
        count = self.rng.choice((1, 1, self.rng.randrange(size * 8), self.rng.randrange(256)))
        masked = count & (63 if size == 8 else 31)
        if not masked:
            return Step(f"{name} {operand}, {count}", reads)
        if masked == 1:
            undefined &= ~OF
        if masked >= size * 8 and not rotate:
            undefined |= CF
        return Step(f"{name} {operand}, {count}", reads, defined, undefined)

    def double_shift(self) -> Step:
        size = self.wide_size()
        name = self.rng.choice(("shld", "shrd"))
        source = self.rng.choice(REGISTERS[size])
        operand = self.place(size)
        count = self.rng.choice((1, self.rng.randrange(size * 8)))
        undefined = AF if count == 1 else AF | OF
        if self.rng.random() < 0.4:
            count += self.rng.choice((0, 64))
            return Step(f"mov cl, {count}; {name} {operand}, {source}, cl", 0, 0, undefined)
        return Step(f"{name} {operand}, {source}, {count}", 0, STATUS if count else 0, undefined if count else 0)

    def bit_test(self) -> Step:
        size = self.wide_size()
        name = self.rng.choice(("bt", "bts", "btr", "btc"))
        undefined = OF | SF | AF | PF | ZF
        if self.rng.random() < 0.5:
            return Step(f"{name} {self.place(size)}, {self.rng.randrange(256)}", 0, CF, undefined)
        if self.rng.random() < 0.5:
            return Step(f"{name} {', '.join(self.pair(size))}", 0, CF, undefined)
        offset = self.rng.randrange(-3000, 3000)
        register = self.rng.choice(REGISTERS[size])
        return Step(f"mov {register}, {offset}; {name} {self.memory(size)}, {register}", 0, CF, undefined)

    def bit_scan(self) -> Step:
        size = self.wide_size()
        name = self.rng.choice("bsf bsr tzcnt lzcnt popcnt".split())
        undefined = {"popcnt": 0, "bsf": STATUS & ~ZF, "bsr": STATUS & ~ZF}.get(name, OF | SF | AF | PF)
        return Step(f"{name} {self.reg(size)}, {self.place(size)}", 0, STATUS, undefined)

    def bmi(self) -> Step:
        size = self.rng.choice((4, 8))
        a, b = self.reg(size), self.reg(size)
        name = self.rng.choice("andn bextr blsi blsr blsmsk bzhi pdep pext mulx rorx sarx shlx shrx".split())
        match name:
            case "andn":
                return Step(f"andn {a}, {b}, {self.place(size)}", 0, STATUS, AF | PF)
            case "bextr" | "bzhi":
                undefined = AF | PF | SF if name == "bextr" else AF | PF
                set_up = f"mov {b}, {self.rng.randrange(80) | self.rng.randrange(80) << 8}; "
                set_up *= self.rng.random() < 0.7
                return Step(f"{set_up}{name} {a}, {self.place(size)}, {b}", 0, STATUS, undefined)
            case "blsi" | "blsr" | "blsmsk":
                return Step(f"{name} {a}, {self.place(size)}", 0, STATUS, AF | PF)
            case "rorx":
                return Step(f"rorx {a}, {self.place(size)}, {self.rng.randrange(256)}")
            case "sarx" | "shlx" | "shrx":
                return Step(f"{name} {a}, {self.place(size)}, {b}")
        return Step(f"{name} {a}, {b}, {self.place(size)}")

    def carry_chain(self) -> Step:
        size = self.rng.choice((4, 8))
        name, flag = self.rng.choice((("adcx", CF), ("adox", OF)))
        return Step(f"{name} {self.reg(size)}, {self.place(size)}", flag, flag)

    def crc_movbe(self) -> Step:
        if self.rng.random() < 0.5:
            size = self.size()
            to = self.rng.choice(REGISTERS[8 if size == 8 else self.rng.choice((4, 8)) if size == 1 else 4])
            operand = self.memory(size) if self.rng.random() < 0.4 else self.rng.choice(REGISTERS[size])
            return Step(f"crc32 {to}, {operand}")
        size = self.wide_size()
        a, b = self.reg(size), self.memory(size)
        return Step(f"movbe {b}, {a}" if self.rng.random() < 0.5 else f"movbe {a}, {b}")

    def exchange(self) -> Step:
        size = self.size()
        name = self.rng.choice(("xadd", "xchg", "cmpxchg"))
        if self.rng.random() < 0.5:
            operands, lock = ", ".join(self.pair(size)), ""
        else:
            operands = f"{self.memory(size)}, {self.rng.choice(REGISTERS[size])}"
            lock = self.rng.choice(("", "lock "))
        return Step(f"{lock}{name} {operands}", 0, 0 if name == "xchg" else STATUS)

    def wide_exchange(self) -> Step:
        name, size = self.rng.choice((("cmpxchg8b qword", 8), ("cmpxchg16b xmmword", 16)))
        where = self.address(aligned=16)
        a, d = ("eax", "edx") if size == 8 else ("rax", "rdx")
        offset = int(where[4:-1])
        head = f"mov {a}, [r15{offset:+d}]; mov {d}, [r15{offset + size // 2:+d}]; " if self.rng.random() < 0.5 else ""
        return Step(f"{head}{self.rng.choice(('', 'lock '))}{name} ptr {where}", 0, ZF)

    def condition(self) -> Step:
        name, reads = self.rng.choice(list(CONDITIONS.items()))
        if self.rng.random() < 0.5:
            return Step(f"set{name} {self.place(1)}", reads)
        size = self.wide_size()
        return Step(f"cmov{name} {self.reg(size)}, {self.place(size)}", reads)

    def string(self) -> Step:
        rng = self.rng
        name = rng.choice(("movs", "stos", "lods", "cmps", "scas"))
        suffix = rng.choice("bwdq")
        compares = name in ("cmps", "scas")
        rep = rng.choice(("", "repz ", "repnz ")) if compares else rng.choice(("", "rep ", "rep "))
        source, target = (rng.randrange(-0x200, 0x200) for _ in range(2))
        if rng.random() < 0.3:
            target = source + rng.randrange(-9, 10)
        count = rng.choice((0, 1, rng.randrange(16), rng.randrange(60)))
        direction = rng.choice(("cld", "cld", "std"))
        prefix = "addr32 " if rng.random() < 0.1 else ""
        text = (
            f"lea rsi, [r15{source:+d}]; lea rdi, [r15{target:+d}]; mov ecx, {count}; {direction}; "
            f"{prefix}{rep}{name}{suffix}; cld"
        )
        # REP CMPS with a count of zero leaves the flags
        return Step(text, 0, STATUS if compares and not (rep and not count) else 0)

    def stack(self) -> Step:
        rng = self.rng
        kind = rng.randrange(8)
        if kind == 0:
            return Step(f"push {self.reg(8)}; pop {self.place(8)}")
        if kind == 1:
            return Step(f"push {self.reg(2)}; pop {self.place(2)}")
        if kind == 2:
            return Step(f"push {self.immediate(4)}; pop {self.reg(8)}")
        if kind == 3:
            return Step(f"push {self.memory(8)}; pop {self.memory(8)}")
        if kind == 4:
            return Step("pushfq; pop r8", STATUS)
        if kind == 5:
            return Step(f"push {rng.getrandbits(12) & STATUS | 0x202}; popfq", 0, STATUS)
        if kind == 6:
            return Step(f"mov rbp, rsp; enter {rng.randrange(64) * 8}, {rng.choice((0, 0, 1, 2, 5))}; leave")
        return Step(f"lea rbp, [rsp-{rng.randrange(1, 9) * 8}]; leave; push rax; mov rsp, {STACK_TOP}")

    def lea(self) -> Step:
        rng = self.rng
        size = self.wide_size()
        base, index = rng.choice(REGISTERS[8]), rng.choice(REGISTERS[8])
        kind = rng.randrange(4)
        if kind == 0:
            return Step(f"lea {self.rng.choice(REGISTERS[size])}, [{base}{rng.randrange(-1 << 31, 1 << 31):+d}]")
        if kind == 1:
            at = rng.randrange(len(REGISTERS[4]))
            return Step(f"lea {self.rng.choice(REGISTERS[size])}, [{REGISTERS[4][at]}+{rng.choice(REGISTERS[4])}*4-5]")
        if kind == 2:
            return Step(
                f"lea {self.rng.choice(REGISTERS[size])}, [{index}*{rng.choice((2, 4, 8))}+{rng.randrange(999)}]"
            )
        address = f"[{base}+{index}*{rng.choice((1, 2, 4, 8))}{rng.randrange(-200, 200):+d}]"
        return Step(f"lea {self.rng.choice(REGISTERS[size])}, {address}")

    def convert(self) -> Step:
        kind = self.rng.randrange(3)
        if kind == 0:
            return Step(f"bswap {self.reg(self.rng.choice((4, 8)))}")
        if kind == 1:
            return Step(f"lea rbx, [r15+{self.rng.randrange(256)}]; xlatb")
        return Step(self.rng.choice("cbw cwde cdqe cwd cdq cqo nop pause lfence mfence sfence".split()))

    def flag_bits(self) -> Step:
        name = self.rng.choice("clc stc cmc lahf sahf cld".split())
        reads = {"cmc": CF, "lahf": STATUS & ~OF}.get(name, 0)
        defines = {"clc": CF, "stc": CF, "cmc": CF, "sahf": STATUS & ~OF}.get(name, 0)
        return Step(name, reads, defines)

    def branch(self) -> Step:
        rng = self.rng
        filler = rng.choice(_FILLERS)
        kind = rng.randrange(8)
        if kind < 3:
            name, reads = rng.choice(list(CONDITIONS.items()))
            return Step(f"j{name} 3f; {filler}; 3:", reads)
        if kind == 3:
            name, reads = rng.choice((("loop", 0), ("loope", ZF), ("loopne", ZF)))
            return Step(f"mov ecx, {rng.randrange(1, 9)}; 3: {filler}; {name} 3b", reads)
        if kind == 4:
            return Step(f"mov ecx, {rng.choice((0, 0, 7))}; {rng.choice(('jrcxz', 'jecxz'))} 3f; {filler}; 3:")
        if kind == 5:
            back = rng.choice(("ret", "ret 8"))
            return Step(f"call 3f; {filler}; jmp 4f; 3: mov r9d, 5; {back}; 4: mov rsp, {STACK_TOP}")
        if kind == 6:
            return Step(f"lea rdx, [rip+3f]; jmp rdx; {filler}; 3:")
        return Step(f"lea rdx, [rip+3f]; push rdx; {filler}; call [rsp]; 3: mov rsp, {STACK_TOP}")

    def fault(self) -> Step:
        rng = self.rng
        size = self.wide_size()
        register = rng.choice(REGISTERS[size])
        return Step(
            rng.choice(
                (
                    "ud2",
                    "int3",
                    "hlt",
                    "mov eax, [0x700123]",
                    f"mov {register}, [r15+0x1000-1]",
                    f"add [r15-0x1001], {register}",
                    "movabs rbx, 0x8000000000001234; mov eax, [rbx]",
                    "movabs rbp, 0x8000000000001234; mov [rbp], eax",
                    "mov byte ptr [rip], 5",
                    "xor ecx, ecx; div ecx",
                    "movaps xmm1, [r15+1]",
                    "movabs rcx, 0x8000000000001234; jmp rcx",
                    "lea rdi, [r15+0xFF0]; mov ecx, 99; rep stosb",
                    "lea rsi, [r15+0xFF8]; lea rdi, [r15]; mov ecx, 30; rep movsd",
                    "mov esi, 0x700000; lodsb",
                    "push qword ptr [0x700000]",
                    "cli",
                    "in al, dx",
                    "mov rax, cr0",
                    "lock cmpxchg16b [r15+8]",
                )
            ),
            0,
            STATUS,
            STATUS,
        )

    def vector(self) -> Step:
        rng = self.rng
        text = rng.choice(self._vector)

        def operand(match: re.Match[str]) -> str:
            word = match[0]
            if word.startswith("@"):
                size = int(match[1])
                return self.address(aligned=16 if match[2] else 1) if size != 1 else self.address()
            n = rng.randrange(16)
            return {
                "X": f"xmm{n}", "Y": f"xmm{n}", "M": f"mm{n & 7}", "N": f"mm{n & 7}", "S": f"st({n & 7})",
                "R": rng.choice(REGISTERS[4]), "Q": rng.choice(REGISTERS[8]), "I": str(rng.randrange(256)),
            }[word]  # fmt: skip

        name = text.split()[0]
        reads = CF | ZF | PF if "fcmov" in name else 0
        sets = name.startswith(("comis", "ucomis", "ptest", "pcmpestr", "pcmpistr", "fcomi", "fucomi"))
        # FCOMI leaves OF, SF and AF alone
        defines = 0 if not sets else ZF | PF | CF if name.startswith("f") else STATUS
        return Step(re.sub(r"@(\d+)([aA]?)|\b[XYMNRQIS]\b", operand, text), reads, defines)


_NOT_MIXED = (
    "fnstenv fldenv fnsave frstor fxsave maskmovdqu maskmovq rcp rsqrt f2xm1 fyl2x fptan fpatan fsin fcos ldmxcsr fldcw "
    "stmxcsr fwait fbld"
).split()


def mixed_templates(isas: set[str]) -> list[str]:
    """The x87 and vector templates that go into mixed programs: no unmasked exceptions, no approximations, no addresses."""
    templates = [t for isa, group in vec_cases.VECTOR.items() if isa in isas for t in group] + vec_cases.X87
    return [t for t in templates if not any(name in t for name in _NOT_MIXED) and "edi" not in t and "rdi" not in t]


def after(step: Step, undefined: int) -> int:
    """The undefined flags after a step, by those before it."""
    return undefined & ~step.defines | step.undefined
