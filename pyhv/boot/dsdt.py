"""The DSDT: soft-off and the devices that no bus enumerates."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot import aml, pci_root
from pyhv.chipset.layout import COM1, COM_IRQS, FW_CFG_PORT, PVPANIC_PORT, RTC_BASE, RTC_IRQ, S5_SLEEP_TYPE
from pyhv.memo import memo

if TYPE_CHECKING:
    from pyhv.boot.pci_root import PciRoot


@memo(maxsize=32)
def dsdt_body(cpus: int, pci: PciRoot, more: bytes = b"") -> bytes:
    """The table's AML; `more` goes to the end of \\_SB."""
    s5 = aml.package(*(aml.integer(value) for value in (S5_SLEEP_TYPE, S5_SLEEP_TYPE, 0, 0)))
    devices = aml.scope(
        "\\_SB", *_processors(cpus), pci_root.node(pci), _serial(), _rtc(), _pvpanic(), _fw_cfg(), more
    )
    return aml.name("\\_S5", s5) + pci_root.interrupt_model() + devices


def _processors(cpus: int) -> list[bytes]:
    """Processor devices; _UID is that of the MADT."""
    return [
        aml.device(
            f"C{index:03X}",
            aml.name("_HID", aml.string("ACPI0007")),
            aml.name("_UID", aml.integer(index)),
        )
        for index in range(cpus)
    ]


def _serial() -> bytes:
    return aml.device(
        "COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(1)),
        aml.name("_CRS", aml.resources(aml.io(COM1, 8), aml.irq(COM_IRQS[COM1]))),
    )


def _rtc() -> bytes:
    return aml.device(
        "RTC",
        aml.name("_HID", aml.eisa_id("PNP0B00")),
        aml.name("_CRS", aml.resources(aml.io(RTC_BASE, 2), aml.irq(RTC_IRQ))),
    )


def _pvpanic() -> bytes:
    """The identifier that Linux's pvpanic driver looks for (QEMU: docs/specs/pvpanic)."""
    return aml.device(
        "PEVT",
        aml.name("_HID", aml.string("QEMU0001")),
        aml.name("_STA", aml.integer(0xF)),
        aml.name("_CRS", aml.resources(aml.io(PVPANIC_PORT, 1))),
    )


def _fw_cfg() -> bytes:
    """Selector, data and DMA registers (QEMU: docs/specs/fw_cfg)."""
    return aml.device(
        "FWCF",
        aml.name("_HID", aml.string("QEMU0002")),
        aml.name("_STA", aml.integer(0xB)),
        aml.name("_CRS", aml.resources(aml.io(FW_CFG_PORT, 12))),
    )
