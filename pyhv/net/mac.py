"""Ethernet addresses: as people write them, and as a machine's devices get them by default."""

from __future__ import annotations

from weakref import WeakKeyDictionary
from zlib import crc32

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory

_taken: WeakKeyDictionary[GuestMemory, set[bytes]] = WeakKeyDictionary()


def parse_mac(text: str, what: str) -> bytes:
    """Six bytes from "02:00:00:00:00:01". Raises ConfigError for another form, or the address of a group."""
    words = text.replace("-", ":").split(":")
    if len(words) != 6 or not all(len(word) in (1, 2) and set(word) <= set("0123456789abcdefABCDEF") for word in words):
        raise ConfigError(f"{what}: {text!r} is not an address such as 02:00:00:00:00:01")
    address = bytes(int(word, 16) for word in words)
    if address[0] & 1 or address == bytes(6):
        raise ConfigError(f"{what}: {text!r} is not the address of one interface")
    return address


def format_mac(address: bytes) -> str:
    """The inverse of `parse_mac`."""
    return ":".join(f"{byte:02x}" for byte in address)


def claim_mac(memory: GuestMemory, wanted: bytes | None, identity: str) -> bytes:
    """The address of one device of the machine that has this memory.

    Without a wanted one it is a locally administered address made of `identity`: the same in every run, and another for
    each device of a machine.
    """
    taken = _taken.setdefault(memory, set())
    if wanted is not None:
        taken.add(wanted)
        return wanted
    number = crc32(identity.encode())
    while (address := b"\x02\x76" + number.to_bytes(4, "big")) in taken:
        number = (number + 1) & 0xFFFF_FFFF
    taken.add(address)
    return address
