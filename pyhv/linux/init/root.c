#include "init.h"

#include <linux/fcntl.h>
#include <linux/mount.h>

enum { PATIENCE_MS = 5000, PAUSE_MS = 5, MNT_DETACH = 2 };

static char table[1 << 16];

/* By /proc/filesystems, whose lines end in a tab and the name. */
int kernel_has_file_system(const char *name)
{
    struct text line = {0};
    text_add(&line, "\t");
    text_add(&line, name);
    text_add(&line, "\n");
    long length = file_read("/proc/filesystems", table, sizeof table);
    return length > 0 && text_within(table, length, line.bytes);
}

static void mount_or_fail(const char *what, const char *where, const char *kind, size flags, const char *options)
{
    long error = sys_mount(what, where, kind, flags, options);
    if (error == -ENODEV)
        fail_missing(kind);
    if (error < 0 && error != -EBUSY) /* it is mounted there already */
        fail("cannot mount on", where, error);
}

void mount_kernel_file_systems(void)
{
    sys_mkdir("/dev", 0755);
    sys_mkdir("/proc", 0555);
    sys_mkdir("/sys", 0555);
    mount_or_fail("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    mount_or_fail("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    mount_or_fail("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    sys_symlink("/proc/self/fd", "/dev/fd");
    sys_symlink("fd/0", "/dev/stdin");
    sys_symlink("fd/1", "/dev/stdout");
    sys_symlink("fd/2", "/dev/stderr");
    sys_mkdir("/dev/pts", 0755);
    sys_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666");
    sys_mkdir("/dev/shm", 01777);
    sys_mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
}

/* The host's folder. Its device is there once the drivers are, but a bus may take its time. */
static void mount_share(const char *tag, const char *where, size flags)
{
    long error = -ENODEV;
    if (!kernel_has_file_system("virtiofs"))
        fail_missing("virtiofs");
    for (int waited = 0; waited < PATIENCE_MS; waited += PAUSE_MS) {
        error = sys_mount(tag, where, "virtiofs", flags, 0);
        if (error >= 0)
            return;
        sys_sleep_ms(PAUSE_MS);
    }
    fail("cannot mount the shared root", tag, error);
}

/* Move a mount into the new root; a root that is written to itself is given no folder that it lacks. */
static void move_into(const char *folder, const char *where, int writable)
{
    if (!writable)
        sys_mkdir(where, 0755);
    if (sys_mount(folder, where, 0, MS_MOVE, 0) < 0)
        sys_umount(folder, MNT_DETACH);
}

static void show_modules(const struct job *job)
{
    struct text path = {0};
    text_add(&path, "/lib/modules/");
    text_add(&path, job->release);
    if (!job->writable) {
        sys_mkdir("/lib/modules", 0755);
        sys_mkdir(path.bytes, 0755);
    }
    sys_mount(job->modules, path.bytes, 0, MS_BIND, 0);
}

/* Make the root of the job this process's root, with the kernel's file systems in it. */
void root_enter(const struct job *job)
{
    if (text_equal(job->root, "none"))
        return;
    sys_mkdir("/new", 0755);
    if (job->writable) {
        mount_share(job->tag, "/new", 0);
    } else {
        sys_mkdir("/shared", 0755);
        sys_mkdir("/written", 0755);
        mount_share(job->tag, "/shared", MS_RDONLY);
        if (!kernel_has_file_system("overlay"))
            fail_missing("overlay");
        mount_or_fail("tmpfs", "/written", "tmpfs", 0, "mode=0755");
        sys_mkdir("/written/upper", 0755);
        sys_mkdir("/written/work", 0755);
        mount_or_fail("overlay", "/new", "overlay", 0,
                      "lowerdir=/shared,upperdir=/written/upper,workdir=/written/work");
    }
    move_into("/dev", "/new/dev", job->writable);
    move_into("/proc", "/new/proc", job->writable);
    move_into("/sys", "/new/sys", job->writable);
    long error = sys_chdir("/new");
    if (error >= 0)
        error = sys_mount(".", "/", 0, MS_MOVE, 0);
    if (error >= 0)
        error = sys_chroot(".");
    if (error < 0)
        fail("cannot enter the root", 0, error);
    sys_chdir("/");
    if (!job->writable)
        sys_mkdir("/run", 0755);
    sys_mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    if (job->modules)
        show_modules(job);
}

/* A path of /proc/self/mounts in place: what would be a separator there is written as \ooo. */
static void unescape(char *path)
{
    char *to = path;
    for (; *path; path++, to++) {
        *to = *path;
        if (path[0] == '\\' && path[1] >= '0' && path[1] <= '3' && path[2] && path[3]) {
            *to = (path[1] - '0') << 6 | (path[2] - '0') << 3 | (path[3] - '0');
            path += 3;
        }
    }
    *to = 0;
}

/* Unmount what can be, the last mount first, so that what the command mounted and wrote is whole. */
void unmount_all(void)
{
    static char *places[MOST];
    size count = 0;
    long length = file_read("/proc/self/mounts", table, sizeof table);
    for (char *line = table; line < table + length; ) {
        char *end = line, *path = 0, *after = 0;
        for (; *end && *end != '\n'; end++)
            if (*end == ' ') {
                if (!path)
                    path = end + 1;
                else if (!after)
                    after = end;
            }
        if (after && count < MOST) {
            *after = 0;
            unescape(path);
            places[count++] = path;
        }
        line = end + 1;
    }
    sys_chdir("/");
    while (count--)
        sys_umount(places[count], 0);
}
