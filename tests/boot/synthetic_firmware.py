"""A PC firmware of 64 KiB for tests: it tells what memory it finds itself in, and starts the option ROM of fw_cfg."""

from pathlib import Path

import tiny
from conformance.asm import assemble

SIZE = 0x1_0000

START = f"""
    .code16
    jmp main
cell: .byte 'R'
main:
    cli
    cld
    mov byte ptr cs:[cell], 'w'
    mov al, cs:[cell]
    mov dx, 0x3f8
    out dx, al
    .byte 0xea
    .word low, 0xf000
low:
    mov byte ptr cs:[cell], 'w'
    mov al, cs:[cell]
    out dx, al
    {tiny.say(" firmware ")}
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ds, ax
    mov es, ax
"""
"""It prints R where it cannot write to itself and w where it can: at 4 GiB, then below 1 MiB."""

RUN_OPTION_ROM = f"""
    mov word ptr ds:[0x18 * 4], offset failed
    mov word ptr ds:[0x18 * 4 + 2], cs
    mov dx, 0x510
    mov ax, 0x19
    out dx, ax
    inc dx
    mov di, 0x600
    mov cx, 4
    rep insb
    movzx bp, byte ptr ds:[0x603]
next:
    mov di, 0x600
    mov cx, 64
    rep insb
    push ds
    push cs
    pop ds
    mov si, offset name
    mov di, 0x608
    mov cx, 17
    repe cmpsb
    pop ds
    je found
    dec bp
    jnz next
failed:
    {tiny.exit(9)}
name: .asciz "genroms/pyhv.bin"
found:
    mov ax, ds:[0x604]
    xchg al, ah
    dec dx
    out dx, ax
    inc dx
    mov cx, ds:[0x602]
    xchg cl, ch
    mov ax, 0xc800
    mov es, ax
    xor di, di
    rep insb
    mov ds, ax
    cmp word ptr ds:[0], 0xaa55
    jne failed
    .byte 0x9a
    .word 3, 0xc800
    mov bx, ds:[0x1a]
    push 0xc800
    push word ptr [bx + 0x1a]
    retf
"""


def build(directory: Path, source: str = RUN_OPTION_ROM) -> Path:
    """The image in a file; `source` follows START."""
    code = assemble(f"{START}{source}\n.org 0xfff0\n .byte 0xe9\n .word _start - . - 2\n .org 0x10000\n", bits=32)
    assert len(code) == SIZE
    path = directory / "firmware.bin"
    path.write_bytes(code)
    return path
