/* The local APIC: registers, priorities, timer and the interrupt messages between APICs.
 *
 * APM vol. 2 chapter 16 (x2APIC: 16.11); where that leaves a choice, what SDM vol. 3 chapter 11 says and KVM does.
 * The version register shows an APIC with six LVT entries, without the extended register space and without the
 * suppression of EOI broadcasts.
 */
#include "cpu.h"

#define LAPIC_BASE_BSP 0x100u
#define LAPIC_BASE_X2APIC 0x400u
#define LAPIC_BASE_ENABLE 0x800u
#define LAPIC_BASE_RESET 0xFEE00000u
#define LAPIC_VERSION 0x00050014u

enum { /* register numbers: offset >> 4, MSR - 800h */
    APIC_ID = 0x02, APIC_VERSION = 0x03, APIC_TPR = 0x08, APIC_APR = 0x09, APIC_PPR = 0x0A, APIC_EOI = 0x0B,
    APIC_RRR = 0x0C, APIC_LDR = 0x0D, APIC_DFR = 0x0E, APIC_SVR = 0x0F, APIC_ISR = 0x10, APIC_TMR = 0x18, APIC_IRR = 0x20,
    APIC_ESR = 0x28, APIC_ICR = 0x30, APIC_ICR_HIGH = 0x31, APIC_LVT_TIMER = 0x32, APIC_LVT_THERMAL = 0x33,
    APIC_LVT_PERF = 0x34, APIC_LVT_LINT0 = 0x35, APIC_LVT_LINT1 = 0x36, APIC_LVT_ERROR = 0x37, APIC_TMICT = 0x38,
    APIC_TMCCT = 0x39, APIC_TDCR = 0x3E, APIC_SELF_IPI = 0x3F
};

#define SVR_ENABLE 0x100u
#define SVR_WRITABLE 0x3FFu
#define LVT_MASKED 0x10000u
#define LVT_LEVEL 0x8000u
#define LVT_REMOTE_IRR 0x4000u
#define LVT_STATUS 0x1000u
#define TDCR_WRITABLE 0xBu
#define TIMER_MODE(lvt) ((lvt) >> 17 & 3)
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

enum {
    DELIVER_FIXED, DELIVER_LOWEST, DELIVER_SMI, DELIVER_REMOTE_READ, DELIVER_NMI, DELIVER_INIT, DELIVER_STARTUP,
    DELIVER_EXTINT
};
#define ICR_MODE(icr) ((icr) >> 8 & 7)
#define ICR_LOGICAL 0x800u
#define ICR_ASSERT 0x4000u
#define ICR_LEVEL 0x8000u
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3)
#define ICR_WRITABLE 0xCCFFFu
enum { IPI_TO_DEST, IPI_TO_SELF, IPI_TO_ALL, IPI_TO_OTHERS };

#define ESR_SENT_ILLEGAL 0x20u
#define ESR_RECEIVED_ILLEGAL 0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

enum { LAPIC_MP_WAIT = 1 };

/* What `extra` holds: the current count when the timer was started, and arbitration's turn-taking. */
#define TIMER_COUNT(l) ((l)->extra[0])
#define ARBITRATION(l) ((l)->extra[1])

static bool lapic_hw_enabled(const Lapic *l) { return l->base & LAPIC_BASE_ENABLE; }
static bool lapic_x2(const Lapic *l) { return (l->base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)) == 0xC00; }
static bool lapic_sw_enabled(const Lapic *l) { return lapic_hw_enabled(l) && (l->regs[APIC_SVR] & SVR_ENABLE); }
static bool lapic_is_lvt(uint32_t n) { return n >= APIC_LVT_TIMER && n <= APIC_LVT_ERROR; }

/* ---- 256-bit registers ---- */
static void lapic_bit_set(uint64_t *bits, unsigned n) { bits[n >> 6] |= 1ull << (n & 63); }
static void lapic_bit_clear(uint64_t *bits, unsigned n) { bits[n >> 6] &= ~(1ull << (n & 63)); }
static bool lapic_bit_test(const uint64_t *bits, unsigned n) { return bits[n >> 6] >> (n & 63) & 1; }
static uint32_t lapic_bit_word(const uint64_t *bits, unsigned n) { return (uint32_t)(bits[n >> 1] >> ((n & 1) * 32)); }
static int lapic_bit_highest(const uint64_t *bits)
{
    for (int i = 3; i >= 0; i--)
        if (bits[i])
            return i * 64 + 63 - __builtin_clzll(bits[i]);
    return -1;
}

/* ---- priorities (APM 16.6.4) ---- */
static uint8_t lapic_ppr(const Lapic *l)
{
    int serving = lapic_bit_highest(l->isr);
    uint8_t tpr = (uint8_t)l->regs[APIC_TPR], in_service = serving < 0 ? 0 : (uint8_t)serving & 0xF0;
    return tpr >> 4 >= in_service >> 4 ? tpr : in_service;
}

/* SDM 11.6.2.4: the arbitration priority, which a lowest-priority message compares. */
static uint8_t lapic_apr(const Lapic *l)
{
    int serving = lapic_bit_highest(l->isr), requested = lapic_bit_highest(l->irr);
    unsigned tpr = l->regs[APIC_TPR] & 0xFF, s = serving < 0 ? 0 : (unsigned)serving >> 4;
    unsigned r = requested < 0 ? 0 : (unsigned)requested >> 4, top = s > r ? s : r;
    if (tpr >> 4 >= r && tpr >> 4 > s)
        return (uint8_t)tpr;
    return (uint8_t)((tpr >> 4 > top ? tpr >> 4 : top) << 4);
}

int lapic_pending(const Cpu *cpu)
{
    const Lapic *l = cpu_lapic_const(cpu);
    int vector = lapic_bit_highest(l->irr);
    if (vector < 0 || vector >> 4 <= lapic_ppr(l) >> 4 || !lapic_hw_enabled(l))
        return -1;
    return vector;
}

void lapic_accept(Cpu *cpu, int vector)
{
    Lapic *l = cpu_lapic(cpu);
    lapic_bit_clear(l->irr, (unsigned)vector);
    lapic_bit_set(l->isr, (unsigned)vector);
}

void lapic_set_tpr(Cpu *cpu, uint8_t tpr)
{
    cpu_lapic(cpu)->regs[APIC_TPR] = tpr;
    cpu_attention(cpu);
}

uint8_t lapic_get_tpr(const Cpu *cpu) { return (uint8_t)cpu_lapic_const(cpu)->regs[APIC_TPR]; }

bool lapic_wakes(const Cpu *cpu)
{
    const Lapic *l = cpu_lapic_const(cpu);
    return l->nmi || l->init || l->sipi || l->extint || lapic_pending(cpu) >= 0;
}

/* ---- taking interrupts in ---- */
static void lapic_error(Cpu *cpu, uint32_t bit);

void lapic_set_irr(Cpu *cpu, uint8_t vector, bool level)
{
    Lapic *l = cpu_lapic(cpu);
    if (vector < 16) {
        lapic_error(cpu, ESR_RECEIVED_ILLEGAL);
        return;
    }
    lapic_bit_set(l->irr, vector);
    if (level)
        lapic_bit_set(l->tmr, vector);
    else
        lapic_bit_clear(l->tmr, vector);
    cpu_attention(cpu);
}

/* ICR shorthands and MSIs end here; false: not accepted. */
static bool lapic_deliver(Cpu *cpu, unsigned mode, uint8_t vector, bool level)
{
    Lapic *l = cpu_lapic(cpu);
    switch (mode) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        if (!lapic_sw_enabled(l))
            return false;
        lapic_set_irr(cpu, vector, level);
        return true;
    case DELIVER_SMI:
        l->smi = 1;
        return true;
    case DELIVER_NMI:
        l->nmi = 1;
        break;
    case DELIVER_INIT:
        l->init = 1;
        l->sipi = 0;
        break;
    case DELIVER_STARTUP:
        if (!l->init && cpu->mp_state != LAPIC_MP_WAIT)
            return false;
        l->sipi = 1;
        l->sipi_vector = vector;
        break;
    default:
        return false;
    }
    cpu_attention(cpu);
    return true;
}

/* A source of this APIC's own fires its LVT entry. */
static void lapic_local(Cpu *cpu, unsigned reg)
{
    uint32_t lvt = cpu_lapic(cpu)->regs[reg];
    if (lvt & LVT_MASKED)
        return;
    if (reg == APIC_LVT_TIMER)
        lapic_deliver(cpu, DELIVER_FIXED, (uint8_t)lvt, false);
    else if (ICR_MODE(lvt) != DELIVER_LOWEST)
        lapic_deliver(cpu, ICR_MODE(lvt), (uint8_t)lvt, false);
}

static void lapic_error(Cpu *cpu, uint32_t bit)
{
    Lapic *l = cpu_lapic(cpu);
    bool again = l->esr_latched & bit;
    l->esr_latched |= bit;
    /* An LVT entry of the error interrupt that is itself illegal reports once and does not recurse. */
    if (!again)
        lapic_local(cpu, APIC_LVT_ERROR);
}

/* ---- LINT0, LINT1 ---- */
static void lapic_update_extint(Cpu *cpu)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t lvt = l->regs[APIC_LVT_LINT0];
    bool open = !lapic_hw_enabled(l) || (!(lvt & LVT_MASKED) && ICR_MODE(lvt) == DELIVER_EXTINT);
    l->extint = open && l->lint_level[0];
    if (l->extint)
        cpu_attention(cpu);
}

static void lapic_lint_fixed(Cpu *cpu, int pin)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t *lvt = &l->regs[APIC_LVT_LINT0 + pin];
    if ((*lvt & LVT_MASKED) || !lapic_sw_enabled(l))
        return;
    if (*lvt & LVT_LEVEL) {
        if (*lvt & LVT_REMOTE_IRR)
            return;
        *lvt |= LVT_REMOTE_IRR;
    }
    lapic_set_irr(cpu, (uint8_t)*lvt, *lvt & LVT_LEVEL);
}

void lapic_lint(Cpu *cpu, int pin, int level)
{
    Lapic *l = cpu_lapic(cpu);
    bool rises;
    if (pin != 0 && pin != 1)
        return;
    rises = level && !l->lint_level[pin];
    l->lint_level[pin] = level != 0;
    if (rises && !lapic_hw_enabled(l)) {
        if (pin == 1)
            lapic_deliver(cpu, DELIVER_NMI, 0, false);
    } else if (rises) {
        unsigned mode = ICR_MODE(l->regs[APIC_LVT_LINT0 + pin]);
        if (mode == DELIVER_FIXED)
            lapic_lint_fixed(cpu, pin);
        else if (mode != DELIVER_EXTINT)
            lapic_local(cpu, APIC_LVT_LINT0 + (unsigned)pin);
    }
    lapic_update_extint(cpu);
}

/* ---- EOI ---- */
static void lapic_eoi(Cpu *cpu)
{
    Lapic *l = cpu_lapic(cpu);
    int vector = lapic_bit_highest(l->isr);
    if (vector < 0)
        return;
    lapic_bit_clear(l->isr, (unsigned)vector);
    cpu_attention(cpu);
    if (!lapic_bit_test(l->tmr, (unsigned)vector))
        return;
    for (int pin = 0; pin < 2; pin++) {
        uint32_t *lvt = &l->regs[APIC_LVT_LINT0 + pin];
        if ((*lvt & LVT_REMOTE_IRR) && (*lvt & 0xFF) == (uint32_t)vector) {
            *lvt &= ~LVT_REMOTE_IRR;
            if (l->lint_level[pin])
                lapic_lint_fixed(cpu, pin);
            return;
        }
    }
    if ((uint8_t)(l->eoi_tail - l->eoi_head) < sizeof l->eoi_queue)
        l->eoi_queue[l->eoi_tail++ % sizeof l->eoi_queue] = (uint8_t)vector;
}

/* ---- the timer (APM 16.4.1; TSC deadline: SDM 11.5.4.1) ---- */
static unsigned lapic_timer_mode(const Lapic *l) { return TIMER_MODE(l->regs[APIC_LVT_TIMER]); }

static uint64_t lapic_divider(const Lapic *l)
{
    uint32_t d = l->regs[APIC_TDCR];
    unsigned code = (d & 3) | (d >> 1 & 4);
    return code == 7 ? 1 : 2ull << code;
}

/* TSC ticks that `count` steps take, rounded up, and whole steps in `ticks`. */
static uint64_t lapic_count_to_tsc(Cpu *cpu, uint64_t count)
{
    Machine *m = cpu_machine(cpu);
    uint64_t hz = machine_apic_hz(m);
    unsigned __int128 n = (unsigned __int128)count * lapic_divider(cpu_lapic(cpu)) * machine_tsc_hz(m);
    return (uint64_t)((n + hz - 1) / hz);
}

static uint64_t lapic_tsc_to_count(Cpu *cpu, uint64_t ticks)
{
    Machine *m = cpu_machine(cpu);
    unsigned __int128 n = (unsigned __int128)ticks * machine_apic_hz(m);
    return (uint64_t)(n / ((unsigned __int128)machine_tsc_hz(m) * lapic_divider(cpu_lapic(cpu))));
}

static bool lapic_timer_running(const Lapic *l) { return l->timer_deadline != LAPIC_NO_DEADLINE; }

static void lapic_timer_start(Cpu *cpu, uint64_t count, uint64_t now)
{
    Lapic *l = cpu_lapic(cpu);
    TIMER_COUNT(l) = count;
    l->timer_start = now;
    l->timer_deadline = count ? now + lapic_count_to_tsc(cpu, count) : LAPIC_NO_DEADLINE;
}

static uint32_t lapic_current_count(Cpu *cpu)
{
    Lapic *l = cpu_lapic(cpu);
    uint64_t now = cpu_tsc_now(cpu), gone, left;
    if (!lapic_timer_running(l) || lapic_timer_mode(l) == TIMER_TSC_DEADLINE)
        return 0;
    gone = now > l->timer_start ? lapic_tsc_to_count(cpu, now - l->timer_start) : 0;
    left = gone < TIMER_COUNT(l) ? TIMER_COUNT(l) - gone : 0;
    return (uint32_t)left;
}

static uint64_t lapic_expiry(const Cpu *cpu)
{
    const Lapic *l = cpu_lapic_const(cpu);
    uint64_t offset;
    if (lapic_timer_mode(l) != TIMER_TSC_DEADLINE)
        return l->timer_deadline;
    if (!l->tsc_deadline)
        return LAPIC_NO_DEADLINE;
    offset = cpu_guest_tsc_offset(cpu);
    /* A deadline below the offset has passed; one that wraps never comes. */
    if ((int64_t)offset < 0)
        return l->tsc_deadline > UINT64_MAX + offset ? LAPIC_NO_DEADLINE : l->tsc_deadline - offset;
    return l->tsc_deadline > offset ? l->tsc_deadline - offset : 0;
}

uint64_t lapic_deadline(const Cpu *cpu)
{
    return (cpu_lapic_const(cpu)->regs[APIC_LVT_TIMER] & LVT_MASKED) ? LAPIC_NO_DEADLINE : lapic_expiry(cpu);
}

/* Brings the timer up to now; what was due fires unless it is masked. */
void lapic_tick(Cpu *cpu)
{
    Lapic *l = cpu_lapic(cpu);
    uint64_t now = cpu_tsc_now(cpu), due = lapic_expiry(cpu), period;
    if (due == LAPIC_NO_DEADLINE || now < due)
        return;
    switch (lapic_timer_mode(l)) {
    case TIMER_PERIODIC:
        /* Periods that nobody could see end are one event, as in a request register that is set already. */
        period = lapic_count_to_tsc(cpu, l->regs[APIC_TMICT]);
        if (period)
            lapic_timer_start(cpu, l->regs[APIC_TMICT], due + (now - due) / period * period);
        else
            l->timer_deadline = LAPIC_NO_DEADLINE;
        break;
    case TIMER_TSC_DEADLINE:
        l->tsc_deadline = 0;
        break;
    default:
        l->timer_deadline = LAPIC_NO_DEADLINE;
    }
    lapic_local(cpu, APIC_LVT_TIMER);
    cpu_attention(cpu);
}

static void lapic_write_lvt_timer(Cpu *cpu, uint32_t value)
{
    Lapic *l = cpu_lapic(cpu);
    unsigned before = lapic_timer_mode(l), after = TIMER_MODE(value);
    l->regs[APIC_LVT_TIMER] = value;
    if (before != after && (before == TIMER_TSC_DEADLINE || after == TIMER_TSC_DEADLINE)) {
        l->regs[APIC_TMICT] = 0;
        l->timer_deadline = LAPIC_NO_DEADLINE;
        l->tsc_deadline = 0;
    }
    cpu_attention(cpu);
}

static void lapic_write_divider(Cpu *cpu, uint32_t value)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t left = lapic_current_count(cpu);
    l->regs[APIC_TDCR] = value & TDCR_WRITABLE;
    if (lapic_timer_running(l)) {
        lapic_timer_start(cpu, left ? left : 1, cpu_tsc_now(cpu));
        cpu_attention(cpu);
    }
}

/* ---- destinations (APM 16.6.2) ---- */
static bool lapic_matches(const Lapic *l, uint32_t dest, bool logical, bool wide)
{
    uint32_t ldr = l->regs[APIC_LDR];
    bool broadcast = dest == (wide ? 0xFFFFFFFFu : 0xFFu);
    if (!lapic_hw_enabled(l))
        return false;
    if (!logical)
        return broadcast || dest == (lapic_x2(l) ? l->id : l->regs[APIC_ID] >> 24);
    if (lapic_x2(l))
        return broadcast || (dest >> 16 == ldr >> 16 && (dest & ldr & 0xFFFF));
    if (dest > 0xFF)
        return broadcast;
    ldr >>= 24;
    if (l->regs[APIC_DFR] >> 28 == 0xF)
        return dest & ldr;
    return (dest >> 4 == 0xF || dest >> 4 == ldr >> 4) && (dest & ldr & 0xF);
}

typedef struct ApicMessage {
    uint32_t dest;
    uint8_t mode, vector, shorthand;
    bool logical, level, wide;
} ApicMessage;

static bool lapic_addressed(Cpu *sender, Cpu *target, const ApicMessage *msg)
{
    switch (msg->shorthand) {
    case IPI_TO_SELF:
        return target == sender;
    case IPI_TO_ALL:
        return true;
    case IPI_TO_OTHERS:
        return target != sender;
    default:
        return lapic_matches(cpu_lapic(target), msg->dest, msg->logical, msg->wide);
    }
}

static Cpu *lapic_arbitrate(Machine *m, Cpu *sender, const ApicMessage *msg)
{
    Cpu *best = NULL;
    for (uint32_t i = 0; i < machine_ncpus(m); i++) {
        Cpu *cpu = machine_cpu(m, i);
        Lapic *l = cpu_lapic(cpu), *b = best ? cpu_lapic(best) : NULL;
        if (!lapic_sw_enabled(l) || !lapic_addressed(sender, cpu, msg))
            continue;
        if (!b || lapic_apr(l) >> 4 < lapic_apr(b) >> 4 ||
            (lapic_apr(l) >> 4 == lapic_apr(b) >> 4 && ARBITRATION(l) < ARBITRATION(b)))
            best = cpu;
    }
    if (best)
        ARBITRATION(cpu_lapic(best))++;
    return best;
}

static uint32_t lapic_send(Machine *m, Cpu *sender, const ApicMessage *msg)
{
    uint32_t taken = 0;
    if (msg->mode == DELIVER_LOWEST) {
        Cpu *cpu = lapic_arbitrate(m, sender, msg);
        return cpu ? lapic_deliver(cpu, DELIVER_FIXED, msg->vector, msg->level) : 0;
    }
    for (uint32_t i = 0; i < machine_ncpus(m); i++) {
        Cpu *cpu = machine_cpu(m, i);
        if (lapic_addressed(sender, cpu, msg))
            taken += lapic_deliver(cpu, msg->mode, msg->vector, msg->level);
    }
    return taken;
}

uint32_t lapic_msi(Machine *m, uint64_t address, uint32_t data)
{
    ApicMessage msg = {
        .dest = (uint32_t)(address >> 12 & 0xFF), .mode = data >> 8 & 7, .vector = (uint8_t)data,
        .logical = address & 4, .level = data & 0x8000,
    };
    if ((address & ~0xFFFFFull) != LAPIC_BASE_RESET)
        return 0;
    if (msg.mode == DELIVER_STARTUP) /* reserved in a message's data (APM 16.5) */
        return 0;
    if (msg.level && !(data & 0x4000)) /* a deassert message, which nobody acts on */
        return 0;
    if ((address & 0xC) == 0xC && msg.mode == DELIVER_FIXED)
        msg.mode = DELIVER_LOWEST;
    return lapic_send(m, NULL, &msg);
}

static void lapic_write_icr(Cpu *cpu, uint32_t low, uint32_t dest)
{
    Lapic *l = cpu_lapic(cpu);
    ApicMessage msg = {
        .dest = dest, .mode = ICR_MODE(low), .vector = (uint8_t)low, .shorthand = ICR_SHORTHAND(low),
        .logical = low & ICR_LOGICAL, .wide = lapic_x2(l),
    };
    if ((msg.mode == DELIVER_FIXED || msg.mode == DELIVER_LOWEST) && msg.vector < 16) {
        lapic_error(cpu, ESR_SENT_ILLEGAL);
        return;
    }
    if (msg.mode == DELIVER_REMOTE_READ || msg.mode == DELIVER_EXTINT)
        return;
    if (msg.mode == DELIVER_INIT && (low & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return; /* INIT level de-assert: synchronises arbitration ids, which nothing here has */
    lapic_send(cpu_machine(cpu), cpu, &msg);
}

/* ---- registers ---- */
static uint32_t lapic_logical_x2(uint32_t id) { return (id >> 4) << 16 | 1u << (id & 15); }

static const uint32_t lapic_lvt_writable[] = {
    [APIC_LVT_TIMER - APIC_LVT_TIMER] = 0x700FF, [APIC_LVT_THERMAL - APIC_LVT_TIMER] = 0x107FF,
    [APIC_LVT_PERF - APIC_LVT_TIMER] = 0x107FF, [APIC_LVT_LINT0 - APIC_LVT_TIMER] = 0x1A7FF,
    [APIC_LVT_LINT1 - APIC_LVT_TIMER] = 0x1A7FF, [APIC_LVT_ERROR - APIC_LVT_TIMER] = 0x107FF,
};

static bool lapic_read_reg(Cpu *cpu, uint32_t n, uint32_t *value)
{
    Lapic *l = cpu_lapic(cpu);
    lapic_tick(cpu);
    switch (n) {
    case APIC_ID:
        *value = lapic_x2(l) ? l->id : l->regs[APIC_ID];
        return true;
    case APIC_APR:
        *value = lapic_apr(l);
        return true;
    case APIC_PPR:
        *value = lapic_ppr(l);
        return true;
    case APIC_TMCCT:
        *value = lapic_current_count(cpu);
        return true;
    case APIC_ISR ... APIC_ISR + 7:
        *value = lapic_bit_word(l->isr, n - APIC_ISR);
        return true;
    case APIC_TMR ... APIC_TMR + 7:
        *value = lapic_bit_word(l->tmr, n - APIC_TMR);
        return true;
    case APIC_IRR ... APIC_IRR + 7:
        *value = lapic_bit_word(l->irr, n - APIC_IRR);
        return true;
    case APIC_VERSION:
    case APIC_TPR:
    case APIC_EOI:
    case APIC_RRR:
    case APIC_LDR:
    case APIC_DFR:
    case APIC_SVR:
    case APIC_ESR:
    case APIC_ICR:
    case APIC_ICR_HIGH:
    case APIC_LVT_TIMER ... APIC_TMICT:
    case APIC_TDCR:
        *value = l->regs[n];
        return true;
    default:
        *value = 0;
        return false;
    }
}

static void lapic_write_svr(Cpu *cpu, uint32_t value)
{
    Lapic *l = cpu_lapic(cpu);
    l->regs[APIC_SVR] = value & SVR_WRITABLE;
    if (!(value & SVR_ENABLE)) {
        for (uint32_t n = APIC_LVT_TIMER; n <= APIC_LVT_ERROR; n++)
            l->regs[n] |= LVT_MASKED;
        lapic_update_extint(cpu);
    }
    cpu_attention(cpu);
}

static void lapic_write_lvt(Cpu *cpu, uint32_t n, uint32_t value)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t remote = l->regs[n] & LVT_REMOTE_IRR;
    value &= lapic_lvt_writable[n - APIC_LVT_TIMER];
    if (!(l->regs[APIC_SVR] & SVR_ENABLE))
        value |= LVT_MASKED;
    if (n == APIC_LVT_TIMER) {
        lapic_write_lvt_timer(cpu, value);
        return;
    }
    /* Remote IRR is of level-triggered fixed interrupts alone. */
    l->regs[n] = value | ((value & LVT_LEVEL) && ICR_MODE(value) == DELIVER_FIXED ? remote : 0);
    if (n == APIC_LVT_LINT0 || n == APIC_LVT_LINT1) {
        unsigned pin = n - APIC_LVT_LINT0;
        if (l->lint_level[pin] && (value & LVT_LEVEL) && ICR_MODE(value) == DELIVER_FIXED)
            lapic_lint_fixed(cpu, (int)pin);
        lapic_update_extint(cpu);
    }
}

/* Writes both modes know; false: no such register, or one that is not written. */
static bool lapic_write_reg(Cpu *cpu, uint32_t n, uint32_t value)
{
    Lapic *l = cpu_lapic(cpu);
    lapic_tick(cpu);
    switch (n) {
    case APIC_TPR:
        lapic_set_tpr(cpu, (uint8_t)value);
        return true;
    case APIC_EOI:
        lapic_eoi(cpu);
        return true;
    case APIC_SVR:
        lapic_write_svr(cpu, value);
        return true;
    case APIC_ESR:
        l->regs[APIC_ESR] = l->esr_latched;
        l->esr_latched = 0;
        return true;
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        lapic_write_lvt(cpu, n, value);
        return true;
    case APIC_TMICT:
        if (lapic_timer_mode(l) != TIMER_TSC_DEADLINE) {
            l->regs[APIC_TMICT] = value;
            lapic_timer_start(cpu, value, cpu_tsc_now(cpu));
            cpu_attention(cpu);
        }
        return true;
    case APIC_TDCR:
        lapic_write_divider(cpu, value);
        return true;
    default:
        return false;
    }
}

/* ---- xAPIC: memory mapped ---- */
uint32_t lapic_mmio_read(Cpu *cpu, uint32_t offset, uint32_t size)
{
    const Lapic *l = cpu_lapic(cpu);
    uint32_t value = 0, n = offset >> 4;
    if (!lapic_hw_enabled(l) || lapic_x2(l))
        return 0xFFFFFFFF;
    if ((offset & 0xC) || (size < 4 && (offset & 3) + size > 4))
        return 0;
    if (n >= 0x40 || !lapic_read_reg(cpu, n, &value))
        lapic_error(cpu, ESR_ILLEGAL_REGISTER);
    return value >> (offset & 3) * 8;
}

void lapic_mmio_write(Cpu *cpu, uint32_t offset, uint32_t size, uint32_t value)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t n = offset >> 4;
    if (!lapic_hw_enabled(l) || lapic_x2(l) || (offset & 0xF) || size < 4)
        return;
    switch (n) {
    case APIC_ID:
        l->regs[APIC_ID] = value & 0xFF000000;
        return;
    case APIC_LDR:
        l->regs[APIC_LDR] = value & 0xFF000000;
        return;
    case APIC_DFR:
        l->regs[APIC_DFR] = value | 0x0FFFFFFF;
        return;
    case APIC_ICR:
        l->regs[APIC_ICR] = value & ICR_WRITABLE;
        lapic_write_icr(cpu, value, l->regs[APIC_ICR_HIGH] >> 24);
        return;
    case APIC_ICR_HIGH:
        l->regs[APIC_ICR_HIGH] = value & 0xFF000000;
        return;
    case APIC_VERSION:
    case APIC_APR:
    case APIC_PPR:
    case APIC_RRR:
    case APIC_ISR ... APIC_IRR + 7:
    case APIC_TMCCT:
        return;
    }
    if (n >= APIC_SELF_IPI || !lapic_write_reg(cpu, n, value))
        lapic_error(cpu, ESR_ILLEGAL_REGISTER);
}

/* ---- APIC_BASE ---- */
static void lapic_power_up(Cpu *cpu)
{
    Lapic *l = cpu_lapic(cpu);
    memset(l->regs, 0, sizeof l->regs);
    memset(l->irr, 0, sizeof l->irr);
    memset(l->isr, 0, sizeof l->isr);
    memset(l->tmr, 0, sizeof l->tmr);
    l->regs[APIC_ID] = l->id << 24;
    l->regs[APIC_VERSION] = LAPIC_VERSION;
    l->regs[APIC_DFR] = 0xFFFFFFFF;
    l->regs[APIC_SVR] = 0xFF;
    for (uint32_t n = APIC_LVT_TIMER; n <= APIC_LVT_ERROR; n++)
        l->regs[n] = LVT_MASKED;
    if (lapic_x2(l))
        l->regs[APIC_LDR] = lapic_logical_x2(l->id);
    l->esr_latched = 0;
    l->timer_deadline = LAPIC_NO_DEADLINE;
    l->tsc_deadline = 0;
    lapic_update_extint(cpu);
    cpu_attention(cpu);
}

void lapic_reset(Cpu *cpu, bool init)
{
    Lapic *l = cpu_lapic(cpu);
    if (!init) {
        l->base = LAPIC_BASE_RESET | LAPIC_BASE_ENABLE | (l->id ? 0 : LAPIC_BASE_BSP);
        l->nmi = l->init = l->sipi = l->smi = 0;
        l->eoi_head = l->eoi_tail = 0;
        ARBITRATION(l) = 0;
    }
    lapic_power_up(cpu);
}

static bool lapic_write_base(Cpu *cpu, uint64_t value)
{
    Lapic *l = cpu_lapic(cpu);
    uint64_t was = l->base, modes = LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC;
    bool x2_known = cpu_has(cpu, 1, 2, 21);
    if (value & (0xFFull | 0x200 | (x2_known ? 0 : LAPIC_BASE_X2APIC)))
        return false;
    if ((value & ~0xFFFull) & ~cpu_machine(cpu)->phys_mask)
        return false;
    /* APM 16.9: x2APIC needs the enable bit, is entered from xAPIC and left through the disabled state. */
    if ((value & modes) == LAPIC_BASE_X2APIC)
        return false;
    if ((value & modes) == modes && !(was & LAPIC_BASE_ENABLE))
        return false;
    if ((was & modes) == modes && (value & modes) == LAPIC_BASE_ENABLE)
        return false;
    l->base = value;
    if ((was ^ value) & LAPIC_BASE_ENABLE)
        lapic_power_up(cpu);
    else if ((value & modes) == modes && (was & modes) != modes) {
        l->regs[APIC_ID] = l->id << 24;
        l->regs[APIC_LDR] = lapic_logical_x2(l->id);
        l->regs[APIC_ICR_HIGH] = 0;
    }
    return true;
}

/* ---- MSRs ---- */
static bool lapic_x2_readable(uint32_t n)
{
    return n != APIC_APR && n != APIC_EOI && n != APIC_RRR && n != APIC_DFR && n != APIC_ICR_HIGH && n < APIC_SELF_IPI;
}

bool lapic_rdmsr(Cpu *cpu, uint32_t index, uint64_t *value)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t n = index - 0x800, low;
    if (index == 0x1B) {
        *value = l->base;
        return true;
    }
    if (index == 0x6E0) {
        lapic_tick(cpu);
        *value = lapic_timer_mode(l) == TIMER_TSC_DEADLINE ? l->tsc_deadline : 0;
        return cpu_has(cpu, 1, 2, 24);
    }
    if (index < 0x800 || !lapic_x2(l) || !lapic_x2_readable(n) || !lapic_read_reg(cpu, n, &low))
        return false;
    *value = n == APIC_ICR ? (uint64_t)l->regs[APIC_ICR_HIGH] << 32 | low : low;
    return true;
}

static bool lapic_write_x2(Cpu *cpu, uint32_t n, uint64_t value)
{
    Lapic *l = cpu_lapic(cpu);
    uint64_t reserved = ~0xFFFFFFFFull;
    switch (n) {
    case APIC_ICR:
        if (value & ~(0xFFFFFFFF00000000ull | ICR_WRITABLE | LVT_STATUS))
            return false;
        l->regs[APIC_ICR] = (uint32_t)value & ICR_WRITABLE;
        l->regs[APIC_ICR_HIGH] = (uint32_t)(value >> 32);
        lapic_write_icr(cpu, (uint32_t)value, (uint32_t)(value >> 32));
        return true;
    case APIC_SELF_IPI:
        if (value & ~0xFFull)
            return false;
        lapic_write_icr(cpu, (uint32_t)value | IPI_TO_SELF << 18, 0);
        return true;
    case APIC_EOI:
    case APIC_ESR:
        reserved = ~0ull;
        break;
    case APIC_TPR:
        reserved = ~0xFFull;
        break;
    case APIC_SVR:
        reserved = ~(uint64_t)SVR_WRITABLE;
        break;
    case APIC_TDCR:
        reserved = ~(uint64_t)TDCR_WRITABLE;
        break;
    default:
        if (lapic_is_lvt(n))
            reserved = ~(uint64_t)(lapic_lvt_writable[n - APIC_LVT_TIMER] | LVT_STATUS | LVT_REMOTE_IRR);
    }
    return !(value & reserved) && lapic_write_reg(cpu, n, (uint32_t)value);
}

bool lapic_wrmsr(Cpu *cpu, uint32_t index, uint64_t value)
{
    Lapic *l = cpu_lapic(cpu);
    if (index == 0x1B)
        return lapic_write_base(cpu, value);
    if (index == 0x6E0) {
        lapic_tick(cpu);
        if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE) {
            l->tsc_deadline = value;
            cpu_attention(cpu);
        }
        return cpu_has(cpu, 1, 2, 24);
    }
    return index >= 0x800 && index <= 0x8FF && lapic_x2(l) && lapic_write_x2(cpu, index - 0x800, value);
}

/* ---- state as a page of registers (KVM_GET_LAPIC) ---- */
static void lapic_get_regs(Cpu *cpu, uint8_t *page)
{
    memset(page, 0, 1024);
    for (uint32_t n = 0; n < 0x40; n++) {
        uint32_t value = 0;
        if (n == APIC_ID)
            value = cpu_lapic(cpu)->regs[APIC_ID];
        else
            lapic_read_reg(cpu, n, &value);
        memcpy(page + n * 16, &value, 4);
    }
}

static void lapic_set_regs(Cpu *cpu, const uint8_t *page)
{
    Lapic *l = cpu_lapic(cpu);
    uint32_t count;
    for (uint32_t n = 0; n < 0x40; n++) {
        uint64_t *bits = n < APIC_ISR ? NULL : n < APIC_TMR ? l->isr : n < APIC_IRR ? l->tmr : n < APIC_ESR ? l->irr : NULL;
        uint32_t value;
        memcpy(&value, page + n * 16, 4);
        if (bits) {
            unsigned shift = (n & 1) * 32;
            uint64_t *word = &bits[(n & 7) >> 1];
            *word = (*word & ~(0xFFFFFFFFull << shift)) | (uint64_t)value << shift;
        } else {
            l->regs[n] = value;
        }
    }
    l->regs[APIC_VERSION] = LAPIC_VERSION;
    l->regs[APIC_ID] &= 0xFF000000;
    l->regs[APIC_TPR] &= 0xFF;
    l->regs[APIC_SVR] &= SVR_WRITABLE;
    l->regs[APIC_ICR] &= ICR_WRITABLE;
    l->regs[APIC_TDCR] &= TDCR_WRITABLE;
    for (uint32_t n = APIC_LVT_TIMER; n <= APIC_LVT_ERROR; n++)
        l->regs[n] &= lapic_lvt_writable[n - APIC_LVT_TIMER] | LVT_REMOTE_IRR;
    if (lapic_x2(l))
        l->regs[APIC_LDR] = lapic_logical_x2(l->id);
    l->irr[0] &= ~0xFFFFull;
    l->isr[0] &= ~0xFFFFull;
    l->esr_latched = 0;
    count = l->regs[APIC_TMCCT];
    l->regs[APIC_TMCCT] = 0;
    if (lapic_timer_mode(l) == TIMER_PERIODIC && !count)
        count = l->regs[APIC_TMICT];
    lapic_timer_start(cpu, count, cpu_tsc_now(cpu));
    lapic_update_extint(cpu);
    cpu_attention(cpu);
}

/* ---- api.h ---- */
int sim_lapic_mmio_read(SimCpu *cpu, uint32_t offset, uint32_t size, uint64_t *value)
{
    *value = lapic_mmio_read(cpu, offset, size);
    return 0;
}

int sim_lapic_mmio_write(SimCpu *cpu, uint32_t offset, uint32_t size, uint64_t value)
{
    lapic_mmio_write(cpu, offset, size, (uint32_t)value);
    return 0;
}

void sim_lapic_lint(SimCpu *cpu, int pin, int level) { lapic_lint(cpu, pin, level); }

uint32_t sim_msi(SimMachine *m, uint64_t address, uint32_t data) { return lapic_msi(m, address, data); }

uint64_t sim_lapic_deadline(SimCpu *cpu) { return lapic_deadline(cpu); }

int sim_lapic_get(SimCpu *cpu, uint8_t *regs)
{
    lapic_get_regs(cpu, regs);
    return 0;
}

int sim_lapic_set(SimCpu *cpu, const uint8_t *regs)
{
    lapic_set_regs(cpu, regs);
    return 0;
}

int sim_eoi_vector(SimCpu *cpu)
{
    Lapic *l = cpu_lapic(cpu);
    return l->eoi_head == l->eoi_tail ? -1 : l->eoi_queue[l->eoi_head++ % sizeof l->eoi_queue];
}
