"""Two ways to reset a PC: the reset control register 0xcf9 (Intel ICH9 data sheet, 13.7.5) and system port 0x92.

The address line A20 is never masked here: its bit is kept for software that reads it back. The byte 0xcf9 lies in a double
word that is another register, so PCI's configuration ports claim it (`pyhv.chipset.pci_ports`) and pass it on.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import PORT_92

if TYPE_CHECKING:
    from pyhv.bus import AddressSpace
    from pyhv.control import MachineControl

SYSTEM_RESET, RESET_CPU, FULL_RESET = 2, 4, 8
FAST_RESET, A20 = 1, 2


class ResetControl:
    """Both registers. RESET_CPU going to 1 resets the machine, whatever kind of reset bits 1 and 3 chose before."""

    def __init__(self, *, control: MachineControl) -> None:
        self._control = control
        self._register = 0
        self._port_92 = A20

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim port 0x92."""
        ports.map(PORT_92, 1, IoFunctions(self._read_92, self._write_92), "port 92", width=1)

    def reset(self) -> None:
        """The state after a reset: A20 open."""
        self._register = 0
        self._port_92 = A20

    def read_control(self) -> int:
        """The kind of reset that was chosen; RESET_CPU reads 0."""
        return self._register

    def write_control(self, value: int) -> None:
        """Choose the kind of reset (bits 1, 3), or reset (bit 2)."""
        self._register = value & (SYSTEM_RESET | FULL_RESET)
        if value & RESET_CPU:
            self._control.reset("reset control register")

    def _read_92(self, offset: int, size: int) -> int:
        return self._port_92

    def _write_92(self, offset: int, size: int, value: int) -> None:
        rising = value & ~self._port_92
        self._port_92 = value
        if rising & FAST_RESET:
            self._control.reset("system port 0x92")
