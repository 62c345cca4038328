"""An encoder for ACPI machine language (ACPI specification, 20: AML grammar; 6.4: resource data types).

Every function gives the bytes of one term or descriptor; terms nest by being passed to one another:

    device("COM1", name("_HID", eisa_id("PNP0501")), name("_CRS", resources(io(0x3F8, 8), irq(4))))
"""

from __future__ import annotations

import struct

from pyhv.memo import memo


def package_length(content: int) -> bytes:
    """PkgLength for `content` bytes that follow it; it counts its own bytes as well."""
    if content + 1 < 0x40:
        return bytes((content + 1,))
    for extra in (1, 2, 3):
        total = content + 1 + extra
        if total < 1 << (4 + 8 * extra):
            return bytes((extra << 6 | total & 0xF,)) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"an AML package of {content} bytes is too long")


@memo(maxsize=512)
def name_string(path: str) -> bytes:
    """A name such as `_CRS`, `COM1`, `\\_SB.PCI0` or `^X`; segments of one to four characters."""
    prefix_length = len(path) - len(path.lstrip("\\^"))
    prefix, rest = path[:prefix_length].encode(), path[prefix_length:]
    segments = [_segment(s) for s in rest.split(".")] if rest else []
    if not segments:
        return prefix + b"\0"
    if len(segments) == 1:
        return prefix + segments[0]
    if len(segments) == 2:
        return prefix + b"\x2e" + b"".join(segments)
    return prefix + b"\x2f" + bytes((len(segments),)) + b"".join(segments)


def _segment(text: str) -> bytes:
    if not 1 <= len(text) <= 4 or text[0].isdigit() or not text.replace("_", "A").isalnum() or text != text.upper():
        raise ValueError(f"{text!r} is not an AML name segment")
    return text.encode("ascii").ljust(4, b"_")


def integer(value: int) -> bytes:
    """An integer constant in its shortest form."""
    if value in (0, 1):
        return bytes((value,))
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if value < 1 << (8 * size):
            return bytes((prefix,)) + value.to_bytes(size, "little")
    raise ValueError(f"{value} is not an AML integer")


def string(text: str) -> bytes:
    """A string constant."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """A compressed identifier such as PNP0501, as an integer (the specification's EISAID macro)."""
    first, second, third = text[:3].encode()
    packed = (first & 0x1F) << 26 | (second & 0x1F) << 21 | (third & 0x1F) << 16 | int(text[3:], 16)
    return b"\x0c" + packed.to_bytes(4, "big")


def buffer(data: bytes) -> bytes:
    """A buffer with these contents."""
    content = integer(len(data)) + data
    return b"\x11" + package_length(len(content)) + content


def package(*elements: bytes) -> bytes:
    """A package of up to 255 elements."""
    content = bytes((len(elements),)) + b"".join(elements)
    return b"\x12" + package_length(len(content)) + content


def name(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return b"\x08" + name_string(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) { terms }."""
    return _block(b"\x10", path, b"", terms)


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) { terms }."""
    return _block(b"\x5b\x82", path, b"", terms)


def method(path: str, arguments: int, *terms: bytes, serialized: bool = False) -> bytes:
    """Method (path, arguments) { terms }."""
    return _block(b"\x14", path, bytes((arguments | (8 if serialized else 0),)), terms)


def returns(value: bytes) -> bytes:
    """Return (value)."""
    return b"\xa4" + value


def argument(index: int) -> bytes:
    """Arg0 to Arg6 of the method."""
    return bytes((0x68 + index,))


def store(value: bytes, target: bytes) -> bytes:
    """Store (value, target)."""
    return b"\x70" + value + target


def either(first: bytes, second: bytes, target: bytes) -> bytes:
    """Or (first, second, target)."""
    return b"\x7d" + first + second + target


def equal(first: bytes, second: bytes) -> bytes:
    """LEqual (first, second)."""
    return b"\x93" + first + second


def when(condition: bytes, *terms: bytes) -> bytes:
    """If (condition) { terms }."""
    content = condition + b"".join(terms)
    return b"\xa0" + package_length(len(content)) + content


def create_dword_field(source: bytes, offset: int, path: str) -> bytes:
    """CreateDWordField (source, offset, path)."""
    return b"\x8a" + source + integer(offset) + name_string(path)


def uuid(text: str) -> bytes:
    """ToUUID (text): the first three groups are little-endian (19.6.142)."""
    data = bytes.fromhex(text.replace("-", ""))
    return buffer(data[3::-1] + data[5:3:-1] + data[7:5:-1] + data[8:])


def _block(opcode: bytes, path: str, extra: bytes, terms: tuple[bytes, ...]) -> bytes:
    content = name_string(path) + extra + b"".join(terms)
    return opcode + package_length(len(content)) + content


def resources(*descriptors: bytes) -> bytes:
    """A resource template: the descriptors, then the end tag with checksum 0, which means "do not check"."""
    return buffer(b"".join(descriptors) + b"\x79\0")


def io(address: int, length: int) -> bytes:
    """Fixed I/O ports, decoded by 16 bits (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, address, address, 1, length)


def irq(number: int) -> bytes:
    """An edge-triggered, active high ISA interrupt (6.4.2.1)."""
    return struct.pack("<BH", 0x22, 1 << number)


def memory32(address: int, length: int, *, writable: bool = True) -> bytes:
    """A fixed range below 4 GiB (6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, int(writable), address, length)


def interrupt(gsi: int, *, level: bool = True, active_low: bool = False, shared: bool = False) -> bytes:
    """One GSI that the device consumes (6.4.3.6)."""
    flags = 1 | (0 if level else 2) | (4 if active_low else 0) | (8 if shared else 0)
    return struct.pack("<BHBBI", 0x89, 6, flags, 1, gsi)


def bus_numbers(first: int, last: int) -> bytes:
    """PCI buses that a host bridge produces (6.4.3.5.3)."""
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 2, 0x0C, 0, 0, first, last, 0, last - first + 1)


def io_window(first: int, last: int) -> bytes:
    """I/O ports that a host bridge produces (6.4.3.5.3)."""
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 1, 0x0C, 3, 0, first, last, 0, last - first + 1)


def memory_window32(first: int, last: int) -> bytes:
    """Addresses below 4 GiB that a host bridge produces, uncached and writable (6.4.3.5.2)."""
    return struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 1, 0, first, last, 0, last - first + 1)


def memory_window64(first: int, last: int) -> bytes:
    """Addresses that a host bridge produces, uncached and writable (6.4.3.5.1)."""
    return struct.pack("<BHBBBQQQQQ", 0x8A, 43, 0, 0x0C, 1, 0, first, last, 0, last - first + 1)
