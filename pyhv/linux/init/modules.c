#include "init.h"

#include <linux/fcntl.h>

/* Load the modules in the order of the job. One that is there already is as good. */
void modules_load(const struct job *job)
{
    for (size at = 0; at < job->module_count; at++) {
        const char *path = job->module[at];
        int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
        long error = fd < 0 ? fd : sys_finit_module(fd, "");
        if (error < 0 && error != -EEXIST)
            fail("cannot load the module", path, error);
        sys_close(fd);
    }
}
