#include "init.h"

#include <linux/fcntl.h>

enum { ROOM = 1 << 20, INHERITED = 3 };

static char file[ROOM];

static int number(const char *text)
{
    int value = 0;
    while (*text >= '0' && *text <= '9' && value < 100000)
        value = value * 10 + (*text++ - '0');
    return value;
}

static void add(const char **list, size *count, const char *value)
{
    if (*count >= MOST)
        fail("the job has too many entries", value, 0);
    list[(*count)++] = value;
}

static void take(struct job *job, const char *entry)
{
    const struct {
        const char *name, **field;
    } texts[] = {
        {"control=", &job->control},     {"input=", &job->input},     {"output=", &job->output},
        {"errors=", &job->errors},       {"terminal=", &job->terminal}, {"root=", &job->root},
        {"tag=", &job->tag},             {"hostname=", &job->hostname}, {"directory=", &job->directory},
        {"modules=", &job->modules},     {"release=", &job->release}, {"address=", &job->address},
        {"netmask=", &job->netmask},     {"gateway=", &job->gateway}, {"nameserver=", &job->nameserver},
    };
    for (size at = 0; at < sizeof texts / sizeof *texts; at++) {
        const char *value = text_after(entry, texts[at].name);
        if (value) {
            *texts[at].field = value;
            return;
        }
    }
    const char *value;
    if ((value = text_after(entry, "writable=")))
        job->writable = number(value);
    else if ((value = text_after(entry, "rows=")))
        job->rows = number(value);
    else if ((value = text_after(entry, "columns=")))
        job->columns = number(value);
    else if ((value = text_after(entry, "module=")))
        add(job->module, &job->module_count, value);
    else if ((value = text_after(entry, "argument=")))
        add(job->argument, &job->argument_count, value);
    else if ((value = text_after(entry, "variable=")))
        add(job->variable, &job->variable_count, value);
    else
        fail("the job has an unknown entry", entry, 0);
}

/* Read the job file; a test hands it over as an open descriptor, which no kernel does. */
void job_read(struct job *job)
{
    int fd = INHERITED;
    long length = 0, got;
    if (SYS_2(__NR_fcntl, fd, F_GETFD) < 0)
        fd = sys_open("/pyhv/job", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        fail("cannot open", "/pyhv/job", fd);
    while ((got = sys_read(fd, file + length, ROOM - length)) > 0)
        length += got;
    sys_close(fd);
    if (length == ROOM || (length && file[length - 1]))
        fail("the job is damaged", 0, 0);
    for (long at = 0; at < length; at += text_length(file + at) + 1)
        take(job, file + at);
    if (!job->argument_count || !job->control)
        fail("the job has no command", 0, 0);
}
