"""One vector of MSI or MSI-X: what it sends, and the backend's source that sends it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import LAPIC_BASE
from pyhv.irq import Msi

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.notify import MessageSource

    MakeSource = Callable[[], MessageSource]

MESSAGE_REGION = 0xFFF0_0000
"""The address bits that make a memory write an interrupt (APM vol. 2, 16.5)."""


class Vector:
    """A message, told to its source when it is next sent: drivers rewrite vectors more often than devices use them."""

    __slots__ = ("_address", "_changed", "_data", "_make", "_source")

    def __init__(self, make: MakeSource) -> None:
        self._make = make
        self._source: MessageSource | None = None
        self._address = self._data = 0
        self._changed = True

    def set(self, address: int, data: int) -> None:
        """What `send` sends from now on."""
        if (address, data) != (self._address, self._data):
            self._address, self._data = address, data
            self._changed = True

    def send(self) -> None:
        """Send it; a write that no local APIC would take is lost."""
        if self._changed:
            valid = self._address & ~0xFFFFF == LAPIC_BASE & MESSAGE_REGION
            if self._source is None:
                if not valid:
                    return
                self._source = self._make()
            self._source.set(Msi(self._address, self._data) if valid else None)
            self._changed = False
        if self._source is not None:
            self._source.send()

    def close(self) -> None:
        """Give the source back."""
        if self._source is not None:
            self._source.close()
            self._source = None
            self._changed = True
