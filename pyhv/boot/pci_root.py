"""The PCI host bridge in the DSDT and in MCFG (ACPI 6.5, 6.2.13: _PRT; PCI Firmware Specification 3.0, 4.1 and 4.5).

Functions' pins are wired to fixed inputs of the interrupt controllers, so _PRT names them directly: an operating system that
has told \\_PIC that it uses the I/O APIC gets GSIs, another one ISA IRQs.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.boot import aml
from pyhv.chipset.layout import (
    ECAM_BASE,
    ECAM_SIZE,
    PCI_ADDRESS_PORT,
    PCI_FIRST_GSI,
    PCI_FIRST_IRQ,
    PCI_IO_BASE,
    PCI_IO_END,
    PCI_IRQS,
    PCI_MEMORY_BASE,
    PCI_MEMORY_END,
    PCI_WIRES,
    pci_wire,
)
from pyhv.record import record

if TYPE_CHECKING:
    from typing import Final

HOST_BRIDGE_OSC: Final = "33db4d5b-1ff7-401c-9657-7441c03dd766"
UNRECOGNISED_UUID: Final = 1 << 2
WHOLE_SLOT: Final = 0xFFFF


@record(frozen=True)
class PciRoot:
    """What tables say of the bus: base and end of the window above RAM, and (slot * 8 + function, interrupt pin) of each."""

    memory64: tuple[int, int]
    functions: tuple[tuple[int, int], ...] = ()


def mcfg() -> bytes:
    """The body of MCFG: where configuration space is in memory, for bus 0 of segment 0."""
    return struct.pack("<8xQHBB4x", ECAM_BASE, 0, 0, (ECAM_SIZE >> 20) - 1)


def interrupt_model() -> bytes:
    """For the root: \\_PIC, by which an operating system tells which interrupt controllers it uses."""
    return aml.name("\\PICM", aml.integer(0)) + aml.method(
        "\\_PIC", 1, aml.store(aml.argument(0), aml.name_string("\\PICM"))
    )


def node(root: PciRoot) -> bytes:
    """For \\_SB: the host bridge, its functions, and the memory that configuration space takes."""
    windows = [
        aml.bus_numbers(0, 0),
        aml.io(PCI_ADDRESS_PORT, 8),
        aml.io_window(PCI_IO_BASE, PCI_IO_END - 1),
        aml.memory_window32(PCI_MEMORY_BASE, PCI_MEMORY_END - 1),
    ]
    base, end = root.memory64
    if base != end:
        windows.append(aml.memory_window64(base, end - 1))
    bridge = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_CRS", aml.resources(*windows)),
        _osc(),
        _interrupts(root.functions),
        *(_function(devfn) for devfn, _ in root.functions),
    )
    return bridge + aml.device(
        "ECAM",
        aml.name("_HID", aml.eisa_id("PNP0C02")),
        aml.name("_CRS", aml.resources(aml.memory32(ECAM_BASE, ECAM_SIZE))),
    )


def _osc() -> bytes:
    """Everything that the operating system asks to control is its own: no firmware is left that would mind."""
    return aml.method(
        "_OSC",
        4,
        aml.when(aml.equal(aml.argument(0), aml.uuid(HOST_BRIDGE_OSC)), aml.returns(aml.argument(3))),
        aml.create_dword_field(aml.argument(3), 0, "CDW1"),
        aml.either(aml.name_string("CDW1"), aml.integer(UNRECOGNISED_UUID), aml.name_string("CDW1")),
        aml.returns(aml.argument(3)),
        serialized=True,
    )


def _function(devfn: int) -> bytes:
    """A node for the function at slot * 8 + function."""
    return aml.device(f"S{devfn:02X}", aml.name("_ADR", aml.integer((devfn >> 3) << 16 | devfn & 7)))


def _interrupts(functions: tuple[tuple[int, int], ...]) -> bytes:
    """_PRT for the pins that are used: functions of a slot may share one."""
    pins = sorted({(devfn >> 3, pin) for devfn, pin in functions if pin})

    def table(first: int, count: int) -> bytes:
        return aml.package(
            *(
                aml.package(
                    aml.integer(slot << 16 | WHOLE_SLOT),
                    aml.integer(pin - 1),
                    aml.integer(0),
                    aml.integer(first + pci_wire(slot, pin) % count),
                )
                for slot, pin in pins
            )
        )

    if not pins:
        return b""
    return aml.method(
        "_PRT",
        0,
        aml.when(aml.name_string("\\PICM"), aml.returns(table(PCI_FIRST_GSI, PCI_WIRES))),
        aml.returns(table(PCI_FIRST_IRQ, PCI_IRQS)),
    )
