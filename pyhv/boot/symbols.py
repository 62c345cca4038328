"""Names for addresses, from an ELF file's symbol table; read when the first name is asked for."""

from __future__ import annotations

import struct
from bisect import bisect_right

from pyhv._types import TYPE_CHECKING
from pyhv.boot import elf
from pyhv.boot.image import read_image
from pyhv.errors import BootError

if TYPE_CHECKING:
    from pyhv.boot.image import Image, Source

NO_TYPE, OBJECT, FUNCTION = 0, 1, 2
UNDEFINED, ABSOLUTE = 0, 0xFFF1
_LAYOUTS = {32: struct.Struct("<IIIBBH"), 64: struct.Struct("<IBBHQQ")}


class SymbolTable:
    """The functions, objects and labels of one image. An image without symbols, or no ELF file, has none."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._loaded = False
        self._addresses: list[int] = []
        self._symbols: list[tuple[int, int, str]] = []
        self._names: dict[str, int] = {}

    @classmethod
    def open(cls, source: Source) -> SymbolTable:
        """The symbols of a file. Raises ConfigError when it cannot be read."""
        return cls(read_image(source))

    def __len__(self) -> int:
        self._load()
        return len(self._symbols)

    def lookup(self, address: int) -> tuple[str, int] | None:
        """(name, offset) of the symbol that holds the address, or of the last one before it when that has no size."""
        self._load()
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        start, size, name = self._symbols[index]
        if size and address >= start + size:
            return None
        return name, address - start

    def describe(self, address: int) -> str:
        """`name+0x10` or the bare address."""
        found = self.lookup(address)
        if found is None:
            return f"{address:#x}"
        name, offset = found
        return f"{name}+{offset:#x}" if offset else name

    def address(self, name: str) -> int | None:
        """Where a symbol is."""
        self._load()
        return self._names.get(name)

    def extent(self, name: str) -> tuple[int, int] | None:
        """The first and the last address of a symbol; one without a size goes up to the next."""
        start = self.address(name)
        if start is None:
            return None
        index = bisect_right(self._addresses, start) - 1
        size = self._symbols[index][1]
        if not size:
            size = self._addresses[index + 1] - start if index + 1 < len(self._addresses) else 1
        return start, start + size - 1

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            header = elf.read_header(self._image)
        except BootError:
            return
        found = elf.read_sections(self._image, header)
        for section in found:
            if section.type == elf.SHT_SYMTAB and section.link < len(found):
                self._read(header.bits, section, found[section.link])
                break
        best: dict[int, tuple[int, int, str]] = {}
        for start, size, name in self._symbols:
            kept = best.get(start)
            if kept is None or (size > 0, name[:1] != "_") > (kept[1] > 0, kept[2][:1] != "_"):
                best[start] = (start, size, name)
        self._symbols = [best[start] for start in sorted(best)]
        self._addresses = sorted(best)

    def _read(self, bits: int, table: elf.Section, strings: elf.Section) -> None:
        layout = _LAYOUTS[bits]
        data, names = elf.section_contents(self._image, table), elf.section_contents(self._image, strings)
        if data is None or names is None or table.entsize != layout.size:
            return
        whole = len(data) // layout.size * layout.size
        for fields in layout.iter_unpack(data[:whole]):
            if bits == 64:
                name_at, info, _, section, value, size = fields
            else:
                name_at, value, size, info, _, section = fields
            if info & 0xF > FUNCTION or section in (UNDEFINED, ABSOLUTE) or name_at >= len(names):
                continue
            name = names[name_at : names.find(b"\0", name_at)].decode("utf-8", "replace")
            if name:
                self._symbols.append((value, size, name))
                self._names.setdefault(name, value)
