/* 8254: Intel's data sheet 231164. */
#include "pit.h"
#include "io.h"

enum {
    CHANNEL0 = 0x40,
    CONTROL = 0x43,
    CHANNEL0_LOW_HIGH_MODE0 = 0x30,
    CHANNEL0_LOW_HIGH_MODE2 = 0x34,
};

void pit_start(unsigned hz)
{
    unsigned divisor = PIT_HZ / hz;

    outb(CONTROL, CHANNEL0_LOW_HIGH_MODE2);
    outb(CHANNEL0, divisor);
    outb(CHANNEL0, divisor >> 8);
}

void pit_stop(void) { outb(CONTROL, CHANNEL0_LOW_HIGH_MODE0); }
