/* A tiny user of /dev/kvm, static, for a Linux guest of the simulated machine: one real-mode vCPU counts, writes memory,
 * executes CPUID, and halts. Prints what came out, then NESTED OK. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* mov cx, 1000; xor ax, ax; again: inc ax; loop again; out 0xe9, ax; mov [0x2000], ax; cpuid leaf 0; out 0xea, eax; hlt */
static const uint8_t code[] = {0xb9, 0xe8, 0x03, 0x31, 0xc0, 0x40, 0xe2, 0xfd, 0xe7, 0xe9, 0xa3, 0x00, 0x20,
                               0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0xea, 0xf4};

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR), vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0), vcpu;
    uint8_t *memory = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = 0x10000, .userspace_addr = (uintptr_t)memory};
    struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
    struct kvm_sregs sregs;
    struct kvm_run *run;

    if (vm < 0)
        return fail("/dev/kvm");
    memcpy(memory + 0x1000, code, sizeof code);
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 || (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) < 0)
        return fail("vm");
    run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    ioctl(vcpu, KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return fail("registers");
    for (int i = 0; i < 10; i++) {
        uint32_t value = 0;
        if (ioctl(vcpu, KVM_RUN, 0) < 0)
            return fail("run");
        if (run->exit_reason == KVM_EXIT_HLT) {
            printf("memory %x\nNESTED OK\n", *(uint16_t *)(memory + 0x2000));
            return 0;
        }
        if (run->exit_reason != KVM_EXIT_IO) {
            printf("exit %u\n", run->exit_reason);
            return 1;
        }
        memcpy(&value, (char *)run + run->io.data_offset, run->io.size);
        printf("port %x value %x\n", run->io.port, value);
    }
    return 1;
}
