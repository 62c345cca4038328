/* What the firmware tables say of the machine: ACPI's MADT, or without ACPI the MP table. */
#pragma once
#include <stdint.h>

/* Fills in the APIC IDs of the processors that may be started, in the tables' order. Returns how many there are,
 * which may be more than `max`; 0 if there is no table. */
unsigned platform_cpus(unsigned char *apic_ids, unsigned max);

/* The I/O APIC pin that a legacy interrupt line is wired to. */
unsigned platform_irq_pin(unsigned irq);

/* Where PCI configuration space is in memory, from bus 0 on; 0 if ACPI names no such place. */
uintptr_t platform_ecam(void);
