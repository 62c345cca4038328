/* The interrupt descriptor table and its dispatch. */
#include "isr.h"
#include "gdt.h"
#include "guest.h"

enum { INTERRUPT_GATE = 0x8e00, USER_GATE = 0x6000 };

/* AMD64 APM volume 2, 4.7.4 and 4.8.4 */
static struct gate {
    uint16_t offset_low, selector, attributes, offset_high;
#ifdef __x86_64__
    uint32_t offset_top, reserved;
#endif
} idt[256];

static isr *handlers[256];

extern const char isr_entries[][16];

void isr_dispatch(struct frame *frame);

void isr_init(void)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uintptr_t entry = (uintptr_t)isr_entries[vector];

        idt[vector] = (struct gate){
            .offset_low = entry,
            .selector = KERNEL_CODE,
            .attributes = INTERRUPT_GATE,
            .offset_high = entry >> 16,
#ifdef __x86_64__
            .offset_top = entry >> 32,
#endif
        };
    }
    isr_load();
}

void isr_load(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uintptr_t base;
    } pointer = {sizeof idt - 1, (uintptr_t)idt};

    __asm__ volatile("lidt %0" : : "m"(pointer));
}

const void *isr_table(void) { return idt; }

void isr_set(unsigned vector, isr *handler) { handlers[vector] = handler; }

void isr_allow_user(unsigned vector) { idt[vector].attributes |= USER_GATE; }

void isr_dispatch(struct frame *frame)
{
    if (!handlers[frame->vector])
        fail("unexpected vector %lu, error code %lx, at %lx:%lx", frame->vector, frame->error, frame->cs,
             frame->ip);
    handlers[frame->vector](frame);
}
