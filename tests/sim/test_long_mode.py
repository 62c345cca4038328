"""Long mode, paging and code that changes itself, on the bare machine."""

import pytest
from machine_program import FLAT32_GDT, FLAT32_START, Program, idt32, idt64, outputs

LONG = """
        lgdt [gdtr]
        lidt [idtr]
        push 0x40
        push offset start
        retfq
"""


def test_way_into_long_mode_and_out_again() -> None:
    text = f"""
        lgdt [gdtr]
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, 0x100000
        mov cr3, eax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        rdmsr
        out 0xE9, eax           # LME and LMA, still compatibility mode
        ljmp 0x40, offset wide
.code64
wide:   mov rax, 0x123456789ABCDEF0
        shr rax, 32
        out 0xE9, eax
        push 8
        push offset narrow
        retfq
.code32
narrow: mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        rdmsr
        out 0xE9, eax
        hlt
{FLAT32_GDT}
"""
    program = Program(text)
    program.identity_map(0x100000)
    assert program.run() == "halt"
    assert program.out == [0x500, 0x12345678, 0x100]


def test_syscall_and_sysret() -> None:
    text = f"""
{LONG}
start:  mov ax, 0x10
        mov ss, ax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 1
        wrmsr
        mov ecx, 0xC0000081
        xor eax, eax
        mov edx, 0x00380008     # SYSRET base 38h: SS 40h|3.., CS 48h|3; SYSCALL CS 8, SS 10h
        wrmsr
        mov ecx, 0xC0000082
        mov eax, offset entry
        xor edx, edx
        wrmsr
        mov ecx, 0xC0000084
        mov eax, 0x200
        wrmsr
        mov rcx, offset user
        mov r11, 0x3202
        sysretq
user:   mov ax, cs
        movzx eax, ax
        mov ebx, eax
        mov ax, ss
        movzx ebp, ax
        syscall
back:
entry:  mov eax, ebx
        out 0xE9, eax
        mov eax, ebp
        out 0xE9, eax
        mov eax, ecx
        sub eax, offset back
        out 0xE9, eax
        mov eax, r11d
        out 0xE9, eax
        pushfq
        pop rax
        and eax, 0xFFFFFF00
        out 0xE9, eax
        mov ax, cs
        out 0xE9, ax
        mov ax, ss
        out 0xE9, ax
        hlt
vec13:  mov eax, 0xBAD
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt64(13)}
"""
    assert outputs(text, 64) == [0x4B, 0x43, 0, 0x3202, 0x3000, 8, 0x10]


def test_interrupt_stack_table_and_alignment() -> None:
    text = f"""
{LONG}
start:  mov eax, offset tss
        mov word ptr [gdt_tss], 0x67
        mov [gdt_tss + 2], ax
        mov byte ptr [gdt_tss + 5], 0x89
        mov ax, 0x50
        ltr ax
        mov byte ptr [idt + 6 * 16 + 4], 3
        mov esp, 0x8FFB
        ud2
vec6:   mov eax, esp
        out 0xE9, eax
        mov eax, [rsp + 24]     # the interrupted RSP
        out 0xE9, eax
        mov esp, 0x8FFB
        int3
vec3:   mov eax, esp
        out 0xE9, eax
        hlt
.p2align 3
tss:    .long 0
        .quad 0, 0, 0, 0, 0, 0, 0xA010
        .fill 60, 1, 0
{FLAT32_GDT}
{idt64(3, 6)}
"""
    assert outputs(text, 64) == [0xA010 - 40, 0x8FFB, 0x8FF0 - 40]


@pytest.mark.parametrize(
    ("body", "vector", "error"),
    [
        ("mov rax, 0x800000000000\nmov rbx, [rax]", 13, 0),
        ("mov rbp, 0x800000000000\nmov rbx, [rbp]", 12, 0),
        ("mov rsp, 0x800000001000\npush rax", 12, 0),
        ("mov rax, 0x800000000000\njmp rax", 13, 0),
        ("mov eax, 0x100\nmov cr8, rax", 13, 0),
        ("mov rax, 1 << 40\nmov cr0, rax", 13, 0),
        ("mov rax, cr4\nand al, 0xDF\nmov cr4, rax", 13, 0),
        ("mov ecx, 0x12345\nrdmsr", 13, 0),
        ("mov rax, [0x40000000]", 14, 0),
        ("mov [0x40000000], rax", 14, 2),
        ("mov rax, 0x40000000\njmp rax", 14, 0x10),
        ("int 0x77", 13, 0x77 * 8 + 2),
    ],
)
def test_faults(body: str, vector: int, error: int) -> None:
    text = f"""
{LONG}
start:
{body}
        hlt
vec{vector}: pop rax
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt64(vector)}
"""
    if "rsp" in body:
        text = text.replace(
            "start:",
            """start: mov eax, offset tss
        mov word ptr [gdt_tss], 0x67
        mov [gdt_tss + 2], ax
        mov byte ptr [gdt_tss + 5], 0x89
        mov ax, 0x50
        ltr ax
        mov byte ptr [idt + 12 * 16 + 4], 1
        jmp 1f
.p2align 3
tss:    .fill 0x24, 1, 0
        .quad 0xA000
        .fill 64, 1, 0
1:
""",
        )
    program = Program(text, 64)
    state = program.state()
    assert program.run() == "halt"
    assert program.out == [error], hex(state.rip)


def paged32(tables: str, body: str, cr4: int) -> list[int]:
    return outputs(
        f"""
{FLAT32_START}
{tables}
        mov eax, {cr4}
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80010000
        mov cr0, eax
{body}
        hlt
vec14:  pop eax
        out 0xE9, eax
        mov eax, cr2
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt32(14)}
"""
    )


def test_four_megabyte_pages() -> None:
    tables = """
        mov dword ptr [0x100000], 0x83
        mov dword ptr [0x100004], 0x83          # 4 MiB shows the first again
        mov dword ptr [0x100008], 0xA00083      # a reserved bit, 21
        mov eax, 0x100000
        mov cr3, eax
        mov dword ptr [0x3000], 0x5A5A
"""
    body = "mov eax, [0x403000]\nout 0xE9, eax\nmov eax, [0x100004]\nand eax, 0x60\nout 0xE9, eax\nmov eax, [0x800000]"
    assert paged32(tables, body, 0x10) == [0x5A5A, 0x20, 0x9, 0x800000]


def test_pae_paging() -> None:
    tables = """
        mov dword ptr [0x100000], 0x101001
        mov dword ptr [0x101000], 0x83
        mov dword ptr [0x101008], 0x102003
        mov dword ptr [0x102000], 0x3001        # 2 MiB: page 3000h, read-only
        mov eax, 0x100000
        mov cr3, eax
        mov dword ptr [0x3000], 0x77
"""
    body = "mov eax, [0x200000]\nout 0xE9, eax\nmov dword ptr [0x200004], 1"
    assert paged32(tables, body, 0x20) == [0x77, 3, 0x200004]


def test_five_levels() -> None:
    text = f"""
        lgdt [gdtr]
        mov eax, 0x1020
        mov cr4, eax
        mov eax, 0x180000
        mov cr3, eax
        mov ecx, 0xC0000080
        mov eax, 0x100
        xor edx, edx
        wrmsr
        mov eax, 0x80000011
        mov cr0, eax
        ljmp 0x40, offset wide
.code64
wide:   mov rax, 0x1000000003000        # bit 48: the second PML5 entry
        mov dword ptr [0x3000], 0x99
        mov eax, [rax]
        out 0xE9, eax
        hlt
{FLAT32_GDT}
"""
    program = Program(text)
    program.identity_map(0x100000)
    program.put(0x180000, 0x100007, 0x100007)
    assert program.run() == "halt"
    assert program.out == [0x99]
    assert program.stats().walk_refs_guest % 4 == 0


def test_supervisor_mode_protections() -> None:
    text = f"""
{LONG}
start:  mov rax, 0x300020
        mov cr4, rax
        stac
        mov eax, [0x5000]       # allowed by AC
        clac
        mov eax, [0x5000]
        hlt
vec14:  pop rax
        out 0xE9, eax
        stac
        mov rax, cr2
        out 0xE9, eax
        mov eax, offset smep
        mov word ptr [idt + 14 * 16], ax
        mov eax, 0x5000
        jmp rax
smep:   pop rax
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt64(14)}
"""
    program = Program(text, 64)
    program.identity_map(0x100000, 3)  # supervisor, but for page 5000h
    program.put(0x100000, 0x101007)
    program.put(0x101000, 0x102007)
    program.put(0x102000, 0x103007)
    program.put(0x103000, *((i << 12) | (7 if i == 5 else 3) for i in range(512)))
    assert program.run() == "halt"
    assert program.out == [1, 0x5000, 0x11]


def test_code_that_changes_itself() -> None:
    text = """
        mov ecx, 3
again:  mov byte ptr [patch + 1], cl        # the next instruction of this block
patch:  mov al, 0
        out 0xE9, al
        dec ecx
        jnz again
        mov dword ptr [data], 5             # data beside code leaves it alone
        mov eax, [data]
        out 0xE9, eax
        call sub
        mov byte ptr [sub + 1], 0x22
        call sub
        mov edi, offset sub + 1
        mov al, 0x33
        mov ecx, 1
        rep stosb
        call sub
        hlt
data:   .long 0
sub:    mov al, 0x11
        out 0xE9, al
        ret
"""
    assert outputs(text) == [3, 2, 1, 5, 0x11, 0x22, 0x33]


def test_code_changed_through_another_mapping() -> None:
    text = f"""
{LONG}
start:  call sub
        mov byte ptr [sub + 0x200000 + 1], 0x44
        call sub
        hlt
sub:    mov al, 0x11
        out 0xE9, al
        ret
vec13:
{FLAT32_GDT}
{idt64(13)}
"""
    program = Program(text, 64)
    program.put(0x102008, 0x87)  # 2 MiB shows the first 2 MiB again
    assert program.run() == "halt"
    assert program.out == [0x11, 0x44]


def test_string_moves_between_pages_that_share_a_tlb_entry() -> None:
    """The source and the destination are a multiple of the first-level TLB's reach apart; a page at a time all the same."""
    text = """
        cld
        mov esi, 0x400FF0
        mov edi, 0x800FF0
        mov ecx, 0x1004
        rep movsb
        mov eax, ecx
        out 0xE9, eax
        mov eax, esi
        out 0xE9, eax
        mov eax, edi
        out 0xE9, eax
        hlt
"""
    program = Program(text, 64)
    data = bytes(i * 7 & 0xFF for i in range(0x1004))
    program.ram[0x400FF0 : 0x400FF0 + len(data)] = data
    assert program.run() == "halt"
    assert program.out == [0, 0x401FF4, 0x801FF4]
    assert program.ram[0x800FF0 : 0x800FF0 + len(data)] == data
    assert program.ram[0x800FF0 + len(data)] == 0
    assert program.stats().tlb_hits < 50


def test_sysenter_and_sysexit() -> None:
    text = f"""
        lgdt [gdtr]
        ljmp 8, offset start
start:  mov ax, 0x10
        mov ss, ax
        mov ecx, 0x174
        mov eax, 8
        xor edx, edx
        wrmsr
        inc ecx
        mov eax, 0x8800
        wrmsr
        inc ecx
        mov eax, offset entry
        wrmsr
        mov ecx, 0x8F00
        mov edx, offset user
        sysexit
user:   mov bx, cs
        mov bp, ss
        mov esi, esp
        sysenter
entry:  mov ax, bx
        out 0xE9, ax
        mov ax, bp
        out 0xE9, ax
        mov eax, esi
        out 0xE9, eax
        mov eax, esp
        out 0xE9, eax
        mov ax, cs
        out 0xE9, ax
        hlt
{FLAT32_GDT}
"""
    assert outputs(text) == [0x1B, 0x23, 0x8F00, 0x8800, 8]


def test_sysret_to_an_address_not_canonical_faults_in_user_mode() -> None:
    text = f"""
{LONG}
start:  mov ax, 0x10
        mov ss, ax
        mov word ptr [gdt_tss], 0x67
        mov word ptr [gdt_tss + 2], 0x7000
        mov dword ptr [gdt_tss + 4], 0x8900
        mov qword ptr [0x7004], 0x8800
        mov ax, 0x50
        ltr ax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 1
        wrmsr
        mov ecx, 0xC0000081
        xor eax, eax
        mov edx, 0x00380008
        wrmsr
        mov rcx, 0x800000000000
        mov r11, 0x202
        sysretq
vec13:  mov rax, [rsp + 16]
        out 0xE9, ax
        mov rax, [rsp + 8]
        shr rax, 32
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt64(13)}
"""
    assert outputs(text, 64) == [0x4B, 0x8000]


@pytest.mark.parametrize("instruction", [".byte 0x0F, 0x34", ".byte 0x0F, 0x35"], ids=["sysenter", "sysexit"])
def test_sysenter_is_no_instruction_of_long_mode_whatever_its_segment(instruction: str) -> None:
    text = f"""
{LONG}
start:  {instruction}
vec6:   mov eax, 6
        out 0xE9, eax
        hlt
vec13:  mov eax, 13
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt64(6, 13)}
"""
    assert outputs(text, 64) == [6]


def test_bit_8_is_reserved_in_top_level_entries_alone() -> None:
    text = f"""
{LONG}
start:  or dword ptr [0x101000], 0x100  # PDPE: ignored
        mov rax, cr3
        mov cr3, rax
        mov eax, 1
        out 0xE9, eax
        or dword ptr [0x100008], 0x100
        mov rax, 0x8000000000
        mov eax, [rax]
        hlt
vec14:  pop rax
        out 0xE9, eax
        hlt
{FLAT32_GDT}
{idt64(14)}
"""
    program = Program(text, 64)
    program.put(0x100008, 0x101007)
    assert program.run() == "halt"
    assert program.out == [1, 9]
