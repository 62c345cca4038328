"""The PC platform's addresses, interrupt numbers and frequencies, in one place: devices, ACPI and docs agree by import.

They are those of QEMU's q35 and of PC hardware where software expects them by convention.
"""

from __future__ import annotations

COM1, COM2, COM3, COM4 = 0x3F8, 0x2F8, 0x3E8, 0x2E8
COM_IRQS = {COM1: 4, COM2: 3, COM3: 4, COM4: 3}

DEBUG_EXIT_PORT = 0xF4
DEBUG_EXIT_SIZE = 4
BOCHS_CONSOLE_PORT = 0xE9
POST_PORT, DELAY_PORT = 0x80, 0xED
PVPANIC_PORT = 0x505
TESTDEV_LATCH_PORT = 0xE0
TESTDEV_FLUSH_PORT = 0xE4
TESTDEV_IRQ_PORT = 0x2000
TESTDEV_MSI_PORT = 0x2080
TESTDEV_MMIO = 0xFF00_0000
TESTDEV_MMIO_SIZE = 0x1_0000
FW_CFG_PORT = 0x510
FW_CFG_DMA_PORT = 0x514

PIC_MASTER, PIC_SLAVE = 0x20, 0xA0
PIC_ELCR = 0x4D0
PIT_BASE = 0x40
PORT_61 = 0x61
I8042_DATA, I8042_COMMAND = 0x60, 0x64
RTC_BASE = 0x70
RTC_IRQ = 8
PORT_92 = 0x92
RESET_CONTROL_PORT = 0xCF9

PCI_ADDRESS_PORT, PCI_DATA_PORT = 0xCF8, 0xCFC
ECAM_BASE, ECAM_SIZE = 0xE000_0000, 1 << 20
"""Configuration space in memory, 4 KiB for each function of bus 0."""
PCI_MEMORY_BASE, PCI_MEMORY_END = 0xE100_0000, 0xFE00_0000
"""What the host bridge passes on to memory ranges below 4 GiB; the end is one past the last address."""
PCI_MEMORY64_SIZE, PCI_MEMORY64_ALIGNMENT, PCI_MEMORY64_LIMIT = 16 << 30, 1 << 30, 1 << 40
"""And above RAM: as long as it ends where every AMD64 processor has addresses."""
PCI_IO_BASE, PCI_IO_END = 0xC000, 0x1_0000
PCI_WIRES = 8
"""Interrupt wires of the PCI slots, shared and level-triggered."""
PCI_FIRST_GSI = 16
"""The I/O APIC's input of the first wire; the others follow."""
PCI_FIRST_IRQ, PCI_IRQS = 10, 2
"""The 8259A pair's inputs that the wires reach as well, in turn."""

VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE, VIRTIO_MMIO_SLOTS = 0xFEB0_0000, 0x1000, 256
"""Where virtio devices are that are on no bus; they share the PCI slots' wires in turn."""

IOAPIC_BASE = 0xFEC0_0000
IOAPIC_PINS = 24
LAPIC_BASE, LAPIC_REGION = 0xFEE0_0000, 1 << 20
"""Where the local APICs are, and where writes by devices are messages to them (APM vol. 2, 16.5)."""

PM1_EVENT_PORT = 0x600
PM1_CONTROL_PORT = 0x604
PM_TIMER_PORT = 0x608
SCI_IRQ = 9
S5_SLEEP_TYPE = 5

PIT_HZ = 1_193_182
PM_TIMER_HZ = 3_579_545

EBDA_BASE = 0x9_FC00
"""Extended BIOS data area; conventional memory ends here."""
BIOS_AREA = 0xE_0000
"""0xE0000 to 0xFFFFF: where the RSDP and the MP floating pointer are looked for."""
KVM_IDENTITY_MAP = 0xFEFF_C000
KVM_TSS, KVM_TSS_END = 0xFEFF_D000, 0xFF00_0000


def pci_wire(slot: int, pin: int) -> int:
    """Which interrupt wire pin 1 to 4 (INTA# to INTD#) of a PCI slot is soldered to, 0 to PCI_WIRES - 1."""
    return (slot + pin - 1) % PCI_WIRES


def pci_memory64(memory_end: int) -> tuple[int, int]:
    """The base and the end of the host bridge's window above a memory that ends there; equal when there is no room."""
    base = (max(memory_end, 1 << 32) + PCI_MEMORY64_ALIGNMENT - 1) & -PCI_MEMORY64_ALIGNMENT
    end = base + PCI_MEMORY64_SIZE
    return (base, end) if end <= PCI_MEMORY64_LIMIT else (base, base)
