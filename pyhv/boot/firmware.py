"""The firmware's legacy in guest memory, built once for each kind of machine and then only copied.

The tables lie right below the fixed part of the BIOS segment, so that a small machine touches one page there. The MP
floating pointer is in the EBDA, where it is found first, and in the BIOS segment for kernels that look only there.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot import acpi, bios, mptable
from pyhv.chipset.layout import BIOS_AREA, EBDA_BASE
from pyhv.errors import ConfigError
from pyhv.memo import memo

if TYPE_CHECKING:
    from pyhv.boot.acpi import Table
    from pyhv.boot.pci_root import PciRoot
    from pyhv.memory import GuestMemory

EBDA_KIB = 1


class Firmware:
    """`pieces` are (address, bytes) to load; `rsdp` is the address of ACPI's root pointer."""

    __slots__ = ("pieces", "rsdp")

    def __init__(self, pieces: tuple[tuple[int, bytes], ...], rsdp: int) -> None:
        self.pieces = pieces
        self.rsdp = rsdp

    def install(self, memory: GuestMemory) -> None:
        """Copy it all into a guest of at least 1 MiB."""
        for address, data in self.pieces:
            memory.load(address, data)


@memo(maxsize=32)
def build(cpus: int, pci: PciRoot, aml: bytes = b"", more: tuple[Table, ...] = ()) -> Firmware:
    """Tables for `cpus` processors; `aml` and `more` as of `acpi.build_below`. Raises ConfigError when it does not fit."""
    mp = mptable.configuration(cpus, pci)
    mp_at = (bios.TOP_BASE - len(mp) - mptable.POINTER_SIZE) & -16
    pointer = mptable.floating_pointer(mp_at)
    base, tables = acpi.build_below(mp_at, cpus, pci, aml, more)
    if base < BIOS_AREA:
        what = "devices: with" if aml or more else f"cpus: {cpus}:"
        raise ConfigError(f"{what} the ACPI tables do not fit below 1 MiB ({len(tables)} bytes)")
    mp = mp.ljust(bios.TOP_BASE - mp_at - len(pointer), b"\0") + pointer
    area = tables.ljust(mp_at - base, b"\0") + mp + bios.top_of_segment()
    ebda = bytes((EBDA_KIB,)).ljust(16, b"\0") + pointer
    return Firmware(((0, bios.low_memory()), (EBDA_BASE, ebda), (base, area)), base)
