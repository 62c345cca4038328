"""Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2): a register's address to port 0xcf8, its data through 0xcfc.

Only a whole double word is the address. The byte at 0xcf9 is another register of PC chipsets, reset control: software that
only wants that one does not make a bus.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import PCI_ADDRESS_PORT, PCI_DATA_PORT, RESET_CONTROL_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace
    from pyhv.chipset.reset_control import ResetControl
    from pyhv.pci.bus import PciBus

ENABLE = 1 << 31
IMPLEMENTED = ENABLE | 0xFF_FFFC
ADDRESS = (0, 4)
RESET_BYTE = (RESET_CONTROL_PORT - PCI_ADDRESS_PORT, 1)


class PciPorts:
    """Both ports; `bus()` gives what is behind them."""

    def __init__(self, bus: Callable[[], PciBus], reset_control: ResetControl) -> None:
        self._bus = bus
        self._reset_control = reset_control
        self._address = 0

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim them."""
        address = IoFunctions(self._read_address, self._write_address)
        ports.map(PCI_ADDRESS_PORT, 4, address, "pci address, reset control", width=4)
        ports.map(PCI_DATA_PORT, 4, IoFunctions(self._read_data, self._write_data), "pci data", width=4)

    def reset(self) -> None:
        """No register is addressed."""
        self._address = 0

    def _read_address(self, offset: int, size: int) -> int:
        if (offset, size) == ADDRESS:
            return self._address
        return self._reset_control.read_control() if (offset, size) == RESET_BYTE else (1 << 8 * size) - 1

    def _write_address(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == ADDRESS:
            self._address = value & IMPLEMENTED
        elif (offset, size) == RESET_BYTE:
            self._reset_control.write_control(value)

    def _read_data(self, offset: int, size: int) -> int:
        address = self._address
        if not address & ENABLE:
            return (1 << 8 * size) - 1
        return self._bus().read_config(address >> 8 & 0xFFFF, (address & 0xFC) + offset, size)

    def _write_data(self, offset: int, size: int, value: int) -> None:
        address = self._address
        if address & ENABLE:
            self._bus().write_config(address >> 8 & 0xFFFF, (address & 0xFC) + offset, size, value)
