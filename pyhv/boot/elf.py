"""ELF executables for x86, as a boot loader reads them (System V ABI, ELF and its i386 and AMD64 supplements)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyhv.boot.image import Image

MAGIC = b"\x7fELF"
EM_386, EM_X86_64 = 3, 62
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_NOTE = 1, 4
PF_X = 1
SHT_SYMTAB, SHT_STRTAB = 2, 3
SHF_ALLOC = 2
MAX_PROGRAM_HEADERS = 512
NOTE_LIMIT = 1 << 20
"""Bytes of notes that are looked at."""
_SECTIONS = {32: struct.Struct("<10I"), 64: struct.Struct("<IIQQQQIIQQ")}


class Header:
    """The ELF file header; `bits` is 32 or 64."""

    __slots__ = ("bits", "entry", "machine", "phentsize", "phnum", "phoff", "shentsize", "shnum", "shoff", "shstrndx")

    def __init__(
        self,
        bits: int,
        machine: int,
        entry: int,
        phoff: int,
        phentsize: int,
        phnum: int,
        shoff: int,
        shentsize: int,
        shnum: int,
        shstrndx: int,
    ) -> None:
        self.bits = bits
        self.machine = machine
        self.entry = entry
        self.phoff = phoff
        self.phentsize = phentsize
        self.phnum = phnum
        self.shoff = shoff
        self.shentsize = shentsize
        self.shnum = shnum
        self.shstrndx = shstrndx


class ProgramHeader:
    """One segment; addresses and sizes in bytes."""

    __slots__ = ("align", "filesz", "flags", "memsz", "offset", "paddr", "type", "vaddr")

    def __init__(
        self, type: int, flags: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int, align: int
    ) -> None:
        self.type = type
        self.flags = flags
        self.offset = offset
        self.vaddr = vaddr
        self.paddr = paddr
        self.filesz = filesz
        self.memsz = memsz
        self.align = align


def read_header(image: Image) -> Header:
    """Raises BootError for what is not an x86 executable."""
    data = image.data
    ident = data[:20]
    if len(ident) < 20 or ident[:4] != MAGIC:
        raise BootError(f"{image}: ELF header: truncated or not ELF")
    if ident[4] not in (1, 2):
        raise BootError(f"{image}: ELF header: class {ident[4]} is neither 32-bit nor 64-bit")
    if ident[5] != 1:
        raise BootError(f"{image}: ELF header: not little-endian")
    kind, machine = struct.unpack_from("<HH", ident, 16)
    if kind not in (ET_EXEC, ET_DYN):
        raise BootError(f"{image}: ELF header: type {kind} is not an executable")
    wide = ident[4] == 2
    if machine != EM_X86_64 and (wide or machine != EM_386):
        raise BootError(f"{image}: ELF header: machine {machine} is not x86")
    layout = struct.Struct("<16sHHIQQQIHHHHHH" if wide else "<16sHHIIIIIHHHHHH")
    if len(data) < layout.size:
        raise BootError(f"{image}: ELF header: truncated")
    fields = layout.unpack_from(data, 0)
    _, _, _, _, entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = fields
    return Header(64 if wide else 32, machine, entry, phoff, phentsize, phnum, shoff, shentsize, shnum, shstrndx)


def read_program_headers(image: Image, header: Header) -> tuple[ProgramHeader, ...]:
    """All program headers, their places in the file checked. Raises BootError."""
    layout = struct.Struct("<IIQQQQQQ" if header.bits == 64 else "<IIIIIIII")
    if header.phnum and header.phentsize != layout.size:
        raise BootError(f"{image}: ELF header: program headers of {header.phentsize} bytes, not {layout.size}")
    if header.phoff + header.phnum * layout.size > len(image.data):
        raise BootError(f"{image}: ELF header: the program headers lie outside the file")
    if header.phnum > MAX_PROGRAM_HEADERS:
        raise BootError(f"{image}: ELF header: {header.phnum} program headers; at most {MAX_PROGRAM_HEADERS} are read")
    out = []
    for index in range(header.phnum):
        fields = layout.unpack_from(image.data, header.phoff + index * layout.size)
        if header.bits == 64:
            kind, flags, offset, vaddr, paddr, filesz, memsz, align = fields
        else:
            kind, offset, vaddr, paddr, filesz, memsz, flags, align = fields
        out.append(ProgramHeader(kind, flags, offset, vaddr, paddr, filesz, memsz, align))
        if kind in (PT_LOAD, PT_NOTE) and offset + filesz > len(image.data):
            raise BootError(f"{image}: program header {index}: {filesz} bytes at {offset:#x} lie outside the file")
    return tuple(out)


def notes(image: Image, headers: tuple[ProgramHeader, ...]) -> Iterator[tuple[bytes, int, bytes]]:
    """(name without NUL, type, descriptor) of every well-formed note."""
    budget = NOTE_LIMIT
    for header in headers:
        if header.type != PT_NOTE:
            continue
        data = image.data[header.offset : header.offset + min(header.filesz, budget)]
        budget -= len(data)
        alignment = 8 if header.align == 8 else 4
        position = 0
        while position + 12 <= len(data):
            name_size, desc_size, kind = struct.unpack_from("<III", data, position)
            name_start = position + 12
            desc_start = position + _align(12 + name_size, alignment)
            position = desc_start + _align(desc_size, alignment)
            if desc_start + desc_size > len(data):
                break
            yield (
                data[name_start : name_start + name_size].rstrip(b"\0"),
                kind,
                data[desc_start : desc_start + desc_size],
            )


def _align(value: int, alignment: int) -> int:
    return (value + alignment - 1) & -alignment


def physical_entry(image: Image, header: Header, headers: tuple[ProgramHeader, ...]) -> int:
    """The entry point as a physical address. Kernels linked high give a virtual one: it moves with its segment.

    Raises BootError when it lies in no segment.
    """
    entry = header.entry
    loads = [h for h in headers if h.type == PT_LOAD]
    for h in loads:
        if h.flags & PF_X and h.paddr != h.vaddr and h.vaddr <= entry < h.vaddr + h.filesz:
            return entry - h.vaddr + h.paddr
    check_entry(image, entry, headers, "ELF header: entry point")
    return entry


def check_entry(image: Image, entry: int, headers: tuple[ProgramHeader, ...], label: str) -> None:
    """Raises BootError when `entry` is not a physical address inside a segment."""
    if not any(h.type == PT_LOAD and h.paddr <= entry < h.paddr + h.memsz for h in headers):
        raise BootError(f"{image}: {label} {entry:#x} lies in no segment")


class Section:
    """One section header; `raw` are all its fields in file order."""

    __slots__ = ("address", "entsize", "flags", "link", "offset", "raw", "size", "type")

    def __init__(
        self, type: int, flags: int, address: int, offset: int, size: int, link: int, entsize: int, raw: tuple[int, ...]
    ) -> None:
        self.type = type
        self.flags = flags
        self.address = address
        self.offset = offset
        self.size = size
        self.link = link
        self.entsize = entsize
        self.raw = raw


def read_sections(image: Image, header: Header) -> list[Section]:
    """All sections, or an empty list when the table does not lie in the file: no code depends on them."""
    layout = _SECTIONS[header.bits]
    if not header.shnum or header.shentsize != layout.size:
        return []
    if header.shoff + header.shnum * layout.size > len(image.data):
        return []
    table = image.data[header.shoff : header.shoff + header.shnum * layout.size]
    return [Section(raw[1], raw[2], raw[3], raw[4], raw[5], raw[6], raw[9], raw) for raw in layout.iter_unpack(table)]


def section_contents(image: Image, section: Section) -> bytes | None:
    """A section's bytes, None when they do not lie in the file."""
    if section.offset + section.size > len(image.data):
        return None
    return image.data[section.offset : section.offset + section.size]


def pack_section(bits: int, section: Section, address: int) -> bytes:
    """The section header with another sh_addr."""
    raw = section.raw
    return _SECTIONS[bits].pack(*raw[:3], address, *raw[4:])
