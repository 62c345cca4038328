"""The multiboot information structure and all that it points to, as one block of bytes (specification, 3.3)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot import elf
from pyhv.boot.e820 import MIB, low_memory_end
from pyhv.boot.placer import align_up
from pyhv.chipset.layout import EBDA_BASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.e820 import MapEntry
    from pyhv.boot.image import Image
    from pyhv.boot.request import Module

MEMORY, COMMAND_LINE, MODULES, ELF_SECTIONS, MAP, LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 5, 1 << 6, 1 << 9
INFO = struct.Struct("<13I12xI48x")
LOADER = b"pyhv"
SYMBOLS_LIMIT = 16 << 20
"""Larger symbol tables stay out of the guest."""


class ElfSymbols:
    """The section headers, and the contents of the symbol and string tables that no segment loads."""

    def __init__(self, image: Image, header: elf.Header) -> None:
        self._bits = header.bits
        self._index = header.shstrndx
        self._sections = elf.read_sections(image, header)
        self._contents: dict[int, bytes] = {}
        self.entry_size = header.shentsize
        self.size = len(self._sections) * header.shentsize
        for number, section in enumerate(self._sections):
            if section.type not in (elf.SHT_SYMTAB, elf.SHT_STRTAB) or section.flags & elf.SHF_ALLOC or section.address:
                continue
            self.size += align_up(section.size, 16)
            if self.size > SYMBOLS_LIMIT:
                self._sections, self._contents, self.size = [], {}, 0
                break
            self._contents[number] = elf.section_contents(image, section) or b""

    @property
    def fields(self) -> tuple[int, int, int]:
        """num, size and shndx of the information structure."""
        return len(self._sections), self.entry_size, self._index

    def build(self, base: int) -> bytes:
        """The section headers, at `base`, then the contents."""
        position = base + len(self._sections) * self.entry_size
        headers, contents = [], []
        for number, section in enumerate(self._sections):
            data = self._contents.get(number)
            headers.append(elf.pack_section(self._bits, section, section.address if data is None else position))
            if data is not None:
                contents.append(data.ljust(align_up(section.size, 16), b"\0"))
                position += len(contents[-1])
        return b"".join(headers + contents)


class InfoBlock:
    """Sized first, built once its address and the modules' are known."""

    def __init__(
        self,
        entries: Sequence[MapEntry],
        cmdline: bytes,
        modules: Sequence[Module],
        ram_size: int,
        symbols: ElfSymbols | None,
    ) -> None:
        self._map = b"".join(struct.pack("<IQQI", 20, e.address, e.length, e.kind) for e in entries)
        self._strings = [cmdline, LOADER, *(module.string for module in modules)]
        self._upper = max(0, low_memory_end(ram_size) - MIB) >> 10
        self._modules = len(modules)
        self._symbols = symbols if symbols is not None and symbols.size else None
        self._fixed = align_up(INFO.size + len(self._map) + 16 * self._modules, 16)
        self.size = self._fixed + sum(len(s) + 1 for s in self._strings)
        if self._symbols is not None:
            self._fixed += self._symbols.size
            self.size += self._symbols.size

    def build(self, base: int, places: Sequence[tuple[int, int]]) -> bytes:
        """The bytes for address `base`; `places` are the modules' (start, end)."""
        symbols = self._symbols
        map_at = base + INFO.size
        modules_at = map_at + len(self._map)
        symbols_at = base + self._fixed - (symbols.size if symbols is not None else 0)
        addresses, position = [], base + self._fixed
        for string in self._strings:
            addresses.append(position)
            position += len(string) + 1
        count, size, index = symbols.fields if symbols is not None else (0, 0, 0)
        info = INFO.pack(
            MEMORY | COMMAND_LINE | MODULES | MAP | LOADER_NAME | (ELF_SECTIONS if symbols is not None else 0),
            EBDA_BASE >> 10,
            self._upper,
            0,
            addresses[0],
            self._modules,
            modules_at,
            count,
            size,
            symbols_at if symbols is not None else 0,
            index,
            len(self._map),
            map_at,
            addresses[1],
        )
        listing = b"".join(
            struct.pack("<4I", start, end, string, 0)
            for (start, end), string in zip(places, addresses[2:], strict=True)
        )
        fixed = info + self._map + listing
        fixed += bytes(-len(fixed) % 16)
        if symbols is not None:
            fixed += symbols.build(symbols_at)
        return fixed + b"".join(string + b"\0" for string in self._strings)
