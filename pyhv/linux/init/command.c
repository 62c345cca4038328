#include "init.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/signal.h>
#include <linux/signalfd.h>
#include <linux/wait.h>

enum { BUFFER = 1 << 15, CONTROL, CHILDREN, READABLE, WRITABLE, POLLED };

struct winsize_of_linux { /* struct winsize, asm-generic/termios.h */
    unsigned short rows, columns, x, y;
};

/* Bytes on their way from one descriptor to another; -1 where an end is closed. */
struct stream {
    int from, to;
    size start, end; /* of what is in the buffer */
    unsigned long passed;
    char buffer[BUFFER];
};

static struct stream input, output, errors;
static unsigned long input_size = -1ul; /* what the host will have sent when its input is at its end */
static int terminal = -1;

static void set_size(int rows, int columns)
{
    struct winsize_of_linux now = {rows, columns, 0, 0};
    sys_ioctl(terminal, TIOCSWINSZ, &now);
}

/* Words of the command that are no program end like a shell's: 127 for what is not there, 126 for what cannot run. */
__attribute__((noreturn)) static void cannot_run(const char *command, const char *why, int status)
{
    struct text line = {0};
    text_add(&line, "pyhv: ");
    text_add(&line, command);
    text_add(&line, why);
    sys_write(2, line.bytes, line.length);
    sys_exit(status);
}

static long try(const struct job *job, const char *path)
{
    static const char *script[MOST + 2];
    long error = sys_execve(path, job->argument, job->variable);
    if (error != -ENOEXEC)
        return error;
    script[0] = "/bin/sh"; /* as execvp(3): a script without a first line that says what it is */
    script[1] = path;
    for (size at = 1; at <= job->argument_count; at++)
        script[at + 1] = job->argument[at];
    return sys_execve(script[0], script, job->variable);
}

/* execvp(3), by the PATH of the command's own environment. */
__attribute__((noreturn)) static void execute(const struct job *job)
{
    const char *command = job->argument[0], *folders = "";
    long error = -ENOENT;
    int there = 0;
    for (size at = 0; at < job->variable_count; at++)
        if (text_after(job->variable[at], "PATH="))
            folders = text_after(job->variable[at], "PATH=");
    if (text_within(command, text_length(command), "/")) {
        error = try(job, command);
        there = error == -ENOENT && sys_access(command, 0) >= 0;
    } else {
        while (*folders) {
            struct text path = {0};
            while (*folders && *folders != ':' && path.length < sizeof path.bytes - 1)
                path.bytes[path.length++] = *folders++;
            while (*folders && *folders++ != ':')
                ;
            text_add(&path, "/");
            text_add(&path, command);
            long now = try(job, path.bytes);
            there |= now == -ENOENT && sys_access(path.bytes, 0) >= 0;
            if (now != -ENOENT && now != -ENOTDIR)
                error = now;
        }
    }
    if (there)
        cannot_run(command, ": its interpreter is missing\n", 127);
    if (error == -ENOENT || error == -ENOTDIR)
        cannot_run(command, ": command not found\n", 127);
    cannot_run(command, error == -EACCES ? ": permission denied\n" : ": it cannot be executed\n", 126);
}

/* The other end of the terminal, as the child's own; the root may have no /dev. */
static int open_terminal(void)
{
    int fd = sys_ioctl(terminal, TIOCGPTPEER, (void *)O_RDWR);
    sys_ioctl(fd, TIOCSCTTY, 0);
    return fd;
}

__attribute__((noreturn)) static void become_command(const struct job *job, int in, int out, int err)
{
    unsigned long none = 0;
    SYS_4(__NR_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof none);
    sys_setsid();
    if (terminal >= 0)
        in = out = err = open_terminal();
    sys_dup2(in, 0);
    sys_dup2(out, 1);
    sys_dup2(err, 2);
    if (in > 2)
        sys_close(in);
    if (job->directory && sys_chdir(job->directory) < 0)
        cannot_run(job->directory, ": no such folder in the machine\n", 126);
    execute(job);
}

static void make_pipe(int *ends)
{
    long error = sys_pipe2(ends, O_CLOEXEC);
    if (error < 0)
        fail("cannot make a pipe", 0, error);
}

static void shut(int *fd)
{
    if (*fd >= 0)
        sys_close(*fd);
    *fd = -1;
}

void streams_open(const struct job *job)
{
    int unlocked = 0;
    input.from = input.to = output.from = output.to = errors.from = errors.to = -1;
    if (job->terminal) {
        terminal = sys_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);
        if (terminal < 0)
            fail("cannot open", "/dev/ptmx", terminal);
        sys_ioctl(terminal, TIOCSPTLCK, &unlocked);
        set_size(job->rows, job->columns);
        input.from = port_open(job->terminal, O_RDWR | O_NONBLOCK);
        output.to = SYS_1(__NR_dup, input.from);
    } else {
        output.to = port_open(job->output, O_WRONLY | O_NONBLOCK);
        errors.to = port_open(job->errors, O_WRONLY | O_NONBLOCK);
        if (job->input)
            input.from = port_open(job->input, O_RDONLY | O_NONBLOCK);
    }
}

/* Fork, with pipes or a terminal between the child and the ports; gives the child's process number. */
static int start(const struct job *job)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    if (terminal < 0) {
        make_pipe(in);
        make_pipe(out);
        make_pipe(err);
        if (input.from < 0)
            shut(&in[1]);
        else /* what the command does not read must not keep its output waiting */
            SYS_3(__NR_fcntl, in[1], F_SETFL, O_NONBLOCK);
    }
    input.to = terminal < 0 ? in[1] : terminal;
    output.from = terminal < 0 ? out[0] : terminal;
    errors.from = err[0];
    long child = sys_fork();
    if (child < 0)
        fail("cannot fork", 0, child);
    if (!child)
        become_command(job, in[0], out[1], err[1]);
    shut(&in[0]);
    shut(&out[1]);
    shut(&err[1]);
    return child;
}

/* Nothing more can be read; what is in the buffer still goes out. */
static void end_of(struct stream *stream)
{
    if (stream->from >= 0 && stream->from != terminal)
        sys_close(stream->from);
    stream->from = -1;
}

/* The reader has gone: nothing more can be written. */
static void drop(struct stream *stream)
{
    stream->start = stream->end = 0;
    end_of(stream);
    if (stream->to != terminal)
        shut(&stream->to);
    stream->to = -1;
}

/* Whether this is the end: a port without data seems to be at its end before the host has opened it. */
static int at_end(const struct stream *stream, long got)
{
    if (got == -EAGAIN || got == -EINTR)
        return 0;
    if (stream != &input || got < 0)
        return got <= 0;
    if (!got && stream->passed < input_size)
        sys_sleep_ms(1);
    return 0;
}

/* Fill and empty the buffer as far as the descriptors, by what poll said of them, take part. */
static void pass(struct stream *stream, short from_events, short to_events)
{
    if (stream->from >= 0 && stream->start == stream->end && from_events) {
        long got = sys_read(stream->from, stream->buffer, BUFFER);
        stream->start = 0;
        stream->end = got > 0 ? got : 0;
        if (at_end(stream, got))
            end_of(stream);
        to_events |= POLLOUT;
    }
    if (stream->start < stream->end && to_events) {
        long put = sys_write(stream->to, stream->buffer + stream->start, stream->end - stream->start);
        if (put > 0) {
            stream->start += put;
            stream->passed += put;
        } else if (put == -EAGAIN && !(to_events & POLLOUT)) {
            sys_sleep_ms(1); /* a port that the host has not opened yet */
        } else if (put != -EAGAIN && put != -EINTR) {
            drop(stream);
        }
    }
    if (stream == &input && stream->passed == input_size && stream->from >= 0) {
        end_of(stream);
        if (stream->to != terminal)
            shut(&stream->to);
    }
}

static void add_stream(struct pollfd *polled, const struct stream *stream)
{
    int full = stream->start < stream->end;
    int watched = full || (stream == &input && stream->to != terminal); /* a pipe's reader may go away */
    polled[0] = (struct pollfd){full ? -1 : stream->from, POLLIN, 0};
    polled[1] = (struct pollfd){watched ? stream->to : -1, full ? POLLOUT : 0, 0};
}

static int is_open(const struct stream *stream)
{
    return stream->from >= 0 || stream->start < stream->end;
}

/*
 * What the host says: "size ROWS COLUMNS" of the terminal, "eof BYTES" once it has sent all of the input, and "closed output"
 * or "closed errors" when nobody reads that any more.
 */
static void obey(const char *line)
{
    if (text_equal(line, "closed output"))
        drop(&output);
    if (text_equal(line, "closed errors"))
        drop(&errors);
    unsigned long numbers[2] = {0, 0};
    const char *word = text_after(line, "size ");
    const char *digit = word ? word : text_after(line, "eof ");
    for (int at = 0; digit && *digit && at < 2; digit++)
        if (*digit == ' ')
            at++;
        else
            numbers[at] = numbers[at] * 10 + (*digit - '0');
    if (word)
        set_size(numbers[0], numbers[1]);
    else if (digit)
        input_size = numbers[0];
}

/* Read lines of the host; whether it is still there. */
static int listen(void)
{
    static char line[64];
    static size length;
    char byte;
    long got;
    while ((got = sys_read(control_descriptor(), &byte, 1)) == 1)
        if (byte == '\n') {
            line[length] = 0;
            length = 0;
            obey(line);
        } else if (length < sizeof line - 1) {
            line[length++] = byte;
        }
    return got == -EAGAIN;
}

/* Collect processes that have ended; whether the child was among them. */
static int reap(int child, int *status, int options)
{
    int one, ended = 0;
    long pid;
    while ((pid = sys_wait4(-1, &one, options)) > 0)
        if (pid == child) {
            *status = one;
            ended = 1;
        }
    return ended;
}

struct ended command_run(const struct job *job)
{
    struct ended ended = {0, 0, 0};
    unsigned long child_ended = 1ul << (SIGCHLD - 1);
    SYS_4(__NR_rt_sigprocmask, SIG_BLOCK, &child_ended, 0, sizeof child_ended);
    int signals = SYS_4(__NR_signalfd4, -1, &child_ended, sizeof child_ended, O_CLOEXEC | O_NONBLOCK);
    if (signals < 0)
        fail("cannot wait for the command", 0, signals);
    int child = start(job);
    int running = 1, listening = 1;
    while (running || is_open(&output) || is_open(&errors)) {
        struct pollfd polled[8];
        polled[0] = (struct pollfd){listening ? control_descriptor() : -1, POLLIN, 0};
        polled[1] = (struct pollfd){running ? signals : -1, POLLIN, 0};
        add_stream(polled + 2, &input);
        add_stream(polled + 4, &output);
        add_stream(polled + 6, &errors);
        sys_poll(polled, 8, -1);
        if (polled[0].revents)
            listening = listen();
        if (polled[1].revents) {
            char news[512];
            sys_read(signals, news, sizeof news);
            if (reap(child, &ended.status, WNOHANG)) {
                running = 0;
                sys_kill(-1, SIGKILL);
                reap(child, &ended.status, 0);
                drop(&input);
            }
        }
        if (polled[3].revents & POLLERR)
            drop(&input);
        pass(&input, polled[2].revents, polled[3].revents);
        pass(&output, polled[4].revents, polled[5].revents);
        pass(&errors, polled[6].revents, polled[7].revents);
    }
    ended.output = output.passed;
    ended.errors = errors.passed;
    return ended;
}
