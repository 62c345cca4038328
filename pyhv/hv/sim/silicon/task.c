/* Hardware task switches (APM vol. 2, 12.3). */
#include "access.h"

static u32 tss_read(Cpu *cpu, const Op *op, u64 base, unsigned at, unsigned size)
{
    return (u32)mem_read_sys(cpu, op, (u32)(base + at), size);
}

static void tss_write(Cpu *cpu, const Op *op, u64 base, unsigned at, unsigned size, u32 v)
{
    mem_write_sys(cpu, op, (u32)(base + at), size, v);
}

static void task_load_data(Cpu *cpu, unsigned seg, u16 sel)
{
    if (!(sel & 0xFFFC)) {
        set_null(cpu, seg, sel);
        return;
    }
    Descriptor d = read_descriptor(cpu, NULL, sel, EXC_TS, 0);
    unsigned type = desc_type(d.raw);
    if (!desc_s(d.raw) || (type & 0xA) == 8
        || ((type & 0xC) != 0xC && (desc_dpl(d.raw) < (sel & 3u) || desc_dpl(d.raw) < cpu->cpl)))
        raise_error(cpu, NULL, EXC_TS, sel & 0xFFFC);
    if (!desc_p(d.raw))
        raise_error(cpu, NULL, EXC_NP, sel & 0xFFFC);
    mark_accessed(cpu, NULL, &d);
    cpu->seg[seg] = descriptor_segment(sel, d.raw);
}

/* `next` is the saved EIP. Faults before the commit point are the old task's, later ones the new task's. */
static void task_switch(Cpu *cpu, const Op *op, u16 sel, Descriptor *d, int how, u64 next, bool has_error, u32 error)
{
    static const u8 order[6] = {SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    SimSegment *tr = &cpu->seg[SEG_TR];
    SimSegment tss = descriptor_segment(sel, d->raw);
    bool wide = desc_type(d->raw) & 8, old_wide = tr->attrib & 8;
    u32 least = wide ? 0x67 : 0x2B;
    if (cpu->in_guest && (cpu->svm.intercepts >> (0x7D - 0x60) & 1)) {
        u64 info2 = (u64)(how == TASK_IRET) << 36 | (u64)(how == TASK_JMP) << 38 | (u64)has_error << 44
                  | (u64)((cpu->rflags & FLAG_RF) != 0) << 48 | error;
        sync_op(cpu, op);
        cpu->svm.next_rip = next;
        vmexit(cpu, 0x7D, sel, info2);
    }
    if (tss.limit < least)
        raise_error(cpu, op, EXC_TS, sel & 0xFFFC);
    u32 r[8], eip, eflags, cr3 = 0;
    u16 segs[6] = {0}, ldt, trap = 0;
    u64 nb = tss.base;
    if (wide) {
        cr3 = tss_read(cpu, op, nb, 0x1C, 4);
        eip = tss_read(cpu, op, nb, 0x20, 4);
        eflags = tss_read(cpu, op, nb, 0x24, 4);
        for (unsigned i = 0; i < 8; i++)
            r[i] = tss_read(cpu, op, nb, 0x28 + i * 4, 4);
        for (unsigned i = 0; i < 6; i++)
            segs[i] = (u16)tss_read(cpu, op, nb, 0x48 + i * 4, 2);
        ldt = (u16)tss_read(cpu, op, nb, 0x60, 2);
        trap = (u16)tss_read(cpu, op, nb, 0x64, 2);
    } else {
        eip = tss_read(cpu, op, nb, 0x0E, 2);
        eflags = tss_read(cpu, op, nb, 0x10, 2);
        for (unsigned i = 0; i < 8; i++)
            r[i] = tss_read(cpu, op, nb, 0x12 + i * 2, 2) | 0xFFFF0000u;
        for (unsigned i = 0; i < 4; i++)
            segs[i] = (u16)tss_read(cpu, op, nb, 0x22 + i * 2, 2);
        ldt = (u16)tss_read(cpu, op, nb, 0x2A, 2);
    }
    /* save the old task */
    u64 ob = tr->base;
    u32 flags = (u32)cpu_rflags(cpu);
    if (how == TASK_IRET)
        flags &= ~FLAG_NT;
    if (old_wide) {
        tss_write(cpu, op, ob, 0x20, 4, (u32)next);
        tss_write(cpu, op, ob, 0x24, 4, flags);
        for (unsigned i = 0; i < 8; i++)
            tss_write(cpu, op, ob, 0x28 + i * 4, 4, (u32)cpu->r[i]);
        for (unsigned i = 0; i < 6; i++)
            tss_write(cpu, op, ob, 0x48 + i * 4, 2, cpu->seg[order[i]].selector);
    } else {
        tss_write(cpu, op, ob, 0x0E, 2, (u32)next);
        tss_write(cpu, op, ob, 0x10, 2, flags);
        for (unsigned i = 0; i < 8; i++)
            tss_write(cpu, op, ob, 0x12 + i * 2, 2, (u32)cpu->r[i]);
        for (unsigned i = 0; i < 4; i++)
            tss_write(cpu, op, ob, 0x22 + i * 2, 2, cpu->seg[order[i]].selector);
    }
    if (how == TASK_CALL || how == TASK_EVENT)
        tss_write(cpu, op, nb, 0, 2, tr->selector);
    /* busy bits */
    if (how == TASK_JMP || how == TASK_IRET) {
        u64 at;
        if (descriptor_address(cpu, tr->selector & ~4u, 8, &at))
            mem_write_sys(cpu, op, at + 5, 1, mem_read_sys(cpu, op, at + 5, 1) & ~2ull);
    }
    if (how != TASK_IRET)
        mem_write_sys(cpu, op, d->linear + 5, 1, (d->raw >> 40 & 0xFF) | 2);
    if (how == TASK_CALL || how == TASK_EVENT)
        eflags |= FLAG_NT;
    /* commit: from here on faults happen in the new task */
    tss.attrib |= 2;
    *tr = tss;
    cpu->cr0 |= CR0_TS;
    if (op)
        sync_op(cpu, op);
    cpu->block = NULL;
    if (wide && (cpu->cr0 & CR0_PG)) {
        cpu->cr3 = cr3;
        tlb_flush_slot(cpu, cpu->slot, false);
        if ((cpu->cr4 & CR4_PAE) && !load_pdptes(cpu, cr3))
            raise_error(cpu, NULL, EXC_TS, sel & 0xFFFC);
    }
    cpu->r[REG_RIP] = eip;
    for (unsigned i = 0; i < 8; i++)
        cpu->r[i] = r[i];
    cpu_set_rflags(cpu, eflags);
    cpu->dr[7] &= ~0x155ull; /* local breakpoints */
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[order[i]] = (SimSegment){.selector = segs[i]};
    cpu->seg[SEG_LDTR] = (SimSegment){.selector = ldt};
    cpu->attention = 1;
    if (eflags & FLAG_VM) {
        for (unsigned i = 0; i < 6; i++)
            set_v86_segment(cpu, order[i], segs[i]);
        cpu->cpl = 3;
    } else {
        cpu->cpl = segs[1] & 3;
    }
    if (ldt & 0xFFFC) {
        u64 at;
        if ((ldt & 4) || !descriptor_address(cpu, ldt, 8, &at))
            raise_error(cpu, NULL, EXC_TS, ldt & 0xFFFC);
        u64 raw = mem_read_sys(cpu, NULL, at, 8);
        if (desc_s(raw) || desc_type(raw) != 2 || !desc_p(raw))
            raise_error(cpu, NULL, EXC_TS, ldt & 0xFFFC);
        cpu->seg[SEG_LDTR] = descriptor_segment(ldt, raw);
    }
    if (!(eflags & FLAG_VM)) {
        if (!(segs[1] & 0xFFFC))
            raise_error(cpu, NULL, EXC_TS, 0);
        Descriptor c = read_descriptor(cpu, NULL, segs[1], EXC_TS, 0);
        unsigned rpl = segs[1] & 3, dpl = desc_dpl(c.raw);
        if (!desc_is_code(c.raw) || (desc_conforming(c.raw) ? dpl > rpl : dpl != rpl))
            raise_error(cpu, NULL, EXC_TS, segs[1] & 0xFFFC);
        if (!desc_p(c.raw))
            raise_error(cpu, NULL, EXC_NP, segs[1] & 0xFFFC);
        Descriptor s = check_ss(cpu, NULL, segs[2], rpl, EXC_TS, 0);
        mark_accessed(cpu, NULL, &c);
        set_cs(cpu, segs[1], c.raw, rpl);
        mark_accessed(cpu, NULL, &s);
        cpu->seg[SEG_SS] = descriptor_segment(segs[2], s.raw);
        cpu_update_mode(cpu);
        task_load_data(cpu, SEG_ES, segs[0]);
        task_load_data(cpu, SEG_DS, segs[3]);
        task_load_data(cpu, SEG_FS, segs[4]);
        task_load_data(cpu, SEG_GS, segs[5]);
        if (eip > cpu->seg[SEG_CS].limit)
            raise_error(cpu, NULL, EXC_GP, 0);
    }
    cpu_update_mode(cpu);
    if (has_error) {
        NewStack s = this_stack(cpu);
        new_push(cpu, NULL, &s, wide ? 4 : 2, error);
        use_stack(cpu, &s);
    }
    if (trap & 1)
        cpu->pending_dbg |= 0x8000;
}
