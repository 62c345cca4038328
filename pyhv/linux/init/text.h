/* NUL-terminated strings, and texts that are put together in a buffer of fixed size. */
#pragma once

#include "sys.h"

size text_length(const char *text);
int text_equal(const char *one, const char *other);

/* What follows `start` in `text`, or null where it does not begin so. */
const char *text_after(const char *text, const char *start);

/* Whether the `length` bytes of `data` hold `text`. */
int text_within(const char *data, size length, const char *text);

struct text {
    size length;
    char bytes[4096];
};

/* Add to a text; what does not fit is cut off. The bytes are NUL-terminated after each. */
void text_add(struct text *text, const char *more);
void text_add_number(struct text *text, unsigned long number);

/* Read a whole file of at most `room` - 1 bytes and NUL-terminate it: its length, or a negative error. */
long file_read(const char *path, char *data, size room);
