"""PC firmware: a ROM that ends at 4 GiB, its last 256 KiB also below 1 MiB, and the processor at the reset vector.

The copy below 1 MiB lies in RAM, as if the firmware had already told the chipset to shadow the BIOS and copied itself:
the host bridge has no registers by which it could ask. Real-mode code runs and keeps its variables there. What the
firmware is to boot it reads from fw_cfg (`pyhv.boot.offer`).
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot.image import read_image
from pyhv.boot.state import BootState
from pyhv.errors import ConfigError
from pyhv.memory.layout import PAGE_SIZE
from pyhv.x86.registers import GeneralRegisters, SystemRegisters

if TYPE_CHECKING:
    from pyhv.boot.offer import Offer
    from pyhv.hv.api import VmHandle
    from pyhv.memory import GuestMemory

END = 1 << 32
MAX_SIZE = 8 << 20
"""Below it are the APICs and devices."""
SHADOW_END = 1 << 20
SHADOW_SIZE = 256 << 10
RESET_VECTOR = 0xFFFF_FFF0


def install(handle: VmHandle, path: str) -> None:
    """Map the image as read-only memory. Raises ConfigError."""
    image = read_image(path, "firmware")
    size = len(image.data)
    if not 0 < size <= MAX_SIZE or size % PAGE_SIZE:
        raise ConfigError(
            f"{image}: {size} bytes; a firmware image is a multiple of 4 KiB, at most {MAX_SIZE >> 20} MiB"
        )
    region = handle.add_memory(END - size, size, readonly=True, name="firmware")
    handle.memory.load(region.address, memoryview(image.data))


def enter(memory: GuestMemory, offer: Offer) -> BootState:
    """Make the copy of the installed image below 1 MiB; gives the state after RESET (APM vol. 2, 14.1.3)."""
    rom = memory.find(RESET_VECTOR)
    if rom is None:
        raise ConfigError("firmware: no image is installed")
    size = min(rom.size, SHADOW_SIZE)
    memory.load(SHADOW_END - size, rom.buffer[rom.size - size :])
    return BootState(
        format="firmware",
        general=GeneralRegisters(rip=RESET_VECTOR & 0xFFFF),
        system=SystemRegisters(),
        entry=RESET_VECTOR,
        image=(rom.address, rom.end),
        offer=offer,
    )
