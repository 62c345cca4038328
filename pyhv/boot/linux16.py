"""bzImages by the 16-bit boot protocol (Documentation/arch/x86/boot.rst): a BIOS copies, the kernel's setup code runs."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot.option_rom import RealModeEntry
from pyhv.boot.placer import Placer
from pyhv.boot.setup_header import HIGH_ADDRESS, read_setup_header
from pyhv.boot.zero_page import LOADER_TYPE
from pyhv.errors import BootError, ConfigError

if TYPE_CHECKING:
    from pyhv.boot.image import Image
    from pyhv.boot.request import Request

SETUP_ADDRESS = 0x1_0000
CMDLINE_ADDRESS = 0x2_0000
HEAP_END = 0xE000
"""Offset in the setup segment: the heap and stack end here."""
CAN_USE_HEAP = 0x80
CMDLINE_LIMIT = 0x9_0000 - CMDLINE_ADDRESS - 1
FIRMWARE_SPARE = 1 << 20
"""The top of RAM, where firmware keeps its tables."""


class Plan:
    """Setup code, kernel, initrd and command line, each to be copied to its address; then the entry."""

    __slots__ = ("cmdline", "entry", "initrd", "initrd_address", "kernel", "setup")

    def __init__(
        self,
        setup: bytes,
        kernel: memoryview,
        cmdline: bytes,
        initrd: Image | None,
        initrd_address: int,
        entry: RealModeEntry,
    ) -> None:
        self.setup = setup
        self.kernel = kernel
        self.cmdline = cmdline
        self.initrd = initrd
        self.initrd_address = initrd_address
        self.entry = entry


def plan(request: Request) -> Plan:
    """What goes where. Raises BootError, ConfigError."""
    image = request.kernel
    header = read_setup_header(image)
    limit = min(header.cmdline_size, CMDLINE_LIMIT)
    if len(request.cmdline) > limit:
        raise ConfigError(f"cmdline: {len(request.cmdline)} bytes; this kernel takes at most {limit}")
    request.no_modules("Linux")
    placer = Placer(request.ram_size, str(image))
    placer.end -= FIRMWARE_SPARE
    if HIGH_ADDRESS + header.size > placer.end:
        raise placer.too_small("kernel", header.size)
    placer.take(HIGH_ADDRESS, HIGH_ADDRESS + header.size)
    placer.take(header.load_address, header.load_address + header.memory)
    initrd = request.read_initrd()
    size = 0 if initrd is None else len(initrd.data)
    address = placer.below(header.initrd_max + 1, size, "initrd") if size else 0

    setup = bytearray(image.data[: header.offset])
    if len(setup) > HEAP_END:
        raise BootError(f"{image}: bzImage: setup_sects: {len(setup)} bytes of setup code, more than a segment takes")
    setup[0x210] = LOADER_TYPE
    setup[0x211] |= CAN_USE_HEAP
    struct.pack_into("<II", setup, 0x218, address, size)
    struct.pack_into("<H", setup, 0x224, HEAP_END - 0x200)
    struct.pack_into("<I", setup, 0x228, CMDLINE_ADDRESS)
    segment = SETUP_ADDRESS >> 4
    return Plan(
        setup=bytes(setup),
        kernel=memoryview(image.data)[header.offset :],
        cmdline=request.cmdline,
        initrd=initrd if size else None,
        initrd_address=address,
        entry=RealModeEntry(cs=segment + 0x20, ip=0, segment=segment, sp=HEAP_END),
    )
