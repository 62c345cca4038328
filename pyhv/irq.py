"""Interrupt lines and messages: how a device asks for attention, without knowing who listens."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Callable


@record(frozen=True)
class Msi:
    """A message-signalled interrupt: a 32-bit data write to an address in 0xFEE00000-0xFEEFFFFF (APM vol. 2, 16.5)."""

    address: int
    data: int


class InterruptLine:
    """One wire. Several devices may share a GSI: each holds its own line, the controller's side ORs them."""

    __slots__ = ("_level", "_sink")

    def __init__(self, sink: Callable[[bool], None]) -> None:
        self._sink = sink
        self._level = False

    @property
    def level(self) -> bool:
        """What the device last drove."""
        return self._level

    def set(self, level: bool) -> None:
        """Drive the wire high or low; the listener hears changes only."""
        if level != self._level:
            self._level = level
            self._sink(level)

    def pulse(self) -> None:
        """Low-high-low: one edge."""
        self.set(False)
        self.set(True)
        self.set(False)


class SharedLine:
    """A wire that is high while any of its sources is: make one `InterruptLine` a source with `source()`."""

    __slots__ = ("_high", "_sink")

    def __init__(self, sink: Callable[[bool], None]) -> None:
        self._sink = sink
        self._high = 0

    def source(self) -> InterruptLine:
        """A new input of this wire."""
        return InterruptLine(self._change)

    def _change(self, level: bool) -> None:
        before = self._high
        self._high = before + (1 if level else -1)
        if (before == 0) != (self._high == 0):
            self._sink(level)
