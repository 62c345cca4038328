/* vms CODE COUNT: how many VMs a second are made, run to their debug exit and destroyed. */
#include "bare.h"

int main(int argc, char **argv)
{
    static unsigned char code[4096];
    size_t length = argc > 1 ? read_code(argv[1], code, sizeof code) : 0;
    int count = argc > 2 ? atoi(argv[2]) : 100;
    int kvm = checked("/dev/kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
    struct bare b;
    double began = now();

    for (int i = 0; i < count; i++) {
        bare_create(&b, kvm, code, length);
        bare_run(&b);
        bare_destroy(&b);
    }
    printf("%.9g\n", count / (now() - began));
    return 0;
}
