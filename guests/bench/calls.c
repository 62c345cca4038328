/* A stack machine whose operations are functions, reached through a table. It computes Collatz trajectories. */
#include "bench.h"
#include "guest.h"

enum { RUNS = 100 };

struct machine {
    uint64_t stack[8];
    unsigned top;
    unsigned pc;
    uint32_t steps;
    int running;
    const uint8_t *code;
};

typedef void operation(struct machine *m);

static void op_duplicate(struct machine *m)
{
    m->stack[m->top + 1] = m->stack[m->top];
    m->top++;
}

static void op_triple_and_one(struct machine *m) { m->stack[m->top] = 3 * m->stack[m->top] + 1; }
static void op_halve(struct machine *m) { m->stack[m->top] >>= 1; }
static void op_count(struct machine *m) { m->steps++; }
static void op_jump(struct machine *m) { m->pc = m->code[m->pc]; }
static void op_stop(struct machine *m) { m->running = 0; }

static void op_jump_if_odd(struct machine *m)
{
    unsigned target = m->code[m->pc++];
    if (m->stack[m->top--] & 1)
        m->pc = target;
}

static void op_jump_if_one(struct machine *m)
{
    unsigned target = m->code[m->pc++];
    if (m->stack[m->top--] == 1)
        m->pc = target;
}

enum { DUPLICATE, TRIPLE_AND_ONE, HALVE, COUNT, JUMP, JUMP_IF_ODD, JUMP_IF_ONE, STOP };

static operation *const operations[] = {
    [DUPLICATE] = op_duplicate,
    [TRIPLE_AND_ONE] = op_triple_and_one,
    [HALVE] = op_halve,
    [COUNT] = op_count,
    [JUMP] = op_jump,
    [JUMP_IF_ODD] = op_jump_if_odd,
    [JUMP_IF_ONE] = op_jump_if_one,
    [STOP] = op_stop,
};

static const uint8_t collatz[] = {
    DUPLICATE, JUMP_IF_ONE, 13,         /* 0 */
    COUNT,                              /* 3 */
    DUPLICATE, JUMP_IF_ODD, 10,         /* 4 */
    HALVE, JUMP, 0,                     /* 7 */
    TRIPLE_AND_ONE, JUMP, 0,            /* 10 */
    STOP,                               /* 13 */
};

static uint32_t trajectory(uint64_t from)
{
    struct machine m = {.stack = {from}, .running = 1, .code = collatz};

    while (m.running)
        operations[m.code[m.pc++]](&m);
    return m.steps;
}

uint32_t bench_calls(uint32_t seed)
{
    uint32_t sum = seed;

    check(trajectory(27) == 111);
    for (unsigned i = 0; i < RUNS; i++)
        sum = sum * 31 + trajectory(1 + random_next(&seed) % 10000);
    return sum;
}
