/* The console and the verdict. */
#include "guest.h"
#include "io.h"
#include "serial.h"

#include <stdarg.h>

enum { DEBUG_EXIT = 0xf4 };

static void serial_init(void)
{
    outb(COM1 + UART_IER, 0);
    outb(COM1 + UART_LCR, LCR_DIVISOR);
    outb(COM1 + UART_DIVISOR_LOW, 1); /* 115200 baud */
    outb(COM1 + UART_DIVISOR_HIGH, 0);
    outb(COM1 + UART_LCR, LCR_8N1);
    outb(COM1 + UART_FCR, FCR_ENABLE_AND_CLEAR);
    outb(COM1 + UART_MCR, MCR_DTR_RTS_OUT2);
}

/* The transmit FIFO takes 16 bytes once it is empty, so the status is polled once for each 16. */
void serial_write(const char *text, unsigned length)
{
    static int ready;

    if (!ready) {
        serial_init();
        ready = 1;
    }
    while (length) {
        unsigned burst = length < UART_FIFO ? length : UART_FIFO;

        while (!(inb(COM1 + UART_LSR) & LSR_TRANSMIT_EMPTY))
            cpu_relax();
        length -= burst;
        while (burst--)
            outb(COM1 + UART_DATA, *text++);
    }
}

struct line {
    char text[128];
    unsigned length;
};

static void put(struct line *line, char c)
{
    if (line->length == sizeof line->text) {
        serial_write(line->text, line->length);
        line->length = 0;
    }
    line->text[line->length++] = c;
}

static void put_number(struct line *line, unsigned long value, unsigned base)
{
    char digits[20];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        put(line, digits[--n]);
}

static void print_args(const char *format, va_list args)
{
    struct line line = {.length = 0};

    for (; *format; format++) {
        if (*format != '%') {
            put(&line, *format);
            continue;
        }
        int is_long = *++format == 'l';
        if (is_long)
            format++;
        switch (*format) {
        case 's':
            for (const char *s = va_arg(args, const char *); *s; s++)
                put(&line, *s);
            break;
        case 'c':
            put(&line, va_arg(args, int));
            break;
        case 'd': {
            long value = is_long ? va_arg(args, long) : va_arg(args, int);
            if (value < 0)
                put(&line, '-');
            put_number(&line, value < 0 ? -(unsigned long)value : (unsigned long)value, 10);
            break;
        }
        case 'u':
        case 'x': {
            unsigned long value = is_long ? va_arg(args, unsigned long) : va_arg(args, unsigned);
            put_number(&line, value, *format == 'u' ? 10 : 16);
            break;
        }
        default:
            put(&line, *format);
        }
    }
    serial_write(line.text, line.length);
}

void print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_args(format, args);
    va_end(args);
}

void guest_exit(int status)
{
    outb(DEBUG_EXIT, status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void (*on_fail)(void);

void fail(const char *format, ...)
{
    va_list args;

    print("FAIL ");
    va_start(args, format);
    print_args(format, args);
    va_end(args);
    print("\n");
    if (on_fail)
        on_fail();
    guest_exit(1);
}

/* GCC may call these four even in freestanding code. */
void *memcpy(void *to, const void *from, __SIZE_TYPE__ n)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

void *memset(void *to, int value, __SIZE_TYPE__ n)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    return start;
}

void *memmove(void *to, const void *from, __SIZE_TYPE__ n)
{
    char *d = to;
    const char *s = from;

    if (d <= s)
        return memcpy(to, from, n);
    while (n--)
        ((volatile char *)d)[n] = s[n];
    return to;
}

int memcmp(const void *a, const void *b, __SIZE_TYPE__ n)
{
    const unsigned char *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}
