/* The smallest useful multiboot guest: one line, status 0. */
#include "guest.h"

enum { MULTIBOOT_LOADED = 0x2badb002 };

int main(uint32_t magic)
{
    if (magic != MULTIBOOT_LOADED)
        fail("EAX is %x, not the multiboot magic", magic);
    print("hello from a pyhv guest (multiboot, 32-bit)\n");
    print("hello: ok\n");
    return 0;
}
