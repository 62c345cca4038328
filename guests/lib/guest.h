/* What every guest uses: the console, its verdict, and the checks that lead to it. */
#pragma once
#include <stdint.h>

/* Formats to the serial console: %s %c %u %d %x, with l for longs. Plain '\n' ends a line. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the guest by the debug exit port: 0 says that it passed. Without such a device, halts for ever. */
void guest_exit(int status) __attribute__((noreturn));

/* Says FAIL and ends with status 1. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* What fail does instead of ending the guest, where it does not return: a guest may go on with its next check. */
extern void (*on_fail)(void);

/* Goes on if the condition holds, otherwise says which one did not and ends with status 1. */
#define check(condition)                                                                                        \
    do {                                                                                                        \
        if (!(condition))                                                                                       \
            fail("%s:%d: %s", __FILE__, __LINE__, #condition);                                                  \
    } while (0)
