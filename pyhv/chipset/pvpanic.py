"""pvpanic (QEMU docs/specs/pvpanic): the port at which a guest says that it panicked.

A crash-loaded event is the kernel's promise to handle its panic itself (kdump); it does not end the machine.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import PVPANIC_PORT
from pyhv.log import event

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.control import MachineControl

PANICKED, CRASH_LOADED, SHUTDOWN = 1, 2, 4
EVENTS = PANICKED | CRASH_LOADED | SHUTDOWN



class Pvpanic:
    """One port: reads give the supported events, a write sends events."""

    def __init__(self, *, control: MachineControl, port: int = PVPANIC_PORT) -> None:
        self.port = port
        self.crash_loaded = False
        self._control = control

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the port."""
        ports.map(self.port, 1, self, "pvpanic", width=1)

    def reset(self) -> None:
        """Forget that a crash kernel was announced."""
        self.crash_loaded = False

    def read(self, offset: int, size: int) -> int:
        """The events that this device takes."""
        return EVENTS

    def write(self, offset: int, size: int, value: int) -> None:
        """Take events; the gravest counts."""
        if value & ~EVENTS:
            event("pvpanic.unknown_event", value=value)
        if value & PANICKED:
            self._control.panic("pvpanic")
        elif value & CRASH_LOADED:
            self.crash_loaded = True
        elif value & SHUTDOWN:
            self._control.power_off("pvpanic")
