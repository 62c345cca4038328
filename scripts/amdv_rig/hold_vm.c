/* Holds one VM for as long as the rig runs, without libc.
 *
 * A kernel's first VM turns a static key on and its last one turns it off, which patches the scheduler's code while the
 * other CPU runs it; QEMU's multi-threaded emulation may never see that patch complete. With one VM held from the start
 * the code is patched once, when nothing else runs.
 */
#define SYS_WRITE 1
#define SYS_OPEN 2
#define SYS_IOCTL 16
#define SYS_PAUSE 34
#define SYS_EXIT 60
#define O_RDWR_CLOEXEC 02000002
#define KVM_CREATE_VM 0xAE01

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

void _start(void)
{
    long kvm = call(SYS_OPEN, (long)"/dev/kvm", O_RDWR_CLOEXEC, 0);
    if (kvm < 0 || call(SYS_IOCTL, kvm, KVM_CREATE_VM, 0) < 0)
        call(SYS_EXIT, 1, 0, 0);
    call(SYS_WRITE, 1, (long)"held\n", 5);
    for (;;)
        call(SYS_PAUSE, 0, 0, 0);
}
