"""Multiboot 1 (specification 0.6.96): 32-bit kernels, as GRUB and `qemu -kernel` load them."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot import bios, elf, modes
from pyhv.boot.e820 import memory_map
from pyhv.boot.multiboot_info import ElfSymbols, InfoBlock
from pyhv.boot.placer import Placer
from pyhv.boot.recognise import HAS_ADDRESSES, SEARCH, find_multiboot_header
from pyhv.boot.request import encode
from pyhv.boot.segments import Piece, load_modules, pieces_of, place
from pyhv.boot.state import BootState
from pyhv.errors import BootError

if TYPE_CHECKING:
    from pyhv.boot.image import Image
    from pyhv.boot.recognise import MultibootHeader
    from pyhv.boot.request import Request

BOOT_MAGIC = 0x2BADB002
REQUIRED_KNOWN = 0x7
"""Page-aligned modules, memory information, video mode; the other bits of 0 to 15 must be refused (3.1.2)."""


def load(request: Request) -> BootState:
    """Load a multiboot kernel, its modules and its information. Raises BootError, ConfigError."""
    image = request.kernel
    header = find_multiboot_header(image.data)
    if header is None:
        raise BootError(f"{image}: no multiboot header in the first {SEARCH} bytes")
    unknown = header.flags & 0xFFFF & ~REQUIRED_KNOWN
    if unknown:
        raise BootError(f"{image}: multiboot header: flags {header.flags:#x} demand unknown features ({unknown:#x})")
    symbols = None
    if header.flags & HAS_ADDRESSES:
        pieces, entry = _by_address_fields(image, header)
    else:
        pieces, entry, symbols = _by_elf(image)
    first, end = place(request.memory, image, pieces, zeroed=request.zeroed)

    modules = request.all_modules()
    placer = Placer(request.ram_size, str(image))
    for piece in pieces:
        placer.take(piece.address, piece.end)
    block = InfoBlock(memory_map(request.ram_size), _command_line(request), modules, request.ram_size, symbols)
    info = placer.information(block.size, end)
    places = load_modules(request.memory, placer, modules, info + block.size)
    request.memory.load(info, block.build(info, places))

    general, system = modes.protected(entry, bios.gdt_32())
    general.rax = BOOT_MAGIC
    general.rbx = info
    general.rsp = modes.SCRATCH_STACK
    return BootState("multiboot", general, system, entry, (first, end), {"info": info, "info_end": info + block.size})


def _command_line(request: Request) -> bytes:
    name = encode(request.kernel.name, "kernel")
    return name + b" " + request.cmdline if request.cmdline else name


def _by_address_fields(image: Image, header: MultibootHeader) -> tuple[list[Piece], int]:
    """The "a.out kludge" (3.1.3): the header says where the file's bytes go, whatever else the file claims to be."""
    what = f"{image}: multiboot header:"
    if header.load_addr > header.header_addr:
        raise BootError(f"{what} load_addr {header.load_addr:#x} is above header_addr {header.header_addr:#x}")
    offset = header.position - (header.header_addr - header.load_addr)
    if offset < 0:
        raise BootError(
            f"{what} header_addr {header.header_addr:#x} puts load_addr {header.load_addr:#x} before the file"
        )
    size = len(image.data) - offset
    if header.load_end_addr:
        if header.load_end_addr < header.load_addr:
            raise BootError(f"{what} load_end_addr {header.load_end_addr:#x} is below load_addr {header.load_addr:#x}")
        wanted = header.load_end_addr - header.load_addr
        if wanted > size:
            raise BootError(
                f"{what} load_end_addr {header.load_end_addr:#x} asks for {wanted} bytes; the file has {size}"
            )
        size = wanted
    end = header.load_addr + size
    if header.bss_end_addr:
        if header.bss_end_addr < end:
            raise BootError(f"{what} bss_end_addr {header.bss_end_addr:#x} is below the end of the data {end:#x}")
        end = header.bss_end_addr
    if not header.load_addr <= header.entry_addr < end:
        raise BootError(f"{what} entry_addr {header.entry_addr:#x} is outside [{header.load_addr:#x}, {end:#x})")
    return [Piece("multiboot header", offset, size, header.load_addr, end - header.load_addr)], header.entry_addr


def _by_elf(image: Image) -> tuple[list[Piece], int, ElfSymbols]:
    if image.data[:4] != elf.MAGIC:
        raise BootError(f"{image}: multiboot header: neither address fields (flags bit 16) nor an ELF file")
    header = elf.read_header(image)
    headers = elf.read_program_headers(image, header)
    entry = elf.physical_entry(image, header, headers)
    if entry >= 1 << 32:
        raise BootError(f"{image}: ELF header: entry point {entry:#x} is beyond 4 GiB, where a multiboot kernel starts")
    return pieces_of(image, headers), entry, ElfSymbols(image, header)
