#include "init.h"

#include <linux/fcntl.h>
#include <linux/if.h>
#include <linux/in.h>
#include <linux/mount.h>
#include <linux/route.h>
#include <linux/sockios.h>

enum { PATIENCE_MS = 5000, PAUSE_MS = 2, DATAGRAM = 2 };

/* "10.0.2.15" in network byte order. */
static unsigned address_of(const char *text)
{
    unsigned address = 0;
    for (int byte = 0; byte < 4; byte++) {
        unsigned value = 0;
        while (*text >= '0' && *text <= '9')
            value = value * 10 + (*text++ - '0');
        address |= value << 8 * byte;
        if (*text)
            text++;
    }
    return address;
}

static void put_address(struct sockaddr *where, unsigned address)
{
    struct sockaddr_in *internet = (struct sockaddr_in *)where;
    internet->sin_family = 2; /* AF_INET */
    internet->sin_addr.s_addr = address;
}

static void name_interface(struct ifreq *request, const char *name)
{
    *request = (struct ifreq){0};
    for (size at = 0; name[at]; at++)
        request->ifr_name[at] = name[at];
}

static long bring_up(int socket, const char *name)
{
    struct ifreq request;
    name_interface(&request, name);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return sys_ioctl(socket, SIOCSIFFLAGS, &request);
}

static void set_address(int socket, unsigned what, const char *name, const char *address)
{
    struct ifreq request;
    name_interface(&request, name);
    put_address(&request.ifr_addr, address_of(address));
    long error = sys_ioctl(socket, what, &request);
    if (error < 0)
        fail("cannot set the address of", name, error);
}

static void set_gateway(int socket, const char *gateway)
{
    struct rtentry route = {0};
    put_address(&route.rt_dst, 0);
    put_address(&route.rt_genmask, 0);
    put_address(&route.rt_gateway, address_of(gateway));
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    long error = sys_ioctl(socket, SIOCADDRT, &route);
    if (error < 0)
        fail("cannot set the route to", gateway, error);
}

/* A resolv.conf of the machine's own. Where the root is the host's own, it lies over the host's file. */
static void set_nameserver(const struct job *job)
{
    const char *path = job->writable ? "/run/resolv.conf" : "/etc/resolv.conf";
    struct text line = {0};
    text_add(&line, "nameserver ");
    text_add(&line, job->nameserver);
    text_add(&line, "\n");
    if (!job->writable)
        sys_unlink(path); /* it may be a link to where nothing is */
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    sys_write(fd, line.bytes, line.length);
    sys_close(fd);
    if (job->writable)
        sys_mount(path, "/etc/resolv.conf", 0, MS_BIND, 0);
}

void network_configure(const struct job *job)
{
    int socket = sys_socket(2, DATAGRAM | O_CLOEXEC, 0);
    if (socket < 0)
        return; /* a kernel without a network */
    bring_up(socket, "lo");
    if (job->address) {
        long error = -ENODEV;
        for (int waited = 0; error < 0 && waited < PATIENCE_MS; waited += PAUSE_MS) {
            error = bring_up(socket, "eth0");
            if (error < 0)
                sys_sleep_ms(PAUSE_MS);
        }
        if (error < 0)
            fail("there is no network card", "eth0", error);
        set_address(socket, SIOCSIFADDR, "eth0", job->address);
        set_address(socket, SIOCSIFNETMASK, "eth0", job->netmask);
        if (job->gateway)
            set_gateway(socket, job->gateway);
        if (job->nameserver)
            set_nameserver(job);
    }
    sys_close(socket);
}
