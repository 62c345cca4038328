/* A guest that fails on purpose: the verdict must say so, and carry its status. */
#include "guest.h"

int main(void)
{
    print("fail: this guest ends with status 7\n");
    return 7;
}
