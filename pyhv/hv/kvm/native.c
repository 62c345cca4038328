#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "abi.h"
#include "native.h"

/* While the main thread is inside KVM_RUN a tick bounds how long a signal can go unseen that arrived after the
 * interpreter last looked and before the kernel started to wait. */
#define MAIN_THREAD_TICK_NS 100000000L

static __thread struct kvm_run *running;
static timer_t tick_timer;
static pid_t tick_owner;
static volatile sig_atomic_t tick_armed;

long pyhv_ioctl(int fd, unsigned long request, void *argument)
{
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}

long pyhv_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}

static void on_kick(int signal, siginfo_t *info, void *context)
{
    struct kvm_run *run = running;
    (void)signal;
    (void)context;
    if (info->si_code == SI_TIMER) {
        tick_armed = 0;
        if (run)
            __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    }
}

int pyhv_setup_kick_signal(int offset)
{
    struct sigaction action;
    int number = SIGRTMIN + offset;
    if (number > SIGRTMAX)
        return -EINVAL;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_kick;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL) < 0)
        return -errno;
    return number;
}

static void unblock(int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void arm_tick(int number, pid_t self)
{
    struct itimerspec once = { .it_value = { 0, MAIN_THREAD_TICK_NS } };
    if (tick_owner != self) { /* the first time, or in a forked child */
        struct sigevent event;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = number;
        event._sigev_un._tid = self;
        if (timer_create(CLOCK_MONOTONIC, &event, &tick_timer) < 0)
            return;
        tick_owner = self;
    }
    tick_armed = 1;
    if (timer_settime(tick_timer, 0, &once, NULL) < 0)
        tick_armed = 0;
}

static int generation = 1; /* of this process: a fork makes cached thread ids wrong */

static void after_fork(void)
{
    generation++;
    tick_armed = 0;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork);
}

int pyhv_run(struct pyhv_vcpu *vcpu)
{
    static __thread pid_t self;
    static __thread int self_generation, is_main;
    struct kvm_run *run = vcpu->run;
    unsigned synced = (unsigned)run->kvm_valid_regs;
    int result, error;

    if (self_generation != generation) {
        self_generation = generation;
        self = (pid_t)syscall(SYS_gettid);
        is_main = self == getpid();
        unblock(vcpu->signal);
    }
    running = run;
    __atomic_store_n(&vcpu->thread, self, __ATOMIC_SEQ_CST);
    if (is_main && !tick_armed)
        arm_tick(vcpu->signal, self);
    do {
        result = ioctl(vcpu->fd, KVM_RUN, 0);
        error = errno;
        /* EAGAIN: an application processor left wait-for-SIPI; it runs at the next call. */
    } while (result < 0 && error == EAGAIN);
    __atomic_store_n(&vcpu->thread, 0, __ATOMIC_SEQ_CST);
    running = NULL;
    vcpu->synced = synced;
    if (result < 0) {
        if (error == EINTR)
            __atomic_exchange_n(&run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        return -error;
    }
    return (int)run->exit_reason;
}

void pyhv_kick(struct pyhv_vcpu *vcpu)
{
    int thread;
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    thread = __atomic_load_n(&vcpu->thread, __ATOMIC_SEQ_CST);
    if (thread)
        syscall(SYS_tgkill, getpid(), thread, vcpu->signal);
}

void *pyhv_map(int fd, size_t size, size_t offset, int *error)
{
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (address == MAP_FAILED) {
        *error = errno;
        return NULL;
    }
    *error = 0;
    return address;
}

int pyhv_unmap(void *address, size_t size)
{
    return munmap(address, size) < 0 ? -errno : 0;
}

int pyhv_close(int fd)
{
    return close(fd) < 0 ? -errno : 0;
}

int pyhv_harvest(struct kvm_dirty_gfn *ring, uint32_t entries, uint32_t *index, uint64_t *out, int limit)
{
    int found = 0;
    while (found < limit) {
        struct kvm_dirty_gfn *entry = &ring[*index & (entries - 1)];
        if ((__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & 3) != KVM_DIRTY_GFN_F_DIRTY)
            break;
        out[2 * found] = entry->slot;
        out[2 * found + 1] = entry->offset;
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        found++;
        (*index)++;
    }
    return found;
}
