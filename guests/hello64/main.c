/* The smallest useful 64-bit guest: PVH entry, long mode, one line, status 0. */
#include "guest.h"

enum { PVH_START_MAGIC = 0x336ec578 }; /* "xEn3", the top bit of the E set */

int main(const uint32_t *start_info)
{
    if (start_info[0] != PVH_START_MAGIC)
        fail("the start info begins with %x, not the PVH magic", start_info[0]);
    print("hello from a pyhv guest (PVH, 64-bit long mode)\n");
    print("hello64: ok\n");
    return 0;
}
