/*
 * The first process of a machine that runs one command: loads modules, mounts the root, runs the command with its streams
 * on the ports of a virtio console, reports how it ended, and powers off.
 */
#pragma once

#include "text.h"

enum { MOST = 1 << 15 }; /* modules, arguments or variables of a job */

/* What to do, from the job file: NUL-terminated "name=value" strings (pyhv/linux/job.py writes them). */
struct job {
    const char *control, *input, *output, *errors, *terminal; /* ports by name, "#N" an open descriptor; null: none */
    const char *root;      /* "share": the virtio-fs of `tag`; "none": the initramfs itself */
    const char *tag;
    int writable;          /* the root itself, not a tmpfs over it */
    const char *hostname;
    const char *directory; /* the command's working directory */
    const char *modules;   /* a folder of the root that is the kernel's /lib/modules/RELEASE */
    const char *release;
    const char *address, *netmask, *gateway, *nameserver; /* of eth0; null: it is left alone */
    int rows, columns;     /* of the terminal */
    size module_count, argument_count, variable_count;
    const char *module[MOST + 1], *argument[MOST + 1], *variable[MOST + 1];
};

void job_read(struct job *job);

/* End the machine: a message on the console and on the control port. `error`: a negative error number, or 0. */
__attribute__((noreturn)) void fail(const char *what, const char *subject, long error);

/* The same, where the kernel lacks something: "virtiofs", "overlay", ... */
__attribute__((noreturn)) void fail_missing(const char *what);

__attribute__((noreturn)) void power_off(void);

void control_open(const struct job *job);
void control_send(const char *line);
int control_descriptor(void);

void mount_kernel_file_systems(void);
int kernel_has_file_system(const char *name);
void modules_load(const struct job *job);
int port_open(const char *name, int flags);
void root_enter(const struct job *job);
void unmount_all(void);
void network_configure(const struct job *job);

/* Open the command's ports, or make its terminal: before the root is entered, which may have no /dev. */
void streams_open(const struct job *job);

/* Run the command and carry its streams until it has ended and all that it wrote is on the ports. */
struct ended {
    int status; /* as wait4 gives it */
    unsigned long output, errors; /* bytes */
};
struct ended command_run(const struct job *job);
