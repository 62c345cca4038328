"""Ports that kernels write for their side effect of taking time: 0x80 (power-on self test codes) and 0xed."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import DELAY_PORT, POST_PORT

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace



class PostPorts:
    """Two byte latches; `code` is the last power-on self test code."""

    def __init__(self) -> None:
        self.code = 0

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim both ports."""
        ports.map(POST_PORT, 1, self, "post code", width=1)
        ports.map(DELAY_PORT, 1, self, "delay", width=1)

    def reset(self) -> None:
        """Forget the code."""
        self.code = 0

    def read(self, offset: int, size: int) -> int:
        """The last value written."""
        return self.code

    def write(self, offset: int, size: int, value: int) -> None:
        """Remember the value."""
        self.code = value
