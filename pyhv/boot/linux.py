"""Linux's own boot protocol: what a bzImage and a bare vmlinux have in common."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot import bios, modes, zero_page
from pyhv.boot.e820 import low_memory_end, memory_map
from pyhv.boot.state import BootState
from pyhv.errors import ConfigError
from pyhv.memory.layout import MMIO_GAP_END
from pyhv.record import record

if TYPE_CHECKING:
    from pyhv.boot.placer import Placer
    from pyhv.boot.request import Request


@record(frozen=True)
class Kernel:
    """A kernel that lies in memory: [start, end) is what it needs there, `entry` where it begins, `long` how."""

    format: str
    start: int
    end: int
    entry: int
    long: bool
    header: bytes
    code32_start: int
    cmdline_size: int
    initrd_max: int
    above_4g: bool


def finish(request: Request, kernel: Kernel, placer: Placer) -> BootState:
    """Place initrd, command line, zero page and page tables; gives the first state. Raises ConfigError, BootError."""
    limit = kernel.cmdline_size
    if len(request.cmdline) > limit:
        raise ConfigError(f"cmdline: {len(request.cmdline)} bytes; this kernel takes at most {limit}")
    request.no_modules("Linux")
    size = zero_page.block_size(request.cmdline, tables=kernel.long)
    block = placer.information(size, kernel.end)
    initrd = _place_initrd(request, kernel, placer)
    parameters = zero_page.Parameters(
        header=kernel.header,
        cmdline=request.cmdline,
        map=memory_map(request.ram_size),
        ram_size=request.ram_size,
        rsdp=request.rsdp,
        initrd=initrd,
        code32_start=kernel.code32_start,
    )
    page, data = zero_page.build_block(block, parameters, tables=kernel.long)
    request.memory.load(block, data)

    if kernel.long:
        general, system = modes.long(kernel.entry, bios.gdt_linux_64(), block)
    else:
        general, system = modes.protected(kernel.entry, bios.gdt_linux_32(), cs=0x10, ds=0x18)
    general.rsi = page
    general.rsp = modes.SCRATCH_STACK
    notes = {"zero_page": page, "initrd": initrd[0], "initrd_size": initrd[1]}
    return BootState(kernel.format, general, system, kernel.entry, (kernel.start, kernel.end), notes)


def _place_initrd(request: Request, kernel: Kernel, placer: Placer) -> tuple[int, int]:
    """As high as the kernel allows, out of the way of what it allocates first."""
    image = request.read_initrd()
    if image is None or not len(image.data):
        return 0, 0
    size = len(image.data)
    limit = min(kernel.initrd_max + 1, low_memory_end(request.ram_size))
    high = request.ram_size - low_memory_end(request.ram_size)
    if kernel.above_4g and size <= high and not placer.fits_below(limit, size):
        address = MMIO_GAP_END + (high - size & -4096)
    else:
        address = placer.below(limit, size, f"initrd {image.name}")
    request.memory.load(address, memoryview(image.data))
    return address, size
