"""ELF section headers, as far as symbols need them. Damaged ones are left out: no error, as no code depends on them."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.record import record

if TYPE_CHECKING:
    from pyhv.boot.elf import Header
    from pyhv.boot.image import Image

SHT_SYMTAB, SHT_STRTAB = 2, 3
SHF_ALLOC = 2
_LAYOUTS = {32: struct.Struct("<10I"), 64: struct.Struct("<IIQQQQIIQQ")}


@record(frozen=True)
class Section:
    """One section header; `raw` are all its fields in file order."""

    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entsize: int
    raw: tuple[int, ...]


def read_sections(image: Image, header: Header) -> list[Section]:
    """All sections, or an empty list when the table does not lie in the file."""
    layout = _LAYOUTS[header.bits]
    if not header.shnum or header.shentsize != layout.size:
        return []
    if header.shoff + header.shnum * layout.size > len(image.data):
        return []
    table = image.data[header.shoff : header.shoff + header.shnum * layout.size]
    return [Section(raw[1], raw[2], raw[3], raw[4], raw[5], raw[6], raw[9], raw) for raw in layout.iter_unpack(table)]


def contents(image: Image, section: Section) -> bytes | None:
    """A section's bytes, None when they do not lie in the file."""
    if section.offset + section.size > len(image.data):
        return None
    return image.data[section.offset : section.offset + section.size]


def pack(bits: int, section: Section, address: int) -> bytes:
    """The section header with another sh_addr."""
    raw = section.raw
    return _LAYOUTS[bits].pack(*raw[:3], address, *raw[4:])
