/* System calls of Linux on x86-64, without a C library: each gives a value, or a negative error number. */
#pragma once

#include <asm/unistd.h>
#include <linux/errno.h>

typedef unsigned long size;

static inline long sys6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define SYS_4(number, a, b, c, d) sys6(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define SYS_3(number, a, b, c) SYS_4(number, a, b, c, 0)
#define SYS_2(number, a, b) SYS_3(number, a, b, 0)
#define SYS_1(number, a) SYS_2(number, a, 0)

static inline long sys_read(int fd, void *data, size length) { return SYS_3(__NR_read, fd, data, length); }
static inline long sys_write(int fd, const void *data, size length) { return SYS_3(__NR_write, fd, data, length); }
static inline long sys_open(const char *path, int flags, int mode) { return SYS_3(__NR_open, path, flags, mode); }
static inline long sys_close(int fd) { return SYS_1(__NR_close, fd); }
static inline long sys_mkdir(const char *path, int mode) { return SYS_2(__NR_mkdir, path, mode); }
static inline long sys_symlink(const char *to, const char *path) { return SYS_2(__NR_symlink, to, path); }
static inline long sys_unlink(const char *path) { return SYS_1(__NR_unlink, path); }
static inline long sys_access(const char *path, int mode) { return SYS_2(__NR_access, path, mode); }
static inline long sys_chdir(const char *path) { return SYS_1(__NR_chdir, path); }
static inline long sys_chroot(const char *path) { return SYS_1(__NR_chroot, path); }
static inline long sys_dup2(int from, int to) { return SYS_2(__NR_dup2, from, to); }
static inline long sys_pipe2(int *ends, int flags) { return SYS_2(__NR_pipe2, ends, flags); }
static inline long sys_ioctl(int fd, unsigned request, const void *argument) { return SYS_3(__NR_ioctl, fd, request, argument); }
static inline long sys_poll(void *polled, size count, int timeout) { return SYS_3(__NR_poll, polled, count, timeout); }
static inline long sys_fork(void) { return SYS_1(__NR_fork, 0); }
static inline long sys_setsid(void) { return SYS_1(__NR_setsid, 0); }
static inline long sys_kill(int pid, int signal) { return SYS_2(__NR_kill, pid, signal); }
static inline long sys_wait4(int pid, int *status, int options) { return SYS_4(__NR_wait4, pid, status, options, 0); }
static inline long sys_sync(void) { return SYS_1(__NR_sync, 0); }
static inline long sys_umount(const char *path, int flags) { return SYS_2(__NR_umount2, path, flags); }
static inline long sys_sethostname(const char *name, size length) { return SYS_2(__NR_sethostname, name, length); }
static inline long sys_socket(int domain, int type, int protocol) { return SYS_3(__NR_socket, domain, type, protocol); }

static inline long sys_execve(const char *path, const char *const *arguments, const char *const *environment)
{
    return SYS_3(__NR_execve, path, arguments, environment);
}

static inline long sys_mount(const char *what, const char *where, const char *kind, size flags, const char *options)
{
    return sys6(__NR_mount, (long)what, (long)where, (long)kind, (long)flags, (long)options, 0);
}

static inline long sys_finit_module(int fd, const char *parameters)
{
    return SYS_3(__NR_finit_module, fd, parameters, 0);
}

static inline long sys_getdents(int fd, void *entries, size length)
{
    return SYS_3(__NR_getdents64, fd, entries, length);
}

static inline void sys_sleep_ms(long milliseconds)
{
    long time[2] = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    SYS_2(__NR_nanosleep, time, 0);
}

static inline void sys_reboot(unsigned command)
{
    SYS_4(__NR_reboot, 0xfee1dead, 672274793, command, 0); /* linux/reboot.h: the two magic numbers */
}

__attribute__((noreturn)) static inline void sys_exit(int status)
{
    for (;;)
        SYS_1(__NR_exit_group, status);
}
