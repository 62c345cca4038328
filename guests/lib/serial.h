/* The 16550 UART of the first PC serial port. */
#pragma once
#include <stdint.h>

enum {
    COM1 = 0x3f8,
    COM1_IRQ = 4,

    UART_DATA = 0,      /* receive and transmit */
    UART_IER = 1,       /* interrupt enable */
    UART_IIR = 2,       /* interrupt identification (read) */
    UART_FCR = 2,       /* FIFO control (write) */
    UART_LCR = 3,       /* line control */
    UART_MCR = 4,       /* modem control */
    UART_LSR = 5,       /* line status */
    UART_DIVISOR_LOW = 0,  /* while LCR_DIVISOR is set */
    UART_DIVISOR_HIGH = 1,

    IER_RECEIVED = 0x01,
    IIR_NONE_PENDING = 0x01,
    FCR_ENABLE_AND_CLEAR = 0x07,
    LCR_8N1 = 0x03,
    LCR_DIVISOR = 0x80,
    MCR_DTR_RTS_OUT2 = 0x0b, /* on a PC, OUT2 gates the interrupt line */
    LSR_DATA_READY = 0x01,
    LSR_TRANSMIT_EMPTY = 0x20,

    UART_FIFO = 16,
};

void serial_write(const char *text, unsigned length);
