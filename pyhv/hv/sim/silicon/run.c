/* The loop: time, events, exceptions, and the handlers of decoded ops. */
#include <stdarg.h>
#include <stdio.h>

#include "access.h"
#include "block.h"
#include "decode.h"

/* ---- leaving an instruction ---- */

void sync_op(Cpu *cpu, const Op *op)
{
    if (cpu->stepping) {
        if (op) { /* undone */
            cpu->budget++;
            cpu->stepping = 0;
            cpu->shadow = cpu->step_shadow;
        }
        return;
    }
    if (!cpu->block)
        return;
    if (op) {
        cpu->budget += cpu->block->n - (op - cpu->block->ops);
        cpu->r[REG_RIP] = (cpu->r[REG_RIP] + op->off) & cpu->linmask;
    }
    cpu->block = NULL;
}

static _Noreturn void raise_now(Cpu *cpu, const Op *op)
{
    sync_op(cpu, op);
    longjmp(cpu->leave, LEAVE_EXCEPTION);
}

_Noreturn void raise_exception(Cpu *cpu, const Op *op, unsigned vector)
{
    cpu->exc = (PendingException){.vector = (uint8_t)vector};
    raise_now(cpu, op);
}

_Noreturn void raise_error(Cpu *cpu, const Op *op, unsigned vector, uint32_t error)
{
    cpu->exc = (PendingException){.vector = (uint8_t)vector, .has_error = 1, .error = error & 0xFFFF};
    raise_now(cpu, op);
}

_Noreturn void raise_page_fault(Cpu *cpu, const Op *op, uint64_t linear, uint32_t error)
{
    cpu->exc = (PendingException){.vector = EXC_PF, .has_error = 1, .error = error, .cr2 = linear};
    raise_now(cpu, op);
}

_Noreturn void leave_stop(Cpu *cpu, const Op *op, int stop_reason)
{
    sync_op(cpu, op);
    cpu->stop_reason = stop_reason;
    longjmp(cpu->leave, LEAVE_STOP);
}

_Noreturn void leave_error(Cpu *cpu, const Op *op, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(cpu->error, sizeof cpu->error, format, ap);
    va_end(ap);
    leave_stop(cpu, op, SIM_STOP_ERROR);
}

/* ---- time ---- */

/* Instructions retired, up to and with the op in cpu->op while a block runs. */
static u64 icount_now(const Cpu *cpu)
{
    i64 ahead = 0;
    if (cpu->block && cpu->op >= cpu->block->ops && cpu->op < cpu->block->ops + cpu->block->n)
        ahead = cpu->block->n - (cpu->op - cpu->block->ops) - 1;
    return cpu->icount + (u64)(cpu->budget_start - cpu->budget - ahead);
}

uint64_t cpu_tsc_now(Cpu *cpu)
{
    return cpu->ticks + icount_now(cpu) * cpu->machine->tsc_per_instr;
}

uint64_t cpu_guest_tsc_offset(const Cpu *cpu)
{
    return cpu->tsc_offset + (cpu->in_guest || cpu->vapic ? cpu->svm.tsc_offset : 0);
}

static u64 cpu_guest_tsc(Cpu *cpu)
{
    return cpu_tsc_now(cpu) + cpu_guest_tsc_offset(cpu);
}

void cpu_attention(Cpu *cpu)
{
    Cpu *running = cpu->machine->running;
    cpu->attention = 1;
    if (running && running != cpu) { /* a message to another CPU: its host may want to let it run */
        running->told_another = 1;
        cpu = running;
        cpu->attention = 1;
    }
    if (cpu->budget > 0) {
        cpu->budget_start -= cpu->budget;
        cpu->budget = 0;
    }
}

static void fold_time(Cpu *cpu)
{
    cpu->icount += (u64)(cpu->budget_start - cpu->budget);
    cpu->budget_start = cpu->budget = 0;
}

#define CHUNK (1 << 17) /* how long a stop request from another thread may wait */

static void next_budget(Cpu *cpu)
{
    i64 n = (i64)(cpu->run_end - cpu->icount);
    u64 deadline = lapic_deadline(cpu);
    if (n > CHUNK)
        n = CHUNK;
    if (deadline != LAPIC_NO_DEADLINE) {
        u64 now = cpu->ticks + cpu->icount * cpu->machine->tsc_per_instr, per = cpu->machine->tsc_per_instr;
        u64 left = deadline > now ? (deadline - now + per - 1) / per : 0;
        if (left < (u64)n)
            n = (i64)left;
    }
    cpu->budget = cpu->budget_start = n;
}

/* ---- events between instructions ---- */

static int stop(Cpu *cpu, int reason)
{
    cpu->stop_reason = reason;
    cpu->attention = 1;
    return 0;
}

static bool wants_interrupt(Cpu *cpu)
{
    return (cpu->rflags & FLAG_IF) && (lapic_pending(cpu) >= 0 || cpu->lapic.extint);
}

int sim_cpu_wakes(SimCpu *cpu)
{
    return wants_interrupt(cpu) || ((cpu->nmi_pending || cpu->lapic.nmi) && !cpu->nmi_masked) || cpu->lapic.init
        || cpu->lapic.sipi;
}

/* INIT and SIPI; false when the CPU cannot run. */
static bool take_init(Cpu *cpu)
{
    if (cpu->lapic.init) {
        if (cpu->vapic)
            return stop(cpu, SIM_STOP_INIT);
        if (cpu->in_guest) {
            if (cpu->svm.intercepts >> 3 & 1) {
                cpu->lapic.init = 0;
                vmexit(cpu, 0x63, 0, 0);
            }
            return true;
        }
        if (!cpu->gif)
            return true;
        cpu->lapic.init = 0;
        sim_reset(cpu, 1);
    }
    if (cpu->mp_state == 1) {
        if (!cpu->lapic.sipi || cpu->vapic)
            return stop(cpu, SIM_STOP_INIT);
        u8 vector = cpu->lapic.sipi_vector;
        cpu->lapic.sipi = 0;
        cpu->mp_state = 0;
        cpu->seg[SEG_CS].selector = (u16)(vector << 8);
        cpu->seg[SEG_CS].base = (u32)vector << 12;
        cpu->r[REG_RIP] = 0;
        cpu_update_mode(cpu);
    }
    cpu->lapic.sipi = 0;
    return true;
}

/* A physical interrupt or NMI inside a guest that intercepts it. */
static void guest_intercepts(Cpu *cpu)
{
    if (cpu->vapic)
        return;
    bool open = cpu->svm.v_intr_masking ? cpu->svm.host_if : (cpu->rflags & FLAG_IF) != 0;
    if (cpu->nmi_pending && (cpu->svm.intercepts >> 1 & 1)) {
        vmexit(cpu, 0x61, 0, 0);
    }
    if (open && (lapic_pending(cpu) >= 0 || cpu->lapic.extint) && (cpu->svm.intercepts & 1))
        vmexit(cpu, 0x60, 0, 0);
}

static void take_interrupt(Cpu *cpu, unsigned type, unsigned vector)
{
    cpu->mp_state = 0;
    trace_interrupt(cpu, cpu->r[REG_RIP], vector, type == EVENT_NMI ? SIM_TRACE_NMI : 0);
    cpu->budget--;
    deliver_event(cpu, NULL, type, vector, false, false, 0, cpu->r[REG_RIP]);
}

static bool virtual_interrupt_due(const Cpu *cpu)
{
    u64 c = cpu->svm.int_ctl;
    return (c & INT_CTL_V_IRQ) && ((c & INT_CTL_V_IGN_TPR) || (c >> 16 & 0xF) > (c & 0xF));
}

/* Looks at everything that can happen between two instructions. 0: stop, with the reason in stop_reason. */
static int service(Cpu *cpu)
{
    fold_time(cpu);
    if (cpu->stop_request) {
        cpu->stop_request = 0;
        return stop(cpu, SIM_STOP_REQUEST);
    }
    if (cpu->lapic.eoi_head != cpu->lapic.eoi_tail)
        return stop(cpu, SIM_STOP_EOI);
    if (cpu->icount >= cpu->run_end || unlikely(trace_full(cpu->machine)))
        return stop(cpu, SIM_STOP_BUDGET);
    if (cpu->told_another) {
        cpu->told_another = 0;
        return stop(cpu, SIM_STOP_EVENT);
    }
    cpu->attention = 0;
    if (lapic_deadline(cpu) <= cpu_tsc_now(cpu))
        lapic_tick(cpu);
    if (cpu->lapic.nmi) {
        cpu->lapic.nmi = 0;
        cpu->nmi_pending = 1;
    }
    if (!take_init(cpu))
        return 0;
    if (cpu->in_guest && cpu->svm.inject) {
        next_budget(cpu);
        cpu->mmio_at = 0;
        deliver_injection(cpu);
        mmio_forget(cpu);
        fold_time(cpu);
    }
    if (cpu->gif && cpu->in_guest)
        guest_intercepts(cpu);
    if (cpu->gif && cpu->shadow == 0) {
        if (cpu->nmi_pending && !cpu->nmi_masked && cpu->shadow == 0) {
            cpu->nmi_pending = 0;
            take_interrupt(cpu, EVENT_NMI, 2);
        } else if (cpu->rflags & FLAG_IF) {
            bool physical = !cpu->in_guest || cpu->vapic || !cpu->svm.v_intr_masking;
            int vector = physical ? lapic_pending(cpu) : -1;
            if (cpu->lapic.extint && physical && !cpu->extint_have && !(cpu->in_guest && cpu->vapic))
                return stop(cpu, SIM_STOP_EXTINT);
            if (cpu->extint_have) {
                cpu->extint_have = 0;
                take_interrupt(cpu, EVENT_INTR, cpu->extint_vector);
            } else if (vector >= 0) {
                lapic_accept(cpu, vector);
                if (cpu->in_guest)
                    cpu->stats.virtual_interrupts++;
                take_interrupt(cpu, EVENT_INTR, (unsigned)vector);
            } else if (cpu->in_guest && virtual_interrupt_due(cpu)) {
                if (cpu->svm.intercepts >> 4 & 1)
                    vmexit(cpu, 0x64, 0, 0);
                cpu->svm.int_ctl &= ~INT_CTL_V_IRQ;
                cpu->stats.virtual_interrupts++;
                take_interrupt(cpu, EVENT_INTR, cpu->svm.int_ctl >> 32 & 0xFF);
            }
        }
    }
    fold_time(cpu);
    if (cpu->mp_state == 3)
        return stop(cpu, SIM_STOP_HALT);
    if (cpu->icount >= cpu->run_end)
        return stop(cpu, SIM_STOP_BUDGET);
    next_budget(cpu);
    return 1;
}

/* ---- one instruction outside the cache ---- */

static bool breakpoint_here(Cpu *cpu, u64 linear, u64 *dr6)
{
    *dr6 = 0;
    for (unsigned i = 0; i < 4; i++)
        if ((cpu->dr[7] >> (i * 2) & 3) && !(cpu->dr[7] >> (16 + i * 4) & 3) && cpu->dr[i] == linear)
            *dr6 |= 1ull << i;
    return *dr6 != 0;
}

/* Bytes of the instruction at RIP, from one page or two, with the faults of the fetch. */
static int fetch_instruction(Cpu *cpu, Insn *insn)
{
    u64 rip = cpu->r[REG_RIP];
    u64 linear = cpu->code_size == 8 ? rip : (u32)(rip + cpu->seg[SEG_CS].base);
    unsigned first = 0x1000 - (linear & 0xFFF);
    u8 bytes[16];
    if (!code_in_limit(cpu, rip, 1))
        raise_error(cpu, NULL, EXC_GP, 0);
    const u8 *p = fetch_pointer(cpu, linear);
    if (first > 15)
        first = 15;
    if (p)
        memcpy(bytes, p, first);
    else
        memset(bytes, 0xFF, first);
    int len = insn_parse(insn, bytes, first, cpu->mode);
    if (len == 0) {
        u64 second = (linear + first) & cpu->linmask;
        if (!code_in_limit(cpu, rip, first + 1))
            raise_error(cpu, NULL, EXC_GP, 0);
        p = fetch_pointer(cpu, second);
        if (p)
            memcpy(bytes + first, p, 15 - first);
        else
            memset(bytes + first, 0xFF, 15 - first);
        len = insn_parse(insn, bytes, 15, cpu->mode);
    }
    if (len < 0 || !code_in_limit(cpu, rip, (unsigned)len))
        raise_error(cpu, NULL, EXC_GP, 0);
    return len;
}

static void release_hold(Cpu *cpu)
{
    cpu->budget += cpu->step_hold;
    cpu->budget_start += cpu->step_hold;
    cpu->step_hold = 0;
    cpu->stepping = 0;
}

static void debug_trap(Cpu *cpu, u64 dr6)
{
    cpu->exc = (PendingException){.vector = EXC_DB, .dr6 = dr6};
    cpu->pending_dbg = 0;
    take_exception(cpu);
}

/* Runs one instruction. Traps that follow it are taken. */
static void step_one(Cpu *cpu)
{
    Insn insn;
    bool tf = cpu->rflags & FLAG_TF;
    u64 rip = cpu->r[REG_RIP], dr6;
    cpu->block = NULL;
    if ((cpu->dr[7] & 0xFF) && !(cpu->rflags & FLAG_RF)
        && breakpoint_here(cpu, cpu->code_size == 8 ? rip : (u32)(rip + cpu->seg[SEG_CS].base), &dr6)) {
        cpu->exc = (PendingException){.vector = EXC_DB, .dr6 = dr6, .db_fault = 1};
        take_exception(cpu);
        return;
    }
    cpu->mmio_at = 0;
    fetch_instruction(cpu, &insn);
    TraceFrom from;
    if (unlikely(cpu->tracing)) {
        from = trace_from(cpu);
        trace_instruction(cpu, &insn);
    }
    op_decode(cpu, &insn, &cpu->step_ops[0], cpu->mode & MODE_BLOCK_MASK, 0);
    op_trailer(&cpu->step_ops[1], insn.len);
    cpu->step_ops[2] = cpu->step_ops[1];
    u8 shadow = cpu->shadow;
    cpu->shadow = 0;
    cpu->rflags &= ~FLAG_RF;
    cpu->event_taken = 0;
    cpu->step_hold = cpu->budget - 1;
    cpu->budget_start -= cpu->step_hold;
    cpu->budget = 0;
    cpu->stepping = 1;
    cpu->step_shadow = shadow;
    const Op *op = cpu->step_ops;
    while (op)
        op = op->fn(cpu, op);
    release_hold(cpu);
    mmio_forget(cpu);
    if (unlikely(cpu->tracing))
        trace_branch(cpu, &insn, &from);
    if (shadow && !cpu->shadow)
        cpu->attention = 1;
    if (tf && !cpu->event_taken)
        cpu->pending_dbg |= 0x4000;
    if (cpu->pending_dbg && cpu->shadow != 2)
        debug_trap(cpu, cpu->pending_dbg);
    else if (cpu->shadow == 2)
        cpu->pending_dbg &= ~0x4000ull;
}

static bool needs_step(Cpu *cpu)
{
    if (unlikely(cpu->rflags & FLAG_RF) && !(cpu->dr[7] & 0xFF))
        cpu->rflags &= ~FLAG_RF;
    return cpu->shadow || (cpu->rflags & (FLAG_TF | FLAG_RF)) || (cpu->dr[7] & 0xFF) || cpu->pending_dbg
        || cpu->debug.step || cpu->debug.count || cpu->tracing;
}

/* ---- the loop ---- */

static int run(Cpu *cpu, u64 budget)
{
    cpu->run_end = budget > INT64_MAX / 2 ? UINT64_MAX / 2 : cpu->icount + budget;
    if (cpu->run_end < cpu->icount)
        cpu->run_end = UINT64_MAX / 2;
    cpu->attention = 1;
    cpu->block = NULL;
    cpu->stepping = 0;
    cpu->step_hold = 0;
    cpu->debug_first = 1;
    cpu->told_another = 0;
    cpu->machine->running = cpu;
    int how = setjmp(cpu->leave);
    if (how) {
        cpu->in_string = 0;
        release_hold(cpu);
        cpu->block = NULL;
        if (how == LEAVE_STOP)
            goto out;
        if (how == LEAVE_EXCEPTION) {
            mmio_forget(cpu);
            cpu->pending_dbg = 0;
            cpu->event_taken = 1;
            take_exception(cpu);
        }
    }
    if (cpu->start_pending) {
        cpu->start_pending = 0;
        vmrun_enter(cpu, cpu->start_vmrun);
    }
    for (;;) {
        if (unlikely(cpu->mmio_have) && !cpu->svm.inject) {
            if (cpu->budget <= 0)
                cpu->budget = cpu->budget_start = cpu->budget + 1;
            step_one(cpu);
            cpu->attention = 1;
            continue;
        }
        if (cpu->attention || cpu->budget <= 0) {
            if (!service(cpu))
                break;
        }
        cpu->want_step = 0;
        if (unlikely(needs_step(cpu))) {
            if (!cpu->debug_first && (cpu->debug.step || (cpu->debug.count && host_breakpoint(cpu)))) {
                cpu->stop_reason = SIM_STOP_DEBUG;
                break;
            }
            cpu->debug_first = 0;
            if (cpu->pending_dbg && !cpu->shadow) /* a new task's T bit traps before its first instruction */
                debug_trap(cpu, cpu->pending_dbg);
            else
                step_one(cpu);
            continue;
        }
        const Op *op = lookup_slow(cpu);
        if (op)
            cpu->debug_first = 0;
        while (op)
            op = op->fn(cpu, op);
        if (cpu->want_step && cpu->budget > 0 && !cpu->attention && !needs_step(cpu)) {
            if (cpu->debug.count && !cpu->debug_first && host_breakpoint(cpu)) {
                cpu->stop_reason = SIM_STOP_DEBUG;
                break;
            }
            cpu->debug_first = 0;
            step_one(cpu);
        }
    }
out:
    cpu->machine->running = NULL;
    fold_time(cpu);
    return cpu->stop_reason;
}
