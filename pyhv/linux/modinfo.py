"""What a kernel module says of itself: the NUL-terminated "key=value" strings of its .modinfo section.

Source: the kernel's include/linux/moduleparam.h and include/linux/module.h.
"""

from __future__ import annotations

import struct

ELF_64 = b"\x7fELF\x02\x01"
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
NAME = b".modinfo"


class ModInfoError(Exception):
    """A file that is no kernel module; the text says why."""


class ModInfo:
    """The entries, in order; a key may be there several times."""

    def __init__(self, module: bytes) -> None:
        """Read a module's (unpacked) bytes. Raises ModInfoError."""
        self.entries: list[tuple[str, str]] = []
        for text in _section(module).split(b"\0"):
            key, separator, value = text.partition(b"=")
            if separator:
                self.entries.append((key.decode("utf-8", "replace"), value.decode("utf-8", "replace")))

    def values(self, key: str) -> list[str]:
        """All values of a key."""
        return [value for name, value in self.entries if name == key]

    @property
    def depends(self) -> list[str]:
        """The modules whose symbols it uses, by name."""
        return [name for value in self.values("depends") for name in value.split(",") if name]

    @property
    def soft_before(self) -> list[str]:
        """What modprobe would load before it where there is such a thing ("softdep=pre: ...", modprobe.d(5))."""
        return [name for value in self.values("softdep") for name in before(value.split())]

    @property
    def version_magic(self) -> str:
        """The kernel that it was built for, and how: "6.1.0 SMP preempt mod_unload modversions "."""
        return next(iter(self.values("vermagic")), "")

    def has_parameter(self, name: str) -> bool:
        """Whether it declares a parameter: the kernel only warns of one that it ignores."""
        return any(value.partition(":")[0] == name for value in self.values("parmtype"))


def before(words: list[str]) -> list[str]:
    """The names behind "pre:" of a soft dependency's words."""
    names: list[str] = []
    wanted = False
    for word in words:
        if word in ("pre:", "post:"):
            wanted = word == "pre:"
        elif wanted:
            names.append(word)
    return names


def _section(module: bytes) -> bytes:
    """The bytes of .modinfo in a 64-bit little-endian ELF file."""
    if module[:6] != ELF_64 or len(module) < HEADER.size:
        raise ModInfoError("it is not a 64-bit ELF file")
    fields = HEADER.unpack_from(module)
    table, size, count, names_index = fields[6], fields[11], fields[12], fields[13]
    if size != SECTION.size or not names_index < count or table + count * size > len(module):
        raise ModInfoError("its section table is damaged")
    sections = list(SECTION.iter_unpack(module[table : table + count * size]))
    names = _bytes(module, sections[names_index])
    for section in sections:
        if names[section[0] : section[0] + len(NAME) + 1] == NAME + b"\0":
            return _bytes(module, section)
    raise ModInfoError("it has no .modinfo section")


def _bytes(module: bytes, section: tuple[int, ...]) -> bytes:
    offset, size = section[4], section[5]
    if offset + size > len(module):
        raise ModInfoError("a section lies outside the file")
    return module[offset : offset + size]
