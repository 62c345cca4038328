/*
 * Block, network and entropy devices over PCI, driven without an operating system: found in configuration space, by
 * ports and by memory, used through split queues, and heard of by MSI-X; then one of them by its interrupt pin, and after
 * its ranges were moved.
 */
#include "apic.h"
#include "guest.h"
#include "isr.h"
#include "platform.h"
#include "virtio_pci.h"
#include "virtio_rng.h"
#include "virtio_steps.h"

enum { DEVICES = 16, ELSEWHERE = 0xf8000000, CONFIG_SPACE = 256, HEADER = 64 };

static void print_function(unsigned f)
{
    uint32_t id = pci_read(f, PCI_ID, 4);

    print("%u.%u: %x:%x, class %x\n", f >> 3, f & 7, id & 0xffff, id >> 16, pci_read(f, PCI_CLASS, 4) >> 8);
}

/* The same by both ways, and in all widths. */
static void compare(unsigned function, uintptr_t ecam)
{
    for (unsigned width = 1; width <= 4; width *= 2)
        for (unsigned reg = 0; reg < (width == 4 ? CONFIG_SPACE : HEADER); reg += width) {
            pci_ecam = 0;
            uint32_t by_port = pci_read(function, reg, width);
            pci_ecam = ecam;
            if (pci_read(function, reg, width) != by_port)
                fail("register %x of function %x is another in memory", reg, function);
        }
}

static void look_around(void)
{
    uintptr_t ecam = platform_ecam();
    unsigned functions = 0;

    for (unsigned f = 0; (f = pci_next(f)) < PCI_FUNCTIONS; f++, functions++)
        print_function(f);
    check(functions);
    if (!ecam) {
        print("no configuration space in memory\n");
        return;
    }
    for (unsigned f = 0; (f = pci_next(f)) < PCI_FUNCTIONS; f++)
        compare(f, ecam);
    print("configuration space: the same by ports and in memory\n");
}

/* Each range is of a size that is a power of two, and aligned to that. */
static void check_ranges(const struct virtio *d)
{
    for (unsigned i = 0; i < BARS; i++) {
        uint32_t low = pci_read(d->function, PCI_BAR + 4 * i, 4);
        uint64_t size = pci_bar_size(d->function, i);

        check((size & (size - 1)) == 0);
        if (size)
            check(pci_bar(d->function, i) && !(pci_bar(d->function, i) & (size - 1)));
        if (!(low & BAR_IO) && low & BAR_64)
            i++;
    }
}

/* Its ranges to other addresses in the host bridge's window. */
static void move(struct virtio *d)
{
    uint64_t place = ELSEWHERE;
    unsigned f = d->function;

    pci_write(f, PCI_COMMAND, 2, 0);
    for (unsigned i = 0; i < BARS; i++) {
        uint32_t low = pci_read(f, PCI_BAR + 4 * i, 4);
        uint64_t size = pci_bar_size(f, i);

        if (size && !(low & BAR_IO)) {
            place = (place + size - 1) & -size;
            pci_bar_set(f, i, place);
            place += size;
        }
        if (!(low & BAR_IO) && low & BAR_64)
            i++;
    }
    check(virtio_pci_open(d, f));
    check(d->registers >= ELSEWHERE && d->registers < place);
}

static void use_pin(struct virtio *d)
{
    static struct entropy e;
    static uint8_t bytes[16];

    virtio_pci_use_pin(d);
    d->interrupts = d->awaited = 0;
    entropy_start(&e, d);
    check(entropy_read(&e, bytes, sizeof bytes) > 0);
    check(entropy_read(&e, bytes, sizeof bytes) > 0);
    apic_sleep(APIC_MILLISECOND);
    check(d->interrupts == 2);
    virtio_reset(d);
    print("entropy: 2 interrupts by the pin\n");
}

int main(void)
{
    static struct virtio devices[DEVICES];
    unsigned count, used = 0;

    isr_init();
    apic_enable();
    look_around();
    count = virtio_pci_find(devices, DEVICES);
    for (unsigned i = 0; i < count; i++) {
        struct virtio *d = &devices[i];

        print("%u.%u: %s\n", d->function >> 3, d->function & 7, virtio_name(d->type));
        check_ranges(d);
        used += virtio_use(d);
        if (d->type == VIRTIO_ENTROPY) {
            use_pin(d);
            move(d);
            print("%u.%u: moved\n", d->function >> 3, d->function & 7);
            virtio_use(d);
        }
    }
    if (!used)
        fail("there is no device");
    print("virtio-pci: ok\n");
    return 0;
}
