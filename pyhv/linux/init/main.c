#include "init.h"

#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/reboot.h>

static int control = -1, has_acpi;

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    and $-16, %rsp\n"
        "    call init\n");

void control_open(const struct job *job)
{
    control = port_open(job->control, O_RDWR | O_NONBLOCK);
}

int control_descriptor(void)
{
    return control;
}

/* Send a line whole; the host may take its time to read. */
void control_send(const char *line)
{
    size length = text_length(line), sent = 0;
    while (control >= 0 && sent < length) {
        long put = sys_write(control, line + sent, length - sent);
        if (put > 0)
            sent += put;
        else if (put == -EAGAIN)
            sys_sleep_ms(1); /* full, or the host has not opened it yet */
        else
            return;
    }
}

/* Off by ACPI; a kernel without it can at least reset, which ends the machine as well. */
__attribute__((noreturn)) void power_off(void)
{
    sys_sync();
    sys_reboot(has_acpi ? LINUX_REBOOT_CMD_POWER_OFF : LINUX_REBOOT_CMD_RESTART);
    sys_reboot(LINUX_REBOOT_CMD_RESTART);
    for (;;)
        sys_sleep_ms(1000);
}

/* Wait until the host has all that was sent. */
static void wait_for_host(void)
{
    static const char done[] = "done\n";
    size seen = 0;
    char byte;
    while (control >= 0 && seen < sizeof done - 1) {
        long got = sys_read(control, &byte, 1);
        if (got == 1)
            seen = byte == done[seen] ? seen + 1 : byte == done[0];
        else if (got == -EAGAIN)
            sys_poll(&(struct pollfd){control, POLLIN, 0}, 1, -1);
        else
            return;
    }
}

static void say(const char *kind, const char *text)
{
    struct text line = {0};
    text_add(&line, kind);
    text_add(&line, text);
    text_add(&line, "\n");
    control_send(line.bytes);
    struct text shown = {0};
    text_add(&shown, "pyhv-init: ");
    text_add(&shown, line.bytes);
    sys_write(2, shown.bytes, shown.length);
}

void fail(const char *what, const char *subject, long error)
{
    struct text text = {0};
    text_add(&text, what);
    if (subject) {
        text_add(&text, " ");
        text_add(&text, subject);
    }
    if (error) {
        text_add(&text, ": errno ");
        text_add_number(&text, -error);
    }
    say("error ", text.bytes);
    wait_for_host();
    power_off();
}

void fail_missing(const char *what)
{
    say("missing ", what);
    wait_for_host();
    power_off();
}

static void report(const struct ended *ended)
{
    int signal = ended->status & 0x7f; /* as WTERMSIG of wait(2) */
    struct text line = {0};
    text_add(&line, signal ? "signal " : "exit ");
    text_add_number(&line, signal ? signal : ended->status >> 8 & 0xff);
    text_add(&line, " ");
    text_add_number(&line, ended->output);
    text_add(&line, " ");
    text_add_number(&line, ended->errors);
    text_add(&line, "\n");
    control_send(line.bytes);
}

__attribute__((noreturn, used)) void init(void)
{
    static struct job job;
    job_read(&job);
    mount_kernel_file_systems();
    has_acpi = sys_access("/sys/firmware/acpi", 0) >= 0;
    modules_load(&job);
    control_open(&job);
    streams_open(&job);
    root_enter(&job);
    if (job.hostname)
        sys_sethostname(job.hostname, text_length(job.hostname));
    network_configure(&job);
    control_send("started\n");
    struct ended ended = command_run(&job);
    sys_sync();
    unmount_all();
    report(&ended);
    wait_for_host();
    power_off();
}
