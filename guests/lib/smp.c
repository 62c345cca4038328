/* The universal start-up algorithm (MultiProcessor Specification 1.4, B.4). */
#ifdef __x86_64__
#include "smp.h"
#include "apic.h"
#include "gdt.h"
#include "isr.h"

enum { FIRST_TRY = 100, SECOND_TRY = 5000 }; /* milliseconds */

volatile unsigned char smp_up[256];
static volatile unsigned arrived;

extern const char trampoline[], trampoline_end[];

void smp_arrive(unsigned number);

/* From the trampoline, on the processor that arrived. */
void smp_arrive(unsigned number)
{
    isr_load();
    apic_enable();
    __asm__ volatile("lock incb %0" : "+m"(smp_up[apic_id()]));
    __asm__ volatile("lock incl %0" : "+m"(arrived));
    ap_main(number);
}

unsigned smp_running(void) { return arrived + 1; }

static void wait_for(unsigned others, unsigned milliseconds)
{
    while (arrived != others && milliseconds--)
        apic_sleep(APIC_MILLISECOND);
}

/* INIT, a pause, SIPI; and another SIPI to whoever missed the first. */
unsigned smp_start(const unsigned char *apic_ids, unsigned cpus)
{
    unsigned self = apic_id();

    smp_up[self] = 1;
    if (cpus < 2)
        return smp_running();
    gdt[CODE32 / 8] = 0x00cf9b000000ffff;
    __builtin_memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
    for (unsigned i = 0; i < cpus; i++)
        if (apic_ids[i] != self)
            apic_send(apic_ids[i], ICR_INIT);
    apic_sleep(10 * APIC_MILLISECOND);
    for (unsigned i = 0; i < cpus; i++)
        if (apic_ids[i] != self)
            apic_send(apic_ids[i], ICR_STARTUP | TRAMPOLINE >> 12);
    wait_for(cpus - 1, FIRST_TRY);
    for (unsigned i = 0; i < cpus; i++)
        if (apic_ids[i] != self && !smp_up[apic_ids[i]])
            apic_send(apic_ids[i], ICR_STARTUP | TRAMPOLINE >> 12);
    wait_for(cpus - 1, SECOND_TRY);
    return smp_running();
}
#endif
