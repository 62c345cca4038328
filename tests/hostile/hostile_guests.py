"""Guests that mean harm: each gives the assembly of one, and the mode that it is for."""

import random
from dataclasses import dataclass

import tiny

RAM = 4 << 20
XORSHIFT = """
next:
    mov eax, [0x8ffc]
    mov ebx, eax
    shl ebx, 13
    xor eax, ebx
    mov ebx, eax
    shr ebx, 17
    xor eax, ebx
    mov ebx, eax
    shl ebx, 5
    xor eax, ebx
    mov [0x8ffc], eax
    ret
"""
"""A pseudorandom number in EAX; EBX is lost; the state is at 0x8ffc. It stands behind the code."""


@dataclass(frozen=True)
class Hostile:
    """A guest; `cpus` where more than one matters."""

    name: str
    source: str
    bits: int
    cpus: int = 1

    def __str__(self) -> str:
        return self.name


def _seed(seed: int) -> str:
    return f"mov dword ptr [0x8ffc], {seed * 2654435761 & 0xFFFFFFFF | 1:#x}\n"


def every_port(first: int, last: int, step: int) -> str:
    """All widths and three values, out and in, of ports from `first` to `last`; where it is stands at 0x9000."""
    outs = "".join(
        f"mov eax, {value:#x}\n out dx, al\n out dx, ax\n out dx, eax\n" for value in (0xFFFFFFFF, 0x55555555, 0)
    )
    return (
        f"mov edx, {first}\n1: mov [0x9000], dx\n in al, dx\n in ax, dx\n in eax, dx\n {outs}"
        f"add edx, {step}\n cmp edx, {last}\n jbe 1b\n mov dword ptr [0x9004], 1\n {tiny.exit(0)}"
    )


CHIPSET_PORTS = (
    *(0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x80, 0xE0, 0xE4),
    *range(0x3F8, 0x400),
    *(0x510, 0x511, 0x514, 0x518, 0x600, 0x608, 0x2000, 0x2004, 0x2080, 0x2084, 0xCFC),
)


def chipset_storm(seed: int, rounds: int = 1500) -> Hostile:
    """Random values of random widths to the chipset's ports, interrupts on, every vector taken; EOI only sometimes."""
    table = "".join(f".word {port:#x}\n" for port in CHIPSET_PORTS)
    source = f"""
        {_seed(seed)}
        xor di, di
        mov cx, 256
    1:  mov word ptr [di], offset handler
        mov word ptr [di + 2], 0
        add di, 4
        loop 1b
        mov dword ptr [0x9000], {rounds}
    2:  sti
        call next
        mov cl, al
        xor edx, edx
        shr eax, 8
        mov ebx, {len(CHIPSET_PORTS)}
        div ebx
        mov si, dx
        add si, si
        mov dx, [si + table]
        call next
        test cl, 1
        jz 3f
        out dx, al
    3:  test cl, 2
        jz 4f
        out dx, ax
    4:  test cl, 0x30
        jnz 5f
        out dx, eax
    5:  test cl, 4
        jz 6f
        in al, dx
    6:  test cl, 0xc0
        jnz 7f
        in eax, dx
    7:  dec dword ptr [0x9000]
        jnz 2b
        cli
        {tiny.exit(0)}
    handler:
        push ax
        mov al, [0x8ffc]
        test al, 3
        jz 8f
        mov al, 0x20
        out 0x20, al
        out 0xa0, al
    8:  pop ax
        iret
    table:
        {table}
        {XORSHIFT}
    """
    return Hostile(f"chipset storm {seed}", source, 16)


MMIO_WINDOWS = (0xFEE0_0000, 0xFEC0_0000, 0xFF00_0000, 0xFF00_F000, 0xD000_0000, 0xFEE0_0000, 0xFFFF_F000, 0x000A_0000)


def mmio_storm(seed: int, cpus: int = 1, rounds: int = 1500) -> Hostile:
    """Random accesses around the APICs, the test device and nothing at all; wide and across their ends."""
    table = "".join(f".long {base:#x}\n" for base in MMIO_WINDOWS)
    source = f"""
        {_seed(seed)}
        mov dword ptr [0x9000], {rounds}
    1:  call next
        mov ecx, eax
        mov esi, eax
        shr esi, 29
        mov esi, [rsi * 4 + table]
        and eax, 0x1fff
        sub eax, 0x800
        test ecx, 0x10000
        jz 2f
        and eax, 0xff0
    2:  add esi, eax
        call next
        test ecx, 0x20000
        jz 3f
        and eax, 0xff
    3:  test ecx, 0x40000
        jz 4f
        mov [rsi], al
        mov [rsi], ax
    4:  test ecx, 0x80000
        jz 5f
        mov [rsi], eax
    5:  test ecx, 0x300000
        jnz 6f
        mov [rsi], rax
        xchg [rsi], rax
    6:  mov al, [rsi]
        mov ax, [rsi]
        mov eax, [rsi]
        test ecx, 0x400000
        jz 7f
        mov rax, [rsi]
        lock add [rsi], eax
    7:  dec dword ptr [0x9000]
        jnz 1b
        {tiny.exit(0)}
    .balign 4
    table:
        {table}
        {XORSHIFT}
    """
    return Hostile(f"mmio storm {seed}" + (f" on {cpus} cpus" if cpus > 1 else ""), source, 64, cpus)


def random_code(bits: int, seed: int, size: int = 1024) -> Hostile:
    """Random bytes as code; every second one only of short, common opcodes, to get farther."""
    source = random.Random(seed * 100 + bits)
    data = source.randbytes(size)
    if seed % 2:
        common = (
            bytes(range(0x40))
            + b"\xe4\xe5\xe6\xe7\xec\xed\xee\xef\x6c\x6d\x6e\x6f\x8a\x8b\x88\x89\x8e\x0f\xf0\xf3\x66\x67\xcd"
        )
        data = bytes(source.choice(common) if n % 3 else byte for n, byte in enumerate(data))
    lines = "".join(f".byte {byte}\n" for byte in data)
    return Hostile(f"random code {bits} bits {seed}", f"mov esp, 0x7000\n{lines}", bits)


def fw_cfg_storm(seed: int) -> Hostile:
    """DMA descriptors with random control, length and address, some of them on themselves or past the end."""
    source = f"""
        {_seed(seed)}
        mov dword ptr [0x9000], 400
    1:  call next
        mov ecx, eax
        and eax, 0x1f000000
        mov [0x8000], eax
        call next
        and eax, 0xffff0000
        mov [0x8004], eax
        call next
        test ecx, 1
        jz 2f
        mov eax, 0
    2:  mov [0x8008], eax
        call next
        and eax, 0xffff4fff
        mov [0x800c], eax
        mov dx, 0x510
        mov ax, cx
        and ax, 0x3f
        out dx, ax
        mov dx, 0x514
        mov eax, 0
        test ecx, 0x600
        jnz 3f
        mov eax, ecx
    3:  out dx, eax
        mov dx, 0x518
        mov eax, 0x00800000
        test ecx, 0x1800
        jnz 4f
        mov eax, ecx
    4:  out dx, eax
        dec dword ptr [0x9000]
        jnz 1b
        {tiny.exit(0)}
        {XORSHIFT}
    """
    return Hostile(f"fw_cfg storm {seed}", source, 32)


def _string(name: str, setup: str, instruction: str, bits: int = 32) -> Hostile:
    return Hostile(name, f"cld\n{setup}\n{instruction}\n{tiny.exit(0)}", bits)


STRINGS = (
    _string("insb over a page", "mov edi, 0x9ffc\n mov ecx, 0x100\n mov dx, 0x3fd", "rep insb"),
    _string("insd off the end of memory", f"mov edi, {RAM - 8:#x}\n mov ecx, 0x400\n mov dx, 0x3f8", "rep insd"),
    _string("insw where nothing is", "mov edi, 0xd0000000\n mov ecx, 0x400\n mov dx, 0x1234", "rep insw"),
    _string("insb into the APIC", "mov edi, 0xfee00000\n mov ecx, 0x400\n mov dx, 0x71", "rep insb"),
    _string("insd over the top of 4 GiB", "mov edi, 0xfffffff8\n mov ecx, 64\n mov dx, 0x80", "rep insd"),
    _string("outsb off the end of memory", f"mov esi, {RAM - 5:#x}\n mov ecx, 0x400\n mov dx, 0x80", "rep outsb"),
    _string("outsd from MMIO", "mov esi, 0xfec00000\n mov ecx, 0x100\n mov dx, 0x80", "rep outsd"),
    _string("outsb backwards through 0", "std\n mov esi, 16\n mov ecx, 64\n mov dx, 0x80", "rep outsb"),
    _string("insb, 4 billion of them", "mov edi, 0x9000\n mov ecx, 0xffffffff\n mov dx, 0x80", "rep insb"),
    _string("insb over its segment's end", "mov di, 0xfff0\n mov cx, 0x100\n mov dx, 0x80", "rep insb", 16),
    _string("insd into an unmapped page", "mov edi, 0x3ffffff8\n mov ecx, 64\n mov dx, 0x80", "rep insd", 64),
    _string("movsd from MMIO to MMIO", "mov esi, 0xfec00000\n mov edi, 0xff000000\n mov ecx, 64", "rep movsd"),
    _string("stosb over all of memory", "mov edi, 0\n mov ecx, 0xffffffff\n mov eax, 0xf4f4f4f4", "rep stosd"),
)
JUMPS = (
    Hostile("jump into nothing", "mov eax, 0xd0000000\n jmp eax\n", 32),
    Hostile("jump into the APIC", "mov eax, 0xfee00000\n jmp eax\n", 32),
    Hostile(
        "jump into the test device", "mov dword ptr [0xff000000], 0xfeebfeeb\n mov eax, 0xff000000\n jmp eax\n", 32
    ),
    Hostile(
        "run off the end of memory", f"mov word ptr [{RAM - 2:#x}], 0x9090\n mov eax, {RAM - 2:#x}\n jmp eax\n", 32
    ),
    Hostile("stack where nothing is", "mov esp, 0xd0000800\n call 1f\n1: pushad\n popad\n ret\n", 32),
    Hostile("stack in the APIC", "mov esp, 0xfee00100\n push 0x1234\n pop eax\n int 3\n", 32),
    Hostile("stack off the end of memory", f"mov esp, {RAM + 2:#x}\n push 0x12345678\n push 0x12345678\n ret\n", 32),
    Hostile("unmapped stack", "mov rsp, 0x600000000000\n push rax\n", 64),
    Hostile("stack that is not canonical", "mov rsp, 0x800000000000\n push rax\n", 64),
    Hostile("page tables in nothing", "mov eax, 0xd0000000\n mov cr3, rax\n nop\n", 64),
    Hostile("page tables off the end", f"mov eax, {RAM - 0x1000:#x}\n mov cr3, rax\n nop\n", 64),
    Hostile("descriptors in nothing", "lgdt [1f]\n mov eax, 8\n mov ds, eax\n1: .word 0xffff\n .long 0xd0000000\n", 32),
    Hostile("gates in the APIC", "lidt [1f]\n ud2\n1: .word 0xffff\n .long 0xfee00000\n", 32),
    Hostile("halt for ever", "cli\n hlt\n", 32),
    Hostile("reserved bits of CR4", "mov eax, 0xffffffff\n mov cr4, eax\n", 32),
    Hostile("writes to every MSR it can think of", "xor ecx, ecx\n1: xor eax, eax\n wrmsr\n inc ecx\n jmp 1b\n", 32),
    Hostile(
        "x2APIC with a moved base", "mov ecx, 0x1b\n mov eax, 0xd0000d00\n xor edx, edx\n wrmsr\n rdmsr\n hlt\n", 32
    ),
    Hostile(
        "APIC off", "mov ecx, 0x1b\n xor eax, eax\n xor edx, edx\n wrmsr\n mov eax, [0xfee00020]\n sti\n hlt\n", 32
    ),
)
