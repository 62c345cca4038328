#!/usr/bin/env python3
"""Takes the kernel's own ELF file (vmlinux, stripped) out of a bzImage.

    scripts/extract_vmlinux.py BZIMAGE OUTPUT

Source of the header's fields: the kernel's Documentation/arch/x86/boot.rst (setup_sects, payload_offset,
payload_length). The payload is compressed by one of the kernel's methods; all but gzip are followed by the
uncompressed size in four bytes.
"""

import bz2
import gzip
import lzma
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

_HEADER_MAGIC = 0x202
_SETUP_SECTS = 0x1F1
_VERSION = 0x206
_PAYLOAD = 0x248
_PAYLOAD_VERSION = 0x208


class ExtractError(Exception):
    """Why there is no vmlinux, in one line."""


def _tool(*command: str) -> Callable[[bytes], bytes]:
    def decompress(data: bytes) -> bytes:
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=120)
        except FileNotFoundError:
            raise ExtractError(f"{command[0]} is not installed: run `make deps`") from None
        if done.returncode != 0:
            raise ExtractError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    return decompress


_METHODS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
    b"\x5d\x00\x00": lzma.decompress,
    b"\x02\x21\x4c\x18": _tool("lz4", "-dc"),
    b"\x28\xb5\x2f\xfd": _tool("zstd", "-dc"),
}


def payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage."""
    if len(image) < _PAYLOAD + 8 or image[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        raise ExtractError("no bzImage: the boot header's magic is missing")
    (version,) = struct.unpack_from("<H", image, _VERSION)
    if version < _PAYLOAD_VERSION:
        raise ExtractError(f"boot protocol {version >> 8}.{version & 0xFF:02} does not say where the payload is")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTS] or 4) + 1) * 512 + offset
    if length == 0 or start + length > len(image):
        raise ExtractError("the payload's place is outside of the file")
    return image[start : start + length]


def extract_vmlinux(image: bytes) -> bytes:
    """The ELF file; ExtractError when the image has none that can be taken out."""
    compressed = payload(image)
    decompress = next((method for magic, method in _METHODS.items() if compressed.startswith(magic)), None)
    if decompress is None or len(compressed) < 8:
        raise ExtractError(f"unknown compression, starts with {compressed[:8].hex()!r}")
    size = None
    if decompress is not gzip.decompress:
        (size,) = struct.unpack("<I", compressed[-4:])
        compressed = compressed[:-4]
    try:
        kernel = decompress(compressed)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise ExtractError(f"the payload cannot be decompressed: {error}") from None
    if size is not None and size != len(kernel):
        raise ExtractError(f"the payload has {len(kernel)} bytes instead of {size}")
    if not kernel.startswith(b"\x7fELF"):
        raise ExtractError("the payload is no ELF file")
    return kernel


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2 or any(argument.startswith("-") for argument in arguments):
        print("usage: extract_vmlinux.py BZIMAGE OUTPUT", file=sys.stderr)
        return 2
    try:
        Path(arguments[1]).write_bytes(extract_vmlinux(Path(arguments[0]).read_bytes()))
    except (ExtractError, OSError) as error:
        print(f"extract_vmlinux: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
