/* Further processors, in 64-bit guests. */
#pragma once

#define MAX_CPUS 255            /* as many as 8-bit APIC IDs allow */
#define STACK_BYTES 1024
#define TRAMPOLINE 0x8000       /* a page below 1 MiB */
#define CODE32 0x38             /* a 32-bit code segment, for the way from real to long mode */

#ifndef __ASSEMBLER__

/* Starts the processors with these APIC IDs, but for the one that calls it, and waits for them, if not for ever. Needs
 * isr_init() and apic_enable(). Returns how many run now, this one included. */
unsigned smp_start(const unsigned char *apic_ids, unsigned cpus);
unsigned smp_running(void);

/* By APIC ID: how often a processor came up. */
extern volatile unsigned char smp_up[256];

/* The guest's own: where each of them goes on, its APIC enabled, its interrupts off. They are numbered from 1. */
void ap_main(unsigned number);

#endif
