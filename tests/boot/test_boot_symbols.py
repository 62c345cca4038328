"""Names for addresses."""

import struct

import pytest
from boot_images import MIB, Load, elf

from pyhv.boot.image import Image
from pyhv.boot.symbols import SymbolTable

NAMES = b"\0start\0main\0__alias\0counter\0label\0file.c\0external\0"


def offset(name: bytes) -> int:
    return NAMES.index(b"\0" + name + b"\0") + 1


def image(bits: int, symbols: list[tuple[bytes, int, int, int, int]]) -> bytes:
    """An ELF file with these (name, value, size, type, section) in its symbol table."""
    base = bytearray(elf(bits, MIB, [Load(MIB, b"\xf4" * 64)]))
    table = b""
    for name, value, size, kind, section in symbols:
        if bits == 64:
            table += struct.pack("<IBBHQQ", offset(name), 0x10 | kind, 0, section, value, size)
        else:
            table += struct.pack("<IIIBBH", offset(name), value, size, 0x10 | kind, 0, section)
    at = len(base)
    layout = "<IIQQQQIIQQ" if bits == 64 else "<10I"
    entry = 24 if bits == 64 else 16
    headers = struct.pack(layout, *([0] * 10))
    headers += struct.pack(layout, 0, 2, 0, 0, at, len(table), 2, 0, 8, entry)
    headers += struct.pack(layout, 0, 3, 0, 0, at + len(table), len(NAMES), 0, 0, 1, 0)
    if bits == 64:
        struct.pack_into("<Q", base, 40, at + len(table) + len(NAMES))
        struct.pack_into("<HHH", base, 58, 64, 3, 0)
    else:
        struct.pack_into("<I", base, 32, at + len(table) + len(NAMES))
        struct.pack_into("<HHH", base, 46, 40, 3, 0)
    return bytes(base) + table + NAMES + headers


SYMBOLS = [
    (b"main", MIB + 16, 8, 2, 1),
    (b"start", MIB, 16, 2, 1),
    (b"__alias", MIB + 16, 0, 0, 1),
    (b"counter", MIB + 64, 4, 1, 2),
    (b"label", MIB + 80, 0, 0, 1),
    (b"file.c", 0, 0, 4, 0xFFF1),
    (b"external", 0, 0, 0, 0),
]


@pytest.mark.parametrize("bits", [32, 64])
def test_lookup(bits: int) -> None:
    table = SymbolTable.open(image(bits, SYMBOLS))
    assert len(table) == 4
    assert table.lookup(MIB) == ("start", 0)
    assert table.lookup(MIB + 15) == ("start", 15)
    assert table.lookup(MIB + 16) == ("main", 0)
    assert table.lookup(MIB + 24) is None
    assert table.lookup(MIB + 200) == ("label", 120)
    assert table.lookup(5) is None
    assert table.address("counter") == MIB + 64 and table.address("__alias") == MIB + 16
    assert table.address("external") is None
    assert table.describe(MIB + 18) == "main+0x2" and table.describe(MIB) == "start" and table.describe(7) == "0x7"


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF", elf(64, MIB, [Load(MIB, b"x")])])
def test_files_without_symbols(content: bytes) -> None:
    table = SymbolTable.open(content)
    assert len(table) == 0 and table.lookup(MIB) is None


def test_damaged_tables() -> None:
    good = image(64, SYMBOLS)
    for position in range(64):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        SymbolTable.open(bytes(bad)).lookup(MIB)
    for position in range(len(good) - 192, len(good)):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        SymbolTable.open(bytes(bad)).lookup(MIB)


@pytest.mark.parametrize("bits", [32, 64])
def test_extents(bits: int) -> None:
    symbols = [(b"main", MIB + 16, 8, 2, 1), (b"label", MIB + 32, 0, 0, 1), (b"start", MIB + 48, 0, 0, 1)]
    table = SymbolTable(Image(image(bits, symbols), "kernel"))
    assert table.extent("main") == (MIB + 16, MIB + 23)
    assert table.extent("label") == (MIB + 32, MIB + 47)
    assert table.extent("start") == (MIB + 48, MIB + 48)
    assert table.extent("nobody") is None
