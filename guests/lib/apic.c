/* Local APIC: AMD64 APM volume 2, chapter 16. I/O APIC: Intel's data sheet 290566. */
#include "apic.h"
#include "isr.h"

enum {
    MSR_APIC_BASE = 0x1b,
    APIC_BASE_ENABLE = 1 << 11,
    SLEEP_VECTOR = 0xf0,

    IOAPIC_WINDOW = 0x10,
    IOAPIC_VERSION = 1,
    IOAPIC_REDIRECTION = 0x10, /* two registers a pin */
};

static const uintptr_t IOAPIC = 0xfec00000;

/* A spurious interrupt sets no in-service bit and gets no EOI. */
static void on_spurious(struct frame *frame) { (void)frame; }

void apic_enable(void)
{
    isr_set(SPURIOUS_VECTOR, on_spurious);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
    apic_write(APIC_SPURIOUS, SPURIOUS_APIC_ENABLE | SPURIOUS_VECTOR);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    apic_write(APIC_LVT_LINT1, LVT_MASKED);
    apic_write(APIC_LVT_ERROR, LVT_MASKED);
}

void apic_send(unsigned destination, uint32_t command)
{
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR_LOW, command | ICR_ASSERT);
    while (apic_read(APIC_ICR_LOW) & ICR_PENDING)
        cpu_relax();
}

static volatile int awake;

static void on_wake(struct frame *frame)
{
    (void)frame;
    awake = 1;
    apic_eoi();
}

static void timer_start(uint32_t counts)
{
    awake = 0;
    isr_set(SLEEP_VECTOR, on_wake);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, SLEEP_VECTOR);
    apic_write(APIC_TIMER_INITIAL, counts);
}

void apic_sleep(uint32_t counts)
{
    timer_start(counts);
    while (!awake)
        irq_wait();
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

int apic_wait(const volatile unsigned *count, unsigned wanted, unsigned milliseconds)
{
    while (*count < wanted && milliseconds--) {
        timer_start(APIC_MILLISECOND);
        while (!awake && *count < wanted)
            irq_wait();
        apic_write(APIC_LVT_TIMER, LVT_MASKED);
        apic_write(APIC_TIMER_INITIAL, 0);
    }
    return *count >= wanted;
}

uint32_t ioapic_read(unsigned reg)
{
    mmio_write32(IOAPIC, reg);
    return mmio_read32(IOAPIC + IOAPIC_WINDOW);
}

void ioapic_write(unsigned reg, uint32_t v)
{
    mmio_write32(IOAPIC, reg);
    mmio_write32(IOAPIC + IOAPIC_WINDOW, v);
}

void ioapic_route(unsigned pin, unsigned vector, uint32_t flags)
{
    ioapic_write(IOAPIC_REDIRECTION + 2 * pin + 1, apic_id() << 24);
    ioapic_write(IOAPIC_REDIRECTION + 2 * pin, vector | flags);
}

void ioapic_mask(unsigned pin) { ioapic_write(IOAPIC_REDIRECTION + 2 * pin, IOAPIC_MASKED); }

unsigned ioapic_pins(void) { return (ioapic_read(IOAPIC_VERSION) >> 16 & 0xff) + 1; }

uint32_t ioapic_entry(unsigned pin) { return ioapic_read(IOAPIC_REDIRECTION + 2 * pin); }
