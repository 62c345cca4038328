"""PVH: ELF kernels with a Xen note, entered in 32-bit mode (Xen: docs/misc/pvh.pandoc, hvm/start_info.h)."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot import bios, elf, modes
from pyhv.boot.e820 import memory_map
from pyhv.boot.placer import Placer
from pyhv.boot.segments import load_modules, pieces_of, place
from pyhv.boot.state import BootState
from pyhv.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.image import Image
    from pyhv.boot.request import Module, Request

PHYS32_ENTRY = 18
"""XEN_ELFNOTE_PHYS32_ENTRY."""
START_MAGIC = 0x336EC578
START_INFO = struct.Struct("<IIIIQQQQII")
MODULE = struct.Struct("<QQQQ")
MAP_ENTRY = struct.Struct("<QQII")


def find_entry(image: Image, headers: tuple[elf.ProgramHeader, ...]) -> int | None:
    """The 32-bit physical entry point of the Xen note, None without one. Raises BootError when it is malformed."""
    for name, kind, descriptor in elf.notes(image, headers):
        if name == b"Xen" and kind == PHYS32_ENTRY:
            if len(descriptor) not in (4, 8):
                raise BootError(f"{image}: PVH note: entry point of {len(descriptor)} bytes, not 4 or 8")
            return int.from_bytes(descriptor, "little")
    return None


def load(request: Request) -> BootState:
    """Load a PVH kernel, its modules and its start info. Raises BootError, ConfigError."""
    image = request.kernel
    header = elf.read_header(image)
    headers = elf.read_program_headers(image, header)
    entry = find_entry(image, headers)
    if entry is None:
        raise BootError(f"{image}: no PVH entry note (Xen, type {PHYS32_ENTRY})")
    elf.check_entry(image, entry, headers, "PVH note: entry point")
    if entry >= 1 << 32:
        raise BootError(f"{image}: PVH note: entry point {entry:#x} is beyond 4 GiB")
    pieces = pieces_of(image, headers)
    first, end = place(request.memory, image, pieces, zeroed=request.zeroed)

    placer = Placer(request.ram_size, str(image))
    for piece in pieces:
        placer.take(piece.address, piece.end)
    modules = request.all_modules()
    size = _size(request, modules)
    info = placer.information(size, end)
    places = load_modules(request.memory, placer, modules, info + size)
    request.memory.load(info, _build(request, info, modules, places))

    general, system = modes.protected(entry, bios.gdt_32())
    general.rbx = info
    general.rsp = modes.SCRATCH_STACK
    return BootState("pvh", general, system, entry, (first, end), {"info": info, "info_end": info + size})


def _size(request: Request, modules: Sequence[Module]) -> int:
    entries = memory_map(request.ram_size)
    strings = [request.cmdline, *(m.string for m in modules)]
    return (
        START_INFO.size
        + MAP_ENTRY.size * len(entries)
        + MODULE.size * len(modules)
        + sum(len(string) + 1 for string in strings)
    )


def _build(request: Request, base: int, modules: Sequence[Module], places: Sequence[tuple[int, int]]) -> bytes:
    entries = memory_map(request.ram_size)
    map_at = base + START_INFO.size
    modules_at = map_at + MAP_ENTRY.size * len(entries)
    cmdline_at = modules_at + MODULE.size * len(modules)
    strings = [request.cmdline + b"\0"]
    position = cmdline_at + len(strings[0])
    listing = []
    for module, (start, end) in zip(modules, places, strict=True):
        listing.append(MODULE.pack(start, end - start, position, 0))
        strings.append(module.string + b"\0")
        position += len(strings[-1])
    info = START_INFO.pack(
        START_MAGIC,
        1,
        0,
        len(modules),
        modules_at if modules else 0,
        cmdline_at,
        request.rsdp,
        map_at,
        len(entries),
        0,
    )
    table = b"".join(MAP_ENTRY.pack(e.address, e.length, e.kind, 0) for e in entries)
    return info + table + b"".join(listing) + b"".join(strings)
