/* A guest kernel panic, told to the host by the pvpanic device, as Linux does. */
#include "guest.h"
#include "io.h"

enum { PVPANIC = 0x505, PVPANIC_PANICKED = 1 };

int main(void)
{
    if (!(inb(PVPANIC) & PVPANIC_PANICKED))
        fail("the pvpanic device does not offer the panicked event");
    print("panic: telling the host\n");
    outb(PVPANIC, PVPANIC_PANICKED);
    for (;;)
        __asm__ volatile("cli; hlt");
}
