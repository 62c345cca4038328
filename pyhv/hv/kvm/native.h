/* What Python cannot do fast or safely enough: the run loop's system call, and kicks without a lost wake-up. */

struct pyhv_vcpu {
    struct kvm_run *run;
    int fd;
    int thread;          /* kernel id of the thread inside KVM_RUN, or 0 */
    int signal;
    unsigned synced;     /* register groups that the last KVM_RUN left in run->s */
};

/* A request with a pointer or a plain number; the result, or a negative errno. */
long pyhv_ioctl(int fd, unsigned long request, void *argument);
long pyhv_ioctl_value(int fd, unsigned long request, unsigned long argument);

/* The real-time signal that kicks use, with its handler installed; a negative errno on failure. */
int pyhv_setup_kick_signal(int offset);

/* KVM_RUN until there is an exit: its reason, or a negative errno (-EINTR for a kick or a signal). */
int pyhv_run(struct pyhv_vcpu *vcpu);

/* Make the current or the next pyhv_run of this vCPU return -EINTR. Any thread. */
void pyhv_kick(struct pyhv_vcpu *vcpu);

/* Map a vCPU's pages, shared and writable: NULL on failure, *error is then the errno. */
void *pyhv_map(int fd, size_t size, size_t offset, int *error);
int pyhv_unmap(void *address, size_t size);
int pyhv_close(int fd);

/* Harvest a dirty ring from *index on: up to `limit` (slot, offset) pairs; marks them for reset. */
int pyhv_harvest(struct kvm_dirty_gfn *ring, uint32_t entries, uint32_t *index, uint64_t *out, int limit);
