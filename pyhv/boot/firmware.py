"""The firmware's legacy in guest memory, built once for each kind of machine and then only copied.

The tables lie right below the fixed part of the BIOS segment, so that a small machine touches one page there; the MP
floating pointer is in the EBDA, where it is found first.
"""

from __future__ import annotations

from functools import lru_cache

from pyhv._types import TYPE_CHECKING
from pyhv.boot import acpi, bios, mptable
from pyhv.chipset.layout import BIOS_AREA, EBDA_BASE
from pyhv.errors import ConfigError
from pyhv.record import record

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory

EBDA_KIB = 1


@record(frozen=True)
class Firmware:
    """`pieces` are (address, bytes) to load; `rsdp` is the address of ACPI's root pointer."""

    pieces: tuple[tuple[int, bytes], ...]
    rsdp: int

    def install(self, memory: GuestMemory) -> None:
        """Copy it all into a guest of at least 1 MiB."""
        for address, data in self.pieces:
            memory.load(address, data)


@lru_cache(maxsize=32)
def build(cpus: int, aml: bytes = b"") -> Firmware:
    """Tables for `cpus` processors; `aml` is added to \\_SB in the DSDT. Raises ConfigError when it does not fit."""
    mp = mptable.configuration(cpus)
    size = _padded(len(acpi.build(0, cpus, aml))) + _padded(len(mp))
    base = bios.TOP_BASE - size
    if base < BIOS_AREA:
        raise ConfigError(f"--cpus: {cpus}: the ACPI tables need {size} bytes, more than the BIOS area has")
    tables = acpi.build(base, cpus, aml)
    mp_at = base + _padded(len(tables))
    area = bytearray(bios.TOP_BASE - base)
    area[: len(tables)] = tables
    area[mp_at - base : mp_at - base + len(mp)] = mp
    ebda = bytes((EBDA_KIB,)).ljust(16, b"\0") + mptable.floating_pointer(mp_at)
    pieces = ((0, bios.low_memory()), (EBDA_BASE, ebda), (base, bytes(area) + bios.top_of_segment()))
    return Firmware(pieces, base)


def _padded(size: int) -> int:
    return (size + 63) & -64
