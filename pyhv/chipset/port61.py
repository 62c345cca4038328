"""System control port B, 0x61: channel 2's gate and output, the speaker, the refresh toggle, NMI sources.

Source: Intel 82371AB (PIIX4) data sheet, NMI status and control register.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.chipset.pit_channel import Channel

GATE2 = 0x01
REFRESH = 0x10
OUT2 = 0x20
WRITABLE = 0x0F
REFRESH_TICKS = 18
"""CLK ticks between two memory refreshes (15.08 us): each toggles the bit."""


class Port61:
    """The port beside the PIT's channel 2. Its NMI sources, parity and channel check, never happen and read as zero."""

    def __init__(self, *, channel: Channel, tick: Callable[[], int]) -> None:
        self._channel = channel
        self._tick = tick
        self._bits = 0

    def reset(self) -> None:
        """Speaker and gate off."""
        self.write(0, 1, 0)

    def read(self, offset: int, size: int) -> int:
        t = self._tick()
        value = self._bits
        if t // REFRESH_TICKS & 1:
            value |= REFRESH
        if self._channel.out(t):
            value |= OUT2
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        self._bits = value & WRITABLE
        self._channel.set_gate(self._tick(), bool(value & GATE2))
