"""The PC platform's addresses, interrupt numbers and frequencies, in one place: devices, ACPI and docs agree by import.

They are those of QEMU's q35 and of PC hardware where software expects them by convention.
"""

from __future__ import annotations

COM1, COM2, COM3, COM4 = 0x3F8, 0x2F8, 0x3E8, 0x2E8
COM_IRQS = {COM1: 4, COM2: 3, COM3: 4, COM4: 3}

DEBUG_EXIT_PORT = 0xF4
DEBUG_EXIT_SIZE = 4
BOCHS_CONSOLE_PORT = 0xE9
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

IOAPIC_BASE = 0xFEC0_0000
IOAPIC_PINS = 24
LAPIC_BASE = 0xFEE0_0000

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
KVM_TSS = 0xFEFF_D000
