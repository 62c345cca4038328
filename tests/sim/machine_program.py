"""Assembly programs on the bare machine, or inside VMRUN, that report by OUT.

A program is Intel-syntax gas text linked to run at 1000h of a small RAM. What it writes to port E9h (AL, AX or EAX) is
the test's evidence; HLT with interrupts off ends it.
"""

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pyhv.hv.sim.native import ffi, lib

ORIGIN = 0x1000
RAM_SIZE = 16 << 20
PORT = 0xE9

# from the entry in real or protected mode to flat 32-bit segments and a stack, by the GDT and IDT that follow the code
FLAT32_START = """
        lgdt [gdtr]
        lidt [idtr]
        ljmp 8, offset start
start:  mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x9000"""

FLAT32_GDT = """
.p2align 3
gdt:    .quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF
        .quad 0x008F9B000000FFFF, 0x000F9B000000FFFF, 0x000093000000FFFF, 0x00AF9B000000FFFF, 0x00AFFB000000FFFF
gdt_tss: .quad 0, 0, 0, 0
gdt_end:
gdtr:   .word gdt_end - gdt - 1
        .long gdt, 0
"""
"""08 code, 10 data, 18 user code, 20 user data, 28 16-bit code of 4 GiB, 30 16-bit code, 38 16-bit data,
40 64-bit code, 48 64-bit user code, 50.. free for TSSs."""


@functools.cache
def assemble(text: str) -> bytes:
    """The program's bytes."""
    with tempfile.TemporaryDirectory() as directory:
        source, obj, out = (Path(directory) / name for name in ("p.s", "p.o", "p.bin"))
        source.write_text(".intel_syntax noprefix\n" + text + "\n")
        subprocess.run(["as", "--64", "-o", obj, source], check=True, capture_output=True)
        subprocess.run(
            ["ld", "-Ttext", hex(ORIGIN), "-e", "0", "--oformat", "binary", "-o", out, obj], check=True, capture_output=True
        )
        return out.read_bytes()


class Program:
    """A machine with one program in it. `mode` 16 starts in real mode, 32 in flat protected mode without paging, 64 in
    long mode with the first GiB mapped to itself by 2 MiB pages at 100000h."""

    def __init__(self, text: str, mode: int = 32, cpus: int = 1) -> None:
        image = assemble(f".code{mode}\n" + text)
        self.ram = bytearray(RAM_SIZE)
        self.ram[ORIGIN : ORIGIN + len(image)] = image
        self._pointer = ffi.from_buffer(self.ram, require_writable=True)
        self.machine: Any = ffi.gc(lib.sim_machine_new(self._pointer, RAM_SIZE, cpus, 1), lib.sim_machine_free)
        self.cpu: Any = lib.sim_machine_cpu(self.machine, 0)
        self.out: list[int] = []
        self.start(mode)

    def put(self, at: int, *values: int, size: int = 8) -> None:
        """Writes little-endian numbers to memory."""
        for i, value in enumerate(values):
            self.ram[at + i * size : at + (i + 1) * size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def get(self, at: int, size: int = 8) -> int:
        """Reads a little-endian number."""
        return int.from_bytes(self.ram[at : at + size], "little")

    def start(self, mode: int) -> None:
        """The state at the program's first instruction."""
        state = self.state()
        for name in ("es", "cs", "ss", "ds", "fs", "gs"):
            segment = getattr(state, name)
            code = name == "cs"
            segment.selector = 0 if mode == 16 else 8 if code else 0x10
            segment.base = 0
            segment.limit = 0xFFFF if mode == 16 else 0xFFFFFFFF
            segment.attrib = (0x93, 0x9B)[code] if mode == 16 else (0xC93, (0xA9B if mode == 64 else 0xC9B))[code]
        if mode == 16:
            state.idtr.base, state.idtr.limit = 0, 0x3FF
        state.cr0 = {16: 0x10, 32: 0x11, 64: 0x80000011}[mode]
        if mode == 64:
            self.identity_map(0x100000)
            state.cr3, state.cr4, state.efer = 0x100000, 0x20, 0xD00
        state.rip, state.gpr[4], state.cpl, state.mp_state = ORIGIN, 0x9000, 0, 0
        assert lib.sim_set_state(self.cpu, state) == 0

    def identity_map(self, at: int, flags: int = 7) -> None:
        """Four-level tables at `at` for the first GiB, in 2 MiB pages."""
        self.put(at, (at + 0x1000) | flags)
        self.put(at + 0x1000, (at + 0x2000) | flags)
        self.put(at + 0x2000, *((i << 21) | 0x80 | flags for i in range(512)))

    def state(self) -> Any:
        """The CPU's state now."""
        state = ffi.new("SimState *")
        lib.sim_get_state(self.cpu, state)
        return state

    def run(self, budget: int = 100_000, chunk: int = 100_000) -> str:
        """Runs until the program halts ("halt"), shuts down ("shutdown") or uses up its budget ("budget")."""
        start = lib.sim_icount(self.cpu)
        while True:
            stop = lib.sim_run(self.cpu, chunk)
            if stop == lib.SIM_STOP_PIO:
                access = lib.sim_access(self.cpu)
                if access.write and access.addr == PORT:
                    self.out.append(int(access.data))
                lib.sim_access_done(self.cpu, 0xFFFFFFFF)
            elif stop == lib.SIM_STOP_HALT:
                return "halt"
            elif stop == lib.SIM_STOP_SHUTDOWN:
                return "shutdown"
            elif stop == lib.SIM_STOP_MMIO:
                lib.sim_access_done(self.cpu, 0xFFFF_FFFF_FFFF_FFFF)
            else:
                assert stop == lib.SIM_STOP_BUDGET, (stop, ffi.string(lib.sim_error(self.cpu)))
                if lib.sim_icount(self.cpu) - start >= budget:
                    return "budget"

    def stats(self) -> Any:
        """The CPU's counters."""
        stats = ffi.new("SimStats *")
        lib.sim_stats(self.cpu, stats)
        return stats


def outputs(text: str, mode: int = 32) -> list[int]:
    """What a program that ends by HLT reports."""
    program = Program(text, mode)
    assert program.run() == "halt", (hex(program.state().rip), [hex(v) for v in program.out])
    return program.out


def idt32(*vectors: int) -> str:
    """An IDT at `idt` with 32-bit interrupt gates to `vecN` for the vectors given; IDTR image at `idtr`."""
    gates = "".join(
        f".word vec{v}, 8, 0xEE00, 0\n" if v in vectors else ".quad 0\n" for v in range(max(vectors) + 1)
    )
    return f".p2align 3\nidt:\n{gates}idt_end:\nidtr: .word idt_end - idt - 1\n.long idt, 0\n"


def idt64(*vectors: int) -> str:
    """Likewise for long mode, CS 40h of FLAT32_GDT."""
    gates = "".join(
        f".word vec{v}, 0x40, 0xEE00, 0, 0, 0, 0, 0\n" if v in vectors else ".quad 0, 0\n" for v in range(max(vectors) + 1)
    )
    return f".p2align 3\nidt:\n{gates}idt_end:\nidtr: .word idt_end - idt - 1\n.quad idt\n"
