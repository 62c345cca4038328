"""A small machine for tests: one VM of a backend, code in its memory, and ways to drive it.

It stays below pyhv.vm: what is tested is the seam itself. Backends without threads run their vCPUs in turns, and every
backend may return Interrupted at any time, so everything here runs vCPUs until what is waited for has happened.
"""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from pyhv.hv.api import Hypervisor, Vcpu, VmHandle
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import Exit, Interrupted, PioOut
from pyhv.memory import MemoryRegion
from pyhv.x86.registers import DescriptorTable, GeneralRegisters, Segment, SystemRegisters

from .asm import assemble

ExitT = TypeVar("ExitT")

CODE = 0x1000
STACK = 0x8000
IDT = 0x2000
GDT = 0x3000
TABLES = 0x10_0000
RAM = 0x20_0000
LAPIC = 0xFEE0_0000
PATIENCE = 20.0
"""Seconds after which a test gives up; nothing depends on how fast anything is."""


def flat_segment(selector: int, kind: int, *, long: bool = False) -> Segment:
    """A ring-0 segment over all of memory."""
    return Segment(0, 0xFFFF_FFFF, selector, kind, True, 0, not long, True, long, True)


def protected_mode(base: SystemRegisters) -> SystemRegisters:
    """32-bit protected mode, flat, without paging; GDT at GDT, IDT at IDT."""
    base.cs = flat_segment(8, 0xB)
    base.ds = base.es = base.ss = base.fs = base.gs = flat_segment(16, 3)
    base.gdt, base.idt = DescriptorTable(GDT, 0x1F), DescriptorTable(IDT, 0x7FF)
    base.cr0 = 0x11
    return base


def long_mode(base: SystemRegisters) -> SystemRegisters:
    """64-bit mode; the low GiB and the fourth one mapped one to one by 2 MiB pages at TABLES."""
    protected_mode(base)
    base.cs = flat_segment(24, 0xB, long=True)
    base.cr3, base.cr4, base.efer = TABLES, 0x20, 0x500
    base.cr0 = 0x8000_0011
    return base


def real_mode(base: SystemRegisters, segment: int = 0) -> SystemRegisters:
    """Real mode with all segments at `segment`."""
    for name in ("cs", "ds", "es", "ss", "fs", "gs"):
        register: Segment = getattr(base, name)
        register.base, register.selector, register.limit = segment << 4, segment, 0xFFFF
    base.idt = DescriptorTable(0, 0x3FF)
    return base


class Bench:
    """A VM with RAM from 0 to RAM, and vCPUs as they are asked for."""

    def __init__(self, hypervisor: Hypervisor, config: VmConfig | None = None, *, ram: int = RAM) -> None:
        self.hypervisor = hypervisor
        self.config = config or VmConfig()
        self.vm: VmHandle = hypervisor.create_vm(self.config)
        self.vcpus: list[Vcpu] = []
        self.ram: MemoryRegion = self.vm.add_memory(0, ram)
        descriptors = (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF)
        self.vm.memory.write(GDT, b"".join(d.to_bytes(8, "little") for d in descriptors))

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vm.close()

    @property
    def vcpu(self) -> Vcpu:
        """The boot processor."""
        return self.vcpus[0] if self.vcpus else self.add_vcpu()

    def add_vcpu(self) -> Vcpu:
        """The next vCPU."""
        vcpu = self.vm.create_vcpu(len(self.vcpus))
        self.vcpus.append(vcpu)
        return vcpu

    def load(self, source: str, *, mode: int = 32, at: int = CODE, vcpu: Vcpu | None = None) -> Vcpu:
        """Assemble, load, and point a vCPU at it in real (16), protected (32) or long mode (64)."""
        self.vm.memory.write(at, assemble(source, bits=mode, org=at))
        vcpu = vcpu or self.vcpu
        if mode == 16:
            vcpu.system = real_mode(vcpu.system)
        elif mode == 32:
            vcpu.system = protected_mode(vcpu.system)
        else:
            self.map_pages()
            vcpu.system = long_mode(vcpu.system)
        vcpu.general = GeneralRegisters(rip=at, rsp=STACK)
        return vcpu

    def map_pages(self) -> None:
        """The page tables of `long_mode`."""
        memory = self.vm.memory
        memory.write_uint(TABLES, 8, TABLES + 0x1000 | 3)
        for gib, table in ((0, TABLES + 0x2000), (3, TABLES + 0x3000)):
            memory.write_uint(TABLES + 0x1000 + gib * 8, 8, table | 3)
            entries = ((gib << 30 | page << 21 | 0x83).to_bytes(8, "little") for page in range(512))
            memory.write(table, b"".join(entries))

    def gate(self, vector: int, handler: int) -> None:
        """A 32-bit interrupt gate in the IDT at IDT."""
        entry = handler & 0xFFFF | 8 << 16 | 0x8E00 << 32 | handler >> 16 << 48
        self.vm.memory.write_uint(IDT + vector * 8, 8, entry)

    def ivt(self, vector: int, handler: int) -> None:
        """A real-mode interrupt vector, handler in segment 0."""
        self.vm.memory.write_uint(vector * 4, 4, handler)

    def run(self, vcpu: Vcpu | None = None) -> Exit:
        """Run until there is an exit other than Interrupted."""
        vcpu = vcpu or self.vcpu
        deadline = time.monotonic() + PATIENCE
        while isinstance(exit := self.run_once(vcpu), Interrupted):
            assert time.monotonic() < deadline, f"no exit; {vcpu.dump()}"
        return exit

    def run_once(self, vcpu: Vcpu) -> Exit:
        """One `run`, kicked when it takes too long, so that a failing test ends."""
        timer = threading.Timer(PATIENCE, vcpu.kick)
        timer.daemon = True
        timer.start()
        try:
            return vcpu.run()
        finally:
            timer.cancel()

    def expect(self, kind: type[ExitT], vcpu: Vcpu | None = None) -> ExitT:
        """The next exit, which must be of this kind."""
        exit = self.run(vcpu)
        assert isinstance(exit, kind), f"{exit} where {kind.__name__} was expected"
        return exit

    def output(self, count: int, *, port: int = 0xE9, vcpu: Vcpu | None = None) -> list[int]:
        """The values of the next `count` OUTs, all to `port`."""
        values = []
        for _ in range(count):
            exit = self.expect(PioOut, vcpu)
            assert exit.port == port, exit
            values.append(int.from_bytes(exit.data, "little"))
        return values

    def run_all(self, handle: Callable[[Vcpu, Exit], bool], vcpus: Sequence[Vcpu] | None = None) -> None:
        """Run several vCPUs, on threads or in turns, until `handle(vcpu, exit)` has said True for one of them.

        `handle` is called by one vCPU at a time.
        """
        vcpus = vcpus or self.vcpus
        if not self.hypervisor.capabilities.threads:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                for vcpu in vcpus:
                    if handle(vcpu, vcpu.run()):
                        return
            raise AssertionError("the vCPUs did not get there")
        lock, done = threading.Lock(), threading.Event()
        errors: list[BaseException] = []

        def loop(vcpu: Vcpu) -> None:
            try:
                while not done.is_set():
                    exit = vcpu.run()
                    with lock:
                        if not done.is_set() and handle(vcpu, exit):
                            done.set()
            except BaseException as error:
                errors.append(error)
                done.set()

        threads = [threading.Thread(target=loop, args=(vcpu,), daemon=True) for vcpu in vcpus]
        for thread in threads:
            thread.start()
        finished = done.wait(PATIENCE)
        done.set()
        for vcpu, thread in zip(vcpus, threads, strict=True):
            vcpu.kick()
            thread.join(PATIENCE)
        if errors:
            raise errors[0]
        assert finished, "the vCPUs did not get there"
