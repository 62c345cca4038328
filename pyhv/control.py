"""What a device may ask of the machine that it is part of."""

from __future__ import annotations

from pyhv._types import Protocol


class MachineControl(Protocol):
    """Requests take effect before the vCPU that caused them runs another instruction; the first one wins."""

    def debug_exit(self, value: int) -> None:
        """The guest ends with this raw status; 0 is a pass."""
        ...

    def power_off(self, source: str) -> None:
        """A clean power-off; `source` names the device (for the report)."""
        ...

    def reset(self, source: str) -> None:
        """A reset of the machine."""
        ...

    def panic(self, source: str, detail: str = "") -> None:
        """The guest says that it panicked."""
        ...
