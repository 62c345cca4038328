#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "calls.h"

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* linux/openat2.h, which older systems lack. */
struct how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

enum { NO_XDEV = 1, NO_MAGICLINKS = 2, NO_SYMLINKS = 4, BENEATH = 8 };

static int result(long value)
{
    return value < 0 ? -errno : (int)value;
}

int pyhv_fs_open_here(int directory, const char *name, int flags)
{
    struct how how = {
        .flags = (uint64_t)(O_PATH | O_CLOEXEC | O_NOFOLLOW | flags),
        .resolve = NO_XDEV | NO_MAGICLINKS | BENEATH,
    };

    return result(syscall(SYS_openat2, directory, name, &how, sizeof(how)));
}

int pyhv_fs_rename(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags)
{
    return result(syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
}

long pyhv_fs_getdents(int directory, char *buffer, size_t size)
{
    long got = syscall(SYS_getdents64, directory, buffer, size);

    return got < 0 ? -errno : got;
}

int64_t pyhv_fs_type(int fd)
{
    struct statfs found;

    return fstatfs(fd, &found) < 0 ? -errno : (int64_t)(found.f_type & 0xffffffff);
}

int pyhv_fs_utimens(const char *path, int64_t atime, int64_t atime_ns, int64_t mtime, int64_t mtime_ns)
{
    struct timespec times[2] = {{atime, atime_ns}, {mtime, mtime_ns}};

    return result(utimensat(AT_FDCWD, path, times, 0));
}

int pyhv_fs_fallocate(int fd, int mode, int64_t offset, int64_t length)
{
    return result(fallocate(fd, mode, offset, length));
}

int pyhv_fs_syncfs(int fd)
{
    return result(syncfs(fd));
}
