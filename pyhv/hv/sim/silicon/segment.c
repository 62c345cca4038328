/* Segment registers, descriptors and far transfers (APM vol. 2 chapter 4; vol. 3 for JMP, CALL, RET, IRET far). */
#include "access.h"
#include "block.h"

typedef struct Descriptor {
    u64 raw, high;       /* high: upper eight bytes of a 16-byte system descriptor */
    u64 linear;          /* where it lies */
} Descriptor;

static SimSegment descriptor_segment(u16 selector, u64 raw)
{
    SimSegment s;
    u32 hi = (u32)(raw >> 32), limit = (u32)(raw & 0xFFFF) | (hi & 0xF0000);
    s.selector = selector;
    s.attrib = (u16)((hi >> 8 & 0xFF) | (hi >> 12 & 0xF00));
    s.limit = hi & 0x800000 ? limit << 12 | 0xFFF : limit;
    s.base = (u32)((raw >> 16 & 0xFFFFFF) | (hi & 0xFF000000));
    return s;
}

static unsigned desc_type(u64 raw) { return (raw >> 40) & 0xF; }
static bool desc_s(u64 raw) { return (raw >> 44) & 1; }
static unsigned desc_dpl(u64 raw) { return (raw >> 45) & 3; }
static bool desc_p(u64 raw) { return (raw >> 47) & 1; }
static bool desc_l(u64 raw) { return (raw >> 53) & 1; }
static bool desc_d(u64 raw) { return (raw >> 54) & 1; }
static bool desc_is_code(u64 raw) { return desc_s(raw) && (desc_type(raw) & 8); }
static bool desc_conforming(u64 raw) { return desc_type(raw) & 4; }

static bool real_or_v86(const Cpu *cpu)
{
    return !(cpu->cr0 & CR0_PE) || (cpu->rflags & FLAG_VM);
}

static bool long_mode(const Cpu *cpu)
{
    return cpu->efer & EFER_LMA;
}

/* Linear address of a selector's descriptor; false when it lies outside its table. */
static bool descriptor_address(const Cpu *cpu, u16 sel, unsigned bytes, u64 *linear)
{
    u32 index = sel & ~7u;
    if (sel & 4) {
        const SimSegment *ldt = &cpu->seg[SEG_LDTR];
        if (!(ldt->attrib & 0x80) || index + bytes - 1 > ldt->limit)
            return false;
        *linear = ldt->base + index;
    } else {
        if (index + bytes - 1 > cpu->gdtr.limit)
            return false;
        *linear = cpu->gdtr.base + index;
    }
    if (!long_mode(cpu))
        *linear = (u32)*linear;
    return true;
}

/* Reads a descriptor or raises `vector` with the selector (and `ext`) as its error code. */
static Descriptor read_descriptor(Cpu *cpu, const Op *op, u16 sel, unsigned vector, unsigned ext)
{
    Descriptor d = {0};
    if (!descriptor_address(cpu, sel, 8, &d.linear))
        raise_error(cpu, op, vector, (sel & 0xFFFC) | ext);
    d.raw = mem_read_sys(cpu, op, d.linear, 8);
    return d;
}

/* The second half of a system descriptor in long mode; its type field must be zero. */
static void read_descriptor_high(Cpu *cpu, const Op *op, u16 sel, Descriptor *d, unsigned vector, unsigned ext)
{
    u64 at;
    if (!descriptor_address(cpu, sel, 16, &at))
        raise_error(cpu, op, vector, (sel & 0xFFFC) | ext);
    d->high = mem_read_sys(cpu, op, d->linear + 8, 8);
    if ((d->high >> 40) & 0x1F)
        raise_error(cpu, op, vector, (sel & 0xFFFC) | ext);
}

static void mark_accessed(Cpu *cpu, const Op *op, Descriptor *d)
{
    if (!(desc_type(d->raw) & 1)) {
        mem_write_sys(cpu, op, d->linear + 5, 1, (d->raw >> 40 & 0xFF) | 1);
        d->raw |= 1ull << 40;
    }
}

static void set_cs(Cpu *cpu, u16 sel, u64 raw, unsigned cpl)
{
    cpu->seg[SEG_CS] = descriptor_segment((u16)((sel & 0xFFFC) | cpl), raw | 1ull << 40);
    if (long_mode(cpu) && desc_l(raw))
        cpu->seg[SEG_CS].base = 0;
    cpu->cpl = (u8)cpl;
}

static void set_null(Cpu *cpu, unsigned seg, u16 sel)
{
    cpu->seg[seg] = (SimSegment){.selector = sel};
    if (seg == SEG_SS)
        cpu->seg[seg].attrib = (u16)(cpu->cpl << 5);
}

/* Checks and fetches SS for a stack at privilege `cpl`; vector is #GP for loads, #TS for stack switches. */
static Descriptor check_ss(Cpu *cpu, const Op *op, u16 sel, unsigned cpl, unsigned vector, unsigned ext)
{
    if (!(sel & 0xFFFC))
        raise_error(cpu, op, vector, vector == EXC_TS ? (sel & 0xFFFC) | ext : 0);
    Descriptor d = read_descriptor(cpu, op, sel, vector, ext);
    if ((sel & 3) != cpl || !desc_s(d.raw) || (desc_type(d.raw) & 0xA) != 2 || desc_dpl(d.raw) != cpl)
        raise_error(cpu, op, vector, (sel & 0xFFFC) | ext);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_SS, (sel & 0xFFFC) | ext);
    return d;
}

/* MOV/POP to a data segment register, LxS: all but CS. */
static void load_segment(Cpu *cpu, const Op *op, unsigned seg, u16 sel)
{
    if (real_or_v86(cpu)) {
        SimSegment *s = &cpu->seg[seg];
        s->selector = sel;
        s->base = (u32)sel << 4;
        if (cpu->rflags & FLAG_VM) {
            s->limit = 0xFFFF;
            s->attrib = 0xF3;
        } else if (!(s->attrib & 0x80)) {
            s->attrib = 0x93;
        }
    } else if (seg == SEG_SS) {
        if (!(sel & 0xFFFC)) {
            if (cpu->code_size != 8 || cpu->cpl == 3 || (sel & 3) != cpu->cpl)
                RAISE_GP0(cpu, op);
            set_null(cpu, seg, sel);
        } else {
            Descriptor d = check_ss(cpu, op, sel, cpu->cpl, EXC_GP, 0);
            mark_accessed(cpu, op, &d);
            cpu->seg[SEG_SS] = descriptor_segment(sel, d.raw);
        }
    } else if (!(sel & 0xFFFC)) {
        set_null(cpu, seg, sel);
    } else {
        Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
        unsigned type = desc_type(d.raw);
        if (!desc_s(d.raw) || (type & 0xA) == 8)
            raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
        if ((type & 0xC) != 0xC && (desc_dpl(d.raw) < (sel & 3u) || desc_dpl(d.raw) < cpu->cpl))
            raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
        if (!desc_p(d.raw))
            raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
        mark_accessed(cpu, op, &d);
        cpu->seg[seg] = descriptor_segment(sel, d.raw);
    }
    cpu_update_mode(cpu);
}

/* ---- another stack ---- */

typedef struct NewStack {
    SimSegment ss;
    u64 sp;
    unsigned cpl;
    bool wide;          /* long mode: flat 64-bit stack */
    unsigned vector_error; /* error code of a limit violation */
} NewStack;

static u64 new_stack_mask(const NewStack *s)
{
    return s->wide ? ~0ull : s->ss.attrib & 0x400 ? 0xFFFFFFFFull : 0xFFFFull;
}

static void new_push(Cpu *cpu, const Op *op, NewStack *s, unsigned size, u64 v)
{
    u64 to = (s->sp - size) & new_stack_mask(s), lin;
    if (s->wide) {
        if (!is_canonical(cpu, to) || !is_canonical(cpu, to + size - 1))
            raise_error(cpu, op, EXC_SS, s->vector_error);
        lin = to;
    } else {
        bool down = (s->ss.attrib & 0xC) == 4;
        u64 last = to + size - 1;
        if (down ? to <= s->ss.limit || last > (s->ss.attrib & 0x400 ? 0xFFFFFFFFull : 0xFFFFull) : last > s->ss.limit)
            raise_error(cpu, op, EXC_SS, s->vector_error);
        lin = (u32)(s->ss.base + to);
    }
    if (s->cpl == 3) {
        u8 b[8];
        memcpy(b, &v, 8);
        if (op)
            cpu->op = op;
        write_class(cpu, op, lin, b, size, TLB_USER);
    } else {
        mem_write_sys(cpu, op, lin, size, v);
    }
    s->sp = to;
}

/* The current stack, as a NewStack. */
static NewStack this_stack(const Cpu *cpu)
{
    return (NewStack){.ss = cpu->seg[SEG_SS], .sp = cpu->r[RSP], .cpl = cpu->cpl, .wide = long_mode(cpu)
                      && cpu->code_size == 8};
}

/* SS:ESP (or RSP) for privilege level `cpl` from the TSS. */
static NewStack tss_stack(Cpu *cpu, const Op *op, unsigned cpl, unsigned ext)
{
    const SimSegment *tr = &cpu->seg[SEG_TR];
    NewStack s = {.cpl = cpl};
    u16 sel;
    if (long_mode(cpu)) {
        u32 at = 4 + cpl * 8;
        if (at + 7 > tr->limit)
            raise_error(cpu, op, EXC_TS, (tr->selector & 0xFFFC) | ext);
        s.sp = mem_read_sys(cpu, op, tr->base + at, 8);
        s.wide = true;
        s.ss = (SimSegment){.selector = (u16)cpl, .attrib = (u16)(cpl << 5)};
        return s;
    }
    if (tr->attrib & 8) { /* 32-bit TSS */
        u32 at = 4 + cpl * 8;
        if (at + 5 > tr->limit)
            raise_error(cpu, op, EXC_TS, (tr->selector & 0xFFFC) | ext);
        s.sp = mem_read_sys(cpu, op, (u32)(tr->base + at), 4);
        sel = (u16)mem_read_sys(cpu, op, (u32)(tr->base + at + 4), 2);
    } else {
        u32 at = 2 + cpl * 4;
        if (at + 3 > tr->limit)
            raise_error(cpu, op, EXC_TS, (tr->selector & 0xFFFC) | ext);
        s.sp = mem_read_sys(cpu, op, (u32)(tr->base + at), 2);
        sel = (u16)mem_read_sys(cpu, op, (u32)(tr->base + at + 2), 2);
    }
    Descriptor d = check_ss(cpu, op, sel, cpl, EXC_TS, ext);
    mark_accessed(cpu, op, &d);
    s.ss = descriptor_segment(sel, d.raw);
    s.vector_error = (sel & 0xFFFC) | ext;
    return s;
}

static void use_stack(Cpu *cpu, const NewStack *s)
{
    cpu->seg[SEG_SS] = s->ss;
    if (s->wide || (s->ss.attrib & 0x400))
        cpu->r[RSP] = s->sp & new_stack_mask(s);
    else
        PUT2(RSP, s->sp);
}

/* ---- far JMP and CALL ---- */

static void check_code_offset(Cpu *cpu, const Op *op, u64 raw, u64 offset)
{
    if (long_mode(cpu) && desc_l(raw)) {
        if (!is_canonical(cpu, offset))
            RAISE_GP0(cpu, op);
    } else if (offset > descriptor_segment(0, raw).limit) {
        RAISE_GP0(cpu, op);
    }
}

static void check_code_bits(Cpu *cpu, const Op *op, u64 raw, u16 sel, unsigned ext)
{
    if (long_mode(cpu) && desc_l(raw) && desc_d(raw))
        raise_error(cpu, op, EXC_GP, (sel & 0xFFFC) | ext);
}

static void task_switch(Cpu *cpu, const Op *op, u16 sel, Descriptor *d, int how, u64 next, bool has_error, u32 error);
enum { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };

/* After CS, SS or CPL changed: go on at RIP by the loop. */
static const Op *far_done(Cpu *cpu)
{
    cpu->block = NULL;
    cpu_update_mode(cpu);
    return NULL;
}

static const Op *far_gate(Cpu *cpu, const Op *op, u16 gate_sel, Descriptor *gate, bool call)
{
    unsigned type = desc_type(gate->raw);
    bool wide = long_mode(cpu);
    if (desc_dpl(gate->raw) < cpu->cpl || desc_dpl(gate->raw) < (gate_sel & 3u))
        raise_error(cpu, op, EXC_GP, gate_sel & 0xFFFC);
    if (!desc_p(gate->raw))
        raise_error(cpu, op, EXC_NP, gate_sel & 0xFFFC);
    if (wide)
        read_descriptor_high(cpu, op, gate_sel, gate, EXC_GP, 0);
    u16 sel = (u16)(gate->raw >> 16);
    u64 offset = (gate->raw & 0xFFFF) | (gate->raw >> 48) << 16;
    if (wide)
        offset |= gate->high << 32;
    else if (type == 4)
        offset &= 0xFFFF;
    if (!(sel & 0xFFFC))
        RAISE_GP0(cpu, op);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
    unsigned dpl = desc_dpl(d.raw);
    if (!desc_is_code(d.raw) || dpl > cpu->cpl || (!call && !desc_conforming(d.raw) && dpl != cpu->cpl)
        || (wide && (!desc_l(d.raw) || desc_d(d.raw))))
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    check_code_offset(cpu, op, d.raw, offset);
    unsigned cpl = desc_conforming(d.raw) ? cpu->cpl : dpl;
    unsigned size = wide ? 8 : type == 4 ? 2 : 4;
    if (call) {
        NewStack s;
        u16 old_cs = cpu->seg[SEG_CS].selector;
        if (cpl < cpu->cpl) {
            unsigned count = wide ? 0 : (gate->raw >> 32) & 31;
            u64 args[32];
            u64 old_sp = cpu->r[RSP] & stack_mask(cpu), at = old_sp;
            s = tss_stack(cpu, op, cpl, 0);
            for (unsigned i = 0; i < count; i++)
                args[i] = pop_at(cpu, op, &at, size);
            new_push(cpu, op, &s, size, cpu->seg[SEG_SS].selector);
            new_push(cpu, op, &s, size, cpu->r[RSP]);
            for (unsigned i = count; i-- > 0;)
                new_push(cpu, op, &s, size, args[i]);
        } else {
            s = this_stack(cpu);
            s.wide = wide;
        }
        new_push(cpu, op, &s, size, old_cs);
        new_push(cpu, op, &s, size, next_rip(cpu, op));
        mark_accessed(cpu, op, &d);
        use_stack(cpu, &s);
    } else {
        mark_accessed(cpu, op, &d);
    }
    set_cs(cpu, sel, d.raw, cpl);
    cpu->r[REG_RIP] = offset;
    return far_done(cpu);
}

static const Op *far_transfer(Cpu *cpu, const Op *op, u16 sel, u64 offset, bool call)
{
    unsigned size = op->osize;
    if (real_or_v86(cpu)) {
        if (offset > cpu->seg[SEG_CS].limit)
            RAISE_GP0(cpu, op);
        if (call) {
            u64 sp = cpu->r[RSP];
            push_at(cpu, op, &sp, size, cpu->seg[SEG_CS].selector);
            push_at(cpu, op, &sp, size, next_rip(cpu, op));
            set_sp(cpu, sp);
        }
        cpu->seg[SEG_CS].selector = sel;
        cpu->seg[SEG_CS].base = (u32)sel << 4;
        cpu->r[REG_RIP] = offset;
        return far_done(cpu);
    }
    if (!(sel & 0xFFFC))
        RAISE_GP0(cpu, op);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
    if (!desc_s(d.raw)) {
        unsigned type = desc_type(d.raw);
        if (type == 0xC || (type == 4 && !long_mode(cpu)))
            return far_gate(cpu, op, sel, &d, call);
        if (!long_mode(cpu) && (type == 1 || type == 9 || type == 5)) {
            if (desc_dpl(d.raw) < cpu->cpl || desc_dpl(d.raw) < (sel & 3u))
                raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
            if (!desc_p(d.raw))
                raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
            if (type == 5) {
                sel = (u16)(d.raw >> 16);
                if ((sel & 4) || !(sel & 0xFFFC))
                    raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
                d = read_descriptor(cpu, op, sel, EXC_GP, 0);
                if (desc_s(d.raw) || (desc_type(d.raw) & 7) != 1)
                    raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
                if (!desc_p(d.raw))
                    raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
            }
            task_switch(cpu, op, sel, &d, call ? TASK_CALL : TASK_JMP, next_rip(cpu, op), false, 0);
            return far_done(cpu);
        }
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    }
    unsigned dpl = desc_dpl(d.raw);
    if (!desc_is_code(d.raw)
        || (desc_conforming(d.raw) ? dpl > cpu->cpl : (sel & 3u) > cpu->cpl || dpl != cpu->cpl))
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    check_code_bits(cpu, op, d.raw, sel, 0);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    check_code_offset(cpu, op, d.raw, offset);
    if (call) {
        u64 sp = cpu->r[RSP];
        push_at(cpu, op, &sp, size, cpu->seg[SEG_CS].selector);
        push_at(cpu, op, &sp, size, next_rip(cpu, op));
        mark_accessed(cpu, op, &d);
        set_sp(cpu, sp);
    } else {
        mark_accessed(cpu, op, &d);
    }
    set_cs(cpu, sel, d.raw, cpu->cpl);
    cpu->r[REG_RIP] = offset;
    return far_done(cpu);
}

/* Direct: imm holds selector << 32 | offset */
HANDLER(far_direct_jmp) { return far_transfer(cpu, op, (u16)(op->uimm >> 32), (u32)op->uimm, false); }
HANDLER(far_direct_call) { return far_transfer(cpu, op, (u16)(op->uimm >> 32), (u32)op->uimm, true); }
static const Op *far_indirect(Cpu *cpu, const Op *op, bool call)
{
    u64 lin = op_linear(cpu, op, op->osize + 2u, ACC_READ);
    u64 offset = load(cpu, op, lin, op->osize);
    return far_transfer(cpu, op, (u16)load(cpu, op, lin + op->osize, 2), offset, call);
}
HANDLER(far_indirect_jmp) { return far_indirect(cpu, op, false); }
HANDLER(far_indirect_call) { return far_indirect(cpu, op, true); }

/* ---- far RET and IRET ---- */

static void drop_segments(Cpu *cpu)
{
    static const u8 segs[4] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < 4; i++) {
        SimSegment *s = &cpu->seg[segs[i]];
        unsigned type = s->attrib & 0xF, dpl = s->attrib >> 5 & 3;
        if ((s->attrib & 0x80) && dpl < cpu->cpl && (type & 0xC) != 0xC)
            set_null(cpu, segs[i], 0);
    }
}

/* Return to an outer or the same level: CS checked, SS:SP from the stack when `outer`. The flags come afterwards. */
static void far_return(Cpu *cpu, const Op *op, u64 sp, u16 sel, u64 offset, unsigned size, unsigned release, bool iret)
{
    if (!(sel & 0xFFFC))
        RAISE_GP0(cpu, op);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0), s = {0};
    unsigned rpl = sel & 3, dpl = desc_dpl(d.raw);
    if (!desc_is_code(d.raw) || rpl < cpu->cpl || (desc_conforming(d.raw) ? dpl > rpl : dpl != rpl))
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    check_code_bits(cpu, op, d.raw, sel, 0);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    bool wide = long_mode(cpu) && desc_l(d.raw), outer = rpl != cpu->cpl;
    u16 ss = 0;
    u64 new_sp = 0;
    bool null_ss = false;
    sp = (sp + release) & stack_mask(cpu);
    if (outer || (iret && cpu->code_size == 8)) {
        new_sp = pop_at(cpu, op, &sp, size);
        ss = (u16)pop_at(cpu, op, &sp, size);
        if (!(ss & 0xFFFC)) {
            if (!wide || rpl == 3 || (ss & 3u) != rpl)
                RAISE_GP0(cpu, op);
            null_ss = true;
        } else {
            s = check_ss(cpu, op, ss, rpl, EXC_GP, 0);
        }
        check_code_offset(cpu, op, d.raw, offset);
        if (!null_ss)
            mark_accessed(cpu, op, &s);
        mark_accessed(cpu, op, &d);
        set_cs(cpu, sel, d.raw, rpl);
        if (null_ss)
            set_null(cpu, SEG_SS, ss);
        else
            cpu->seg[SEG_SS] = descriptor_segment(ss, s.raw);
        if (wide || size == 8 || (cpu->seg[SEG_SS].attrib & 0x400))
            cpu->r[RSP] = wide ? new_sp + (outer && !iret ? release : 0)
                               : (u32)(new_sp + (outer && !iret ? release : 0));
        else
            PUT2(RSP, new_sp + (iret ? 0 : release));
        if (outer)
            drop_segments(cpu);
    } else {
        check_code_offset(cpu, op, d.raw, offset);
        mark_accessed(cpu, op, &d);
        set_sp(cpu, sp);
        set_cs(cpu, sel, d.raw, rpl);
    }
    cpu->r[REG_RIP] = offset;
}

HANDLER(op_retf)
{
    u64 sp = cpu->r[RSP];
    unsigned size = op->osize, release = (unsigned)op->imm;
    u64 offset = pop_at(cpu, op, &sp, size);
    u16 sel = (u16)pop_at(cpu, op, &sp, size);
    if (real_or_v86(cpu)) {
        if (offset > cpu->seg[SEG_CS].limit)
            RAISE_GP0(cpu, op);
        set_sp(cpu, sp + release);
        cpu->seg[SEG_CS].selector = sel;
        cpu->seg[SEG_CS].base = (u32)sel << 4;
        cpu->r[REG_RIP] = offset;
    } else {
        far_return(cpu, op, sp, sel, offset, size, release, false);
    }
    return far_done(cpu);
}

/* Replaces the RFLAGS bits of `mask`; what follows from them is looked at before the next instruction. */
static void change_flags(Cpu *cpu, u64 value, u64 mask)
{
    u64 now = cpu_rflags(cpu), next = (now & ~mask) | (value & mask);
    cpu_set_rflags(cpu, next);
    if ((next & ~now) & (FLAG_IF | FLAG_TF | FLAG_RF))
        cpu->attention = 1;
    if ((next ^ now) & (FLAG_AC | FLAG_VM))
        cpu_update_mode(cpu);
}

static void set_v86_segment(Cpu *cpu, unsigned seg, u16 sel)
{
    cpu->seg[seg] = (SimSegment){.selector = sel, .attrib = 0xF3, .limit = 0xFFFF, .base = (u32)sel << 4};
}

static const Op *iret_done(Cpu *cpu)
{
    if (cpu->nmi_masked) {
        cpu->nmi_masked = 0;
        cpu->attention = 1;
    }
    return far_done(cpu);
}

/* PUSHF, POPF and IRET of virtual-8086 mode below IOPL 3: #GP(0), or 16-bit forms on VIF when CR4.VME is set. */
static bool v86_needs_vme(Cpu *cpu, const Op *op, unsigned size)
{
    if (!(cpu->rflags & FLAG_VM) || (cpu->rflags & FLAG_IOPL) == FLAG_IOPL)
        return false;
    if (!(cpu->cr4 & CR4_VME) || size != 2)
        RAISE_GP0(cpu, op);
    return true;
}

/* A popped FLAGS image whose IF means VIF. */
static u64 vme_flags(Cpu *cpu, const Op *op, u64 flags)
{
    if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (cpu->rflags & FLAG_VIP)))
        RAISE_GP0(cpu, op);
    return flags & FLAG_IF ? flags | FLAG_VIF : flags & ~(u64)FLAG_VIF;
}

HANDLER(op_iret)
{
    unsigned size = op->osize, cpl = cpu->cpl;
    u64 old = cpu->rflags;
    cpu->op = op;
    bool vme = v86_needs_vme(cpu, op, size);
    svm_intercept(cpu, op, 0x74 - 0x60, 0x74, 0, 0);
    u64 mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT | (size == 2 ? 0 : FLAG_RF | FLAG_AC | FLAG_ID);
    if (!real_or_v86(cpu) && (cpu->rflags & FLAG_NT)) {
        if (long_mode(cpu))
            RAISE_GP0(cpu, op);
        u16 sel = (u16)mem_read_sys(cpu, op, (u32)cpu->seg[SEG_TR].base, 2);
        if ((sel & 4) || !(sel & 0xFFFC))
            raise_error(cpu, op, EXC_TS, sel & 0xFFFC);
        Descriptor d = read_descriptor(cpu, op, sel, EXC_TS, 0);
        if (desc_s(d.raw) || (desc_type(d.raw) & 7) != 3)
            raise_error(cpu, op, EXC_TS, sel & 0xFFFC);
        if (!desc_p(d.raw))
            raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
        task_switch(cpu, op, sel, &d, TASK_IRET, next_rip(cpu, op), false, 0);
        return iret_done(cpu);
    }
    u64 sp = cpu->r[RSP];
    u64 offset = pop_at(cpu, op, &sp, size);
    u16 sel = (u16)pop_at(cpu, op, &sp, size);
    u64 flags = pop_at(cpu, op, &sp, size);
    if (real_or_v86(cpu)) {
        if (offset > cpu->seg[SEG_CS].limit)
            RAISE_GP0(cpu, op);
        if (vme)
            flags = vme_flags(cpu, op, flags);
        set_sp(cpu, sp);
        cpu->seg[SEG_CS].selector = sel;
        cpu->seg[SEG_CS].base = (u32)sel << 4;
        cpu->r[REG_RIP] = offset;
        if (vme)
            mask |= FLAG_VIF;
        else
            mask |= FLAG_IF | (cpu->rflags & FLAG_VM ? 0 : FLAG_IOPL);
        change_flags(cpu, flags, mask);
        return iret_done(cpu);
    }
    if ((flags & FLAG_VM) && cpl == 0 && size == 4 && !long_mode(cpu)) {
        u64 v[6];
        for (unsigned i = 0; i < 6; i++)
            v[i] = pop_at(cpu, op, &sp, 4);
        cpu_set_rflags(cpu, flags | 2);
        set_v86_segment(cpu, SEG_CS, sel);
        set_v86_segment(cpu, SEG_SS, (u16)v[1]);
        set_v86_segment(cpu, SEG_ES, (u16)v[2]);
        set_v86_segment(cpu, SEG_DS, (u16)v[3]);
        set_v86_segment(cpu, SEG_FS, (u16)v[4]);
        set_v86_segment(cpu, SEG_GS, (u16)v[5]);
        cpu->r[RSP] = (u32)v[0];
        cpu->r[REG_RIP] = (u16)offset;
        cpu->cpl = 3;
        cpu->attention = 1;
        return iret_done(cpu);
    }
    far_return(cpu, op, sp, sel, offset, size, 0, true);
    if (cpl <= (old & FLAG_IOPL) >> 12)
        mask |= FLAG_IF;
    if (cpl == 0)
        mask |= FLAG_IOPL | (size == 2 ? 0 : FLAG_VIF | FLAG_VIP);
    change_flags(cpu, flags, mask);
    return iret_done(cpu);
}
