/* preads FILE COUNT: seconds for each of COUNT preadv calls of 4 KiB, at offsets as scattered as the block device's. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static double used(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    static unsigned char buffer[BLOCK], status;
    int fd = argc > 2 ? open(argv[1], O_RDONLY) : -1;
    long count = argc > 2 ? atol(argv[2]) : 1;
    uint64_t blocks, state = 1;
    double began;

    if (fd < 0 || (blocks = lseek(fd, 0, SEEK_END) / BLOCK) == 0) {
        perror("preads");
        return 1;
    }
    began = used();
    for (long i = 0; i < count; i++) {
        struct iovec parts[2] = {{buffer, BLOCK - 1}, {&status, 1}};

        state = state * 6364136223846793005u + 1442695040888963407u;
        if (preadv(fd, parts, 2, (state >> 33) % blocks * BLOCK) != BLOCK) {
            perror("preadv");
            return 1;
        }
    }
    printf("%.9g\n", (used() - began) / count);
    return 0;
}
