/* exits CODE: seconds for each exit of a guest that does one access in a loop; nothing is done for them. */
#include "bare.h"

int main(int argc, char **argv)
{
    static unsigned char code[4096];
    size_t length = argc > 1 ? read_code(argv[1], code, sizeof code) : 0;
    int kvm = checked("/dev/kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
    struct bare b;
    unsigned long exits;
    double began;

    bare_create(&b, kvm, code, length);
    began = now();
    exits = bare_run(&b);
    printf("%.9g\n", (now() - began) / exits);
    bare_destroy(&b);
    return 0;
}
