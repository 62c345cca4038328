/* Interrupts and exceptions: 256 gates that all lead to one C function, and from there to a guest's handlers. */
#pragma once
#include <stdint.h>

enum {
    VECTOR_DB = 1,
    VECTOR_BP = 3,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
};

/* What the entry code in isr_entry.S left on the stack, lowest address first. */
struct frame {
#ifdef __x86_64__
    unsigned long r15, r14, r13, r12, r11, r10, r9, r8;
    unsigned long di, si, bp, bx, dx, cx, ax;
#else
    unsigned long es, ds;
    unsigned long di, si, bp, unused, bx, dx, cx, ax;
#endif
    unsigned long vector, error;    /* error is 0 where the processor pushes none */
    unsigned long ip, cs, flags;
    unsigned long sp, ss;           /* in 32-bit mode only if the privilege level changed */
};

typedef void isr(struct frame *frame);

/* Builds the IDT and loads it. Until a handler is set, any vector ends the guest with a FAIL line. */
void isr_init(void);

/* Where the IDT is. Its limit is 256 gates less one byte. */
const void *isr_table(void);

/* Loads the IDT on a further processor. */
void isr_load(void);

void isr_set(unsigned vector, isr *handler);

/* Opens a vector to the INT instruction of ring 3. */
void isr_allow_user(unsigned vector);
