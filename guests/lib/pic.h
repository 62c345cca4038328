/* The two cascaded 8259A interrupt controllers of the PC. */
#pragma once

enum { PIC_VECTOR = 0x20 }; /* IRQ n comes as vector PIC_VECTOR + n */

/* Initialises both, with every line masked. */
void pic_init(void);
void pic_unmask(unsigned irq);
void pic_mask(unsigned irq);
void pic_eoi(unsigned irq);
