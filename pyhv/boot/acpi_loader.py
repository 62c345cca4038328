"""ACPI tables as firmware installs them: QEMU's table loader (its hw/acpi/bios-linker-loader.c).

Firmware allocates memory for files of fw_cfg, adds the addresses to the pointers between them, and mends the checksums.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

RSDP_FILE: Final = "etc/acpi/rsdp"
TABLES_FILE: Final = "etc/acpi/tables"
LOADER_FILE: Final = "etc/table-loader"

_ENTRY_SIZE: Final = 128
_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_HIGH, _SEGMENT_F = 1, 2
_ALIGNMENT: Final = 64
RSDP_SIZE: Final = 36
_TABLE_HEADER: Final = 36


def files(base: int, blob: bytes) -> dict[str, bytes]:
    """fw_cfg files for tables that were built for `base`, with the root pointer first (`pyhv.boot.acpi.build_below`)."""
    root, tables = bytearray(blob[:RSDP_SIZE]), bytearray(blob)
    commands = [
        struct.pack("<I56sIB", _ALLOCATE, RSDP_FILE.encode(), 16, _SEGMENT_F),
        struct.pack("<I56sIB", _ALLOCATE, TABLES_FILE.encode(), _ALIGNMENT, _HIGH),
    ]

    def pointer(file: bytearray, offset: int, size: int) -> int:
        """Make an address relative; gives its target in the tables."""
        target = int.from_bytes(file[offset : offset + size], "little") - base
        file[offset : offset + size] = target.to_bytes(size, "little")
        name = RSDP_FILE if file is root else TABLES_FILE
        commands.append(struct.pack("<I56s56sIB", _ADD_POINTER, name.encode(), TABLES_FILE.encode(), offset, size))
        return target

    def checksum(file: bytearray, at: int, start: int, length: int) -> None:
        file[at] = 0
        name = RSDP_FILE if file is root else TABLES_FILE
        commands.append(struct.pack("<I56sIII", _ADD_CHECKSUM, name.encode(), at, start, length))

    def length(table: int) -> int:
        return int.from_bytes(tables[table + 4 : table + 8], "little")

    fadt = -1
    for field, size in ((16, 4), (24, 8)):
        directory = pointer(root, field, size)
        end = directory + length(directory)
        for entry in range(directory + _TABLE_HEADER, end, size):
            table = pointer(tables, entry, size)
            if tables[table : table + 4] == b"FACP":
                fadt = table
        checksum(tables, directory + 9, directory, end - directory)
    for field, size in ((36, 4), (40, 4), (132, 8), (140, 8)):
        pointer(tables, fadt + field, size)
    checksum(tables, fadt + 9, fadt, length(fadt))
    checksum(root, 8, 0, 20)
    checksum(root, 32, 0, RSDP_SIZE)
    loader = b"".join(command.ljust(_ENTRY_SIZE, b"\0") for command in commands)
    tables[:RSDP_SIZE] = bytes(RSDP_SIZE)
    return {RSDP_FILE: bytes(root), TABLES_FILE: bytes(tables), LOADER_FILE: loader}
