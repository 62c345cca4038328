/*
 * Symmetric multiprocessing: finds the processors in the firmware's tables, starts them with INIT and SIPI, lets
 * all of them count under a spin lock, and interrupts each by an interprocessor interrupt.
 */
#include "smp.h"
#include "apic.h"
#include "guest.h"
#include "isr.h"
#include "platform.h"

enum { ROUNDS = 250, IPI_VECTOR = 0x40, MILLISECOND = 1000000, PATIENCE = 5000 };

static unsigned char apic_ids[MAX_CPUS];
static unsigned cpus;

static volatile unsigned mismatched, finished, interrupted;
static volatile unsigned counter;       /* not atomic: only the lock protects it */
static volatile int lock;

static void atomic_increment(volatile unsigned *p) { __asm__ volatile("lock incl %0" : "+m"(*p)); }

static void count_under_lock(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        int taken = 1;

        for (;;) {
            __asm__ volatile("xchg %0, %1" : "+r"(taken), "+m"(lock) : : "memory");
            if (!taken)
                break;
            while (lock)
                cpu_relax();
        }
        unsigned seen = counter;
        cpu_relax(); /* room for others to step in, if the lock let them */
        counter = seen + 1;
        __asm__ volatile("" : : : "memory");
        lock = 0;
    }
}

static void on_ipi(struct frame *frame)
{
    (void)frame;
    atomic_increment(&interrupted);
    apic_eoi();
}

void ap_main(unsigned number)
{
    uint32_t id[4];

    (void)number;
    cpuid(1, 0, id);
    if (id[1] >> 24 != apic_id())
        atomic_increment(&mismatched);
    count_under_lock();
    atomic_increment(&finished);
    for (;;)
        irq_wait();
}

/* Sleeps until the others brought *value to `wanted`, but not for ever. */
static int wait_for(volatile unsigned *value, unsigned wanted, unsigned milliseconds)
{
    while (*value != wanted && milliseconds--)
        apic_sleep(MILLISECOND);
    return *value == wanted;
}

int main(void)
{
    uint32_t id[4];

    isr_init();
    isr_set(IPI_VECTOR, on_ipi);
    apic_enable();

    cpus = platform_cpus(apic_ids, MAX_CPUS);
    if (!cpus)
        fail("neither ACPI nor an MP table lists a processor");
    check(cpus <= MAX_CPUS);
    print("smp: %u cpus\n", cpus);

    unsigned self = apic_id();
    cpuid(1, 0, id);
    check(id[1] >> 24 == self);
    if (smp_start(apic_ids, cpus) != cpus)
        fail("%u of %u processors came up", smp_running(), cpus);
    count_under_lock();
    if (!wait_for(&finished, cpus - 1, PATIENCE))
        fail("only %u processors finished counting", finished + 1);

    for (unsigned i = 0; i < cpus; i++)
        if (smp_up[apic_ids[i]] != 1)
            fail("the processor with APIC ID %u came up %u times", apic_ids[i], smp_up[apic_ids[i]]);
    if (mismatched)
        fail("on %u processors CPUID and the APIC disagree about the ID", mismatched);
    print("smp: all up, each with its own APIC ID\n");

    if (counter != cpus * ROUNDS)
        fail("the counter is %u, not %u: the lock did not hold", counter, cpus * ROUNDS);
    print("smp: counter %u\n", counter);

    for (unsigned i = 0; i < cpus; i++)
        if (apic_ids[i] != self)
            apic_send(apic_ids[i], ICR_FIXED | IPI_VECTOR);
    if (!wait_for(&interrupted, cpus - 1, PATIENCE))
        fail("%u of %u interprocessor interrupts arrived", interrupted, cpus - 1);
    print("smp: %u interprocessor interrupts, one by one\n", interrupted);

    interrupted = 0;
    apic_send(0, ICR_FIXED | ICR_ALL_BUT_SELF | IPI_VECTOR);
    if (!wait_for(&interrupted, cpus - 1, PATIENCE))
        fail("%u of %u interrupts of a broadcast arrived", interrupted, cpus - 1);
    print("smp: %u interprocessor interrupts, by broadcast\n", interrupted);

    print("smp: ok\n");
    return 0;
}
