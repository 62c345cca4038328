/*
 * Block, network and entropy devices over MMIO, driven without an operating system: found by their registers or by the
 * command line, used through split queues, and heard of by level interrupts through the I/O APIC.
 */
#include "apic.h"
#include "guest.h"
#include "isr.h"
#include "startinfo.h"
#include "virtio_mmio.h"
#include "virtio_steps.h"

enum { DEVICES = 16 };

int main(const struct start_info *info)
{
    static struct virtio devices[DEVICES];
    unsigned count, used = 0;

    isr_init();
    apic_enable();
    count = virtio_mmio_find(command_line(info), devices, DEVICES);
    for (unsigned i = 0; i < count; i++) {
        struct virtio *d = &devices[i];

        print("%lx: %s, interrupt %u\n", (unsigned long)d->registers, virtio_name(d->type), d->gsi);
        used += virtio_use(d);
    }
    if (!used)
        fail("there is no device");
    print("virtio-mmio: ok\n");
    return 0;
}
