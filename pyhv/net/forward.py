"""Ports of the host's that lead to the guest, as users write them."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.record import record

if TYPE_CHECKING:
    from typing import Final

LOOPBACK: Final = 0x7F000001
FORM: Final = "tcp:[HOST:]PORT:[GUEST:]PORT or udp:..."


@record(frozen=True)
class Forward:
    """What comes to `host`:`host_port` goes to `guest`:`guest_port`. Addresses are numbers; host port 0 is any free one."""

    protocol: str
    host: int
    host_port: int
    guest: int | None
    guest_port: int

    @property
    def shown(self) -> str:
        """`protocol:address:port` on the host."""
        return f"{self.protocol}:{show_ipv4(self.host)}:{self.host_port}"


def parse_forward(text: str) -> Forward:
    """A forward from "tcp:2222:22" or "tcp:0.0.0.0:2222:10.0.2.15:22". Raises ConfigError."""
    words = text.split(":")
    try:
        protocol = words.pop(0)
        host = parse_ipv4(words.pop(0)) if "." in words[0] else LOOPBACK
        host_port = _port(words.pop(0), 0)
        guest = parse_ipv4(words.pop(0)) if "." in words[0] else None
        guest_port = _port(words.pop(0), 1)
    except (IndexError, ValueError):
        raise ConfigError(f"net: forward: {text!r} is not {FORM}") from None
    if protocol not in ("tcp", "udp") or words:
        raise ConfigError(f"net: forward: {text!r} is not {FORM}")
    return Forward(protocol, host, host_port, guest, guest_port)


def parse_ipv4(text: str) -> int:
    """An address as a number. Raises ValueError."""
    words = text.split(".")
    numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
    if len(words) != 4 or len(numbers) != 4 or max(numbers) > 255:
        raise ValueError(text)
    return int.from_bytes(bytes(numbers), "big")


def show_ipv4(address: int) -> str:
    """The inverse of `parse_ipv4`."""
    return ".".join(map(str, address.to_bytes(4, "big")))


def _port(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= 0xFFFF):
        raise ValueError(text)
    return int(text)
