/* Segments: the same selectors in 32-bit and in 64-bit guests. The table itself is in start32.S and start64.S. */
#pragma once
#include <stdint.h>

enum {
    KERNEL_CODE = 0x08,
    KERNEL_DATA = 0x10,
    USER_CODE = 0x18 | 3,
    USER_DATA = 0x20 | 3,
    TASK = 0x28,        /* two slots: a system descriptor has 16 bytes in long mode */
    SPARE = 0x38,       /* and four slots for a guest's own experiments */
};

extern uint64_t gdt[];

/* Fills TASK and loads TR: an interrupt that comes from ring 3 then switches to this stack. */
void tss_init(void *stack_top);
