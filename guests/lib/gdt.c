/* The task state segment: of it, a guest here needs only the ring 0 stack. */
#include "gdt.h"

#ifdef __x86_64__
/* AMD64 APM volume 2, 12.2.5 */
static struct __attribute__((packed)) {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t io_map;
} tss;
#else
/* AMD64 APM volume 2, 12.2.3 */
static struct __attribute__((packed)) {
    uint32_t link;
    uint32_t esp0, ss0, esp1, ss1, esp2, ss2;
    uint32_t cr3, eip, eflags, general[8];
    uint32_t segments[6], ldt;
    uint16_t trap, io_map;
} tss;
#endif

void tss_init(void *stack_top)
{
    uint64_t base = (uintptr_t)&tss;

#ifdef __x86_64__
    tss.rsp[0] = (uintptr_t)stack_top;
#else
    tss.esp0 = (uintptr_t)stack_top;
    tss.ss0 = KERNEL_DATA;
#endif
    tss.io_map = sizeof tss; /* beyond the limit: no port is open to ring 3 */
    gdt[TASK / 8] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[TASK / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(TASK) : "memory");
}
