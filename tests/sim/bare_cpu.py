"""One CPU of the silicon as a bare machine, for tests of single instructions.

The CPU runs at CPL 0 in long mode (or where `mode` says) with flat segments and a small address space: the first 4 MiB
map to themselves, CODE and DATA are windows at the addresses that the native runs use. Every exception vector leads to
a HLT of its own, so that where the CPU halts says what happened.
"""

import struct
from dataclasses import dataclass
from typing import Any

from pyhv.hv.sim.native import ffi, lib

CODE = 0x2001_0000
CODE_16 = 0x6000
REAL = 0
REAL_DATA = 0x5000
DATA = 0x2002_0000
DATA_SIZE = 8192
RAM_SIZE = 4 << 20
DEVICE = 0x40_0000
"""No RAM: a read answers with its number in every byte, counted from 1."""
_CODE_PA, _DATA_PA = 0x11_0000, 0x12_0000
_GDT, _IDT, _IVT, _TABLES, _STACK, _HANDLERS = 0x2000, 0x3000, 0x3800, 0x1_0000, 0x9000, 0x8000

CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE, CR0_PG = 1, 2, 4, 8, 16, 32, 1 << 31
CR4_PAE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE = 1 << 5, 1 << 9, 1 << 10, 1 << 18
_CR0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_PG
_CR4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
UD, NM, GP, PF, MF, XF = 6, 7, 13, 14, 16, 19

# bits of CPUID outside the vector units that long mode needs
_BASE_CPUID = {
    (1, 0, 3): 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13,
    (0x8000_0001, 0, 3): 1 << 11 | 1 << 20 | 1 << 25 | 1 << 29,
}
_LEAVES = ((0, 0), (1, 0), (7, 0), (0xD, 0), (0xD, 1), (0xD, 2), (0x8000_0000, 0), (0x8000_0001, 0), (0x8000_0008, 0))


@dataclass(slots=True)
class Outcome:
    """What one run came to. `vector` is None when the instruction completed."""

    vector: int | None
    error: int
    rip: int
    rflags: int
    gpr: list[int]
    area: bytes
    cr2: int


class BareCpu:
    """See the module. `without` are CPUID bits to hide, as (function, index, register 0-3, bit)."""

    def __init__(self, without: tuple[tuple[int, int, int, int], ...] = ()) -> None:
        self.ram = bytearray(RAM_SIZE)
        self._pointer = ffi.from_buffer(self.ram, require_writable=True)
        self.machine: Any = ffi.gc(lib.sim_machine_new(self._pointer, RAM_SIZE, 1, 1), lib.sim_machine_free)
        self.cpu: Any = lib.sim_machine_cpu(self.machine, 0)
        entries = ffi.new("SimCpuidEntry[]", len(_LEAVES))
        for entry, (function, index) in zip(entries, _LEAVES, strict=True):
            registers = [
                lib.vec_cpuid_mask(function, index, r) | _BASE_CPUID.get((function, index, r), 0) for r in range(4)
            ]
            for hidden_function, hidden_index, register, bit in without:
                if (hidden_function, hidden_index) == (function, index):
                    registers[register] &= ~(1 << bit)
            entry.function, entry.index, entry.flags = function, index, 1 if function in (7, 0xD) else 0
            entry.eax, entry.ebx, entry.ecx, entry.edx = registers
        entries[0].eax, entries[6].eax, entries[8].eax = 0xD, 0x8000_0008, 40
        lib.sim_set_cpuid(self.machine, entries, len(_LEAVES))
        lib.sim_reset(self.cpu, 0)
        self.accesses: list[tuple[int, int, bool, int]] = []  # of the device: offset, size, write, data
        self.area = ffi.buffer(lib.sim_xsave_area(self.cpu), 4096)
        self.cr0, self.cr4, self.efer = _CR0, _CR4, 0xD00
        self.xcr0, self.cpl = self.xcr0_supported(), 0
        self._tables()

    @staticmethod
    def xcr0_supported() -> int:
        """All that XCR0 may hold on this host."""
        return int(lib.vec_cpuid_mask(0xD, 0, 0))

    def _tables(self) -> None:
        def put(at: int, value: int) -> None:
            struct.pack_into("<Q", self.ram, at, value)

        pml4, pdpt, pd, pt = _TABLES, _TABLES + 0x1000, _TABLES + 0x2000, _TABLES + 0x3000
        put(pml4, pdpt | 7)
        put(pdpt, pd | 7)
        put(pd, 0x87)
        put(pd + 8, 0x20_0087)
        put(pd + 16, DEVICE | 0x87)
        put(pd + 8 * (CODE >> 21), pt | 7)
        put(pt + 8 * (CODE >> 12 & 511), _CODE_PA | 7)
        put(pt + 8 * (DATA >> 12 & 511), _DATA_PA | 7)
        put(pt + 8 * ((DATA >> 12) + 1 & 511), (_DATA_PA + 0x1000) | 7)
        # null, 64-bit code, data, 32-bit code, 16-bit code
        for i, descriptor in enumerate(
            (0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_9B00_0000_FFFF, 0x000F_9B00_0000_FFFF)
        ):
            put(_GDT + 8 * i, descriptor)
        for vector in range(32):
            struct.pack_into("<HH", self.ram, _IVT + 4 * vector, _HANDLERS + 16 * vector, 0)
            handler = _HANDLERS + 16 * vector
            struct.pack_into("<HHHHII", self.ram, _IDT + 16 * vector, handler, 8, 0x8E00, 0, 0, 0)
            self.ram[handler] = 0xF4

    def _state(self, gpr: list[int], rip: int, rflags: int, mode: int) -> Any:
        state = ffi.new("SimState *")
        for i, value in enumerate(gpr):
            state.gpr[i] = value & (1 << 64) - 1
        state.gpr[RSP] = _STACK
        state.rip, state.rflags = rip, rflags | 2
        for name in ("es", "ss", "ds", "fs", "gs"):
            segment = getattr(state, name)
            segment.selector, segment.attrib, segment.limit = 0x10, 0xC93, 0xFFFF_FFFF
        state.cs.selector, state.cs.attrib, state.cs.limit = {
            64: (0x08, 0xA9B, 0xFFFF_FFFF),
            32: (0x18, 0xC9B, 0xFFFF_FFFF),
            16: (0x20, 0x89B, 0xF_FFFF),
            REAL: (0, 0, 0),
        }[mode]
        state.gdtr.base, state.gdtr.limit = _GDT, 0x27
        state.idtr.base, state.idtr.limit = _IDT, 0x1FF
        state.tr.attrib, state.tr.limit = 0x8B, 0x67
        state.ldtr.attrib = 0x82
        state.cr0, state.cr3, state.cr4, state.efer = self.cr0, _TABLES, self.cr4, self.efer
        state.xcr0, state.cpl, state.dr[6], state.dr[7] = self.xcr0, self.cpl, 0xFFFF_0FF0, 0x400
        if mode == REAL:
            for name in ("es", "ss", "ds", "fs", "gs", "cs"):
                segment = getattr(state, name)
                segment.selector, segment.attrib, segment.limit = 0, 0x9B if name == "cs" else 0x93, 0xFFFF
            state.cs.selector, state.cs.base, state.rip = CODE_16 >> 4, CODE_16, 0
            state.ds.selector, state.ds.base = REAL_DATA >> 4, REAL_DATA
            state.idtr.base, state.idtr.limit = _IVT, 0x7F
            state.cr0, state.cr3, state.efer = self.cr0 & ~(CR0_PE | CR0_PG), 0, 0
        state.apic_base, state.pat, state.gif = 0xFEE0_0900, 0x0007_0406_0007_0406, 1
        return state

    def data(self, offset: int = 0, size: int = DATA_SIZE) -> bytes:
        """Bytes of the data window."""
        return bytes(self.ram[_DATA_PA + offset : _DATA_PA + offset + size])

    def set_data(self, content: bytes, offset: int = 0) -> None:
        """Fills the data window."""
        self.ram[_DATA_PA + offset : _DATA_PA + offset + len(content)] = content

    def run(
        self, code: bytes, gpr: list[int] | None = None, rflags: int = 2, rip: int = CODE, mode: int = 64
    ) -> Outcome:
        """Runs `code` to its end or to an exception, from the state of `area`, `data` and the arguments.

        `mode` is 64, 32, 16 or REAL. 16-bit code goes to CODE_16; in real mode at 0600:0000, with DS 0500."""
        if mode in (16, REAL):
            rip = CODE_16
        at = rip if rip < RAM_SIZE else _CODE_PA + rip - CODE
        self.ram[at : at + len(code) + 1] = code + b"\xf4"
        lib.sim_host_wrote(self.machine, at & ~4095, 4096)
        assert lib.sim_set_state(self.cpu, self._state(gpr or [0] * 16, rip, rflags, mode)) == 0
        self.accesses = []
        stop = lib.sim_run(self.cpu, 200)
        while stop == lib.SIM_STOP_MMIO and len(self.accesses) < 200:
            access = lib.sim_access(self.cpu)
            self.accesses.append((access.addr - DEVICE, access.size, bool(access.write), access.data))
            lib.sim_access_done(self.cpu, 0x0101_0101_0101_0101 * len(self.accesses))
            stop = lib.sim_run(self.cpu, 200)
        assert stop == lib.SIM_STOP_HALT, (stop, ffi.string(lib.sim_error(self.cpu)), code.hex())
        state = ffi.new("SimState *")
        lib.sim_get_state(self.cpu, state)
        vector, error, at_rip, flags = None, 0, state.rip - 1, state.rflags
        if mode == REAL and state.cs.base == 0:
            vector = (state.rip - 1 - _HANDLERS) // 16
            at_rip, _, flags = struct.unpack_from("<HHH", self.ram, state.gpr[RSP])
        elif _HANDLERS < state.rip <= _HANDLERS + 16 * 32:
            vector = (state.rip - 1 - _HANDLERS) // 16
            frame = state.gpr[RSP]
            if vector in (8, 10, 11, 12, 13, 14, 17):
                error = struct.unpack_from("<Q", self.ram, frame)[0]
                frame += 8
            at_rip, _, flags = struct.unpack_from("<QQQ", self.ram, frame)
        return Outcome(vector, error, at_rip, flags, [state.gpr[i] for i in range(16)], bytes(self.area), state.cr2)
