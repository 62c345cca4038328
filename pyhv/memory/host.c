#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

#define HUGE_SHIFT_BITS 26 /* MFD_HUGE_SHIFT and MAP_HUGE_SHIFT */

int pyhv_memory_file(const char *name, size_t size, int huge_shift)
{
    unsigned flags = MFD_CLOEXEC;
    int fd, error;
    if (huge_shift)
        flags |= MFD_HUGETLB | ((unsigned)huge_shift << HUGE_SHIFT_BITS);
    fd = memfd_create(name, flags);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0) {
        error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

void *pyhv_memory_map(int fd, size_t size, size_t offset, size_t align, size_t phase, int reserve, int *error)
{
    int flags = (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | (reserve ? 0 : MAP_NORESERVE);
    char *window, *address;
    size_t head, tail;

    *error = 0;
    if (size < align) { /* no huge page fits, wherever it lies */
        address = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
        if (address != MAP_FAILED)
            return address;
        *error = errno;
        return NULL;
    }
    window = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (window == MAP_FAILED) {
        *error = errno;
        return NULL;
    }
    head = (phase - (uintptr_t)window) & (align - 1);
    tail = align - head;
    address = mmap(window + head, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset);
    if (address == MAP_FAILED) {
        *error = errno;
        munmap(window, size + align);
        return NULL;
    }
    if (head)
        munmap(window, head);
    if (tail)
        munmap(window + head + size, tail);
    return address;
}

int pyhv_memory_unmap(void *address, size_t size)
{
    return munmap(address, size) < 0 ? -errno : 0;
}

int pyhv_memory_advise_huge(void *address, size_t size)
{
    return madvise(address, size, MADV_HUGEPAGE) < 0 ? -errno : 0;
}

int pyhv_memory_discard(int fd, void *address, size_t offset, size_t size)
{
    int result = fd < 0 ? madvise(address, size, MADV_DONTNEED)
                        : fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
    return result < 0 ? -errno : 0;
}
