/* Exceptions and interrupts: their delivery through the IDT (APM vol. 2 chapter 8). */
#include "access.h"
#include "block.h"

/* Event types as EVENTINJ and EXITINTINFO number them. */
enum { EVENT_INTR = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_SOFT = 4 };

static void push_error_code(Cpu *cpu, NewStack *s, const Op *op, unsigned size, bool has_error, uint32_t error)
{
    if (has_error)
        new_push(cpu, op, s, size, error);
}

static void deliver_real(Cpu *cpu, const Op *op, unsigned vector, u64 return_rip)
{
    if (vector * 4 + 3 > cpu->idtr.limit)
        raise_error(cpu, op, EXC_GP, 0);
    u32 entry = (u32)mem_read_sys(cpu, op, cpu->idtr.base + vector * 4, 4);
    u64 sp = cpu->r[RSP];
    push_at(cpu, op, &sp, 2, cpu_rflags(cpu));
    push_at(cpu, op, &sp, 2, cpu->seg[SEG_CS].selector);
    push_at(cpu, op, &sp, 2, return_rip);
    set_sp(cpu, sp);
    cpu->seg[SEG_CS].selector = (u16)(entry >> 16);
    cpu->seg[SEG_CS].base = entry >> 16 << 4;
    cpu->r[REG_RIP] = (u16)entry;
    cpu->rflags &= ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

static void deliver_protected(Cpu *cpu, const Op *op, unsigned vector, bool soft, unsigned ext, bool has_error,
                              u32 error, u64 return_rip)
{
    bool wide = long_mode(cpu);
    unsigned bytes = wide ? 16 : 8;
    u32 idt_error = vector * 8 + 2 + ext;
    if (vector * bytes + bytes - 1 > cpu->idtr.limit)
        raise_error(cpu, op, EXC_GP, idt_error);
    u64 at = cpu->idtr.base + vector * bytes;
    if (!wide)
        at = (u32)at;
    u64 gate = mem_read_sys(cpu, op, at, 8), high = wide ? mem_read_sys(cpu, op, at + 8, 8) : 0;
    unsigned type = (gate >> 40) & 0x1F;
    if (wide ? (type != 0xE && type != 0xF) : (type != 5 && type != 6 && type != 7 && type != 0xE && type != 0xF))
        raise_error(cpu, op, EXC_GP, idt_error);
    if (soft && desc_dpl(gate) < cpu->cpl)
        raise_error(cpu, op, EXC_GP, idt_error);
    if (!desc_p(gate))
        raise_error(cpu, op, EXC_NP, idt_error);
    u16 sel = (u16)(gate >> 16);
    if (type == 5) {
        if ((sel & 4) || !(sel & 0xFFFC))
            raise_error(cpu, op, EXC_GP, (sel & 0xFFFC) | ext);
        Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, ext);
        if (desc_s(d.raw) || (desc_type(d.raw) & 7) != 1)
            raise_error(cpu, op, EXC_GP, (sel & 0xFFFC) | ext);
        if (!desc_p(d.raw))
            raise_error(cpu, op, EXC_NP, (sel & 0xFFFC) | ext);
        task_switch(cpu, op, sel, &d, TASK_EVENT, return_rip, has_error, error);
        return;
    }
    u64 offset = (gate & 0xFFFF) | (gate >> 48) << 16 | high << 32;
    if (!wide && type < 8)
        offset &= 0xFFFF;
    if (!(sel & 0xFFFC))
        raise_error(cpu, op, EXC_GP, ext);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, ext);
    unsigned dpl = desc_dpl(d.raw);
    if (!desc_is_code(d.raw) || dpl > cpu->cpl || (wide && (!desc_l(d.raw) || desc_d(d.raw))))
        raise_error(cpu, op, EXC_GP, (sel & 0xFFFC) | ext);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, (sel & 0xFFFC) | ext);
    unsigned cpl = desc_conforming(d.raw) ? cpu->cpl : dpl, size = wide ? 8 : type < 8 ? 2 : 4;
    bool v86 = cpu->rflags & FLAG_VM;
    if (v86 && cpl != 0)
        raise_error(cpu, op, EXC_GP, (sel & 0xFFFC) | ext);
    if (wide ? !is_canonical(cpu, offset) : offset > descriptor_segment(0, d.raw).limit)
        raise_error(cpu, op, EXC_GP, ext);
    u64 flags = cpu_rflags(cpu);
    NewStack s;
    bool inner = cpl < cpu->cpl;
    if (wide) {
        unsigned ist = (unsigned)(gate >> 32) & 7;
        u16 ss = cpu->seg[SEG_SS].selector;
        if (ist) {
            const SimSegment *tr = &cpu->seg[SEG_TR];
            u32 slot = 0x1C + ist * 8;
            if (slot + 7 > tr->limit)
                raise_error(cpu, op, EXC_TS, (tr->selector & 0xFFFC) | ext);
            s = (NewStack){.sp = mem_read_sys(cpu, op, tr->base + slot, 8), .ss = cpu->seg[SEG_SS]};
            if (inner)
                s.ss = (SimSegment){.selector = (u16)cpl, .attrib = (u16)(cpl << 5)};
        } else if (inner) {
            s = tss_stack(cpu, op, cpl, ext);
        } else {
            s = this_stack(cpu);
        }
        s.wide = true;
        s.cpl = cpl;
        s.vector_error = ext;
        s.sp &= ~15ull;
        new_push(cpu, op, &s, 8, ss);
        new_push(cpu, op, &s, 8, cpu->r[RSP]);
    } else if (inner) {
        s = tss_stack(cpu, op, cpl, ext);
        if (v86) {
            new_push(cpu, op, &s, size, cpu->seg[SEG_GS].selector);
            new_push(cpu, op, &s, size, cpu->seg[SEG_FS].selector);
            new_push(cpu, op, &s, size, cpu->seg[SEG_DS].selector);
            new_push(cpu, op, &s, size, cpu->seg[SEG_ES].selector);
        }
        new_push(cpu, op, &s, size, cpu->seg[SEG_SS].selector);
        new_push(cpu, op, &s, size, cpu->r[RSP]);
    } else {
        s = this_stack(cpu);
        s.vector_error = ext;
    }
    new_push(cpu, op, &s, size, flags);
    new_push(cpu, op, &s, size, cpu->seg[SEG_CS].selector);
    new_push(cpu, op, &s, size, return_rip);
    push_error_code(cpu, &s, op, size, has_error, error);
    mark_accessed(cpu, op, &d);
    set_cs(cpu, sel, d.raw, cpl);
    use_stack(cpu, &s);
    if (v86) {
        set_null(cpu, SEG_GS, 0);
        set_null(cpu, SEG_FS, 0);
        set_null(cpu, SEG_DS, 0);
        set_null(cpu, SEG_ES, 0);
    }
    cpu->r[REG_RIP] = offset;
    cpu->rflags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (type & 1 ? 0 : FLAG_IF));
}

/* Delivers an event whose intercepts were already looked at. The state changes only when everything has succeeded.
 * `op` is the INT instruction at hand or NULL. */
static void deliver_event(Cpu *cpu, const Op *op, unsigned type, unsigned vector, bool soft, bool has_error, u32 error,
                          u64 return_rip)
{
    cpu->svm.delivering = 1;
    cpu->svm.exitintinfo = vector | type << 8 | (has_error ? 0x800u : 0) | 0x80000000u | (u64)error << 32;
    if (!(cpu->cr0 & CR0_PE)) {
        deliver_real(cpu, op, vector, return_rip);
    } else {
        deliver_protected(cpu, op, vector, soft, soft ? 0 : 1, has_error, error, return_rip);
    }
    cpu->svm.delivering = 0;
    cpu->svm.exitintinfo = 0;
    if (type == EVENT_NMI) {
        cpu->nmi_masked = 1;
        cpu->stats.nmis++;
    } else if (type == EVENT_EXCEPTION) {
        if (vector < 32)
            cpu->stats.exceptions[vector]++;
    } else {
        cpu->stats.interrupts++;
    }
    cpu->shadow = 0;
    cpu->event_taken = 1;
    cpu->block = NULL;
    cpu_update_mode(cpu);
}

static bool is_contributory(unsigned vector)
{
    return vector == EXC_DE || vector == EXC_TS || vector == EXC_NP || vector == EXC_SS || vector == EXC_GP;
}


static _Noreturn void shut_down(Cpu *cpu)
{
    cpu->svm.delivering = 0;
    if (cpu->in_guest && (cpu->svm.intercepts >> 31 & 1))
        vmexit(cpu, 0x7F, 0, 0);
    leave_stop(cpu, NULL, SIM_STOP_SHUTDOWN);
}

/* What cpu->exc asks for, after the instruction that raised it was undone: double faults, intercepts, delivery. */
static void take_exception(Cpu *cpu)
{
    PendingException e = cpu->exc;
    if (!cpu->svm.delivering)
        cpu->nested_faults = 0;
    else if (++cpu->nested_faults > 64) /* benign faults in each other's delivery (#AC in #AC): a CPU would hang here */
        shut_down(cpu);
    if (cpu->svm.delivering) {
        u64 first = cpu->svm.exitintinfo;
        unsigned v1 = first & 0xFF, t1 = first >> 8 & 7;
        if (t1 == EVENT_EXCEPTION && v1 == EXC_DF && (is_contributory(e.vector) || e.vector == EXC_PF)) {
            if (cpu->in_guest && (cpu->svm.exceptions >> e.vector & 1)) {
                /* the second exception's own intercept comes first */
            } else {
                shut_down(cpu);
            }
        } else if (t1 == EVENT_EXCEPTION && !(cpu->in_guest && (cpu->svm.exceptions >> e.vector & 1))) {
            bool second = is_contributory(e.vector);
            if ((is_contributory(v1) && second) || (v1 == EXC_PF && (second || e.vector == EXC_PF)))
                e = (PendingException){.vector = EXC_DF, .has_error = 1};
        }
    }
    if (cpu->in_guest && e.vector < 32 && (cpu->svm.exceptions >> e.vector & 1)) {
        if (e.vector == EXC_DB)
            cpu->dr[6] = (cpu->dr[6] & ~0xFull) | e.dr6;
        vmexit(cpu, 0x40 + e.vector, e.has_error ? e.error : 0, e.vector == EXC_PF ? e.cr2 : 0);
    }
    cpu->svm.delivering = 0;
    cpu->svm.exitintinfo = 0;
    bool fault = true;
    if (e.vector == EXC_PF)
        cpu->cr2 = e.cr2;
    if (e.vector == EXC_DB) {
        cpu->dr[6] = (cpu->dr[6] & ~0xFull) | e.dr6;
        cpu->dr[7] &= ~0x2000ull; /* GD */
        fault = e.db_fault;
    }
    if (fault && e.vector != EXC_DF)
        cpu->rflags |= FLAG_RF; /* in the pushed image; the delivery clears it */
    if (!cpu->nested_faults)
        cpu->budget--;
    bool error = e.has_error && (cpu->cr0 & CR0_PE);
    trace_exception(cpu, cpu->r[REG_RIP], e.vector, error, e.error, e.vector == EXC_PF ? e.cr2 : 0, 0);
    deliver_event(cpu, NULL, EVENT_EXCEPTION, e.vector, false, error, e.error, cpu->r[REG_RIP]);
}

/* Software interrupts: INT n, INT3, INTO. The faults are the instruction's own. */
static const Op *soft_interrupt(Cpu *cpu, const Op *op, unsigned vector)
{
    u64 next = next_rip(cpu, op);
    unsigned type = vector == 3 || vector == 4 ? EVENT_EXCEPTION : EVENT_SOFT;
    cpu->op = op;
    if (cpu->in_guest && type == EVENT_EXCEPTION && (cpu->svm.exceptions >> vector & 1)) {
        sync_op(cpu, op);
        cpu->svm.next_rip = next;
        vmexit(cpu, 0x40 + vector, 0, 0);
    }
    cpu->svm.next_rip = next;
    if (type == EVENT_EXCEPTION)
        trace_exception(cpu, next - op->len, vector, false, 0, 0, SIM_TRACE_SOFTWARE);
    else
        trace_interrupt(cpu, next - op->len, vector, SIM_TRACE_SOFTWARE);
    deliver_event(cpu, op, type, vector, true, false, 0, next);
    return NULL;
}
/* INT n of virtual-8086 mode with CR4.VME: true when the TSS's redirection bitmap sends it to the task's own table
 * (APM vol. 2, 12.2.5 and 12.4). */
static bool vme_redirected(Cpu *cpu, const Op *op, unsigned vector)
{
    const SimSegment *tr = &cpu->seg[SEG_TR];
    if (!(tr->attrib & 8) || tr->limit < 0x67)
        RAISE_GP0(cpu, op);
    u32 map = (u32)mem_read_sys(cpu, op, tr->base + 0x66, 2);
    if (map < 32 + 0x68 || map - 32 + vector / 8 > tr->limit)
        RAISE_GP0(cpu, op);
    return !(mem_read_sys(cpu, op, tr->base + map - 32 + vector / 8, 1) >> (vector & 7) & 1);
}

static const Op *vme_interrupt(Cpu *cpu, const Op *op, unsigned vector)
{
    bool own_if = (cpu->rflags & FLAG_IOPL) == FLAG_IOPL;
    u32 flags = (u32)cpu_rflags(cpu), entry;
    u64 sp = cpu->r[RSP];
    u8 table[4];
    if (!own_if)
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    mem_read(cpu, op, vector * 4, table, 4); /* the task's own access, at linear address 0 */
    memcpy(&entry, table, 4);
    push_at(cpu, op, &sp, 2, flags);
    push_at(cpu, op, &sp, 2, cpu->seg[SEG_CS].selector);
    push_at(cpu, op, &sp, 2, next_rip(cpu, op));
    set_sp(cpu, sp);
    cpu->rflags &= ~(FLAG_TF | FLAG_NT | (own_if ? FLAG_IF : FLAG_VIF));
    set_v86_segment(cpu, SEG_CS, (u16)(entry >> 16));
    cpu->r[REG_RIP] = (u16)entry;
    cpu->event_taken = 1;
    return far_done(cpu);
}

HANDLER(op_int)
{
    if ((cpu->rflags & FLAG_VM) && (cpu->cr4 & CR4_VME) && vme_redirected(cpu, op, (u8)op->imm)) {
        svm_intercept(cpu, op, 0x75 - 0x60, 0x75, (u8)op->imm, 0);
        return vme_interrupt(cpu, op, (u8)op->imm);
    }
    if ((cpu->rflags & FLAG_VM) && (cpu->rflags & FLAG_IOPL) != FLAG_IOPL)
        RAISE_GP0(cpu, op);
    svm_intercept(cpu, op, 0x75 - 0x60, 0x75, (u8)op->imm, 0);
    return soft_interrupt(cpu, op, (u8)op->imm);
}
HANDLER(op_int3) { return soft_interrupt(cpu, op, 3); }
HANDLER(op_into)
{
    if (flag_of(cpu))
        return soft_interrupt(cpu, op, 4);
    NEXT;
}
HANDLER(op_icebp)
{
    svm_intercept(cpu, op, 0x88 - 0x60, 0x88, 0, 0);
    u64 next = next_rip(cpu, op);
    cpu->op = op;
    if (cpu->in_guest && (cpu->svm.exceptions >> EXC_DB & 1)) {
        sync_op(cpu, op);
        vmexit(cpu, 0x40 + EXC_DB, 0, 0);
    }
    cpu->svm.next_rip = next;
    trace_exception(cpu, next - op->len, EXC_DB, false, 0, 0, SIM_TRACE_SOFTWARE);
    deliver_event(cpu, op, EVENT_EXCEPTION, EXC_DB, false, false, 0, next);
    return NULL;
}
