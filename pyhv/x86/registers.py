"""Typed register files, the same on every backend, so that state moves between them.

Sources: AMD64 Architecture Programmer's Manual (APM) vol. 2; Documentation/virt/kvm/api.rst for the grouping.
"""

from __future__ import annotations

from pyhv.enums import IntEnum
from pyhv.record import field, record


@record
class GeneralRegisters:
    """The sixteen general registers, RIP and RFLAGS; each an unsigned 64-bit integer."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2


@record
class Segment:
    """A segment register with its hidden part (APM vol. 2, 4.5). `limit` is in bytes, already scaled by G."""

    base: int = 0
    limit: int = 0xFFFF
    selector: int = 0
    type: int = 3
    present: bool = True
    dpl: int = 0
    db: bool = False
    s: bool = True
    l: bool = False  # noqa: E741 - the architectural name of the long-mode bit
    g: bool = False
    avl: bool = False
    unusable: bool = False


@record
class DescriptorTable:
    """GDTR or IDTR."""

    base: int = 0
    limit: int = 0xFFFF


def _code() -> Segment:
    return Segment(base=0xFFFF0000, selector=0xF000, type=0xB)


def _system(kind: int) -> Segment:
    return Segment(type=kind, s=False)


@record
class SystemRegisters:
    """Segments, descriptor tables and control registers; the defaults are those after RESET (APM vol. 2, 14.1.3)."""

    cs: Segment = field(default_factory=_code)
    ds: Segment = field(default_factory=Segment)
    es: Segment = field(default_factory=Segment)
    fs: Segment = field(default_factory=Segment)
    gs: Segment = field(default_factory=Segment)
    ss: Segment = field(default_factory=Segment)
    tr: Segment = field(default_factory=lambda: _system(0xB))
    ldt: Segment = field(default_factory=lambda: _system(0x2))
    gdt: DescriptorTable = field(default_factory=DescriptorTable)
    idt: DescriptorTable = field(default_factory=DescriptorTable)
    cr0: int = 0x60000010
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    efer: int = 0
    apic_base: int = 0xFEE00900
    pdptrs: tuple[int, int, int, int] | None = None
    """The cached page-directory pointers of PAE paging, where they are in use and known (APM vol. 2, 5.2.3)."""


@record
class FpuRegisters:
    """x87 and SSE state as FXSAVE sees it: `st` eight 16-byte slots, `xmm` sixteen 16-byte values."""

    st: tuple[bytes, ...] = (bytes(16),) * 8
    xmm: tuple[bytes, ...] = (bytes(16),) * 16
    fcw: int = 0x37F
    fsw: int = 0
    ftw: int = 0
    fop: int = 0
    fip: int = 0
    fdp: int = 0
    mxcsr: int = 0x1F80


@record
class DebugRegisters:
    """DR0 to DR3, DR6 and DR7."""

    db: tuple[int, int, int, int] = (0, 0, 0, 0)
    dr6: int = 0xFFFF0FF0
    dr7: int = 0x400


class MpState(IntEnum):
    """Multiprocessor state of a vCPU; the numbers are KVM's (KVM_GET_MP_STATE)."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4


@record
class VcpuEvents:
    """Pending and in-flight events (KVM_GET_VCPU_EVENTS)."""

    exception_injected: bool = False
    exception_vector: int = 0
    exception_has_error_code: bool = False
    exception_pending: bool = False
    exception_error_code: int = 0
    exception_payload: int | None = None
    interrupt_injected: bool = False
    interrupt_vector: int = 0
    interrupt_soft: bool = False
    interrupt_shadow: int = 0
    nmi_injected: bool = False
    nmi_pending: bool = False
    nmi_masked: bool = False
    sipi_vector: int | None = None
    smm: bool = False
    smm_pending: bool = False
    triple_fault_pending: bool = False


@record(frozen=True, init=False)
class CpuidEntry:
    """One CPUID leaf; `index` is None where the leaf has no sub-leaves."""

    function: int
    index: int | None
    eax: int
    ebx: int
    ecx: int
    edx: int

    def __init__(self, function: int, index: int | None, eax: int, ebx: int, ecx: int, edx: int) -> None:
        put = object.__setattr__
        put(self, "function", function)
        put(self, "index", index)
        put(self, "eax", eax)
        put(self, "ebx", ebx)
        put(self, "ecx", ecx)
        put(self, "edx", edx)
