"""Conventional PCI: bus 0 with its configuration space, base address registers, capabilities and interrupts.

    function = PciFunction(vendor=0x1234, device=0x11E8, class_code=0xFF0000, interrupt_pin=1)
    function.add_bar(0, 0x1000, registers)
    platform.pci.add(function)

Sources: PCI Local Bus Specification 3.0 (sections named as "PCI 3.0, 6.2.1"); the enhanced configuration access mechanism
(ECAM) of PCI Express, by which firmware's MCFG table lets software reach the same registers in memory.
"""

from __future__ import annotations

from pyhv.pci.bar import BarKind
from pyhv.pci.bus import PciBus
from pyhv.pci.function import PciFunction

__all__ = ["BarKind", "PciBus", "PciFunction"]
