"""bzImage kernels, by the 64-bit boot protocol, or the 32-bit one where there is no 64-bit entry (boot.rst)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot.linux import Kernel, finish
from pyhv.boot.placer import Placer
from pyhv.boot.segments import Piece, place
from pyhv.boot.setup_header import HIGH_ADDRESS, read_setup_header
from pyhv.errors import BootError, CapabilityMissing

if TYPE_CHECKING:
    from pyhv.boot.request import Request
    from pyhv.boot.setup_header import SetupHeader
    from pyhv.boot.state import BootState

ENTRY_64 = 0x200


def load(request: Request) -> BootState:
    """Load a bzImage at its preferred address, with an initrd. Raises BootError, ConfigError."""
    image = request.kernel
    header = read_setup_header(image)
    placer = Placer(request.ram_size, str(image))
    start, end = header.load_address, header.load_address + header.memory
    if end > placer.end:
        raise BootError(
            f"{image}: bzImage: pref_address and init_size ask for memory up to {-(-end >> 20)} MiB; "
            f"the machine has {placer.end >> 20} MiB below 4 GiB (--memory)"
        )
    entry = start + ENTRY_64 if header.entry_64 else _entry_32(request, header)
    piece = Piece("bzImage", header.offset, header.size, start, header.memory)
    place(request.memory, image, [piece], zeroed=request.zeroed)
    placer.take(start, end)
    kernel = Kernel(
        format="bzimage",
        start=start,
        end=end,
        entry=entry,
        long=header.entry_64,
        header=header.raw,
        code32_start=start,
        cmdline_size=header.cmdline_size,
        initrd_max=header.initrd_max,
        above_4g=header.above_4g,
    )
    return finish(request, kernel, placer)


def load_unpacked(request: Request, *, or_packed: bool = False) -> BootState:
    """Unpack a bzImage's kernel here and enter it directly. Raises BootError, ConfigError, CapabilityMissing.

    With `or_packed` an image that cannot be unpacked here is loaded as it is.
    """
    from pyhv.boot import elf_kernel
    from pyhv.boot.image import Image
    from pyhv.boot.payload import unpack
    from pyhv.log import event

    packed = request.kernel
    try:
        payload = unpack(packed)
    except (BootError, CapabilityMissing) as error:
        if not or_packed:
            raise
        event("packed", kernel=packed.name, reason=str(error))
        return load(request)
    kernel = Image(payload, packed.name, packed.what)
    return elf_kernel.load(request.with_kernel(kernel), read_setup_header(packed))


def _entry_32(request: Request, header: SetupHeader) -> int:
    """code32_start, moved along with the kernel."""
    offset = header.code32_start - HIGH_ADDRESS
    if not 0 <= offset < header.size:
        raise BootError(
            f"{request.kernel}: bzImage: code32_start {header.code32_start:#x} is outside the kernel, "
            "and there is no 64-bit entry: the image needs a BIOS (--firmware)"
        )
    return header.load_address + offset
