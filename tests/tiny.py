"""Guests of a few instructions for tests of the machine: flat images, in real, 32-bit or long mode.

The prologues of `image` leave flat segments, a stack below 0x7c00, and interrupts off. `SERIAL`, `EXIT` and the like are
lines of assembly for the source.
"""

from pathlib import Path

from conformance.asm import assemble

ORG = 0x7C00

SWITCH = """
    .code16
    cli
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long flat32
    .word 8
    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdt_pointer:
    .word 31
    .long gdt
    .code32
flat32:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, 0x7c00
"""

LONG = """
    mov edi, 0x100000
    xor eax, eax
    mov ecx, 0x1800
    rep stosd
    mov dword ptr [0x100000], 0x101003
    mov dword ptr [0x101000], 0x102003
    mov dword ptr [0x101018], 0x103003
    mov dword ptr [0x101008], 0x104003
    mov eax, 0x83
    mov edi, 0x102000
    mov ecx, 512
1:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add edi, 8
    add eax, 0x200000
    loop 1b
    mov eax, 0xc0000083
    mov edi, 0x103000
    mov ecx, 512
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add edi, 8
    add eax, 0x200000
    loop 2b
    mov eax, 0x100000
    mov cr3, eax
    mov eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xea
    .long flat64
    .word 24
    .code64
flat64:
"""
"""The first and the fourth GiB one to one by 2 MiB pages; the second has a directory without entries."""

SPIN = "1: jmp 1b\n"
HALT = "1: cli\n hlt\n jmp 1b\n"


def exit(status: int) -> str:
    """The debug exit."""
    return f"mov al, {status}\n out 0xf4, al\n{HALT}"


def say(text: str) -> str:
    """Print by COM1, byte by byte."""
    lines = ["mov dx, 0x3f8"]
    lines += [f"mov al, {byte}\n out dx, al" for byte in text.encode()]
    return "\n".join(lines) + "\n"


def code(source: str, bits: int = 16) -> bytes:
    """A flat image for ORG that runs the source in the mode of so many bits."""
    head = {16: ".code16\n", 32: SWITCH, 64: SWITCH + LONG}[bits]
    return assemble(head + source, bits=64, org=ORG)


def image(directory: Path, source: str, bits: int = 16) -> Path:
    """`code` in a file."""
    data = code(source, bits)
    path = directory / f"tiny-{hash(data) & 0xFFFFFFFF:08x}.bin"
    path.write_bytes(data)
    return path
