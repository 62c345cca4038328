"""Kernel modules of a test's own: ELF files with nothing but a .modinfo section."""

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NAMES = b"\0.modinfo\0.shstrtab\0"


def made_module(*entries: str) -> bytes:
    """A module that says these "key=value" of itself."""
    info = b"".join(entry.encode() + b"\0" for entry in entries)
    body = info + _NAMES
    table = _HEADER.size + len(body)
    header = _HEADER.pack(b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    sections = (
        _SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        + _SECTION.pack(1, 1, 2, 0, _HEADER.size, len(info), 0, 0, 1, 0)
        + _SECTION.pack(10, 3, 0, 0, _HEADER.size + len(info), len(_NAMES), 0, 0, 1, 0)
    )
    return header + body + sections
