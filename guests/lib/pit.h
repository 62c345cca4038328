/* The 8254 interval timer: channel 0 drives IRQ 0. */
#pragma once

enum { PIT_HZ = 1193182, PIT_IRQ = 0 };

/* Channel 0 interrupts `hz` times a second (19 to PIT_HZ / 2), by mode 2. */
void pit_start(unsigned hz);

/* Stops it: mode 0 without a count. */
void pit_stop(void);
