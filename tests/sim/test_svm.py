"""SVM as a host sees it: exit codes, EXITINFO, nRIP, injection, nested paging (APM vol. 2 chapter 15)."""

from typing import Any

import pytest
from machine_program import ORIGIN, Program

from pyhv.hv.sim.native import lib

VMCB = 0x200000
IOPM, MSRPM, NESTED = 0x210000, 0x220000, 0x230000
GUEST_TABLES = 0x100000
INVALID = (1 << 64) - 1
VMRUN_INTERCEPT = 1 << 32
CPUID, HLT, IOIO, MSR, SHUTDOWN, VMMCALL, VINTR, INTN, IRET, PUSHF = (1 << n for n in (18, 24, 27, 28, 31, 33, 4, 21, 20, 16))


class Guest(Program):
    """A 64-bit program under VMRUN, with nested tables that map 16 MiB to themselves in 4 KiB pages."""

    def __init__(self, text: str, intercepts: int = HLT | SHUTDOWN, nested: bool = True) -> None:
        super().__init__(text, mode=64)
        # the program's own tables in four levels of 4 KiB pages, to make a full walk
        self.put(GUEST_TABLES + 0x2000, *((GUEST_TABLES + 0x3000 + i * 0x1000) | 7 for i in range(8)))
        self.put(GUEST_TABLES + 0x3000, *((i << 12) | 7 for i in range(8 * 512)))
        self.put(NESTED, (NESTED + 0x1000) | 7)
        self.put(NESTED + 0x1000, (NESTED + 0x2000) | 7)
        self.put(NESTED + 0x2000, *((NESTED + 0x3000 + i * 0x1000) | 7 for i in range(8)))
        self.put(NESTED + 0x3000, *((i << 12) | 7 for i in range(8 * 512)))
        state = self.state()
        for name, at in (("es", 0x400), ("cs", 0x410), ("ss", 0x420), ("ds", 0x430), ("gdtr", 0x460), ("idtr", 0x480)):
            segment = getattr(state, name)
            self.put(VMCB + at, segment.selector | segment.attrib << 16 | segment.limit << 32, segment.base)
        self.field(0x00C, intercepts | VMRUN_INTERCEPT)
        self.field(0x040, IOPM)
        self.field(0x048, MSRPM)
        self.field(0x058, 1, 4)
        self.field(0x090, int(nested))
        self.field(0x0B0, NESTED)
        self.field(0x4D0, 0x1D00)
        self.field(0x548, 0x20)
        self.field(0x550, GUEST_TABLES)
        self.field(0x558, 0x80000011)
        self.field(0x560, 0x400)
        self.field(0x568, 0xFFFF0FF0)
        self.field(0x570, 2)
        self.field(0x578, ORIGIN)
        self.field(0x5D8, 0x9000)
        self.field(0x668, 0x0007040600070406)

    def field(self, at: int, value: int | None = None, size: int = 8) -> int:
        """A field of the VMCB; written when a value is given."""
        if value is not None:
            self.put(VMCB + at, value, size=size)
        return self.get(VMCB + at, size)

    def nested_entry(self, gpa: int, value: int | None = None) -> int:
        """The nested page-table entry of a guest physical page."""
        at = NESTED + 0x3000 + (gpa >> 12) * 8
        if value is not None:
            self.put(at, value)
        return self.get(at)

    def enter(self, budget: int = 10_000) -> int:
        """VMRUN; the exit code."""
        stop = lib.sim_vmrun(self.cpu, VMCB, budget)
        assert stop == lib.SIM_STOP_VMEXIT, stop
        return self.field(0x070)

    @property
    def info(self) -> tuple[int, int]:
        return self.field(0x078), self.field(0x080)

    @property
    def rip(self) -> int:
        return self.field(0x578)

    def step_over(self) -> int:
        """As a host does after an intercept: go on at nRIP."""
        return self.field(0x578, self.field(0x0C8))


@pytest.mark.parametrize(
    ("code", "intercept", "exit_code", "info1"),
    [
        ("cpuid", CPUID, 0x72, 0),
        ("hlt", HLT, 0x78, 0),
        ("vmmcall", VMMCALL, 0x81, 0),
        ("pushf", PUSHF, 0x70, 0),
        ("int 0x21", INTN, 0x75, 0x21),
        ("iretq", IRET, 0x74, 0),
        ("rdtsc", 1 << 14, 0x6E, 0),
        ("rdpmc", 1 << 15, 0x6F, 0),
        ("invd", 1 << 22, 0x76, 0),
        ("pause", 1 << 23, 0x77, 0),
        ("invlpg [0x5000]", 1 << 25, 0x79, 0x5000),
        ("wbinvd", 1 << 41, 0x89, 0),
        ("sgdt [0x9000]", 1 << 7, 0x67, 0),
        ("sidt [0x9000]", 1 << 6, 0x66, 0),
        ("lgdt [0x9000]", 1 << 11, 0x6B, 0),
        ("lidt [0x9000]", 1 << 10, 0x6A, 0),
        ("lldt ax", 1 << 12, 0x6C, 0),
        ("str ax", 1 << 9, 0x69, 0),
        (".byte 0xF1", 1 << 40, 0x88, 0),
        ("rdtscp", 1 << 39, 0x87, 0),
        ("vmrun", 0, 0x80, 0),
        ("clgi", 1 << 37, 0x85, 0),
        ("mov rbx, 0x13\nmov rax, cr0\nxor rax, 0x10000\nmov cr0, rax", 1 << 5, 0x65, 1 << 63),
    ],
)
def test_instruction_intercepts(code: str, intercept: int, exit_code: int, info1: int) -> None:
    guest = Guest(f"{code}\nnop\nend: hlt", intercepts=intercept | SHUTDOWN)
    guest.field(0x5F8, VMCB if code == "vmrun" else 0)
    assert guest.enter() == exit_code
    assert guest.info[0] == info1
    length = len(guest.ram[ORIGIN : guest.get(VMCB + 0xC8)])
    assert guest.field(0x0C8) == ORIGIN + length > guest.rip


def test_register_intercepts() -> None:
    guest = Guest("mov rbx, cr3\nmov cr3, rbx\nmov rcx, cr8\nmov dr1, rdx\nmov rsi, dr7\nclts\nhlt")
    guest.put(VMCB, 1 << 3 | 1 << 8, size=2)
    guest.put(VMCB + 2, 1 << 3 | 1, size=2)
    guest.put(VMCB + 4, 1 << 7, size=2)
    guest.put(VMCB + 6, 1 << 1, size=2)
    exits = []
    while (code := guest.enter()) != 0x78:
        exits.append((code, guest.info[0] & 0xF))
        guest.step_over()
    assert exits == [(0x03, 3), (0x13, 3), (0x08, 1), (0x31, 2), (0x27, 6), (0x10, 0)]


def test_port_intercepts() -> None:
    guest = Guest("in al, 0x60\nmov dx, 0x3F8\nout dx, eax\nmov edx, 0x1F0\nrep insw\nhlt", HLT | IOIO | SHUTDOWN)
    guest.put(IOPM + 0x60 // 8, 1, size=1)
    guest.put(IOPM + 0x3FB // 8, 1 << 3, size=1)
    guest.put(IOPM + 0x1F0 // 8, 1, size=1)
    lib.sim_gpr(guest.cpu)[1] = 3
    exits = []
    while (code := guest.enter()) != 0x78:
        exits.append((code, guest.info[0]))
        assert guest.info[1] == guest.field(0x0C8)
        guest.step_over()
    assert exits == [(0x7B, 0x60 << 16 | 0x211), (0x7B, 0x3F8 << 16 | 0x240), (0x7B, 0x1F0 << 16 | 0x22D)]


def test_msr_intercepts_follow_the_map() -> None:
    text = "mov ecx, 0xC0000082\nwrmsr\nrdmsr\nmov ecx, 0x174\nrdmsr\nmov ecx, 0x40000000\nrdmsr\nhlt"
    guest = Guest(text, HLT | MSR | SHUTDOWN)
    guest.put(MSRPM + 0x800 + 0x82 // 4, 2 << (0x82 % 4 * 2), size=1)
    guest.put(MSRPM + 0x174 // 4, 1, size=1)
    exits = []
    while (code := guest.enter()) != 0x78:
        exits.append((code, guest.info[0], lib.sim_gpr(guest.cpu)[1]))
        guest.step_over()
    assert exits == [(0x7C, 1, 0xC0000082), (0x7C, 0, 0x174), (0x7C, 0, 0x40000000)]


def test_exception_intercepts() -> None:
    guest = Guest("ud2")
    guest.field(0x008, 1 << 6, 4)
    assert guest.enter() == 0x46 and guest.rip == ORIGIN
    guest = Guest("mov rax, [0x7F000000]")
    guest.field(0x008, 1 << 14, 4)
    assert guest.enter() == 0x4E
    assert guest.info == (0, 0x7F000000)
    assert guest.field(0x640) == 0, "CR2 changes only when the fault is delivered"


def test_shutdown_and_its_intercept() -> None:
    guest = Guest("ud2")
    assert guest.enter() == 0x7F


def test_cold_walk_takes_24_references() -> None:
    guest = Guest("mov rax, [0x5000]\nhlt")
    before = guest.stats()
    before_walks = before.walks
    start = before.walk_refs_guest + before.walk_refs_nested
    assert guest.enter() == 0x78
    after = guest.stats()
    assert after.walks - before_walks == 2  # the code page and the data page
    assert after.walk_refs_guest + after.walk_refs_nested - start == 2 * 24
    assert (after.walk_refs_guest, after.walk_refs_nested) == (8, 40)


def test_nested_accessed_and_dirty_bits() -> None:
    guest = Guest("mov rax, [0x5000]\nmov [0x6000], rax\nhlt")
    assert guest.enter() == 0x78
    assert guest.nested_entry(0x5000) & 0x60 == 0x20
    assert guest.nested_entry(0x6000) & 0x60 == 0x60
    assert guest.nested_entry(0x7000) & 0x60 == 0
    assert guest.nested_entry(GUEST_TABLES) & 0x60 == 0x60, "walks write the guest's tables"


@pytest.mark.parametrize(
    ("code", "entry", "info1"),
    [
        ("mov rax, [0x5008]", 0, 1 << 32 | 4),
        ("mov [0x5008], rax", 0, 1 << 32 | 6),
        ("mov rax, [0x5008]", 0x5003, 1 << 32 | 5),
        ("mov [0x5008], rax", 0x5005, 1 << 32 | 7),
        ("mov eax, 0x5008\njmp rax", 0x5007 | 1 << 63, 1 << 32 | 0x15),
        ("mov rax, [0x5008]", 0x5007 | 1 << 51, 1 << 32 | 0xD),
    ],
)
def test_nested_faults(code: str, entry: int, info1: int) -> None:
    guest = Guest(f"{code}\nhlt")
    guest.nested_entry(0x5000, entry)
    assert guest.enter() == 0x400
    assert guest.info == (info1, 0x5008)
    fetch = bool(info1 & 0x10)
    assert lib.sim_access(guest.cpu).valid == (not fetch)
    guest.nested_entry(0x5000, 0x5007)
    guest.put(0x5008, 0xF4, size=1)
    assert guest.enter() == 0x78, "mended, the instruction goes on"


def test_nested_fault_of_a_guest_table() -> None:
    guest = Guest("mov rax, [0x5000]\nhlt")
    table = GUEST_TABLES + 0x3000
    guest.nested_entry(table, table | 5)
    assert guest.enter() == 0x400
    assert guest.info == (1 << 33 | 7, table + ((guest.rip >> 12) * 8))


def test_device_reads_and_writes_are_restarted_with_their_data() -> None:
    guest = Guest("mov eax, [0x5010]\nadd dword ptr [0x5020], 3\nmov [0x5FFE], rax\nhlt")
    guest.nested_entry(0x5000, 0)
    seen = []
    while guest.enter() == 0x400:
        access = lib.sim_access(guest.cpu)
        assert access.valid
        seen.append((access.addr, access.size, access.write, access.data))
        lib.sim_access_done(guest.cpu, 0x1122334455667788)
    assert seen == [
        (0x5010, 4, 0, 0), (0x5020, 4, 0, 0), (0x5020, 4, 1, 0x5566778B), (0x5FFE, 2, 1, 0x7788),
    ]
    assert guest.get(0x6000, 4) == 0x5566


def handler(vector: int) -> str:
    return f"""
        lidt [idtr]
        jmp go
        .p2align 4
idt:    .fill {vector * 2}, 8, 0
        .word h, 8, 0x8E00, 0, 0, 0, 0, 0
idtr:   .word {vector} * 16 + 15
        .quad idt
gdt:    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdtr:   .word 23
        .quad gdt
h:      pop rbx
        vmmcall
go:     lgdt [gdtr]
"""


@pytest.mark.parametrize(
    ("inject", "top"),
    [
        (0x80000020, None),
        (0x80000B0D | 0x1234 << 32, 0x1234),
        (0x80000202, None),
        (0x80000420, None),
        (0x80000306, None),
    ],
)
def test_event_injection(inject: int, top: int | None) -> None:
    vector = inject & 0xFF
    guest = Guest(handler(vector) + "hlt\nnop", HLT | VMMCALL | SHUTDOWN)
    assert guest.enter() == 0x78
    rip = guest.rip
    guest.field(0x0A8, inject)
    guest.field(0x0C8, 0)
    assert guest.enter() == 0x81
    assert guest.field(0x0A8) & 0x80000000 == 0
    assert lib.sim_gpr(guest.cpu)[3] == (rip if top is None else top)
    assert guest.stats().injections == 1


def test_fault_in_a_delivery_is_told_in_exitintinfo() -> None:
    guest = Guest(handler(0x20) + "hlt\nnop")
    assert guest.enter() == 0x78
    guest.nested_entry(0x8000, 0)
    guest.field(0x0A8, 0x80000020)
    assert guest.enter() == 0x400
    assert guest.info == (1 << 32 | 6, 0x8FF8)
    assert guest.field(0x088) == 0x80000020
    guest.nested_entry(0x8000, 0x8007)
    guest.field(0x0A8, guest.field(0x088))
    guest.field(0x00C, VMMCALL | VMRUN_INTERCEPT)
    assert guest.enter() == 0x81


def test_virtual_interrupts() -> None:
    guest = Guest(handler(0x31) + "cli\nhlt\nsti\nnop\nnop\nhlt", HLT | VMMCALL | SHUTDOWN)
    assert guest.enter() == 0x78
    guest.step_over()
    guest.field(0x060, 0x31 << 32 | 0xF << 16 | 1 << 24 | 1 << 8)
    assert guest.enter() == 0x81
    assert guest.get(VMCB + 0x060) & 0x100 == 0, "V_IRQ is taken"
    low = Guest(handler(0x31) + "sti\nnop\nnop\nhlt", HLT | VMMCALL | SHUTDOWN)
    low.field(0x060, 0x31 << 32 | 3 << 16 | 1 << 24 | 1 << 8 | 5)
    assert low.enter() == 0x78, "the task priority holds it back"


def test_interrupt_window_exit_and_shadow() -> None:
    guest = Guest("sti\nnop\nnop\nhlt", HLT | VINTR | SHUTDOWN)
    guest.field(0x060, 0x31 << 32 | 1 << 20 | 1 << 24 | 1 << 8)
    assert guest.enter() == 0x64
    assert guest.rip == ORIGIN + 2, "after the shadow of STI"
    guest = Guest("sti\nhlt", HLT | SHUTDOWN)
    assert guest.enter() == 0x78
    assert guest.field(0x068) & 1 == 1


def break_vmcb(guest: Guest, what: str) -> None:
    fields: dict[str, tuple[int, int]] = {
        "EFER.SVME": (0x4D0, 0xD00),
        "CR0.NW without CD": (0x558, 0xA0000011),
        "CR0 upper half": (0x558, 0x1_8000_0011),
        "CR4 reserved": (0x548, 1 << 40),
        "DR6 upper half": (0x568, 1 << 32),
        "DR7 upper half": (0x560, 1 << 32),
        "long mode without PAE": (0x548, 0),
        "VMRUN intercept": (0x00C, HLT),
        "MSRPM": (0x048, 1 << 60),
        "IOPM": (0x040, 1 << 60),
        "injection type 1": (0x0A8, 0x80000100),
        "injection of exception 2": (0x0A8, 0x80000302),
        "PAT": (0x668, 2),
        "CS.L and CS.D": (0x410, 8 | 0xE9B << 16),
    }
    if what == "ASID 0":
        guest.field(0x058, 0, 4)
    else:
        guest.field(*fields[what])


@pytest.mark.parametrize(
    "what",
    ["EFER.SVME", "CR0.NW without CD", "CR0 upper half", "CR4 reserved", "DR6 upper half", "DR7 upper half",
     "long mode without PAE", "VMRUN intercept", "MSRPM", "IOPM", "injection type 1", "injection of exception 2", "PAT",
     "CS.L and CS.D", "ASID 0"],
)
def test_invalid_state(what: str) -> None:
    guest = Guest("hlt")
    break_vmcb(guest, what)
    assert guest.enter() == INVALID


def test_tlb_is_tagged_and_flushed_as_asked() -> None:
    guest = Guest("mov rax, [0x5000]\nhlt")

    def misses() -> int:
        before = guest.stats().tlb_misses
        guest.field(0x578, ORIGIN)
        assert guest.enter() == 0x78
        return int(guest.stats().tlb_misses - before)

    assert misses() == 2
    assert misses() == 0
    guest.field(0x058, 2, 4)
    assert misses() == 2, "another ASID"
    guest.field(0x058, 1, 4)
    assert misses() == 0, "the first is still there"
    guest.field(0x05C, 3, 1)
    assert misses() == 2
    guest.field(0x05C, 0, 1)
    guest.field(0x058, 2, 4)
    assert misses() == 0, "only the one asked for was flushed"
    guest.field(0x05C, 1, 1)
    assert misses() == 2


def test_permissions_follow_what_the_host_put_into_the_vmcb() -> None:
    guest = Guest("mov [0x5000], eax\nhlt")
    guest.put(GUEST_TABLES + 0x3000 + 5 * 8, 0x5005)
    guest.field(0x008, 1 << 14, 4)
    assert guest.enter() == 0x78, "CR0.WP is clear: a supervisor writes to a read-only page"
    guest.field(0x578, ORIGIN)
    guest.field(0x558, 0x80010011)
    assert guest.enter() == 0x4E
    assert guest.info == (3, 0x5000)


def test_a_simulated_host_can_run_a_guest() -> None:
    """VMRUN as an instruction: the guest's CPUID comes back to the host's next instruction."""
    text = f"""
        mov ecx, 0xC0000080
        mov eax, 0x1D00
        xor edx, edx
        wrmsr
        mov ecx, 0xC0010117
        mov eax, 0x300000
        wrmsr
        mov eax, {VMCB}
        mov ebx, 0x77
        vmrun
        mov eax, [{VMCB} + 0x70]
        out 0xE9, eax
        mov eax, ebx
        out 0xE9, eax
        stgi
        cli
        hlt
guest:  mov ebx, 0x88
        cpuid
"""
    guest = Guest(text, CPUID)
    guest.field(0x578, ORIGIN + bytes(guest.ram[ORIGIN : ORIGIN + 200]).index(b"\xbb\x88\0\0\0"))
    assert guest.run() == "halt"
    assert guest.out == [0x72, 0x88]


def state_of(guest: Guest) -> tuple[Any, ...]:
    state = guest.state()
    return tuple(state.gpr[i] for i in range(16)), state.rip, state.rflags, lib.sim_icount(guest.cpu)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_where_a_run_is_cut_does_not_matter(chunk: int) -> None:
    text = """
        mov ecx, 40
again:  mov rdi, 0x5000
        mov rsi, 0x6000
        mov edx, ecx
        mov ecx, 37
        rep movsb
        mov ecx, edx
        imul rax, rax, 77
        add rax, rcx
        push rax
        call leaf
        pop rbx
        xor rbx, rdi
        cmp rbx, rcx
        adc r8, 5
        dec ecx
        jnz again
        hlt
leaf:   lea r9, [r9 + rax * 2 + 1]
        ret
"""
    whole, cut = Guest(text), Guest(text)
    assert whole.enter(1_000_000) == 0x78
    stop = lib.sim_vmrun(cut.cpu, VMCB, chunk)
    while stop == lib.SIM_STOP_BUDGET:
        stop = lib.sim_run(cut.cpu, chunk)
    assert stop == lib.SIM_STOP_VMEXIT
    assert state_of(cut) == state_of(whole)
