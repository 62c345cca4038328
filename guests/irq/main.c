/*
 * Every way an interrupt takes to a PC's processor, one after the other: the PIT and a plain line through the
 * 8259s, the local APIC's own interprocessor interrupt under the task priority, the PIT and a line through the
 * I/O APIC (edges and levels), the local APIC's timer, and messages (MSI).
 *
 * Each part counts what arrives and then waits a little longer, to see that no more comes than should. Clocks are
 * the exception: a tick that came while the last one was handled may be on its way already, and is ignored.
 *
 * With "notes" on its command line, a line that begins with "note:" tells of a host that is not quite a PC; there is
 * none on a faithful one.
 */
#include "apic.h"
#include "guest.h"
#include "isr.h"
#include "pic.h"
#include "pit.h"
#include "platform.h"
#include "startinfo.h"
#include "testdev.h"

static int notes_wanted;

static int mentions(const char *text, const char *word)
{
    for (; text && *text; text++) {
        unsigned n = 0;

        while (word[n] && text[n] == word[n])
            n++;
        if (!word[n])
            return 1;
    }
    return 0;
}

static void note(const char *text)
{
    if (notes_wanted)
        print("note: %s\n", text);
}

enum {
    TICKS = 5,
    TICK_HZ = 1000,
    MILLISECOND = 1000000,
    PATIENCE = 3000,            /* milliseconds until an interrupt counts as lost */

    LINE = 12,                  /* a line that nothing else drives: the PS/2 mouse has it, and is off */
    LEVEL_DELIVERIES = 3,

    VECTOR_IOAPIC_PIT = 0x40,
    VECTOR_IOAPIC_EDGE = 0x41,
    VECTOR_IOAPIC_LEVEL = 0x42,
    VECTOR_TIMER = 0x50,
    VECTOR_SELF = 0x58,
    VECTOR_MSI_LOW = 0x61,
    VECTOR_MSI_MIDDLE = 0x71,
    VECTOR_MSI_HIGH = 0x81,

    APIC_TMR = 0x180,           /* trigger mode: 8 registers, 0x10 apart */
};

static volatile unsigned count;
static volatile unsigned line_level;    /* of LINE, as this guest drives it */
static unsigned timer_pin, line_pin;

/* Some paravirtualised hosts end each interrupt as they deliver it: no in-service bit shows in the handler. */
static volatile int ended_by_host;

static int vector_bit(unsigned reg, unsigned vector)
{
    return apic_read(reg + vector / 32 * 0x10) >> vector % 32 & 1;
}

/* Sleeps until `count` has reached `wanted`; then a little more, for it not to go beyond. */
static void expect(const char *what, unsigned wanted)
{
    for (unsigned ms = 0; count < wanted && ms < PATIENCE; ms++)
        apic_sleep(MILLISECOND);
    apic_sleep(2 * MILLISECOND);
    if (count != wanted)
        fail("%s: %u interrupts instead of %u", what, count, wanted);
}

static void set_line(unsigned level)
{
    line_level = level;
    testdev_line(LINE, level);
}

static void on_ignored(struct frame *frame) { (void)frame; }

/* 8259: the handler masks the timer at the last tick. */

static void on_pic_pit(struct frame *frame)
{
    (void)frame;
    if (count < TICKS && ++count == TICKS)
        pic_mask(PIT_IRQ);
    pic_eoi(PIT_IRQ);
}

static void on_pic_line(struct frame *frame)
{
    (void)frame;
    count++;
    set_line(0);
    pic_eoi(LINE);
}

static void test_pic(void)
{
    isr_set(PIC_VECTOR + PIT_IRQ, on_pic_pit);
    isr_set(PIC_VECTOR + LINE, on_pic_line);
    isr_set(PIC_VECTOR + 7, on_ignored); /* an 8259's spurious interrupt */
    pic_init();
    apic_write(APIC_LVT_LINT0, LVT_EXTINT);

    count = 0;
    pit_start(TICK_HZ);
    pic_unmask(PIT_IRQ);
    expect("pic pit", TICKS);
    print("pic pit: %u ticks\n", count);
    pit_stop();

    if (testdev_present()) {
        count = 0;
        pic_unmask(LINE);
        for (unsigned i = 1; i <= 2; i++) {
            set_line(1);
            expect("pic line", i);
        }
        print("pic line: %u interrupts\n", count);
        pic_mask(LINE);
    } else
        print("pic line: no test device\n");

    apic_write(APIC_LVT_LINT0, LVT_MASKED);
}

/* Local APIC: its interrupt to itself */

static void on_self(struct frame *frame)
{
    (void)frame;
    ended_by_host = !vector_bit(APIC_ISR, VECTOR_SELF);
    check(!vector_bit(APIC_IRR, VECTOR_SELF));
    count++;
    apic_eoi();
}

/* A vector is held back while its class (the high four bits) is not above the task priority's. */
static void test_priority(void)
{
    isr_set(VECTOR_SELF, on_self);
    count = 0;
    apic_write(APIC_TPR, VECTOR_SELF & 0xf0);
    apic_send(0, ICR_FIXED | ICR_SELF | VECTOR_SELF);
    irq_enable();
    for (unsigned i = 0; i < 100; i++)
        cpu_relax();
    irq_disable();
    check(count == 0);
    check(vector_bit(APIC_IRR, VECTOR_SELF));
    apic_write(APIC_TPR, 0);
    expect("apic self", 1);
    if (ended_by_host)
        note("the host ends interrupts by itself, none is ever in service");
    check(!vector_bit(APIC_ISR, VECTOR_SELF));
    print("apic self: 1 interrupt, held back by the task priority until that fell\n");
}

/* I/O APIC */

static void on_ioapic_pit(struct frame *frame)
{
    (void)frame;
    if (count < TICKS && ++count == TICKS)
        ioapic_mask(timer_pin);
    apic_eoi();
}

static void on_ioapic_edge(struct frame *frame)
{
    (void)frame;
    count++;
    apic_eoi();
}

/* The line stays up over two EOIs, and each makes the I/O APIC send again. */
static void on_ioapic_level(struct frame *frame)
{
    (void)frame;
    if (line_level || !ended_by_host) {
        check(ioapic_entry(line_pin) & IOAPIC_REMOTE_IRR);
        check(vector_bit(APIC_TMR, VECTOR_IOAPIC_LEVEL));
        if (++count == LEVEL_DELIVERIES)
            set_line(0);
    } else
        note("a level interrupt came again after its line had fallen");
    apic_eoi();
}

static void test_ioapic(void)
{
    timer_pin = platform_irq_pin(PIT_IRQ);
    line_pin = platform_irq_pin(LINE);
    check(timer_pin < ioapic_pins() && line_pin < ioapic_pins());

    count = 0;
    isr_set(VECTOR_IOAPIC_PIT, on_ioapic_pit);
    ioapic_route(timer_pin, VECTOR_IOAPIC_PIT, 0);
    pit_start(TICK_HZ);
    expect("ioapic pit", TICKS);
    print("ioapic pit: %u ticks\n", count);
    pit_stop();

    if (!testdev_present()) {
        print("ioapic edge: no test device\nioapic level: no test device\n");
        return;
    }
    count = 0;
    isr_set(VECTOR_IOAPIC_EDGE, on_ioapic_edge);
    ioapic_route(line_pin, VECTOR_IOAPIC_EDGE, 0);
    set_line(1);
    expect("ioapic edge", 1);
    set_line(0); /* QEMU's I/O APIC takes every write of 1 for an edge, so none is repeated here */
    expect("ioapic edge", 1);
    set_line(1);
    expect("ioapic edge", 2);
    set_line(0);
    print("ioapic edge: %u interrupts\n", count);
    ioapic_mask(line_pin);

    count = 0;
    isr_set(VECTOR_IOAPIC_LEVEL, on_ioapic_level);
    ioapic_route(line_pin, VECTOR_IOAPIC_LEVEL, IOAPIC_LEVEL);
    set_line(1);
    expect("ioapic level", LEVEL_DELIVERIES);
    check(!(ioapic_entry(line_pin) & IOAPIC_REMOTE_IRR));
    print("ioapic level: %u interrupts, while held over %u EOIs\n", count, LEVEL_DELIVERIES - 1);
    ioapic_mask(line_pin);
}

/* Local APIC: its timer. It is under test here, so the PIT is the clock that bounds the waiting. */

static volatile unsigned clock;

static void on_clock(struct frame *frame)
{
    (void)frame;
    clock++;
    apic_eoi();
}

static void on_timer(struct frame *frame)
{
    (void)frame;
    if (count < TICKS && ++count == TICKS)
        apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_eoi();
}

static void test_apic_timer(void)
{
    isr_set(VECTOR_IOAPIC_PIT, on_clock);
    isr_set(VECTOR_TIMER, on_timer);
    ioapic_route(timer_pin, VECTOR_IOAPIC_PIT, 0);
    pit_start(TICK_HZ);

    count = 0;
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_16);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | LVT_PERIODIC);
    apic_write(APIC_TIMER_INITIAL, MILLISECOND / 16);
    for (clock = 0; count < TICKS && clock < PATIENCE;)
        irq_wait();
    for (clock = 0; clock < 4;)
        irq_wait();
    if (count != TICKS)
        fail("apic timer: %u ticks instead of %u", count, TICKS);
    print("apic timer: %u ticks, periodic\n", count);
    apic_write(APIC_TIMER_INITIAL, 0);

    count = 0;
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_TIMER_INITIAL, MILLISECOND / 16);
    for (clock = 0; !count && clock < PATIENCE;)
        irq_wait();
    for (clock = 0; clock < 4;)
        irq_wait();
    if (count != 1)
        fail("apic timer: %u ticks instead of one", count);
    check(apic_read(APIC_TIMER_CURRENT) == 0);
    print("apic timer: 1 tick, one-shot\n");
    apic_write(APIC_LVT_TIMER, LVT_MASKED);

    ioapic_mask(timer_pin);
    pit_stop();
}

/* MSI: with interrupts off the messages collect, and then the highest vector comes first. */

static volatile unsigned char order[4];

static void on_msi(struct frame *frame)
{
    if (count < sizeof order)
        order[count] = frame->vector;
    count++;
    apic_eoi();
}

static void test_msi(void)
{
    uint32_t address = APIC_BASE | apic_id() << 12; /* physical destination: AMD64 APM volume 2, 16.2 and 16.10 */

    if (!testdev_has_msi()) {
        print("msi: not present\n");
        return;
    }
    isr_set(VECTOR_MSI_LOW, on_msi);
    isr_set(VECTOR_MSI_MIDDLE, on_msi);
    isr_set(VECTOR_MSI_HIGH, on_msi);
    count = 0;
    testdev_msi(address, VECTOR_MSI_MIDDLE);
    testdev_msi(address, VECTOR_MSI_LOW);
    testdev_msi(address, VECTOR_MSI_HIGH);
    check(count == 0);
    expect("msi", 3);
    check(order[0] == VECTOR_MSI_HIGH && order[1] == VECTOR_MSI_MIDDLE && order[2] == VECTOR_MSI_LOW);
    print("msi: %u messages, the highest vector first\n", count);
}

int main(const struct start_info *info)
{
    notes_wanted = mentions(command_line(info), "notes");
    isr_init();
    apic_enable();
    pit_stop();
    test_pic();
    test_priority();
    test_ioapic();
    test_apic_timer();
    test_msi();
    print("irq: ok\n");
    return 0;
}
