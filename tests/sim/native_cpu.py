"""A virtual CPU in ring 3 on any backend of the seam, to run the same code on the simulator and on real silicon.

Real mode and rings 0 to 2 may be emulated by a host; ring 3 of long mode runs natively everywhere. The registers put
the vCPU there directly. Every exception leads through the IDT to a HLT of its own in ring 0, so that the run ends with
all registers as the exception left them, and the interrupted RIP, RFLAGS and RSP on the stack of ring 0.
"""

import struct
from dataclasses import dataclass

from pyhv.hv.api import Hypervisor
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import Halt, Interrupted
from pyhv.record import replace
from pyhv.x86.registers import DescriptorTable, GeneralRegisters, Segment, SystemRegisters

GPR_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))
RAM_SIZE = 2 << 20
CODE, CODE_SIZE = 0x40_0000, 0x1000
DATA, DATA_SIZE = 0x80_0000, 0x2000
STACK = 0xC0_0000
"""The lowest address of one page of stack; the pages around these windows are not mapped."""
STACK_TOP = STACK + 0x800
_GDT, _IDT, _TSS, _HANDLERS, _TABLES = 0x1000, 0x2000, 0x3000, 0x4000, 0x1_0000
_CODE_PA, _DATA_PA, _STACK_PA, _RING0_STACK = 0x2_0000, 0x2_2000, 0x2_6000, 0x8000
_VECTORS_WITH_ERROR = (8, 10, 11, 12, 13, 14, 17)
_CR0 = 1 << 31 | 1 << 16 | 0x33
_CR4 = 1 << 5 | 1 << 9 | 1 << 10
_EFER = 0xD00
AREA_SIZE = 576


@dataclass(slots=True)
class Ending:
    """What one run came to: the exception, and all that the code could change."""

    vector: int
    error: int
    cr2: int | None
    rip: int
    rflags: int
    gpr: list[int]
    area: bytes
    data: bytes
    stack: bytes


class RingThree:
    """See the module."""

    def __init__(self, hypervisor: Hypervisor, features: tuple[str, ...] = ()) -> None:
        self.vm = hypervisor.create_vm(VmConfig(vcpus=1, irqchip="none", features=features))
        self.vm.add_memory(0, RAM_SIZE)
        self.vcpu = self.vm.create_vcpu(0)
        self._tables()
        self._system = {64: self._registers(True), 32: self._registers(False)}
        self.vcpu.system = self._system[64]
        self._area_tail = self.vcpu.xsave[AREA_SIZE:]

    def close(self) -> None:
        self.vcpu.close()
        self.vm.close()

    def _put(self, at: int, *words: int) -> None:
        self.vm.memory.write(at, struct.pack(f"<{len(words)}Q", *words))

    def _tables(self) -> None:
        pml4, pdpt, pd, tables = (_TABLES + i * 0x1000 for i in range(4))
        self._put(pml4, pdpt | 7)
        self._put(pdpt, pd | 7)
        self._put(pd, 0x83)  # what ring 0 needs
        windows = ((CODE, _CODE_PA, 1, 5), (DATA, _DATA_PA, 2, 7), (STACK, _STACK_PA, 1, 7))
        for i, (linear, physical, pages, rights) in enumerate(windows):
            table = tables + i * 0x1000
            self._put(pd + (linear >> 21) * 8, table | 7)
            for page in range(pages):
                self._put(table + ((linear >> 12) + page & 511) * 8, physical + page * 0x1000 | rights)
        # null, 64-bit code of ring 0, data of ring 0, 32-bit code, data and 64-bit code of ring 3, TSS
        self._put(_GDT, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
        self._put(_GDT + 24, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF, 0x00AF_FB00_0000_FFFF)
        self._put(_GDT + 48, 0x0000_8B00_0000_0067 | (_TSS & 0xFF_FFFF) << 16, 0)
        self._put(_TSS + 4, _RING0_STACK)
        self._put(_TSS + 0x60, 0x68 << 48)  # the I/O permission bitmap is beyond the limit
        for vector in range(32):
            handler = _HANDLERS + 16 * vector
            gate = struct.pack("<HHHHII", handler, 8, 0xEE00, 0, 0, 0)
            self.vm.memory.write(_IDT + 16 * vector, gate)
            self.vm.memory.write(handler, b"\xf4\xeb\xfd")

    def _registers(self, wide: bool) -> SystemRegisters:
        code = Segment(
            base=0, limit=0xFFFF_FFFF, selector=0x2B if wide else 0x1B, type=0xB, dpl=3, l=wide, db=not wide, g=True
        )
        data = Segment(base=0, limit=0xFFFF_FFFF, selector=0x23, type=3, dpl=3, db=True, g=True)
        return replace(
            self.vcpu.system,
            cs=code,
            ss=data,
            ds=data,
            es=data,
            fs=data,
            gs=data,
            tr=Segment(base=_TSS, limit=0x67, selector=0x30, type=0xB, s=False),
            ldt=Segment(base=0, limit=0, selector=0, type=2, s=False, present=False, unusable=True),
            gdt=DescriptorTable(_GDT, 0x3F),
            idt=DescriptorTable(_IDT, 0x1FF),
            cr0=_CR0,
            cr3=_TABLES,
            cr4=_CR4,
            efer=_EFER,
        )

    def run(self, code: bytes, gpr: list[int], rflags: int, area: bytes, data: bytes, bits: int = 64) -> Ending:
        """Runs `code` from CODE until an exception. Without one in the code it ends at the UD2 put behind it."""
        memory, vcpu = self.vm.memory, self.vcpu
        memory.write(_CODE_PA, (code + b"\x0f\x0b").ljust(CODE_SIZE, b"\xcc"))
        memory.write(_DATA_PA, data)
        memory.write(_STACK_PA, bytes(0x1000))
        vcpu.system = self._system[bits]
        vcpu.xsave = area[:AREA_SIZE] + self._area_tail
        vcpu.general = GeneralRegisters(**dict(zip(GPR_NAMES, gpr, strict=True)), rip=CODE, rflags=rflags | 2)
        exit_ = vcpu.run()
        while isinstance(exit_, Interrupted):
            exit_ = vcpu.run()
        assert isinstance(exit_, Halt), f"{exit_}\n{vcpu.dump()}"
        general = vcpu.general
        vector = (general.rip - _HANDLERS) // 16
        assert 0 <= vector < 32, vcpu.dump()
        frame, error = general.rsp, 0
        if vector in _VECTORS_WITH_ERROR:
            (error,) = struct.unpack("<Q", memory.read(frame, 8))
            frame += 8
        rip, _, flags, rsp, _ = struct.unpack("<5Q", memory.read(frame, 40))
        values = [getattr(general, name) for name in GPR_NAMES]
        values[4] = rsp
        return Ending(
            vector,
            error,
            vcpu.system.cr2 if vector == 14 else None,
            rip,
            flags,
            values,
            vcpu.xsave[:AREA_SIZE],
            memory.read(_DATA_PA, DATA_SIZE),
            memory.read(_STACK_PA, 0x1000),
        )
