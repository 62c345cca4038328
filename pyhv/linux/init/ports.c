#include "init.h"

#include <linux/fcntl.h>

#define PORTS "/sys/class/virtio-ports"

enum { PATIENCE_MS = 10000, PAUSE_MS = 2, FIRST_NAME = 19 }; /* of struct linux_dirent64: the name's offset */

/* Whether a port (vport0p1) has this name, as the host gave it to virtio console (virtio 1.2, 5.3.6.2). */
static int has_name(const char *port, const char *name)
{
    char given[256];
    struct text path = {0};
    text_add(&path, PORTS "/");
    text_add(&path, port);
    text_add(&path, "/name");
    long length = file_read(path.bytes, given, sizeof given);
    if (length > 0 && given[length - 1] == '\n')
        given[length - 1] = 0;
    return length > 0 && text_equal(given, name);
}

/* Open the port of that name where it is there by now; -ENOENT otherwise. */
static int open_once(const char *name, int flags)
{
    static char entries[4096];
    int folder = sys_open(PORTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    long length, found = -ENOENT;
    if (folder < 0)
        return folder;
    while (found == -ENOENT && (length = sys_getdents(folder, entries, sizeof entries)) > 0)
        for (long at = 0; at < length && found == -ENOENT; at += *(unsigned short *)(entries + at + 16)) {
            const char *port = entries + at + FIRST_NAME;
            if (*port == '.' || !has_name(port, name))
                continue;
            struct text path = {0};
            text_add(&path, "/dev/");
            text_add(&path, port);
            found = sys_open(path.bytes, flags | O_CLOEXEC, 0);
        }
    sys_close(folder);
    return found;
}

static int number(const char *text)
{
    int value = 0;
    while (*text)
        value = value * 10 + (*text++ - '0');
    return value;
}

/* The descriptor of a port by its name, or "#N". Ports appear some time after their driver was loaded. */
int port_open(const char *name, int flags)
{
    int fd = -ENOENT;
    if (*name == '#')
        return number(name + 1);
    for (int waited = 0; waited < PATIENCE_MS; waited += PAUSE_MS) {
        fd = open_once(name, flags);
        if (fd >= 0)
            return fd;
        sys_sleep_ms(PAUSE_MS);
    }
    if (sys_access(PORTS, 0) < 0)
        fail_missing("virtio_console");
    fail("there is no port", name, fd);
}
