/* The way to a working device in the wrong order (2.1, 2.2, 3.1.1). */
#include "hostile.h"

enum { ALL = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK };

static void set(struct target *t, unsigned status) { t->device.bus->set_status(&t->device, status); }
static unsigned get(struct target *t) { return t->device.bus->status(&t->device); }

/* Offers these features and says that it is all; the device must not agree (2.2.2). */
static void refused(struct target *t, uint64_t features)
{
    struct virtio *d = &t->device;

    virtio_reset(d);
    set(t, STATUS_ACKNOWLEDGE);
    set(t, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    d->bus->set_features(d, 0, features);
    d->bus->set_features(d, 1, features >> 32);
    set(t, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    check(!(get(t) & STATUS_FEATURES_OK));
    set(t, ALL);
    raw_notify(d, 0);
    glance(t);
}

static void features_without_negotiation(struct target *t) { refused(t, 0); }
static void features_of_a_legacy_driver(struct target *t) { refused(t, virtio_features(&t->device) & ~F_VERSION_1); }

static void features_that_are_not_offered(struct target *t)
{
    uint64_t offered = virtio_features(&t->device);

    for (unsigned bit = 0; bit < 64; bit += 7)
        if (!(offered >> bit & 1))
            refused(t, F_VERSION_1 | FEATURE(bit));
    refused(t, ~0ull);
}

static void features_after_they_are_agreed(struct target *t)
{
    struct virtio *d = &t->device;

    bring_to_features(t, 0);
    d->bus->set_features(d, 0, ~0u);
    d->bus->set_features(d, 1, ~0u);
    bring_queues(t);
    virtio_ready(d);
    d->bus->set_features(d, 0, ~0u);
    d->bus->set_features(d, 1, 0);
    check(get(t) == ALL);
}

static void features_far_away(struct target *t)
{
    struct virtio *d = &t->device;

    virtio_reset(d);
    set(t, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (unsigned half = 2; half; half <<= 1) {
        check(d->bus->features(d, half) == 0); /* 4.1.4.3.1 */
        d->bus->set_features(d, half, half % 3 ? ~0u : 0);
    }
    d->bus->features(d, ~0u);
    d->bus->set_features(d, ~0u, ~0u);
}

static void driver_ok_at_once(struct target *t)
{
    virtio_reset(&t->device);
    set(t, STATUS_DRIVER_OK);
    raw_notify(&t->device, 0);
    glance(t);
}

static void all_bits_at_once(struct target *t)
{
    virtio_reset(&t->device);
    set(t, 0xff);
    raw_notify(&t->device, 0);
    set(t, 0xffffffff);
    raw_notify(&t->device, 0);
    glance(t);
}

static void each_status(struct target *t)
{
    virtio_reset(&t->device);
    for (unsigned status = 255; status; status -= 5) {
        set(t, status);
        raw_notify(&t->device, 0);
    }
    glance(t);
}

static void bits_cleared(struct target *t)
{
    bring_up(t, 0);
    for (unsigned bit = 1; bit < 16; bit <<= 1) {
        set(t, ALL & ~bit);
        raw_notify(&t->device, 0);
    }
    glance(t);
}

static void driver_ok_again_and_again(struct target *t)
{
    bring_up(t, 0);
    for (unsigned i = 0; i < 20; i++)
        set(t, ALL);
    check(get(t) == ALL);
}

static void failed_and_on(struct target *t)
{
    bring_up(t, 0);
    set(t, ALL | STATUS_FAILED);
    for (unsigned i = 0; i < t->queues; i++)
        raw_notify(&t->device, i);
    set(t, ALL);
    glance(t);
}

static void needs_reset_by_the_driver(struct target *t)
{
    bring_up(t, 0);
    set(t, ALL | STATUS_NEEDS_RESET); /* 2.1.2: the device's bit */
    raw_notify(&t->device, 0);
    set(t, ALL);
    glance(t);
}

static void resets_in_a_row(struct target *t)
{
    for (unsigned i = 0; i < 20; i++) {
        if (i % 4 == 0)
            bring_up(t, 0);
        set(t, 0);
    }
    check(get(t) == 0);
}

static void on_after_giving_up(struct target *t)
{
    bring_up(t, 0);
    for (unsigned i = 0; i < t->queues; i++) {
        expose(&t->q[i], 0xffff);
        raw_notify(&t->device, i);
    }
    glance(t);
    for (unsigned i = 0; i < t->queues; i++) {
        raw_notify(&t->device, i);
        raw_select(&t->device, i);
        raw_enable(&t->device, 1);
        raw_notify(&t->device, i);
    }
    set(t, ALL);
    glance(t);
}

#define CASE(name) {#name, name}
const struct attack status_attacks[] = {
    CASE(features_without_negotiation),
    CASE(features_of_a_legacy_driver),
    CASE(features_that_are_not_offered),
    CASE(features_after_they_are_agreed),
    CASE(features_far_away),
    CASE(driver_ok_at_once),
    CASE(all_bits_at_once),
    CASE(each_status),
    CASE(bits_cleared),
    CASE(driver_ok_again_and_again),
    CASE(failed_and_on),
    CASE(needs_reset_by_the_driver),
    CASE(resets_in_a_row),
    CASE(on_after_giving_up),
    {0},
};
