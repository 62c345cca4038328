"""Tiny multiboot kernels for measuring: one instruction in a loop, then the debug exit with status 0.

The code runs in 32-bit protected mode with flat segments and paging off, at `LOAD + HEADER`.
"""

import struct
from pathlib import Path

LOAD = 0x100000
HEADER = 0x20
PORT = 0x2F0
MMIO = 0xD000_0000

_END = bytes.fromhex("30c0 e6f4 f4")
"""xor al, al; out 0xf4, al; hlt"""

ACCESSES = {
    "PIO out": bytes.fromhex("ee"),
    "PIO in": bytes.fromhex("ec"),
    "MMIO write": bytes.fromhex("8807"),
    "MMIO read": bytes.fromhex("8a07"),
}
"""out dx, al; in al, dx; mov [edi], al; mov al, [edi]"""


def loop_code(access: str, count: int) -> bytes:
    """`count` times one access to PORT or MMIO, then the end."""
    body = ACCESSES[access] + b"\x49"  # dec ecx
    return (
        b"\xb9" + struct.pack("<I", count)  # mov ecx, count
        + b"\xba" + struct.pack("<I", PORT)  # mov edx, PORT
        + b"\xbf" + struct.pack("<I", MMIO)  # mov edi, MMIO
        + body + b"\x75" + struct.pack("b", -len(body) - 2)  # jnz to the body
        + _END
    )  # fmt: skip


def end_code() -> bytes:
    """Nothing but the end."""
    return _END


def multiboot(code: bytes) -> bytes:
    """A multiboot image around the code (Multiboot 0.6.96, 3.1: with the address fields)."""
    magic, flags, entry = 0x1BADB002, 0x10000, LOAD + HEADER
    end = entry + len(code)
    return struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFF_FFFF, LOAD, LOAD, end, end, entry) + code


def write(directory: Path, name: str, code: bytes) -> tuple[Path, Path]:
    """The multiboot image for pyhv and the bare code for the peers in C."""
    directory.mkdir(parents=True, exist_ok=True)
    image, bare = directory / f"{name}.elf", directory / f"{name}.bin"
    image = image.with_suffix(".img")
    image.write_bytes(multiboot(code))
    bare.write_bytes(code)
    return image, bare
