#pragma once

#define MAX_CPUS 255            /* as many as 8-bit APIC IDs allow */
#define STACK_BYTES 1024
#define TRAMPOLINE 0x8000       /* a page below 1 MiB */
#define CODE32 0x38             /* a 32-bit code segment, for the way from real to long mode */
