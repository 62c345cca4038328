"""ELF executables for x86, as a boot loader reads them (System V ABI, ELF and its i386 and AMD64 supplements)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import BootError
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyhv.boot.image import Image

MAGIC = b"\x7fELF"
EM_386, EM_X86_64 = 3, 62
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_NOTE = 1, 4
PF_X = 1
NOTE_LIMIT = 1 << 20
"""Bytes of a note segment that are looked at."""


@record(frozen=True)
class Header:
    """The ELF file header; `bits` is 32 or 64."""

    bits: int
    machine: int
    entry: int
    phoff: int
    phentsize: int
    phnum: int
    shoff: int
    shentsize: int
    shnum: int
    shstrndx: int


@record(frozen=True)
class ProgramHeader:
    """One segment; addresses and sizes in bytes."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


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
    for header in headers:
        if header.type != PT_NOTE:
            continue
        data = image.data[header.offset : header.offset + min(header.filesz, NOTE_LIMIT)]
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
