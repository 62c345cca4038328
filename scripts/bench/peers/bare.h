/* The least that runs a guest on KVM: one memory slot, one vCPU in flat 32-bit protected mode, no irqchip. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ENTRY 0x100020
#define MEMORY (2u << 20)
#define EXIT_PORT 0xf4

struct bare {
    int vm, vcpu;
    void *memory;
    struct kvm_run *run;
    size_t run_size;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int checked(const char *what, int result)
{
    if (result < 0)
        fail(what);
    return result;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static size_t read_code(const char *path, void *code, size_t size)
{
    FILE *file = fopen(path, "rb");
    size_t length;
    if (!file)
        fail(path);
    length = fread(code, 1, size, file);
    fclose(file);
    return length;
}

static void bare_create(struct bare *b, int kvm, const void *code, size_t length)
{
    struct kvm_userspace_memory_region region = { .memory_size = MEMORY };
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rip = ENTRY, .rflags = 2 };
    struct kvm_segment *data[5];

    b->vm = checked("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0));
    b->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->memory == MAP_FAILED)
        fail("mmap");
    memcpy((char *)b->memory + ENTRY, code, length);
    region.userspace_addr = (uintptr_t)b->memory;
    checked("KVM_SET_USER_MEMORY_REGION", ioctl(b->vm, KVM_SET_USER_MEMORY_REGION, &region));
    b->vcpu = checked("KVM_CREATE_VCPU", ioctl(b->vm, KVM_CREATE_VCPU, 0));
    b->run_size = checked("KVM_GET_VCPU_MMAP_SIZE", ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
    b->run = mmap(NULL, b->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, b->vcpu, 0);
    if (b->run == MAP_FAILED)
        fail("mmap of the vCPU");
    checked("KVM_GET_SREGS", ioctl(b->vcpu, KVM_GET_SREGS, &sregs));
    sregs.cr0 |= 1;
    sregs.cs = (struct kvm_segment){
        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1 };
    data[0] = &sregs.ds, data[1] = &sregs.es, data[2] = &sregs.ss, data[3] = &sregs.fs, data[4] = &sregs.gs;
    for (int i = 0; i < 5; i++) {
        *data[i] = sregs.cs;
        data[i]->selector = 16;
        data[i]->type = 3;
    }
    checked("KVM_SET_SREGS", ioctl(b->vcpu, KVM_SET_SREGS, &sregs));
    checked("KVM_SET_REGS", ioctl(b->vcpu, KVM_SET_REGS, &regs));
}

/* Run to the debug exit; other exits are counted and nothing is done for them. */
static unsigned long bare_run(struct bare *b)
{
    unsigned long exits = 0;
    for (;;) {
        checked("KVM_RUN", ioctl(b->vcpu, KVM_RUN, 0));
        if (b->run->exit_reason == KVM_EXIT_IO && b->run->io.port == EXIT_PORT)
            return exits;
        if (b->run->exit_reason != KVM_EXIT_IO && b->run->exit_reason != KVM_EXIT_MMIO) {
            fprintf(stderr, "exit reason %u\n", b->run->exit_reason);
            exit(1);
        }
        exits++;
    }
}

static void bare_destroy(struct bare *b)
{
    munmap(b->run, b->run_size);
    close(b->vcpu);
    close(b->vm);
    munmap(b->memory, MEMORY);
}
