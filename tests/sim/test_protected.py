"""Protected mode: gates, tasks, virtual-8086, segment checks, exceptions (APM vol. 2 chapters 4, 8, 12)."""

import pytest
from machine_program import FLAT32_GDT, FLAT32_START, Program, idt32, outputs

# report: out of the error code and of the faulting EIP's label number, kept in EDI
REPORT_ERROR = """
vec{n}: pop eax
        out 0xE9, eax
        mov eax, {n}
        out 0xE9, eax
        mov dword ptr [esp], edi
        iret
"""


def faults(setup: str, body: str, vector: int, data: str = "") -> list[int]:
    """Runs `body` (which must fault with `vector`) and reports error code and vector; goes on at `next`."""
    return outputs(
        f"""
{FLAT32_START}
        mov edi, offset next
{setup}
{body}
        mov eax, 0xBAD
        out 0xE9, eax
next:   hlt
{REPORT_ERROR.format(n=vector)}
{FLAT32_GDT}
{data}
{idt32(vector)}
"""
    )


DESCRIPTORS = """
.p2align 3
"""


@pytest.mark.parametrize(
    ("name", "body", "vector", "error"),
    [
        ("selector beyond the table", "mov ax, 0x1000\nmov ds, ax", 13, 0x1000),
        ("null to SS", "xor eax, eax\nmov ss, ax", 13, 0),
        ("code to SS", "mov ax, 8\nmov ss, ax", 13, 8),
        ("SS with another RPL", "mov ax, 0x13\nmov ss, ax", 13, 0x10),
        ("system descriptor to DS", "mov ax, 0x50\nmov ds, ax", 13, 0x50),
        ("data segment not present", "mov ax, 0x58\nmov es, ax", 11, 0x58),
        ("stack segment not present", "mov ax, 0x58\nmov ss, ax", 12, 0x58),
        ("read through a null segment", "xor eax, eax\nmov es, ax\nmov eax, es:[0]", 13, 0),
        ("write to a code segment", "mov cs:[0x9000], eax", 13, 0),
        ("beyond a limit", "mov ax, 0x60\nmov es, ax\nmov eax, es:[0xFFD]", 13, 0),
        ("below an expand-down segment", "mov ax, 0x68\nmov es, ax\nmov eax, es:[0xFFF]", 13, 0),
        ("far jump to data", ".byte 0xEA\n.long next\n.word 0x10", 13, 0x10),
        ("far jump to code of ring 3", ".byte 0xEA\n.long next\n.word 0x18", 13, 0x18),
        ("INT through a gate that is not there", "int 200", 13, 200 * 8 + 2),
        ("LTR of data", "mov ax, 0x10\nltr ax", 13, 0x10),
        ("LLDT of a null LDT's own table", "mov ax, 4\nlldt ax", 13, 4),
        ("LDT selector without an LDT", "mov ax, 0xC\nmov ds, ax", 13, 0xC),
    ],
)
def test_segment_faults(name: str, body: str, vector: int, error: int) -> None:
    setup = """
        mov dword ptr [gdt_tss], 0x0000FFFF
        mov dword ptr [gdt_tss + 4], 0x00008900
        mov dword ptr [gdt_tss + 8], 0x0000FFFF
        mov dword ptr [gdt_tss + 12], 0x00CF1300
        mov dword ptr [gdt_tss + 16], 0x00000FFF
        mov dword ptr [gdt_tss + 20], 0x00409300
        mov dword ptr [gdt_tss + 24], 0x00000FFF
        mov dword ptr [gdt_tss + 28], 0x00409700
"""
    assert faults(setup, body, vector) == [error, vector], name


def test_expand_down_and_limits_allow_what_they_should() -> None:
    setup = """
        mov dword ptr [gdt_tss + 16], 0x00000FFF
        mov dword ptr [gdt_tss + 20], 0x00409300
        mov dword ptr [gdt_tss + 24], 0x00000FFF
        mov dword ptr [gdt_tss + 28], 0x00409700
        mov dword ptr [0xFFC], 0x11223344
        mov ax, 0x60
        mov es, ax
        mov eax, es:[0xFFC]
        out 0xE9, eax
        mov ax, 0x68
        mov es, ax
        mov dword ptr es:[0x1000 + next - 0x1000 - 0x1000 + 0x8000], 5
        xor eax, eax
        mov ds, ax
"""
    assert faults(setup, "mov eax, ds:[0]", 13) == [0x11223344, 0, 13]


TSS = """
.p2align 4
tss0:   .fill 0x68, 1, 0
tss1:   .long 0, 0x8800, 0x10, 0, 0, 0, 0, 0, {entry}, {flags}
        .long 1, 2, 3, 4, 0x8800, 6, 7, 8
        .long 0x10, 8, 0x10, 0x10, 0x10, 0x10, 0, 0x680000
"""
SET_TSS = """
        mov eax, offset tss0
        mov dword ptr [gdt_tss], 0x67
        mov word ptr [gdt_tss + 2], ax
        mov dword ptr [gdt_tss + 4], 0x8900
        mov eax, offset tss1
        mov dword ptr [gdt_tss + 8], 0x67
        mov word ptr [gdt_tss + 10], ax
        mov dword ptr [gdt_tss + 12], 0x8900
        mov ax, 0x50
        ltr ax
"""


def task_program(body: str, task: str, flags: int = 2, vectors: tuple[int, ...] = (13,), more: str = "") -> list[int]:
    return outputs(
        f"""
{FLAT32_START}
{SET_TSS}
{body}
        hlt
task:
{task}
vec13:  mov eax, 0xBAD
        out 0xE9, eax
        hlt
{more}
{FLAT32_GDT}
{TSS.format(entry="task", flags=flags)}
{idt32(*vectors)}
"""
    )


def test_task_call_and_return() -> None:
    body = """
        mov ebx, 0x1234
        lcall 0x58, 0
        mov eax, ebx
        out 0xE9, eax
        mov eax, cr0
        out 0xE9, eax
        mov al, [gdt_tss + 13]
        out 0xE9, al
        mov al, [gdt_tss + 5]
        out 0xE9, al
"""
    task = """
        mov eax, ebx
        out 0xE9, eax           # 4, from its TSS
        pushfd
        pop eax
        out 0xE9, eax           # NT
        mov eax, [tss1]
        out 0xE9, eax           # back link
        mov al, [gdt_tss + 13]
        out 0xE9, al
        iret
"""
    assert task_program(body, task) == [4, 0x4002, 0x50, 0x8B, 0x1234, 0x19, 0x89, 0x8B]


def test_trap_bit_of_a_task_traps_before_its_first_instruction() -> None:
    task = """
        mov eax, 1
        out 0xE9, eax
        iret
"""
    handler = """
vec1:   mov eax, dr6
        and eax, 0xE00F
        out 0xE9, eax
        mov eax, [esp]
        sub eax, offset task
        out 0xE9, eax
        iret
"""
    body = "or byte ptr [tss1 + 0x64], 1\nlcall 0x58, 0\nmov eax, 2\nout 0xE9, eax"
    assert task_program(body, task, vectors=(1, 13), more=handler) == [0x8000, 0, 1, 2]


def test_task_jump_leaves_the_old_task_available() -> None:
    task = """
        mov al, [gdt_tss + 5]
        out 0xE9, al
        str ax
        out 0xE9, ax
        hlt
"""
    assert task_program("ljmp 0x58, 0", task) == [0x89, 0x58]


def test_double_fault_through_a_task_gate() -> None:
    body = """
        mov word ptr [idt + 8 * 8 + 2], 0x58
        mov word ptr [idt + 8 * 8 + 5], 0x85
        mov byte ptr [idt + 13 * 8 + 5], 0
        int 99
"""
    task = """
        pop eax
        out 0xE9, eax           # the error code on the new task's stack
        mov eax, [tss1]
        out 0xE9, eax
        hlt
vec8:
"""
    assert task_program(body, task, vectors=(8, 13)) == [0, 0x50]


def test_call_gate_with_parameters_and_back() -> None:
    body = """
        mov dword ptr [tss0 + 4], 0x8000
        mov dword ptr [tss0 + 8], 0x10
        mov eax, offset gate
        mov word ptr [gdt_tss + 16], ax
        mov word ptr [gdt_tss + 18], 8
        mov dword ptr [gdt_tss + 20], 0xEC02
        push 0x23
        push 0x8F00
        push 0x1B
        push offset user
        retf
user:   push 0x1111
        push 0x2222
        lcall 0x60, 0
        mov eax, esp
        int 0x30
gate:   mov eax, [esp + 8]
        out 0xE9, eax           # last parameter
        mov eax, [esp + 12]
        out 0xE9, eax
        mov eax, [esp + 16]
        out 0xE9, eax           # outer ESP
        mov eax, [esp + 20]
        out 0xE9, eax           # outer SS
        mov ax, cs
        out 0xE9, ax
        mov eax, esp
        out 0xE9, eax
        retf 8
vec48:  out 0xE9, eax           # user ESP after the return dropped the parameters
        mov eax, [esp + 4]
        out 0xE9, eax
        hlt
"""
    expected = [0x2222, 0x1111, 0x8EF8, 0x23, 8, 0x8000 - 24, 0x8F00, 0x1B]
    assert task_program(body, "", vectors=(13, 48)) == expected


def test_virtual_8086() -> None:
    body = """
        mov dword ptr [tss0 + 4], 0x8000
        mov dword ptr [tss0 + 8], 0x10
        push 0x7777             # GS
        push 0x6666
        push 0x1000             # DS
        push 0x0200             # ES
        push 0x0700             # SS
        push 0x0100             # ESP
        push 0x20202            # VM, IF
        push 0x0100             # CS
        push offset v86 - 0x1000
        iret
.code16
v86:    mov ax, ds
        mov bx, 0x1234
        mov [0x10], bx          # 10010h
        cli
        hlt
.code32
vec13:  mov al, 0xD
        out 0xE9, al
        pop eax
        out 0xE9, eax           # error code 0
        mov eax, [esp + 4]
        out 0xE9, eax           # CS
        mov eax, [esp + 8]
        out 0xE9, eax           # EFLAGS with VM
        mov eax, [esp + 16]
        out 0xE9, eax           # SS
        mov eax, [esp + 32]
        out 0xE9, eax           # GS
        mov ax, ds
        out 0xE9, ax            # null
        mov ax, 0x10
        mov ds, ax
        movzx eax, word ptr [0x10010]
        out 0xE9, eax
        hlt
"""
    text = task_program_raw(body)
    assert text == [0xD, 0, 0x100, 0x30202, 0x700, 0x7777, 0, 0x1234]


def test_virtual_mode_extensions() -> None:
    """INT through the task's own table, CLI, STI, PUSHF and IRET on VIF, with IOPL 0."""
    body = """
        mov dword ptr [tss0 + 4], 0x8000
        mov dword ptr [tss0 + 8], 0x10
        mov word ptr [tss0 + 0x66], 0x88       # redirection bitmap at 68h, all clear but 31h
        mov byte ptr [tss0 + 0x68 + 6], 2
        mov byte ptr [gdt_tss], 0x90
        mov byte ptr [gdt_tss + 5], 0x89
        mov ax, 0x50
        ltr ax
        mov word ptr [0x30 * 4], offset service - 0x1000
        mov word ptr [0x30 * 4 + 2], 0x100
        mov eax, cr4
        or al, 1
        mov cr4, eax
        push 0
        push 0
        push 0
        push 0
        push 0x0700
        push 0x0100
        push 0x20202
        push 0x0100
        push offset v86 - 0x1000
        iret
.code16
v86:    sti
        pushf
        pop ax
        mov ds:[0x500], ax      # IF shows VIF, IOPL shows 3
        int 0x30
        pushf
        pop ax
        mov ds:[0x504], ax      # IRET gave VIF back
        int 0x31                # not redirected: #GP
service: pushf
        pop ax
        mov ds:[0x502], ax
        iret
.code32
vec13:  pop eax
        out 0xE9, eax
        mov ax, 0x10
        mov ds, ax
        mov ax, [0x500]
        out 0xE9, ax
        mov ax, [0x502]
        out 0xE9, ax
        mov ax, [0x504]
        out 0xE9, ax
        mov eax, [esp + 8]
        out 0xE9, eax
        hlt
"""
    text = task_program_raw(body, "tss0_end: .fill 64, 1, 0")
    assert text == [0, 0x3202, 0x3002, 0x3202, 0xB0202]


def task_program_raw(body: str, after_tss: str = "") -> list[int]:
    return outputs(
        f"""
{FLAT32_START}
{SET_TSS}
{body}
{FLAT32_GDT}
{TSS.format(entry=0, flags=2).replace("tss1:", after_tss + chr(10) + "tss1:")}
{idt32(13)}
"""
    )


def test_triple_fault_shuts_down() -> None:
    assert Program("lidt [idtr]\nint3\nidtr: .word 0\n.long 0").run() == "shutdown"


def test_page_fault_in_page_fault_is_a_double_fault() -> None:
    text = f"""
        lgdt [gdtr]
        lidt [idtr]
        ljmp 8, offset start
start:  mov eax, offset directory
        mov dword ptr [eax], 0x83
        mov cr3, eax
        mov eax, cr4
        or eax, 0x10
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov dword ptr [idt + 14 * 8], 0x00080000   # the handler's page is not there
        mov dword ptr [idt + 14 * 8 + 4], 0x08008E00
        mov esp, 0x800008                           # and the stack is not there either
        mov eax, [0x900000]
vec14:  hlt
vec8:   hlt
{FLAT32_GDT}
.p2align 12
directory: .fill 4096, 1, 0
{idt32(8, 14)}
"""
    assert Program(text).run() == "shutdown"


def test_single_step_and_breakpoints() -> None:
    text = f"""
        lgdt [gdtr]
        lidt [idtr]
        ljmp 8, offset start
start:  mov esp, 0x9000
        pushfd
        or dword ptr [esp], 0x100
        popfd
        nop                     # traps after this
        mov ax, 0x10
        mov ss, ax              # no trap here
        nop                     # but after this
        pushfd
        and dword ptr [esp], 0xFFFFFEFF
        popfd
        mov eax, 0x99
        out 0xE9, eax
        mov eax, offset here
        mov dr0, eax
        mov eax, 0x402
        mov dr7, eax
here:   nop                     # instruction breakpoint, a fault
        mov eax, 0x9500
        mov dr1, eax
        mov eax, 0xD00408       # write of four bytes
        mov dr7, eax
        mov dword ptr [0x9500], 1
        mov eax, 0
        mov dr7, eax
        hlt
vec1:   push eax
        mov eax, [esp + 4]
        sub eax, offset start
        out 0xE9, eax
        mov eax, dr6
        out 0xE9, eax
        mov eax, 0xFFFF0FF0
        mov dr6, eax
        mov eax, [esp + 12]
        and eax, 0x10000
        out 0xE9, eax
        pop eax
        iret
{FLAT32_GDT}
{idt32(1)}
"""
    out = outputs(text)
    step = 0xFFFF4FF0
    cut = out.index(0x99)
    steps = [(out[i], out[i + 1], out[i + 2]) for i in range(0, cut, 3)]
    offsets = [s[0] for s in steps]
    assert all(s[1] == step and s[2] == 0 for s in steps)
    assert offsets == [15, 19, 22, 23, 30, 31]
    rest = out[cut + 1 :]
    assert rest[1] == 0xFFFF0FF1
    assert rest[2] == 0x10000, "an instruction breakpoint is a fault: RF in the image"
    assert rest[4] == 0xFFFF0FF2
    assert rest[5] == 0


def test_unreal_mode_keeps_its_limits() -> None:
    text = f"""
        cli
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, 0x10
        mov es, bx
        and al, 0xFE
        mov cr0, eax
        xor ax, ax
        mov es, ax
        mov edi, 0x200000
        mov dword ptr es:[edi], 0x12345678
        mov eax, es:[edi]
        out 0xE9, eax
        hlt
{FLAT32_GDT}
"""
    assert outputs(text, mode=16) == [0x12345678]


def test_real_mode_interrupt_and_limit_fault() -> None:
    text = """
        mov word ptr [0x80 * 4], offset service
        mov word ptr [0x80 * 4 + 2], 0
        mov word ptr [13 * 4], offset gp
        mov word ptr [13 * 4 + 2], 0
        sti
        int 0x80
        pushf
        pop ax
        and ax, 0x200
        out 0xE9, ax
        mov bx, 0xFFFF
        mov ax, [bx]            # a word at FFFFh
        mov ax, 0xBAD
        out 0xE9, ax
gp:     mov bp, sp
        mov ax, [bp + 2]        # no error code: IP, CS, FLAGS
        out 0xE9, ax
        cli
        hlt
service: pushf
        pop ax
        and ax, 0x200
        out 0xE9, ax
        iret
"""
    assert outputs(text, mode=16) == [0, 0x200, 0]


def test_sti_shadow_and_nmi_blocking() -> None:
    text = f"""
        lgdt [gdtr]
        lidt [idtr]
        ljmp 8, offset start
start:  mov esp, 0x9000
        mov edi, 0
wait:   inc edi
        jmp wait
vec2:   mov eax, 0x222
        out 0xE9, eax
        mov ecx, 1000
spin:   loop spin
        mov eax, 0x333
        out 0xE9, eax
        iret
{FLAT32_GDT}
{idt32(2)}
"""
    from pyhv.hv.sim.native import lib

    program = Program(text)
    assert program.run(500, 500) == "budget"
    lib.sim_nmi(program.cpu)
    assert program.run(500, 500) == "budget"
    assert program.out == [0x222]
    lib.sim_nmi(program.cpu)  # blocked until IRET
    assert program.run(200, 200) == "budget"
    assert program.out == [0x222]
    assert program.run(600, 600) == "budget"
    assert program.out == [0x222, 0x333, 0x222]
