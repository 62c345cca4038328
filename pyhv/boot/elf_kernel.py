"""ELF files without a boot protocol of their own, a bare vmlinux above all: entered as Linux's uncompressed kernel is.

A 64-bit file starts in 64-bit mode with 4 GiB mapped one to one, RSI = zero page; a 32-bit one in flat protected mode,
ESI = zero page. Any other kernel finds a sane processor, and may use or ignore the zero page.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot import elf
from pyhv.boot.linux import Kernel, finish
from pyhv.boot.placer import Placer
from pyhv.boot.segments import pieces_of, place
from pyhv.boot.zero_page import HEADER_START, LOADED_HIGH
from pyhv.errors import BootError

if TYPE_CHECKING:
    from pyhv.boot.request import Request
    from pyhv.boot.setup_header import SetupHeader
    from pyhv.boot.state import BootState

PROTOCOL = 0x020F
CMDLINE_SIZE = 2047
"""COMMAND_LINE_SIZE of x86, without the NUL."""
INITRD_MAX = 0x7FFF_FFFF
LARGE_PAGE = 1 << 21


def load(request: Request, packed: SetupHeader | None = None) -> BootState:
    """Load an ELF file by its physical addresses; `packed` is the header of the bzImage that it came in, if any.

    Raises BootError, ConfigError.
    """
    image = request.kernel
    header = elf.read_header(image)
    headers = elf.read_program_headers(image, header)
    pieces = pieces_of(image, headers)
    entry = elf.physical_entry(image, header, headers)
    if entry >= 1 << 32:
        raise BootError(f"{image}: ELF header: entry point {entry:#x} is beyond 4 GiB, which is all that is mapped")
    start, end = place(request.memory, image, pieces, zeroed=request.zeroed)
    placer = Placer(request.ram_size, str(image))
    for piece in pieces:
        placer.take(piece.address, piece.end)
    kernel = Kernel(
        format="elf" if packed is None else "bzimage",
        start=start,
        end=end,
        entry=entry,
        long=header.bits == 64,
        header=setup_header() if packed is None else packed.raw,
        code32_start=entry & 0xFFFF_FFFF,
        cmdline_size=CMDLINE_SIZE if packed is None else packed.cmdline_size,
        initrd_max=INITRD_MAX if packed is None else packed.initrd_max,
        above_4g=header.bits == 64 if packed is None else packed.above_4g,
    )
    return finish(request, kernel, placer)


def setup_header() -> bytes:
    """What a vmlinux, which carries no setup header, needs of one."""
    header = bytearray(0x268 - HEADER_START)

    def put(layout: str, offset: int, value: int) -> None:
        struct.pack_into(layout, header, offset - HEADER_START, value)

    put("<H", 0x1FE, 0xAA55)
    put("<I", 0x202, int.from_bytes(b"HdrS", "little"))
    put("<H", 0x206, PROTOCOL)
    put("<B", 0x211, LOADED_HIGH)
    put("<I", 0x22C, INITRD_MAX)
    put("<I", 0x230, LARGE_PAGE)
    put("<I", 0x238, CMDLINE_SIZE)
    return bytes(header)
