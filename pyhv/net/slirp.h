/* User-mode networking by libslirp, without callbacks into Python: what the library asks for (frames to the guest, timers,
 * descriptors to poll) waits here. One descriptor, readable when there is work, stands for all of it.
 *
 * libslirp keeps process-wide state: all calls, of all instances, must come one at a time. */

struct pyhv_slirp;

struct pyhv_slirp_config {
    int restricted;             /* the guest reaches nothing but what is forwarded to it */
    int host_loopback;          /* the gateway's address leads to the host's own 127.0.0.1 */
    uint32_t network, mask, host, nameserver, dhcp_start; /* IPv4, in host order */
    uint8_t prefix6[16], host6[16], nameserver6[16];
    int prefix6_length;         /* 0: no IPv6 */
    uint32_t mtu;
    uint32_t queue_bytes;       /* frames to the guest beyond this are dropped */
    int sockets;                /* new connections of the guest beyond this are dropped */
    const char *hostname;
};

struct pyhv_slirp_counters {
    uint64_t dropped;           /* frames to the guest, the queue was full */
    uint64_t refused;           /* frames of the guest: too many sockets, or a fragment */
    uint64_t guest_errors;      /* complaints of the library about the guest */
    uint64_t queued_bytes;
    int sockets;
};

/* Load the library: 0, or -1 with what the loader said in message. */
int pyhv_slirp_load(const char *library, char *message, size_t size);
const char *pyhv_slirp_version(void);

/* NULL on failure, *error is then the errno. */
struct pyhv_slirp *pyhv_slirp_new(const struct pyhv_slirp_config *config, int *error);
void pyhv_slirp_free(struct pyhv_slirp *s);

/* The descriptor that is readable when pyhv_slirp_work is due. */
int pyhv_slirp_fd(const struct pyhv_slirp *s);

/* A frame of the guest's, with a whole packet in it. */
void pyhv_slirp_input(struct pyhv_slirp *s, const uint8_t *frame, int length);

/* Look at sockets and timers now; also to be called after input. 0, or a negative errno. */
int pyhv_slirp_work(struct pyhv_slirp *s);

/* The oldest frame to the guest, NULL when there is none; it stays until pyhv_slirp_drop. */
const uint8_t *pyhv_slirp_frame(struct pyhv_slirp *s, size_t *length);
void pyhv_slirp_drop(struct pyhv_slirp *s);

/* Forward a port of the host's to the guest; addresses in host order. 0, or a negative errno. */
int pyhv_slirp_forward(struct pyhv_slirp *s, int udp, uint32_t host, int host_port, uint32_t guest, int guest_port);

void pyhv_slirp_count(const struct pyhv_slirp *s, struct pyhv_slirp_counters *out);
