"""The virtual machine control block: APM vol. 2, appendix B (layout) and C (exit codes), sections 15.5 to 15.25.

A VMCB is a 4 KiB frame of the simulated host's memory. Constants are byte offsets in it, under the manual's names.
"""

from __future__ import annotations

from struct import Struct

from pyhv.x86.registers import DescriptorTable, Segment

# ---- control area (table B-1) ----
INTERCEPT_CR = 0x000
"""Reads in bits 15:0, writes in 31:16."""
INTERCEPT_DR = 0x004
INTERCEPT_EXCEPTIONS = 0x008
INTERCEPT_MISC1 = 0x00C
INTERCEPT_MISC2 = 0x010
INTERCEPT_MISC3 = 0x014
PAUSE_FILTER_THRESHOLD = 0x03C
PAUSE_FILTER_COUNT = 0x03E
IOPM_BASE_PA = 0x040
MSRPM_BASE_PA = 0x048
TSC_OFFSET = 0x050
GUEST_ASID = 0x058
TLB_CONTROL = 0x05C
INT_CTL = 0x060
"""V_TPR, V_IRQ, V_GIF, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING, AVIC enable; the manual's "VINTR_CONTROL"."""
INT_VECTOR = 0x064
INTERRUPT_SHADOW = 0x068
EXITCODE = 0x070
EXITINFO1 = 0x078
EXITINFO2 = 0x080
EXITINTINFO = 0x088
NP_ENABLE = 0x090
EVENTINJ = 0x0A8
N_CR3 = 0x0B0
LBR_VIRTUALIZATION_ENABLE = 0x0B8
VMCB_CLEAN = 0x0C0
NRIP = 0x0C8
FETCHED_BYTES = 0x0D0
AVIC_BACKING_PAGE = 0x0E0
AVIC_LOGICAL_TABLE = 0x0F0
AVIC_PHYSICAL_TABLE = 0x0F8

# ---- state save area (table B-2) ----
SAVE = 0x400
ES, CS, SS, DS, FS, GS = (SAVE + 0x10 * n for n in range(6))
GDTR, LDTR, IDTR, TR = (SAVE + 0x60 + 0x10 * n for n in range(4))
CPL = SAVE + 0x0CB
EFER = SAVE + 0x0D0
CR4 = SAVE + 0x148
CR3 = SAVE + 0x150
CR0 = SAVE + 0x158
DR7 = SAVE + 0x160
DR6 = SAVE + 0x168
RFLAGS = SAVE + 0x170
RIP = SAVE + 0x178
RSP = SAVE + 0x1D8
RAX = SAVE + 0x1F8
STAR = SAVE + 0x200
LSTAR = SAVE + 0x208
CSTAR = SAVE + 0x210
SFMASK = SAVE + 0x218
KERNEL_GS_BASE = SAVE + 0x220
SYSENTER_CS = SAVE + 0x228
SYSENTER_ESP = SAVE + 0x230
SYSENTER_EIP = SAVE + 0x238
CR2 = SAVE + 0x240
G_PAT = SAVE + 0x268
DBGCTL = SAVE + 0x270

# ---- INTERCEPT_MISC1: bit n is exit code 60h + n ----
INTR, NMI, SMI, INIT, VINTR, CR0_SEL_WRITE = (1 << n for n in range(6))
RDPMC, CPUID = 1 << 15, 1 << 18
RSM, INVD, PAUSE, HLT, INVLPGA = 1 << 19, 1 << 22, 1 << 23, 1 << 24, 1 << 26
IOIO_PROT, MSR_PROT = 1 << 27, 1 << 28
SHUTDOWN = 1 << 31

# ---- INTERCEPT_MISC2: bit n is exit code 80h + n ----
VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT = (1 << n for n in range(7))
MONITOR, MWAIT, XSETBV, RDPRU = 1 << 10, 1 << 11, 1 << 13, 1 << 14

# ---- INT_CTL ----
V_TPR_MASK = 0xF
V_IRQ = 1 << 8
V_GIF = 1 << 9
V_INTR_PRIO_MASK = 0xF << 16
V_IGN_TPR = 1 << 20
V_INTR_MASKING = 1 << 24

# ---- TLB_CONTROL ----
TLB_FLUSH_ALL, TLB_FLUSH_ASID = 1, 3

# ---- EVENTINJ and EXITINTINFO (15.20) ----
EVENT_INTR, EVENT_NMI, EVENT_EXCEPTION, EVENT_SOFT = (n << 8 for n in (0, 2, 3, 4))
EVENT_TYPE_MASK = 7 << 8
EVENT_ERROR_VALID = 1 << 11
EVENT_VALID = 1 << 31

# ---- exit codes (appendix C) ----
EXIT_EXCEPTION = 0x40
EXIT_INTR, EXIT_NMI, EXIT_SMI, EXIT_INIT, EXIT_VINTR = 0x60, 0x61, 0x62, 0x63, 0x64
EXIT_RDPMC, EXIT_CPUID, EXIT_RSM, EXIT_INVD, EXIT_PAUSE, EXIT_HLT = 0x6F, 0x72, 0x73, 0x76, 0x77, 0x78
EXIT_INVLPGA, EXIT_IOIO, EXIT_MSR, EXIT_SHUTDOWN = 0x7A, 0x7B, 0x7C, 0x7F
EXIT_VMRUN, EXIT_VMMCALL, EXIT_VMLOAD, EXIT_VMSAVE = 0x80, 0x81, 0x82, 0x83
EXIT_STGI, EXIT_CLGI, EXIT_SKINIT = 0x84, 0x85, 0x86
EXIT_MONITOR, EXIT_MWAIT, EXIT_MWAIT_ARMED, EXIT_XSETBV, EXIT_RDPRU = 0x8A, 0x8B, 0x8C, 0x8D, 0x8E
EXIT_NPF = 0x400
EXIT_INVALID = (1 << 64) - 1

EXIT_NAMES = {
    **{n: f"CR{n}_READ" for n in range(16)},
    **{0x10 + n: f"CR{n}_WRITE" for n in range(16)},
    **{0x20 + n: f"DR{n}_READ" for n in range(16)},
    **{0x30 + n: f"DR{n}_WRITE" for n in range(16)},
    **{0x40 + n: f"EXCP{n}" for n in range(32)},
    **dict(
        enumerate(
            (
                "INTR NMI SMI INIT VINTR CR0_SEL_WRITE IDTR_READ GDTR_READ LDTR_READ TR_READ IDTR_WRITE GDTR_WRITE "
                "LDTR_WRITE TR_WRITE RDTSC RDPMC PUSHF POPF CPUID RSM IRET SWINT INVD PAUSE HLT INVLPG INVLPGA IOIO MSR "
                "TASK_SWITCH FERR_FREEZE SHUTDOWN VMRUN VMMCALL VMLOAD VMSAVE STGI CLGI SKINIT RDTSCP ICEBP WBINVD "
                "MONITOR MWAIT MWAIT_CONDITIONAL XSETBV RDPRU EFER_WRITE_TRAP"
            ).split(),
            start=0x60,
        )
    ),
    0xA2: "INVPCID",
    EXIT_NPF: "NPF",
    0x401: "AVIC_INCOMPLETE_IPI",
    0x402: "AVIC_NOACCEL",
    0x403: "VMGEXIT",
    EXIT_INVALID: "INVALID",
}

# ---- EXITINFO1 of IOIO (15.10.2) ----
IOIO_IN, IOIO_STR, IOIO_REP = 1 << 0, 1 << 2, 1 << 3

# ---- EXITINFO1 of NPF (15.25.6) ----
NPF_WRITE, NPF_FETCH, NPF_FINAL, NPF_TABLE = 1 << 1, 1 << 4, 1 << 32, 1 << 33

_SEGMENT = Struct("<HHIQ")
_TABLE = Struct("<IHHQ")
_SEGMENTS = {"es": ES, "cs": CS, "ss": SS, "ds": DS, "fs": FS, "gs": GS, "ldt": LDTR, "tr": TR}


def exit_name(code: int) -> str:
    """The manual's name of an exit code."""
    return EXIT_NAMES.get(code, f"{code:#x}")


def event(vector: int, kind: int, error: int | None = None) -> int:
    """An EVENTINJ value (15.20)."""
    value = vector & 0xFF | kind | EVENT_VALID
    return value if error is None else value | EVENT_ERROR_VALID | (error & 0xFFFF_FFFF) << 32


def attributes(s: Segment) -> int:
    """The VMCB's 12 attribute bits of a segment (15.5.1): type, S, DPL, P, AVL, L, D/B, G."""
    present = s.present and not s.unusable
    return (
        (s.type & 0xF)
        | s.s << 4
        | (s.dpl & 3) << 5
        | present << 7
        | s.avl << 8
        | s.l << 9
        | s.db << 10
        | s.g << 11
    )


def segment(selector: int, attrib: int, limit: int, base: int) -> Segment:
    """A segment from the VMCB's fields."""
    return Segment(
        base=base,
        limit=limit,
        selector=selector,
        type=attrib & 0xF,
        present=bool(attrib & 0x80),
        dpl=attrib >> 5 & 3,
        db=bool(attrib & 0x400),
        s=bool(attrib & 0x10),
        l=bool(attrib & 0x200),
        g=bool(attrib & 0x800),
        avl=bool(attrib & 0x100),
        unusable=not attrib & 0x80,
    )


class Vmcb:
    """One VMCB: `quad[offset >> 3]` and `word[offset >> 2]` are its fields, live."""

    __slots__ = ("_bytes", "pa", "quad", "word")

    def __init__(self, frame: memoryview, pa: int) -> None:
        self.pa = pa
        self._bytes = frame
        self.quad = frame.cast("Q")
        self.word = frame.cast("I")

    def get_segment(self, name: str) -> Segment:
        """es, cs, ss, ds, fs, gs, ldt or tr."""
        return segment(*_SEGMENT.unpack_from(self._bytes, _SEGMENTS[name]))

    def set_segment(self, name: str, s: Segment) -> None:
        """Raises struct.error for a field out of range."""
        _SEGMENT.pack_into(self._bytes, _SEGMENTS[name], s.selector, attributes(s), s.limit, s.base)

    def get_table(self, offset: int) -> DescriptorTable:
        """GDTR or IDTR."""
        _, _, limit, base = _SEGMENT.unpack_from(self._bytes, offset)
        return DescriptorTable(base, limit)

    def set_table(self, offset: int, table: DescriptorTable) -> None:
        """Raises struct.error for a field out of range."""
        _TABLE.pack_into(self._bytes, offset, 0, table.limit, 0, table.base)

    @property
    def cpl(self) -> int:
        return self._bytes[CPL]

    @cpl.setter
    def cpl(self, value: int) -> None:
        self._bytes[CPL] = value & 3

    def dump(self) -> str:
        """The control area's exit fields, for a report."""
        quad = self.quad
        return (
            f"exit {exit_name(quad[EXITCODE >> 3])} info1 {quad[EXITINFO1 >> 3]:#x} info2 {quad[EXITINFO2 >> 3]:#x} "
            f"intinfo {quad[EXITINTINFO >> 3]:#x} inject {quad[EVENTINJ >> 3]:#x} nrip {quad[NRIP >> 3]:#x} "
            f"int_ctl {self.word[INT_CTL >> 2]:#x} shadow {quad[INTERRUPT_SHADOW >> 3]:#x}"
        )
