"""QEMU's isa-debug-exit: the port through which a test kernel reports its status.

QEMU exits with (value << 1) | 1; pyhv reports the value itself, and 0 is a pass.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.layout import DEBUG_EXIT_PORT, DEBUG_EXIT_SIZE
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.control import MachineControl


class DebugExit:
    """`size` (1, 2 or 4) ports from `port`; a write of any width up to `size` ends the guest, reads give 0."""

    def __init__(self, *, control: MachineControl, port: int = DEBUG_EXIT_PORT, size: int = DEBUG_EXIT_SIZE) -> None:
        if size not in (1, 2, 4):
            raise ConfigError(f"debug exit size: {size} is not 1, 2 or 4")
        if not 0 <= port <= 0x10000 - size:
            raise ConfigError(f"debug exit port: {port:#x} is not in 0 to {0x10000 - size:#x}")
        self.port = port
        self.size = size
        self._control = control

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the ports."""
        ports.map(self.port, self.size, self, "debug exit", width=self.size)

    def reset(self) -> None:
        """Nothing to forget."""

    def read(self, offset: int, size: int) -> int:
        """Always 0, as in QEMU."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """End the guest with this status."""
        self._control.debug_exit(value)
