/* 8259A: Intel's data sheet 231468. */
#include "pic.h"
#include "io.h"

enum {
    MASTER = 0x20,
    SLAVE = 0xa0,
    DATA = 1,           /* offset of the mask (OCW1) and of ICW2 to ICW4 */
    CASCADE = 2,        /* the master's input that the slave drives */

    ICW1_INIT_ICW4 = 0x11,
    ICW4_8086 = 0x01,
    OCW2_SPECIFIC_EOI = 0x60,
};

static uint8_t masks[2];

static void set_mask(unsigned irq, int masked)
{
    unsigned chip = irq / 8;
    uint8_t bit = 1 << irq % 8;

    masks[chip] = masked ? masks[chip] | bit : masks[chip] & ~bit;
    outb((chip ? SLAVE : MASTER) + DATA, masks[chip]);
}

void pic_init(void)
{
    outb(MASTER, ICW1_INIT_ICW4);
    outb(MASTER + DATA, PIC_VECTOR);
    outb(MASTER + DATA, 1 << CASCADE);
    outb(MASTER + DATA, ICW4_8086);
    outb(SLAVE, ICW1_INIT_ICW4);
    outb(SLAVE + DATA, PIC_VECTOR + 8);
    outb(SLAVE + DATA, CASCADE);
    outb(SLAVE + DATA, ICW4_8086);
    masks[0] = 0xff & ~(1 << CASCADE);
    masks[1] = 0xff;
    outb(MASTER + DATA, masks[0]);
    outb(SLAVE + DATA, masks[1]);
}

void pic_unmask(unsigned irq) { set_mask(irq, 0); }

void pic_mask(unsigned irq) { set_mask(irq, 1); }

void pic_eoi(unsigned irq)
{
    if (irq >= 8) {
        outb(SLAVE, OCW2_SPECIFIC_EOI | (irq - 8));
        irq = CASCADE;
    }
    outb(MASTER, OCW2_SPECIFIC_EOI | irq);
}
