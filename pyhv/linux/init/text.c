#include "text.h"

#include <linux/fcntl.h>

/* The compiler calls these for copies and comparisons that it makes itself. */
void *memcpy(void *to, const void *from, size length)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return result;
}

void *memset(void *to, int byte, size length)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(byte) : "memory");
    return result;
}

size text_length(const char *text)
{
    size length = 0;
    while (text[length])
        length++;
    return length;
}

int text_equal(const char *one, const char *other)
{
    const char *rest = text_after(one, other);
    return rest && !*rest;
}

const char *text_after(const char *text, const char *start)
{
    while (*start)
        if (*text++ != *start++)
            return 0;
    return text;
}

int text_within(const char *data, size length, const char *text)
{
    size wanted = text_length(text);
    for (size at = 0; at + wanted <= length; at++)
        if (text_after(data + at, text))
            return 1;
    return 0;
}

void text_add(struct text *text, const char *more)
{
    while (*more && text->length < sizeof text->bytes - 1)
        text->bytes[text->length++] = *more++;
    text->bytes[text->length] = 0;
}

void text_add_number(struct text *text, unsigned long number)
{
    char digits[24];
    char *digit = digits + sizeof digits - 1;
    *digit = 0;
    do
        *--digit = '0' + number % 10;
    while (number /= 10);
    text_add(text, digit);
}

long file_read(const char *path, char *data, size room)
{
    long fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    size length = 0;
    long got;
    while ((got = sys_read(fd, data + length, room - 1 - length)) > 0)
        length += got;
    sys_close(fd);
    data[length] = 0;
    return got < 0 ? got : (long)length;
}
