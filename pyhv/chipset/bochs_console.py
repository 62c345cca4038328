"""The Bochs debug console: bytes written to port 0xe9 are printed; reading gives 0xe9, by which a kernel finds it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import BOCHS_CONSOLE_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace

_BYTES = tuple(bytes((value,)) for value in range(256))


class BochsConsole:
    """One port; `output(data)` takes what is printed."""

    def __init__(self, *, output: Callable[[bytes], None], port: int = BOCHS_CONSOLE_PORT) -> None:
        self.port = port
        self._output = output

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the port."""
        ports.map(self.port, 1, self, "bochs console", width=1)

    def reset(self) -> None:
        """Nothing to forget."""

    def read(self, offset: int, size: int) -> int:
        """The device's signature."""
        return BOCHS_CONSOLE_PORT

    def write(self, offset: int, size: int, value: int) -> None:
        """Print one byte."""
        self._output(_BYTES[value & 0xFF])
