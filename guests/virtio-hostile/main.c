/*
 * A driver that breaks the rules of virtio 1.2 one after the other, on every device that it finds over MMIO and PCI. After
 * each attack the device is reset and does a request as it should, and so does another device that was at work all the
 * time. A line for each: "ok BUS NAME ATTACK", or FAIL. It waits for nothing without end, and for nothing by a clock.
 *
 * On the command line: seed=N for other random numbers, from=N and count=N for a part of the attacks, by their number.
 */
#include "hostile.h"
#include "apic.h"
#include "isr.h"
#include "platform.h"
#include "smp.h"
#include "startinfo.h"
#include "virtio_blk.h"
#include "virtio_mmio.h"
#include "virtio_net.h"
#include "virtio_pci.h"
#include "virtio_rng.h"

enum { TARGETS = 24, GUARD = 64, NMI = 2, WITNESS_SECTOR = 4 };

static struct target targets[TARGETS];
static unsigned target_count, failures, attacks_done;

/* A driver that keeps the rules, and polls. */
struct worker {
    struct target *target;
    unsigned requests;
    union {
        struct block block;
        struct entropy entropy;
        struct net net;
    };
};

static struct worker worker, witness;

/* A failed check goes back to where the attack began. */
static void *resume[5];

static void on_failed_check(void) { __builtin_longjmp(resume, 1); }

static int poll(struct virtq *q)
{
    for (unsigned i = 0; i < BOUND; i++) {
        if (q->used->idx != q->seen)
            return 1;
        if (q->device->bus->status(q->device) & STATUS_NEEDS_RESET)
            break;
    }
    return 0;
}

static void begin_work(struct worker *w, struct target *t)
{
    w->target = t;
    t->device.wait = poll;
    switch (t->device.type) {
    case VIRTIO_BLOCK: block_start(&w->block, &t->device); break;
    case VIRTIO_ENTROPY: entropy_start(&w->entropy, &t->device); break;
    case VIRTIO_NET: net_start(&w->net, &t->device); break;
    default: bring_up(t, 0);
    }
}

static void work_on_block(struct block *b, unsigned n)
{
    static uint8_t out[SECTOR], in[SECTOR];
    struct virtq_part to = {out, SECTOR}, from = {in, SECTOR};

    for (unsigned i = 0; i < SECTOR; i += 8) {
        *(volatile uint64_t *)(out + i) = i * 0x100000001ull + n;
        *(volatile uint64_t *)(in + i) = ~0ull;
    }
    int status = block_request(b, BLOCK_OUT, WITNESS_SECTOR, &to, 1);

    check(status == BLOCK_OK || (status == BLOCK_IOERR && virtio_features(b->device) & F_BLOCK_RO));
    check(block_request(b, BLOCK_IN, WITNESS_SECTOR, &from, 1) == BLOCK_OK);
    for (unsigned i = 0; status == BLOCK_OK && i < SECTOR; i += 8)
        check(*(volatile uint64_t *)(in + i) == i * 0x100000001ull + n);
}

/* One request as it should be. */
static void work(struct worker *w)
{
    static uint8_t bytes[64];

    w->requests++;
    switch (w->target->device.type) {
    case VIRTIO_BLOCK: work_on_block(&w->block, w->requests); break;
    case VIRTIO_ENTROPY: check(entropy_read(&w->entropy, bytes, sizeof bytes) > 0); break;
    case VIRTIO_NET: check(net_send(&w->net, bytes, sizeof bytes)); break;
    }
    check(w->target->device.bus->status(&w->target->device) & STATUS_DRIVER_OK);
}

/* Memory that no device was given, before and after what was. */
static volatile uint64_t guard[GUARD];

static void set_guard(void)
{
    for (unsigned i = 0; i < GUARD; i++)
        guard[i] = ~(uint64_t)i;
}

static void check_guard(void)
{
    for (unsigned i = 0; i < GUARD; i++)
        check(guard[i] == ~(uint64_t)i);
}

static void repair(struct target *t)
{
    struct virtio *d = &t->device;

    if (!is_pci(d))
        return;
    pci_write(d->function, PCI_COMMAND, 2, 0);
    for (unsigned i = 0; i < BARS; i++)
        pci_write(d->function, PCI_BAR + 4 * i, 4, t->bars[i]);
    if (d->msix)
        pci_write(d->function, d->msix + MSIX_CONTROL, 2, 0);
    d->msix_in_use = 0;
    pci_write(d->function, PCI_COMMAND, 2, t->command);
}

static void run(struct target *t, const struct attack *attack)
{
    attacks_done++;
    on_fail = on_failed_check;
    if (t->device.type == VIRTIO_BALLOON)
        __builtin_memset((void *)sandbox, (uint8_t)NO_PAGE, SANDBOX);
    if (__builtin_setjmp(resume) == 0) {
        attack->run(t);
        repair(t);
        begin_work(&worker, t);
        work(&worker);
        if (witness.target)
            work(&witness);
        check_guard();
        print("ok %s%u %s %s\n", t->bus, t->number, virtio_name(t->device.type), attack->name);
        on_fail = NULL;
        return;
    }
    failures++;
    print("FAIL %s%u %s %s\n", t->bus, t->number, virtio_name(t->device.type), attack->name);
    if (__builtin_setjmp(resume) == 0) {
        repair(t);
        set_guard();
        if (witness.target)
            begin_work(&witness, witness.target);
    }
    on_fail = NULL;
}

static unsigned first, last;

static void run_all(struct target *t, const struct attack *attacks)
{
    static unsigned number;

    for (; attacks->name; attacks++, number++)
        if (number >= first && number < last)
            run(t, attacks);
}

static void attack_target(struct target *t)
{
    run_all(t, status_attacks);
    run_all(t, queue_attacks);
    if (t->queues) {
        run_all(t, ring_attacks);
        run_all(t, chain_attacks);
        run_all(t, packed_attacks);
        run_all(t, content_attacks);
    }
    run_all(t, register_attacks);
    run_all(t, is_pci(&t->device) ? pci_attacks : mmio_attacks);
    switch (t->device.type) {
    case VIRTIO_BLOCK: run_all(t, block_attacks); break;
    case VIRTIO_NET: run_all(t, net_attacks); break;
    case VIRTIO_CONSOLE: run_all(t, console_attacks); break;
    case VIRTIO_BALLOON: run_all(t, balloon_attacks); break;
    case VIRTIO_VSOCK: run_all(t, vsock_attacks); break;
    case VIRTIO_FS: run_all(t, fs_attacks); break;
    }
}

/* Where a device answers at once to what it is given, if only by giving it back. */
static int answering_queue(unsigned type)
{
    switch (type) {
    case VIRTIO_BLOCK:
    case VIRTIO_ENTROPY:
    case VIRTIO_PMEM: return 0;
    case VIRTIO_NET:
    case VIRTIO_FS: return 1;
    default: return NO_QUEUE;
    }
}

static void learn(struct target *t, unsigned number)
{
    struct virtio *d = &t->device;

    t->bus = d->bus->name;
    t->number = number;
    while (t->queues < QUEUES && d->bus->queue_max(d, t->queues))
        t->queues++;
    t->answering = answering_queue(d->type);
    if (!is_pci(d))
        return;
    for (unsigned i = 0; i < BARS; i++)
        t->bars[i] = pci_read(d->function, PCI_BAR + 4 * i, 4);
    t->command = pci_read(d->function, PCI_COMMAND, 2);
}

static void find(const char *arguments)
{
    static struct virtio devices[TARGETS];
    unsigned by_mmio = virtio_mmio_find(arguments, devices, TARGETS);

    target_count = by_mmio + virtio_pci_find(devices + by_mmio, TARGETS - by_mmio);
    for (unsigned i = 0; i < target_count; i++) {
        targets[i].device = devices[i];
        learn(&targets[i], i < by_mmio ? i : i - by_mmio);
    }
}

/* Another device than the one under attack, of a kind that can be seen to work. */
static void choose_witness(const struct target *attacked)
{
    witness.target = NULL;
    for (unsigned i = 0; i < target_count; i++) {
        unsigned type = targets[i].device.type;

        if (&targets[i] != attacked && (type == VIRTIO_BLOCK || type == VIRTIO_ENTROPY)) {
            begin_work(&witness, &targets[i]);
            return;
        }
    }
}

static unsigned char apic_ids[MAX_CPUS];

static void on_nmi(struct frame *frame) { (void)frame; }

int main(const struct start_info *info)
{
    const char *arguments = command_line(info);

    isr_init();
    isr_set(NMI, on_nmi);
    apic_enable();
    smp_start(apic_ids, platform_cpus(apic_ids, MAX_CPUS));
    seed = command_number(arguments, "seed", 1) | 1u << 31;
    first = command_number(arguments, "from", 0);
    last = first + command_number(arguments, "count", 1u << 30);
    ecam = platform_ecam();
    find(arguments);
    set_guard();
    for (unsigned i = 0; i < target_count; i++) {
        choose_witness(&targets[i]);
        attack_target(&targets[i]);
        virtio_reset(&targets[i].device);
    }
    if (!attacks_done)
        fail("nothing to attack");
    print("%u devices, %u attacks, %u failures\n", target_count, attacks_done, failures);
    if (failures)
        return 1;
    print("virtio-hostile: ok\n");
    return 0;
}
