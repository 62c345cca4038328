"""The VMCB's layout against the numbers of APM vol. 2, appendix B and C, and its typed access."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.vmcb import Vmcb
from pyhv.x86.registers import DescriptorTable, Segment


def fresh() -> Vmcb:
    return Vmcb(memoryview(bytearray(4096)), 0x1000)


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("IOPM_BASE_PA", 0x40), ("MSRPM_BASE_PA", 0x48), ("TSC_OFFSET", 0x50), ("GUEST_ASID", 0x58), ("TLB_CONTROL", 0x5C),
        ("INT_CTL", 0x60), ("INTERRUPT_SHADOW", 0x68), ("EXITCODE", 0x70), ("EXITINFO1", 0x78), ("EXITINFO2", 0x80),
        ("EXITINTINFO", 0x88), ("NP_ENABLE", 0x90), ("EVENTINJ", 0xA8), ("N_CR3", 0xB0), ("NRIP", 0xC8), ("ES", 0x400),
        ("CS", 0x410), ("GS", 0x450), ("GDTR", 0x460), ("LDTR", 0x470), ("IDTR", 0x480), ("TR", 0x490), ("CPL", 0x4CB),
        ("EFER", 0x4D0), ("CR4", 0x548), ("CR3", 0x550), ("CR0", 0x558), ("DR7", 0x560), ("DR6", 0x568), ("RFLAGS", 0x570),
        ("RIP", 0x578), ("RSP", 0x5D8), ("RAX", 0x5F8), ("STAR", 0x600), ("KERNEL_GS_BASE", 0x620), ("SYSENTER_EIP", 0x638),
        ("CR2", 0x640), ("G_PAT", 0x668), ("DBGCTL", 0x670),
    ],
)  # fmt: skip
def test_offsets(name: str, offset: int) -> None:
    assert getattr(v, name) == offset


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x00, "CR0_READ"), (0x18, "CR8_WRITE"), (0x27, "DR7_READ"), (0x4E, "EXCP14"), (0x60, "INTR"),
        (0x65, "CR0_SEL_WRITE"),
        (0x6E, "RDTSC"), (0x72, "CPUID"), (0x78, "HLT"), (0x7B, "IOIO"), (0x7D, "TASK_SWITCH"), (0x7F, "SHUTDOWN"),
        (0x81, "VMMCALL"), (0x87, "RDTSCP"), (0x8D, "XSETBV"), (0x8E, "RDPRU"), (0x400, "NPF"), ((1 << 64) - 1, "INVALID"),
        (0x999, "0x999"),
    ],
)  # fmt: skip
def test_exit_names(code: int, name: str) -> None:
    assert v.exit_name(code) == name


@pytest.mark.parametrize(
    ("word", "base", "names"),
    [
        ("MISC1", 0x60, ("INTR", "VINTR", "CPUID", "PAUSE", "HLT", "IOIO_PROT", "MSR_PROT", "SHUTDOWN")),
        ("MISC2", 0x80, ("VMRUN", "VMMCALL", "SKINIT", "MONITOR", "XSETBV", "RDPRU")),
    ],
)
def test_an_intercept_bit_belongs_to_its_exit_code(word: str, base: int, names: tuple[str, ...]) -> None:
    for name in names:
        bit = getattr(v, name).bit_length() - 1
        assert v.exit_name(base + bit) == name.removesuffix("_PROT").replace("MSR_PROT", "MSR")


SEGMENTS = st.builds(
    Segment,
    base=st.integers(0, (1 << 64) - 1),
    limit=st.integers(0, (1 << 32) - 1),
    selector=st.integers(0, 0xFFFF),
    type=st.integers(0, 15),
    present=st.just(True),
    dpl=st.integers(0, 3),
    db=st.booleans(),
    s=st.booleans(),
    l=st.booleans(),
    g=st.booleans(),
    avl=st.booleans(),
)


@given(SEGMENTS, st.sampled_from(["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"]))
def test_segments_round_trip(segment: Segment, name: str) -> None:
    vmcb = fresh()
    vmcb.set_segment(name, segment)
    assert vmcb.get_segment(name) == segment


def test_an_unusable_segment_is_not_present() -> None:
    vmcb = fresh()
    vmcb.set_segment("gs", Segment(unusable=True))
    assert vmcb.get_segment("gs").unusable and not vmcb.get_segment("gs").present


def test_tables_and_cpl() -> None:
    vmcb = fresh()
    vmcb.set_table(v.IDTR, DescriptorTable(0xFFFF_8000_0000_1000, 0xFFF))
    assert vmcb.get_table(v.IDTR) == DescriptorTable(0xFFFF_8000_0000_1000, 0xFFF)
    vmcb.cpl = 3
    assert vmcb.cpl == 3 and vmcb.word[(v.SAVE + 0xC8) >> 2] == 3 << 24


def test_events() -> None:
    assert v.event(14, v.EVENT_EXCEPTION, 0x1F) == 0x1F_8000_0B0E
    assert v.event(0x20, v.EVENT_INTR) == 0x8000_0020
    assert v.event(2, v.EVENT_NMI) == 0x8000_0202
