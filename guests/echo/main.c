/* Echoes the lines that come in by the serial port. Every byte is taken by IRQ 4; in between, the processor halts. */
#include "apic.h"
#include "guest.h"
#include "io.h"
#include "isr.h"
#include "pic.h"
#include "serial.h"

enum { RING = 256, LINE = 120 };

/* Filled by the interrupt, emptied by main(). The indices run on; only their low bits count. */
static volatile char ring[RING];
static volatile unsigned received, taken;

static void on_serial(struct frame *frame)
{
    (void)frame;
    while (!(inb(COM1 + UART_IIR) & IIR_NONE_PENDING))
        while (inb(COM1 + UART_LSR) & LSR_DATA_READY) {
            char c = inb(COM1 + UART_DATA);
            if (received - taken < RING)
                ring[received++ % RING] = c;
        }
    pic_eoi(COM1_IRQ);
}

static char next_byte(void)
{
    while (received == taken)
        irq_wait();
    return ring[taken++ % RING];
}

/* A line ends at CR, at LF, or at both. What does not fit is dropped. */
static void read_line(char line[LINE + 1])
{
    static char last;
    unsigned n = 0;

    for (;;) {
        char c = next_byte(), before = last;

        last = c;
        if (c == '\n' && before == '\r')
            continue;
        if (c == '\n' || c == '\r')
            break;
        if (n < LINE)
            line[n++] = c;
    }
    line[n] = 0;
}

int main(void)
{
    char line[LINE + 1];

    isr_init();
    apic_enable();
    apic_write(APIC_LVT_LINT0, LVT_EXTINT); /* the 8259s reach the processor through LINT0 */
    pic_init();
    isr_set(PIC_VECTOR + COM1_IRQ, on_serial);
    print("echo ready\n");
    outb(COM1 + UART_IER, IER_RECEIVED);
    pic_unmask(COM1_IRQ);

    for (;;) {
        read_line(line);
        if (!__builtin_memcmp(line, "quit", 5))
            break;
        print("echo: %s\n", line);
    }
    print("echo: ok\n");
    return 0;
}
