/* A guest that never ends, with interrupts off: only its host can stop it. */
#include "guest.h"

int main(void)
{
    print("spinning\n");
    for (;;)
        __asm__ volatile("pause");
}
