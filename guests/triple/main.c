/*
 * A triple fault: with an empty IDT an exception cannot be delivered (#GP or #NP), nor can the double fault that
 * follows; the processor shuts down (AMD64 APM volume 2, 8.2.9).
 */
#include "guest.h"

int main(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uintptr_t base;
    } empty = {0, 0};

    print("triple: about to triple fault\n");
    __asm__ volatile("lidt %0; ud2" : : "m"(empty));
    fail("the processor went on after a triple fault");
}
