#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "slirp_abi.h"

#include "slirp.h"

#define READY_AT_ONCE 128
#define MOST_TIMERS 4
#define LONGEST_SLEEP_MS 1000 /* the library's own ageing wants to be looked at about this often */

static struct {
    void *handle;
    struct slirp *(*make)(const struct slirp_config *, const struct slirp_callbacks *, void *);
    void (*cleanup)(struct slirp *);
    void (*fill)(struct slirp *, uint32_t *, int (*)(int, int, void *), void *);
    void (*poll)(struct slirp *, int, int (*)(int, void *), void *);
    void (*input)(struct slirp *, const uint8_t *, int);
    int (*add_hostfwd)(struct slirp *, int, struct in_addr, int, struct in_addr, int);
    const char *(*version)(void);
} library;

struct frame {
    struct frame *next;
    size_t length;
    uint8_t data[];
};

struct timer {
    void (*callback)(void *);
    void *opaque;
    int64_t expire_ms; /* -1: not armed */
    int used;
};

/* What is known of a descriptor of the library's, by its number. */
struct watch {
    uint32_t armed;  /* what epoll was told, 0 when it knows nothing of it */
    uint32_t ready;  /* what epoll said last */
    uint32_t round;  /* the last fill that asked for it */
    int open;        /* between register and unregister */
};

struct pyhv_slirp {
    struct slirp *slirp;
    int epoll, timerfd;
    struct frame *first, **last;
    size_t queued, queue_bytes;
    struct watch *watches;
    int watch_count;
    int *polled, polled_count, polled_room; /* descriptors of this fill; an index is what the library gets */
    int *before, before_count, before_room; /* and of the last one */
    uint32_t round;
    struct timer timers[MOST_TIMERS];
    int sockets, most_sockets;
    uint64_t dropped, refused, guest_errors;
};

int pyhv_slirp_load(const char *name, char *message, size_t size)
{
    void *handle;
    if (library.handle)
        return 0;
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(message, size, "%s", dlerror());
        return -1;
    }
#define SYMBOL(member, symbol)                                         \
    *(void **)&library.member = dlsym(handle, symbol);                 \
    if (!library.member) {                                             \
        snprintf(message, size, "%s has no %s", name, symbol);         \
        dlclose(handle);                                               \
        return -1;                                                     \
    }
    SYMBOL(make, "slirp_new")
    SYMBOL(cleanup, "slirp_cleanup")
    SYMBOL(fill, "slirp_pollfds_fill")
    SYMBOL(poll, "slirp_pollfds_poll")
    SYMBOL(input, "slirp_input")
    SYMBOL(add_hostfwd, "slirp_add_hostfwd")
    SYMBOL(version, "slirp_version_string")
#undef SYMBOL
    library.handle = handle;
    return 0;
}

const char *pyhv_slirp_version(void)
{
    return library.handle ? library.version() : "";
}

/* The library's callbacks. None of them fails: what cannot be done is not done, and counted. */

static ssize_t on_send(const void *data, size_t length, void *opaque)
{
    struct pyhv_slirp *s = opaque;
    struct frame *frame;
    if (s->queued + length > s->queue_bytes || !(frame = malloc(sizeof(*frame) + length))) {
        s->dropped++;
        return (ssize_t)length;
    }
    frame->next = NULL;
    frame->length = length;
    memcpy(frame->data, data, length);
    *s->last = frame;
    s->last = &frame->next;
    s->queued += length;
    return (ssize_t)length;
}

static void on_guest_error(const char *message, void *opaque)
{
    (void)message;
    ((struct pyhv_slirp *)opaque)->guest_errors++;
}

static int64_t on_clock(void *opaque)
{
    struct timespec now;
    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *on_timer_new(void (*callback)(void *), void *callback_opaque, void *opaque)
{
    struct pyhv_slirp *s = opaque;
    for (int i = 0; i < MOST_TIMERS; i++) {
        struct timer *timer = &s->timers[i];
        if (!timer->used) {
            *timer = (struct timer){ callback, callback_opaque, -1, 1 };
            return timer;
        }
    }
    return NULL;
}

static void on_timer_free(void *timer, void *opaque)
{
    (void)opaque;
    if (timer)
        ((struct timer *)timer)->used = 0;
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    (void)opaque;
    if (timer)
        ((struct timer *)timer)->expire_ms = expire_ms;
}

static struct watch *watch_of(struct pyhv_slirp *s, int fd)
{
    if (fd < 0)
        return NULL;
    if (fd >= s->watch_count) {
        int count = fd + 64;
        struct watch *more = realloc(s->watches, (size_t)count * sizeof(*more));
        if (!more)
            return NULL;
        memset(more + s->watch_count, 0, (size_t)(count - s->watch_count) * sizeof(*more));
        s->watches = more;
        s->watch_count = count;
    }
    return &s->watches[fd];
}

/* A closed descriptor leaves epoll by itself; one that was closed unnoticed and is open again must not count as armed. */
static void forget(struct pyhv_slirp *s, int fd, struct watch *watch)
{
    if (watch->armed)
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
    watch->armed = watch->ready = 0;
}

static void on_register(int fd, void *opaque)
{
    struct pyhv_slirp *s = opaque;
    struct watch *watch = watch_of(s, fd);
    if (!watch)
        return;
    forget(s, fd, watch);
    if (!watch->open) {
        watch->open = 1;
        s->sockets++;
    }
}

static void on_unregister(int fd, void *opaque)
{
    struct pyhv_slirp *s = opaque;
    struct watch *watch = fd < s->watch_count ? watch_of(s, fd) : NULL;
    if (!watch)
        return;
    forget(s, fd, watch);
    if (watch->open) {
        watch->open = 0;
        s->sockets--;
    }
}

static void on_notify(void *opaque)
{
    (void)opaque; /* pyhv_slirp_work follows every call anyway */
}

static const struct slirp_callbacks callbacks = {
    .send_packet = on_send,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_new = on_timer_new,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_register,
    .unregister_poll_fd = on_unregister,
    .notify = on_notify,
};

static int on_add_poll(int fd, int events, void *opaque)
{
    struct pyhv_slirp *s = opaque;
    struct watch *watch = watch_of(s, fd);
    struct epoll_event event = { .data.fd = fd };
    if (!watch)
        return -1;
    if (s->polled_count == s->polled_room) {
        int room = s->polled_room ? 2 * s->polled_room : 64;
        int *more = realloc(s->polled, (size_t)room * sizeof(*more));
        if (!more)
            return -1;
        s->polled = more;
        s->polled_room = room;
    }
    if (events & SLIRP_POLL_IN)
        event.events |= EPOLLIN;
    if (events & SLIRP_POLL_OUT)
        event.events |= EPOLLOUT;
    if (events & SLIRP_POLL_PRI)
        event.events |= EPOLLPRI;
    if (!event.events)
        return -1;
    if (watch->armed != event.events) {
        if (epoll_ctl(s->epoll, watch->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0 &&
            epoll_ctl(s->epoll, errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) < 0)
            return -1;
        watch->armed = event.events;
    }
    watch->round = s->round;
    s->polled[s->polled_count] = fd;
    return s->polled_count++;
}

static int on_get_revents(int index, void *opaque)
{
    struct pyhv_slirp *s = opaque;
    uint32_t ready;
    int events = 0;
    if (index < 0 || index >= s->polled_count)
        return 0;
    ready = s->watches[s->polled[index]].ready;
    if (ready & EPOLLIN)
        events |= SLIRP_POLL_IN;
    if (ready & EPOLLOUT)
        events |= SLIRP_POLL_OUT;
    if (ready & EPOLLPRI)
        events |= SLIRP_POLL_PRI;
    if (ready & EPOLLERR)
        events |= SLIRP_POLL_ERR;
    if (ready & EPOLLHUP)
        events |= SLIRP_POLL_HUP;
    return events;
}

/* What the library wants polled now becomes what epoll watches; its next deadline becomes the timer's. */
static void arm(struct pyhv_slirp *s)
{
    uint32_t sleep_ms = LONGEST_SLEEP_MS;
    int64_t now_ms = on_clock(NULL) / 1000000;
    struct itimerspec when = { { 0, 0 }, { 0, 0 } };
    int *swap = s->before, room = s->before_room;

    s->before = s->polled;
    s->before_room = s->polled_room;
    s->before_count = s->polled_count;
    s->polled = swap;
    s->polled_room = room;
    s->polled_count = 0;
    s->round++;
    library.fill(s->slirp, &sleep_ms, on_add_poll, s);
    for (int i = 0; i < s->before_count; i++) {
        int fd = s->before[i];
        if (s->watches[fd].round != s->round)
            forget(s, fd, &s->watches[fd]);
    }
    for (int i = 0; i < MOST_TIMERS; i++) {
        const struct timer *timer = &s->timers[i];
        if (timer->used && timer->expire_ms >= 0 && timer->expire_ms - now_ms < (int64_t)sleep_ms)
            sleep_ms = timer->expire_ms > now_ms ? (uint32_t)(timer->expire_ms - now_ms) : 0;
    }
    when.it_value.tv_sec = sleep_ms / 1000;
    when.it_value.tv_nsec = sleep_ms ? (long)(sleep_ms % 1000) * 1000000 : 1;
    timerfd_settime(s->timerfd, 0, &when, NULL);
}

static void run_timers(struct pyhv_slirp *s)
{
    int64_t now_ms = on_clock(NULL) / 1000000;
    for (int i = 0; i < MOST_TIMERS; i++) {
        struct timer *timer = &s->timers[i];
        if (timer->used && timer->expire_ms >= 0 && timer->expire_ms <= now_ms) {
            timer->expire_ms = -1;
            timer->callback(timer->opaque);
        }
    }
}

int pyhv_slirp_work(struct pyhv_slirp *s)
{
    struct epoll_event events[READY_AT_ONCE];
    int count = epoll_wait(s->epoll, events, READY_AT_ONCE, 0);
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == s->timerfd) {
            uint64_t expirations;
            if (read(s->timerfd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
                return -errno;
        } else {
            s->watches[events[i].data.fd].ready = events[i].events;
        }
    }
    run_timers(s);
    library.poll(s->slirp, 0, on_get_revents, s); /* also sends what waited for the guest's address */
    for (int i = 0; i < count; i++)
        if (events[i].data.fd < s->watch_count)
            s->watches[events[i].data.fd].ready = 0;
    arm(s);
    return 0;
}

int pyhv_slirp_fd(const struct pyhv_slirp *s)
{
    return s->epoll;
}

/* Whether this frame could open one more socket on the host: a TCP segment that opens a connection, or any datagram. */
static int may_open(const uint8_t *frame, int length)
{
    int type, ip = 14, header;
    uint8_t protocol;
    if (length < 14 + 20)
        return 0;
    type = frame[12] << 8 | frame[13];
    if (type == 0x0800) {
        header = (frame[ip] & 15) * 4;
        protocol = frame[ip + 9];
    } else if (type == 0x86dd && length >= 14 + 40) {
        header = 40;
        protocol = frame[ip + 6];
    } else {
        return 0;
    }
    if (protocol != 6)
        return 1;
    return length < ip + header + 14 || (frame[ip + header + 13] & 0x12) == 0x02;
}

/* Whether this is a part of an IPv4 packet: the library's reassembly writes where a guest says (4.7). */
static int is_fragment(const uint8_t *frame, int length)
{
    return length >= 14 + 8 && frame[12] == 0x08 && frame[13] == 0x00 && ((frame[20] & 0x3f) || frame[21]);
}

void pyhv_slirp_input(struct pyhv_slirp *s, const uint8_t *frame, int length)
{
    if (is_fragment(frame, length) || (s->sockets >= s->most_sockets && may_open(frame, length))) {
        s->refused++;
        return;
    }
    library.input(s->slirp, frame, length);
}

const uint8_t *pyhv_slirp_frame(struct pyhv_slirp *s, size_t *length)
{
    if (!s->first)
        return NULL;
    *length = s->first->length;
    return s->first->data;
}

void pyhv_slirp_drop(struct pyhv_slirp *s)
{
    struct frame *frame = s->first;
    if (!frame)
        return;
    s->first = frame->next;
    if (!s->first)
        s->last = &s->first;
    s->queued -= frame->length;
    free(frame);
}

int pyhv_slirp_forward(struct pyhv_slirp *s, int udp, uint32_t host, int host_port, uint32_t guest, int guest_port)
{
    struct in_addr from = { htonl(host) }, to = { htonl(guest) };
    errno = 0;
    if (library.add_hostfwd(s->slirp, udp, from, host_port, to, guest_port) < 0)
        return errno ? -errno : -EINVAL;
    return 0;
}

void pyhv_slirp_count(const struct pyhv_slirp *s, struct pyhv_slirp_counters *out)
{
    out->dropped = s->dropped;
    out->refused = s->refused;
    out->guest_errors = s->guest_errors;
    out->queued_bytes = s->queued;
    out->sockets = s->sockets;
}

struct pyhv_slirp *pyhv_slirp_new(const struct pyhv_slirp_config *config, int *error)
{
    struct slirp_config c = {
        .version = 1,
        .restricted = config->restricted,
        .in_enabled = true,
        .vnetwork = { htonl(config->network) },
        .vnetmask = { htonl(config->mask) },
        .vhost = { htonl(config->host) },
        .in6_enabled = config->prefix6_length > 0,
        .vprefix_len = (uint8_t)config->prefix6_length,
        .vhostname = config->hostname,
        .vdhcp_start = { htonl(config->dhcp_start) },
        .vnameserver = { htonl(config->nameserver) },
        .if_mtu = config->mtu,
        .if_mru = config->mtu,
        .disable_host_loopback = !config->host_loopback,
    };
    struct epoll_event event = { .events = EPOLLIN };
    struct pyhv_slirp *s = calloc(1, sizeof(*s));

    *error = ENOMEM;
    if (!s)
        return NULL;
    memcpy(&c.vprefix_addr6, config->prefix6, 16);
    memcpy(&c.vhost6, config->host6, 16);
    memcpy(&c.vnameserver6, config->nameserver6, 16);
    s->last = &s->first;
    s->queue_bytes = config->queue_bytes;
    s->most_sockets = config->sockets;
    s->timerfd = -1;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll >= 0)
        s->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    event.data.fd = s->timerfd;
    if (s->timerfd < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->timerfd, &event) < 0) {
        *error = errno;
        pyhv_slirp_free(s);
        return NULL;
    }
    s->slirp = library.make(&c, &callbacks, s);
    if (!s->slirp) {
        *error = EINVAL;
        pyhv_slirp_free(s);
        return NULL;
    }
    *error = -pyhv_slirp_work(s); /* lets the library see the time */
    if (*error) {
        pyhv_slirp_free(s);
        return NULL;
    }
    return s;
}

void pyhv_slirp_free(struct pyhv_slirp *s)
{
    if (!s)
        return;
    if (s->slirp)
        library.cleanup(s->slirp);
    while (s->first)
        pyhv_slirp_drop(s);
    if (s->timerfd >= 0)
        close(s->timerfd);
    if (s->epoll >= 0)
        close(s->epoll);
    free(s->watches);
    free(s->polled);
    free(s->before);
    free(s);
}
