/* Available rings that lie (2.7.6, 2.7.13), used rings that the driver writes to (2.7.8), and too many notifications. */
#include "hostile.h"

/* The queue that answers, or the first one where none does. */
static struct virtq *main_queue(struct target *t) { return &t->q[t->answering == NO_QUEUE ? 0 : t->answering]; }

static struct virtq *start(struct target *t, uint64_t features)
{
    bring_up(t, features);
    return main_queue(t);
}

/* A chain of one element that all devices take, if only to say that it is nothing. */
static void small_chain(struct virtq *q, unsigned index)
{
    describe(q, index, (uintptr_t)sandbox + 64 * index, 64, DESC_WRITE, 0);
}

static void must_give_up(struct target *t, struct virtq *q)
{
    virtq_kick(q);
    if (t->answering == NO_QUEUE) {
        glance(t);
        return;
    }
    for (unsigned i = 0; i < BOUND; i++)
        if (gave_up(t))
            return;
    fail("the device goes on, with %u buffers used", (uint16_t)(q->used->idx - q->seen));
}

static void may_answer(struct target *t, struct virtq *q, unsigned buffers)
{
    virtq_kick(q);
    if (t->answering == NO_QUEUE)
        glance(t);
    else
        must_answer(t, q, buffers);
}

static void head_out_of_range(struct target *t)
{
    struct virtq *q = start(t, 0);

    expose(q, q->size);
    must_give_up(t, q);
}

static void head_far_out_of_range(struct target *t)
{
    struct virtq *q = start(t, 0);

    expose(q, 0xffff);
    must_give_up(t, q);
}

static void index_jumps(struct target *t)
{
    struct virtq *q = start(t, 0);

    small_chain(q, 0);
    q->avail->idx = q->size + 1;
    must_give_up(t, q);
}

static void index_jumps_far(struct target *t)
{
    struct virtq *q = start(t, 0);

    small_chain(q, 0);
    q->avail->idx = 0x8000;
    must_give_up(t, q);
}

static void index_goes_back(struct target *t)
{
    struct virtq *q = start(t, 0);

    for (unsigned i = 0; i < 3; i++) {
        small_chain(q, i);
        expose(q, i);
    }
    may_answer(t, q, 3);
    q->avail->idx -= 2;
    must_give_up(t, q);
}

static void index_goes_below_zero(struct target *t)
{
    struct virtq *q = start(t, 0);

    q->avail->idx = 0xffff;
    must_give_up(t, q);
}

static void index_of_a_full_ring_of_nothing(struct target *t)
{
    struct virtq *q = start(t, 0);

    q->avail->idx = q->size; /* each entry is descriptor 0, which is empty */
    may_answer(t, q, q->size);
}

static void one_head_many_times(struct target *t)
{
    struct virtq *q = start(t, 0);

    small_chain(q, 0);
    for (unsigned i = 0; i < q->size; i++)
        expose(q, 0);
    may_answer(t, q, q->size);
}

static void heads_inside_another_chain(struct target *t)
{
    struct virtq *q = start(t, 0);

    for (unsigned i = 0; i < 8; i++)
        describe(q, i, (uintptr_t)sandbox + 64 * i, 64, DESC_WRITE | (i < 7 ? DESC_NEXT : 0), i + 1);
    for (unsigned i = 0; i < 8; i++)
        expose(q, i);
    may_answer(t, q, 8);
}

static void broken_ones_between_good_ones(struct target *t)
{
    struct virtq *q = start(t, 0);

    for (unsigned i = 0; i < 8; i++) {
        small_chain(q, i);
        if (i % 2)
            q->desc[i].address = 1ull << 40;
        expose(q, i);
    }
    may_answer(t, q, 8);
}

static void flags_that_do_not_exist(struct target *t)
{
    struct virtq *q = start(t, 0);

    q->avail->flags = 0xfffe;
    small_chain(q, 0);
    expose(q, 0);
    may_answer(t, q, 1);
}

static void flags_despite_event_index(struct target *t)
{
    struct virtq *q = start(t, F_EVENT_IDX);

    q->avail->flags = 1; /* 2.7.7.1: with VIRTIO_F_EVENT_IDX, 0 */
    q->avail->ring[q->size] = 0x8000;
    for (unsigned i = 0; i < 4; i++) {
        small_chain(q, i);
        expose(q, i);
    }
    may_answer(t, q, 4);
}

static void event_index_everywhere(struct target *t)
{
    struct virtq *q = start(t, F_EVENT_IDX);

    for (unsigned i = 0; i < 16; i++) {
        q->avail->ring[q->size] = i * 0x1111;
        small_chain(q, i % 4);
        expose(q, i % 4);
        may_answer(t, q, i + 1);
    }
}

static void used_ring_overwritten(struct target *t)
{
    struct virtq *q = start(t, 0);

    q->used->idx = 0x5555; /* 2.7.8: only the device writes there */
    q->used->flags = 0xffff;
    for (unsigned i = 0; i < q->size; i++)
        q->used->ring[i].id = q->used->ring[i].length = ~0u;
    small_chain(q, 0);
    expose(q, 0);
    raw_notify(&t->device, q->index);
    glance(t);
    q->used->flags = 0;
    q->seen = q->used->idx;
    for (unsigned i = 0; i < 2; i++) { /* wherever its index is: it goes on from there */
        small_chain(q, i);
        expose(q, i);
        may_answer(t, q, 1);
        q->seen = q->used->idx;
    }
}

static void writes_over_the_available_ring(struct target *t)
{
    struct virtq *q = start(t, 0);

    describe(q, 0, (uintptr_t)q->avail, 6 + 2 * q->size, DESC_WRITE, 0);
    expose(q, 0);
    may_answer(t, q, 1);
    virtq_kick(q);
    glance(t);
}

static void writes_over_the_used_ring(struct target *t)
{
    struct virtq *q = start(t, 0);

    describe(q, 0, (uintptr_t)q->used, 6 + 8 * q->size, DESC_WRITE, 0);
    expose(q, 0);
    virtq_kick(q);
    glance(t);
}

static void ring_changes_after_notification(struct target *t)
{
    struct virtq *q = start(t, 0);

    for (unsigned round = 0; round < 16; round++) {
        for (unsigned i = 0; i < 4; i++) {
            small_chain(q, i);
            expose(q, i);
        }
        virtq_kick(q);
        for (unsigned i = 0; i < 4; i++)
            describe(q, i, 1ull << (40 + i), ~0u, DESC_NEXT | DESC_WRITE, i);
    }
    glance(t);
}

static void notifications_without_buffers(struct target *t)
{
    struct virtq *q = start(t, 0);

    for (unsigned i = 0; i < 100; i++)
        raw_notify(&t->device, q->index);
    small_chain(q, 0);
    expose(q, 0);
    may_answer(t, q, 1);
}

static void queues_on_the_same_memory(struct target *t)
{
    bring_to_features(t, 0);
    for (unsigned i = 0; i < t->queues; i++)
        virtio_queue(&t->device, &t->q[i], i, &rings[0]);
    virtio_ready(&t->device);
    struct virtq *q = main_queue(t);

    for (unsigned i = 0; i < 8; i++) {
        small_chain(q, i);
        expose(q, i);
        for (unsigned other = 0; other < t->queues; other++)
            raw_notify(&t->device, other);
    }
    glance(t);
}

static void reset_with_requests_under_way(struct target *t)
{
    for (unsigned round = 0; round < 8; round++) {
        struct virtq *q = start(t, 0);

        for (unsigned i = 0; i < 8; i++) {
            small_chain(q, i);
            expose(q, i);
        }
        virtq_kick(q);
        virtio_reset(&t->device);
        /* 2.4.1: once it says that it is reset it touches nothing any more */
        uint16_t idx = q->used->idx;

        for (unsigned i = 0; i < 512; i++)
            sandbox[i] = 0x77;
        glance(t);
        check(q->used->idx == idx);
        for (unsigned i = 0; i < 512; i++)
            check(sandbox[i] == 0x77);
    }
}

#define CASE(name) {#name, name}
const struct attack ring_attacks[] = {
    CASE(head_out_of_range),
    CASE(head_far_out_of_range),
    CASE(index_jumps),
    CASE(index_jumps_far),
    CASE(index_goes_back),
    CASE(index_goes_below_zero),
    CASE(index_of_a_full_ring_of_nothing),
    CASE(one_head_many_times),
    CASE(heads_inside_another_chain),
    CASE(broken_ones_between_good_ones),
    CASE(flags_that_do_not_exist),
    CASE(flags_despite_event_index),
    CASE(event_index_everywhere),
    CASE(used_ring_overwritten),
    CASE(writes_over_the_available_ring),
    CASE(writes_over_the_used_ring),
    CASE(ring_changes_after_notification),
    CASE(notifications_without_buffers),
    CASE(queues_on_the_same_memory),
    CASE(reset_with_requests_under_way),
    {0},
};
