/* System instructions: control, debug and segment registers, descriptor tables, flags, I/O, HLT and their like. */
#include "access.h"
#include "block.h"

/* Ends the block after an instruction that may have changed what the CPU must do next. */
static const Op *system_done(Cpu *cpu, const Op *op)
{
    cpu->r[REG_RIP] = next_rip(cpu, op);
    cpu->block = NULL;
    return NULL;
}

static void need_cpl0(Cpu *cpu, const Op *op)
{
    if (cpu->cpl)
        RAISE_GP0(cpu, op);
}

static void need_protected(Cpu *cpu, const Op *op)
{
    if (real_or_v86(cpu))
        RAISE_UD(cpu, op);
}

#define INTERCEPT(code) svm_intercept(cpu, op, (code) - 0x60, code, 0, 0)

/* ---- flags ---- */

HANDLER(op_pushf)
{
    bool vme = v86_needs_vme(cpu, op, op->osize);
    INTERCEPT(0x70);
    u64 flags = cpu_rflags(cpu) & ~(u64)(FLAG_VM | FLAG_RF);
    if (vme)
        flags = (flags & ~(u64)FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    push(cpu, op, op->osize, flags);
    NEXT;
}
HANDLER(op_popf)
{
    bool vme = v86_needs_vme(cpu, op, op->osize);
    INTERCEPT(0x71);
    u64 sp = cpu->r[RSP], flags = pop_at(cpu, op, &sp, op->osize);
    if (vme)
        flags = vme_flags(cpu, op, flags);
    u64 mask = (vme ? FLAG_VIF : 0) | FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT | (op->osize == 2 ? 0 : FLAG_AC | FLAG_ID);
    if (cpu->cpl <= (cpu->rflags & FLAG_IOPL) >> 12)
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL;
    set_sp(cpu, sp);
    change_flags(cpu, flags, mask);
    cpu->rflags &= ~FLAG_RF;
    if (!cpu->attention) {
        cpu->r[REG_RIP] = next_rip(cpu, op);
        return jump_here(cpu);
    }
    return system_done(cpu, op);
}
static bool may_change_if(const Cpu *cpu)
{
    return !(cpu->cr0 & CR0_PE) || cpu->cpl <= (cpu->rflags & FLAG_IOPL) >> 12;
}
/* CLI and STI that may not change IF change VIF: in virtual-8086 mode by CR4.VME, at CPL 3 by CR4.PVI. */
static bool virtual_if(const Cpu *cpu)
{
    return cpu->cpl == 3 && (cpu->cr4 & (cpu->rflags & FLAG_VM ? CR4_VME : CR4_PVI));
}
HANDLER(op_cli)
{
    if (!may_change_if(cpu)) {
        if (virtual_if(cpu)) {
            cpu->rflags &= ~FLAG_VIF;
            NEXT;
        }
        RAISE_GP0(cpu, op);
    }
    cpu->rflags &= ~FLAG_IF;
    NEXT;
}
HANDLER(op_sti)
{
    if (!may_change_if(cpu)) {
        if (virtual_if(cpu) && !(cpu->rflags & FLAG_VIP)) {
            cpu->rflags |= FLAG_VIF;
            NEXT;
        }
        RAISE_GP0(cpu, op);
    }
    if (!(cpu->rflags & FLAG_IF)) {
        cpu->shadow = 1;
        cpu->attention = 1;
    }
    cpu->rflags |= FLAG_IF;
    return system_done(cpu, op);
}
HANDLER(op_clac)
{
    if (!cpu_feature(cpu, FEAT_SMAP) || cpu->cpl)
        RAISE_UD(cpu, op);
    cpu->rflags &= ~FLAG_AC;
    cpu_update_mode(cpu);
    NEXT;
}
HANDLER(op_stac)
{
    if (!cpu_feature(cpu, FEAT_SMAP) || cpu->cpl)
        RAISE_UD(cpu, op);
    cpu->rflags |= FLAG_AC;
    cpu_update_mode(cpu);
    NEXT;
}

/* ---- HLT, MONITOR, PAUSE ---- */

HANDLER(op_hlt)
{
    need_cpl0(cpu, op);
    INTERCEPT(0x78);
    cpu->mp_state = 3;
    cpu->attention = 1;
    return system_done(cpu, op);
}
HANDLER(op_pause)
{
    INTERCEPT(0x77);
    NEXT;
}
HANDLER(op_monitor)
{
    if (!cpu_feature(cpu, FEAT_MONITOR) || cpu->cpl)
        RAISE_UD(cpu, op);
    if (cpu->r[RCX] & 0xFFFFFFFF)
        RAISE_GP0(cpu, op);
    INTERCEPT(0x8A);
    u64 ea = cpu->r[RAX];
    ea = op->asize == 8 ? ea : op->asize == 4 ? (u32)ea : (u16)ea;
    load(cpu, op, seg_linear(cpu, op, op->seg, ea, 1, ACC_READ), 1);
    NEXT;
}
HANDLER(op_mwait)
{
    if (!cpu_feature(cpu, FEAT_MONITOR) || cpu->cpl)
        RAISE_UD(cpu, op);
    INTERCEPT(0x8B);
    return system_done(cpu, op); /* wakes at once: a store by another CPU may have come already */
}

/* ---- control registers ---- */

static void set_cr0(Cpu *cpu, const Op *op, u64 v)
{
    u64 old = cpu->cr0;
    if ((v >> 32) || ((v & CR0_NW) && !(v & CR0_CD)) || ((v & CR0_PG) && !(v & CR0_PE)))
        RAISE_GP0(cpu, op);
    v = (v & 0xE005003Full) | CR0_ET;
    if ((v & CR0_PG) && !(old & CR0_PG)) {
        if (cpu->efer & EFER_LME) {
            if (!(cpu->cr4 & CR4_PAE) || (cpu->seg[SEG_CS].attrib & 0x200))
                RAISE_GP0(cpu, op);
            cpu->efer |= EFER_LMA;
        } else if ((cpu->cr4 & CR4_PAE) && !load_pdptes(cpu, cpu->cr3)) {
            RAISE_GP0(cpu, op);
        }
    } else if (!(v & CR0_PG) && (old & CR0_PG)) {
        if ((cpu->cr4 & CR4_PCIDE) || cpu->code_size == 8)
            RAISE_GP0(cpu, op);
        cpu->efer &= ~(u64)EFER_LMA;
    }
    cpu->cr0 = v;
    if ((v ^ old) & CR0_PG)
        tlb_flush_slot(cpu, cpu->slot, true);
    else if ((v ^ old) & (CR0_WP | CR0_PE))
        tlb_clear_first_level(cpu);
}

static u64 cr4_allowed(const Cpu *cpu)
{
    u64 m = CR4_TSD | CR4_DE | CR4_MCE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    m |= cpu_feature(cpu, FEAT_PSE) ? CR4_PSE : 0;
    m |= cpu_feature(cpu, FEAT_PAE) ? CR4_PAE : 0;
    m |= cpu_feature(cpu, FEAT_PGE) ? CR4_PGE : 0;
    m |= cpu_feature(cpu, FEAT_VME) ? CR4_VME | CR4_PVI : 0;
    m |= cpu_feature(cpu, FEAT_UMIP) ? CR4_UMIP : 0;
    m |= cpu_feature(cpu, FEAT_LA57) ? CR4_LA57 : 0;
    m |= cpu_feature(cpu, FEAT_FSGSBASE) ? CR4_FSGSBASE : 0;
    m |= cpu_feature(cpu, FEAT_PCID) ? CR4_PCIDE : 0;
    m |= cpu_feature(cpu, FEAT_XSAVE) ? CR4_OSXSAVE : 0;
    m |= cpu_feature(cpu, FEAT_SMEP) ? CR4_SMEP : 0;
    m |= cpu_feature(cpu, FEAT_SMAP) ? CR4_SMAP : 0;
    return m;
}

static void set_cr4(Cpu *cpu, const Op *op, u64 v)
{
    u64 old = cpu->cr4;
    if (v & ~cr4_allowed(cpu))
        RAISE_GP0(cpu, op);
    if (long_mode(cpu) && (!(v & CR4_PAE) || ((v ^ old) & CR4_LA57)))
        RAISE_GP0(cpu, op);
    if ((v & CR4_PCIDE) && !(old & CR4_PCIDE) && (!long_mode(cpu) || (cpu->cr3 & 0xFFF)))
        RAISE_GP0(cpu, op);
    if ((v & CR4_PAE) && !(old & CR4_PAE) && (cpu->cr0 & CR0_PG) && !load_pdptes(cpu, cpu->cr3))
        RAISE_GP0(cpu, op);
    cpu->cr4 = v;
    if ((v ^ old) & (CR4_PGE | CR4_PAE | CR4_PSE | CR4_PCIDE | CR4_LA57))
        tlb_flush_slot(cpu, cpu->slot, true);
    else if ((v ^ old) & (CR4_SMEP | CR4_SMAP))
        tlb_clear_first_level(cpu);
}

static void set_cr3(Cpu *cpu, const Op *op, u64 v)
{
    bool keep = (cpu->cr4 & CR4_PCIDE) && (v >> 63);
    if (cpu->cr4 & CR4_PCIDE)
        v &= ~(1ull << 63);
    if (long_mode(cpu) && (v & ~(cpu->machine->phys_mask | 0xFFF)))
        RAISE_GP0(cpu, op);
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !long_mode(cpu) && !load_pdptes(cpu, v))
        RAISE_GP0(cpu, op);
    cpu->cr3 = v;
    if (cpu->cr4 & CR4_PCIDE) {
        if (!keep)
            tlb_flush_pcid(cpu, v & 0xFFF, false);
        else
            tlb_clear_slot(cpu, cpu->slot);
    } else {
        tlb_flush_slot(cpu, cpu->slot, false);
    }
}

/* The TPR that MOV CR8 means: the guest's V_TPR under V_INTR_MASKING, else the APIC's. */
static u64 get_cr8(const Cpu *cpu)
{
    if (cpu->in_guest && cpu->svm.v_intr_masking && !cpu->vapic)
        return cpu->svm.int_ctl & 0xF;
    return lapic_get_tpr(cpu) >> 4;
}
static void put_cr8(Cpu *cpu, u64 v)
{
    if (cpu->in_guest && cpu->svm.v_intr_masking && !cpu->vapic) {
        cpu->svm.int_ctl = (cpu->svm.int_ctl & ~0xFull) | v;
    } else {
        lapic_set_tpr(cpu, (uint8_t)(v << 4));
        if (cpu->in_guest)
            cpu->svm.int_ctl = (cpu->svm.int_ctl & ~0xFull) | v;
    }
    cpu->attention = 1;
}

HANDLER(mov_from_cr)
{
    need_cpl0(cpu, op);
    unsigned n = op->reg;
    if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
        RAISE_UD(cpu, op);
    if (cpu->in_guest && (cpu->svm.cr_read >> n & 1))
        svm_intercept(cpu, op, -1, n, (u64)1 << 63 | op->rm, 0);
    cpu->op = op;
    u64 v = n == 0 ? cpu->cr0 : n == 2 ? cpu->cr2 : n == 3 ? cpu->cr3 : n == 4 ? cpu->cr4 : get_cr8(cpu);
    if (cpu->code_size == 8)
        cpu->r[op->rm] = v;
    else
        PUT4(op->rm, v);
    NEXT;
}
HANDLER(mov_to_cr)
{
    need_cpl0(cpu, op);
    unsigned n = op->reg;
    u64 v = cpu->code_size == 8 ? cpu->r[op->rm] : (u32)cpu->r[op->rm];
    if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
        RAISE_UD(cpu, op);
    cpu->op = op;
    if (cpu->in_guest) {
        if (cpu->svm.cr_write >> n & 1)
            svm_intercept(cpu, op, -1, 0x10 + n, (u64)1 << 63 | op->rm, 0);
        if (n == 0 && ((v ^ cpu->cr0) & ~(u64)(CR0_TS | CR0_MP)))
            svm_intercept(cpu, op, 5, 0x65, (u64)1 << 63 | op->rm, 0);
    }
    switch (n) {
    case 0: set_cr0(cpu, op, v); break;
    case 2: cpu->cr2 = v; break;
    case 3: set_cr3(cpu, op, v); break;
    case 4: set_cr4(cpu, op, v); break;
    default:
        if (v & ~0xFull)
            RAISE_GP0(cpu, op);
        put_cr8(cpu, v);
    }
    const Op *next = system_done(cpu, op);
    cpu_update_mode(cpu);
    return next;
}
HANDLER(op_clts)
{
    need_cpl0(cpu, op);
    if (cpu->in_guest && (cpu->svm.cr_write & 1))
        svm_intercept(cpu, op, -1, 0x10, 0, 0);
    cpu->cr0 &= ~(u64)CR0_TS;
    return system_done(cpu, op);
}
HANDLER(op_lmsw)
{
    need_cpl0(cpu, op);
    u64 v = rm_get(cpu, op, 2) & 0xF;
    if (cpu->in_guest) {
        if (cpu->svm.cr_write & 1)
            svm_intercept(cpu, op, -1, 0x10, 0, 0);
        if ((v ^ cpu->cr0) & 0xC & ~(u64)(CR0_TS | CR0_MP))
            svm_intercept(cpu, op, 5, 0x65, 0, 0);
    }
    set_cr0(cpu, op, (cpu->cr0 & ~0xEull) | v);
    const Op *next = system_done(cpu, op);
    cpu_update_mode(cpu);
    return next;
}
static void check_umip(Cpu *cpu, const Op *op)
{
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl)
        RAISE_GP0(cpu, op);
}
/* SMSW, SLDT, STR: a register takes the operand size, memory 16 bits */
static const Op *store_word(Cpu *cpu, const Op *op, u64 v)
{
    if (op->flags & OPF_MEM)
        store(cpu, op, op_linear(cpu, op, 2, ACC_WRITE), 2, v);
    else
        reg_put(cpu, op->rm, op->osize, v);
    NEXT;
}
HANDLER(op_smsw)
{
    check_umip(cpu, op);
    if (cpu->in_guest && (cpu->svm.cr_read & 1))
        svm_intercept(cpu, op, -1, 0, 0, 0);
    return store_word(cpu, op, cpu->cr0);
}

/* ---- debug registers ---- */

static void mov_dr_check(Cpu *cpu, const Op *op, unsigned *n)
{
    need_cpl0(cpu, op);
    if (*n == 4 || *n == 5) {
        if (cpu->cr4 & CR4_DE)
            RAISE_UD(cpu, op);
        *n += 2;
    }
    if (*n > 7)
        RAISE_UD(cpu, op);
    if (cpu->dr[7] & 0x2000) {
        cpu->exc = (PendingException){.vector = EXC_DB, .dr6 = 0x2000, .db_fault = 1};
        sync_op(cpu, op);
        longjmp(cpu->leave, LEAVE_EXCEPTION);
    }
}
HANDLER(mov_from_dr)
{
    unsigned n = op->reg;
    mov_dr_check(cpu, op, &n);
    if (cpu->in_guest && (cpu->svm.dr_read >> n & 1))
        svm_intercept(cpu, op, -1, 0x20 + n, (u64)op->rm, 0);
    if (cpu->code_size == 8)
        cpu->r[op->rm] = cpu->dr[n];
    else
        PUT4(op->rm, cpu->dr[n]);
    NEXT;
}
HANDLER(mov_to_dr)
{
    unsigned n = op->reg;
    mov_dr_check(cpu, op, &n);
    u64 v = cpu->code_size == 8 ? cpu->r[op->rm] : (u32)cpu->r[op->rm];
    if (cpu->in_guest && (cpu->svm.dr_write >> n & 1))
        svm_intercept(cpu, op, -1, 0x30 + n, (u64)op->rm, 0);
    if (n >= 6 && (v >> 32))
        RAISE_GP0(cpu, op);
    if (n == 6)
        v = (v & 0xE00F) | 0xFFFF0FF0;
    if (n == 7)
        v = (v & 0xFFFF23FF) | 0x400;
    cpu->dr[n] = v;
    const Op *next = system_done(cpu, op);
    cpu_update_mode(cpu);
    return next;
}

/* ---- descriptor-table registers ---- */

HANDLER(op_lgdt)
{
    need_cpl0(cpu, op);
    bool idt = op->reg & 1;
    INTERCEPT(idt ? 0x6A : 0x6B);
    unsigned size = cpu->code_size == 8 ? 8 : 4;
    u64 lin = op_linear(cpu, op, size + 2, ACC_READ);
    u64 limit = load(cpu, op, lin, 2), base = load(cpu, op, lin + 2, size);
    if (size == 4 && op->osize == 2)
        base &= 0xFFFFFF;
    if (size == 8 && !is_canonical(cpu, base))
        RAISE_GP0(cpu, op);
    SimSegment *t = idt ? &cpu->idtr : &cpu->gdtr;
    t->base = base;
    t->limit = (u32)limit;
    NEXT;
}
HANDLER(op_sgdt)
{
    check_umip(cpu, op);
    bool idt = op->reg & 1;
    INTERCEPT(idt ? 0x66 : 0x67);
    const SimSegment *t = idt ? &cpu->idtr : &cpu->gdtr;
    unsigned size = cpu->code_size == 8 ? 8 : 4;
    u64 lin = op_linear(cpu, op, size + 2, ACC_WRITE);
    u8 image[10];
    memcpy(image, &t->limit, 2);
    memcpy(image + 2, &t->base, 8);
    mem_write(cpu, op, lin, image, size + 2);
    NEXT;
}
HANDLER(op_sldt)
{
    need_protected(cpu, op);
    check_umip(cpu, op);
    INTERCEPT(0x68);
    return store_word(cpu, op, cpu->seg[SEG_LDTR].selector);
}
HANDLER(op_str)
{
    need_protected(cpu, op);
    check_umip(cpu, op);
    INTERCEPT(0x69);
    return store_word(cpu, op, cpu->seg[SEG_TR].selector);
}
static SimSegment system_segment(const Cpu *cpu, u16 sel, const Descriptor *d)
{
    SimSegment s = descriptor_segment(sel, d->raw);
    if (long_mode(cpu))
        s.base |= d->high << 32;
    return s;
}
HANDLER(op_lldt)
{
    need_protected(cpu, op);
    need_cpl0(cpu, op);
    INTERCEPT(0x6C);
    u16 sel = (u16)rm_get(cpu, op, 2);
    if (!(sel & 0xFFFC)) {
        set_null(cpu, SEG_LDTR, sel);
        NEXT;
    }
    if (sel & 4)
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
    if (desc_s(d.raw) || desc_type(d.raw) != 2)
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    if (long_mode(cpu))
        read_descriptor_high(cpu, op, sel, &d, EXC_GP, 0);
    cpu->seg[SEG_LDTR] = system_segment(cpu, sel, &d);
    NEXT;
}
HANDLER(op_ltr)
{
    need_protected(cpu, op);
    need_cpl0(cpu, op);
    INTERCEPT(0x6D);
    u16 sel = (u16)rm_get(cpu, op, 2);
    if (!(sel & 0xFFFC))
        RAISE_GP0(cpu, op);
    if (sel & 4)
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
    unsigned type = desc_type(d.raw);
    if (desc_s(d.raw) || (type != 9 && (type != 1 || long_mode(cpu))))
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    if (long_mode(cpu))
        read_descriptor_high(cpu, op, sel, &d, EXC_GP, 0);
    mem_write_sys(cpu, op, d.linear + 5, 1, (d.raw >> 40 & 0xFF) | 2);
    cpu->seg[SEG_TR] = system_segment(cpu, sel, &d);
    cpu->seg[SEG_TR].attrib |= 2;
    NEXT;
}

/* LAR, LSL, VERR, VERW: a selector that may not be seen clears ZF and faults not at all */
static bool visible_descriptor(Cpu *cpu, const Op *op, u16 sel, u64 *raw)
{
    u64 at;
    if (!(sel & 0xFFFC) || !descriptor_address(cpu, sel, 8, &at))
        return false;
    *raw = mem_read_sys(cpu, op, at, 8);
    unsigned dpl = desc_dpl(*raw);
    if (desc_is_code(*raw) && desc_conforming(*raw))
        return true;
    return dpl >= cpu->cpl && dpl >= (sel & 3u);
}
static void set_zf(Cpu *cpu, bool zf)
{
    set_status_flags(cpu, (cpu_status_flags(cpu) & ~FLAG_ZF) | (zf ? FLAG_ZF : 0));
}
HANDLER(op_lar)
{
    need_protected(cpu, op);
    u16 sel = (u16)rm_get(cpu, op, 2);
    u64 raw = 0;
    bool ok = visible_descriptor(cpu, op, sel, &raw);
    if (ok && !desc_s(raw)) {
        unsigned types = long_mode(cpu) ? 1u << 2 | 1u << 9 | 1u << 11 | 1u << 12
                                        : 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 9 | 1u << 11 | 1u << 12;
        ok = types >> desc_type(raw) & 1;
    }
    if (ok)
        reg_put(cpu, op->reg, op->osize, (raw >> 32) & (op->osize == 2 ? 0xFF00 : 0x00FFFF00));
    set_zf(cpu, ok);
    NEXT;
}
HANDLER(op_lsl)
{
    need_protected(cpu, op);
    u16 sel = (u16)rm_get(cpu, op, 2);
    u64 raw = 0;
    bool ok = visible_descriptor(cpu, op, sel, &raw);
    if (ok && !desc_s(raw)) {
        unsigned types = long_mode(cpu) ? 1u << 2 | 1u << 9 | 1u << 11 : 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;
        ok = types >> desc_type(raw) & 1;
    }
    if (ok)
        reg_put(cpu, op->reg, op->osize, descriptor_segment(sel, raw).limit);
    set_zf(cpu, ok);
    NEXT;
}
HANDLER(op_verr)
{
    need_protected(cpu, op);
    u16 sel = (u16)rm_get(cpu, op, 2);
    u64 raw = 0;
    bool ok = visible_descriptor(cpu, op, sel, &raw) && desc_s(raw);
    if (ok)
        ok = op->reg & 1 ? (desc_type(raw) & 0xA) == 2 : (desc_type(raw) & 0xA) != 8;
    set_zf(cpu, ok);
    NEXT;
}
HANDLER(op_arpl)
{
    need_protected(cpu, op);
    u64 lin = 0;
    u16 v;
    if (op->flags & OPF_MEM) {
        lin = op_linear(cpu, op, 2, ACC_WRITE);
        v = (u16)mem_read_for_write(cpu, op, lin, 2);
    } else {
        v = (u16)cpu->r[op->rm];
    }
    unsigned rpl = cpu->r[op->reg] & 3;
    bool raise = (v & 3u) < rpl;
    if (raise) {
        v = (u16)((v & ~3u) | rpl);
        if (op->flags & OPF_MEM)
            store(cpu, op, lin, 2, v);
        else
            PUT2(op->rm, v);
    }
    set_zf(cpu, raise);
    NEXT;
}

/* ---- segment registers ---- */

static const Op *segment_done(Cpu *cpu, const Op *op, unsigned seg)
{
    if (seg == SEG_SS) {
        cpu->shadow = 2;
        return system_done(cpu, op);
    }
    if (cpu->code_size == 8)
        NEXT; /* bases and limits of DS and ES do not count; FS and GS bases are read anew by every op */
    return system_done(cpu, op);
}
HANDLER(mov_to_seg)
{
    unsigned seg = op->reg;
    if (seg > SEG_GS || seg == SEG_CS)
        RAISE_UD(cpu, op);
    cpu->op = op;
    load_segment(cpu, op, seg, (u16)rm_get(cpu, op, 2));
    return segment_done(cpu, op, seg);
}
HANDLER(mov_from_seg)
{
    if (op->reg > SEG_GS)
        RAISE_UD(cpu, op);
    return store_word(cpu, op, cpu->seg[op->reg].selector);
}
HANDLER(push_seg) { push(cpu, op, op->osize, cpu->seg[op->reg].selector); NEXT; }
HANDLER(pop_seg)
{
    u64 sp = cpu->r[RSP];
    u16 sel = (u16)pop_at(cpu, op, &sp, op->osize);
    cpu->op = op;
    load_segment(cpu, op, op->reg, sel);
    set_sp(cpu, sp);
    return segment_done(cpu, op, op->reg);
}
HANDLER(op_lxs) /* LES LDS LSS LFS LGS: imm is the segment */
{
    u64 lin = op_linear(cpu, op, op->osize + 2u, ACC_READ);
    u64 offset = load(cpu, op, lin, op->osize);
    u16 sel = (u16)load(cpu, op, lin + op->osize, 2);
    unsigned seg = (unsigned)op->imm;
    load_segment(cpu, op, seg, sel);
    reg_put(cpu, op->reg, op->osize, offset);
    if (cpu->code_size == 8)
        NEXT;
    return system_done(cpu, op);
}
HANDLER(op_swapgs)
{
    if (cpu->code_size != 8)
        RAISE_UD(cpu, op);
    need_cpl0(cpu, op);
    u64 base = cpu->seg[SEG_GS].base;
    cpu->seg[SEG_GS].base = cpu->sbase[SEG_GS] = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    NEXT;
}
/* RDFSBASE 0, RDGSBASE 1, WRFSBASE 2, WRGSBASE 3 in op->reg */
HANDLER(op_fsgsbase)
{
    unsigned seg = op->reg & 1 ? SEG_GS : SEG_FS;
    if (cpu->code_size != 8 || !(cpu->cr4 & CR4_FSGSBASE))
        RAISE_UD(cpu, op);
    if (op->reg < 2) {
        reg_put(cpu, op->rm, op->osize, cpu->seg[seg].base);
    } else {
        u64 v = reg_get(cpu, op->rm, op->osize);
        if (!is_canonical(cpu, v))
            RAISE_GP0(cpu, op);
        cpu->seg[seg].base = cpu->sbase[seg] = v;
    }
    NEXT;
}

/* ---- TLB and caches ---- */

HANDLER(op_invlpg)
{
    need_cpl0(cpu, op);
    u64 ea = op_offset(cpu, op);
    u64 lin = cpu->code_size == 8 ? ea + (op->seg >= SEG_FS ? cpu->seg[op->seg].base : 0)
                                  : (u32)(ea + cpu->seg[op->seg].base);
    if (cpu->in_guest)
        svm_intercept(cpu, op, 0x79 - 0x60, 0x79, lin, 0);
    if (is_canonical(cpu, lin))
        tlb_invlpg(cpu, lin);
    return system_done(cpu, op);
}
HANDLER(op_invpcid)
{
    if (!cpu_feature(cpu, FEAT_INVPCID))
        RAISE_UD(cpu, op);
    need_cpl0(cpu, op);
    if (cpu->in_guest && (cpu->svm.intercepts3 & 4))
        svm_intercept(cpu, op, -1, 0xA2, 0, 0);
    u64 type = cpu->code_size == 8 ? cpu->r[op->reg] : (u32)cpu->r[op->reg], d[2];
    mem_read(cpu, op, op_linear(cpu, op, 16, ACC_READ), d, 16);
    if (type > 3 || (d[0] >> 12) || ((d[0] & 0xFFF) && !(cpu->cr4 & CR4_PCIDE) && type < 2)
        || (type == 0 && !is_canonical(cpu, d[1])))
        RAISE_GP0(cpu, op);
    if (type == 0)
        tlb_invlpg(cpu, d[1]);
    else if (type == 1)
        tlb_flush_pcid(cpu, d[0] & 0xFFF, false);
    else
        tlb_flush_slot(cpu, cpu->slot, type == 2);
    return system_done(cpu, op);
}
HANDLER(op_invd)
{
    need_cpl0(cpu, op);
    INTERCEPT(0x76);
    NEXT;
}
HANDLER(op_wbinvd)
{
    need_cpl0(cpu, op);
    INTERCEPT(0x89);
    NEXT;
}
HANDLER(op_clflush)
{
    load(cpu, op, op_linear(cpu, op, 1, ACC_READ), 1);
    NEXT;
}

/* ---- time, identification ---- */

HANDLER(op_rdtsc) /* imm 1: RDTSCP */
{
    if (op->imm && !cpu_feature(cpu, FEAT_RDTSCP))
        RAISE_UD(cpu, op);
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
        RAISE_GP0(cpu, op);
    INTERCEPT(op->imm ? 0x87 : 0x6E);
    cpu->op = op;
    u64 v = cpu_guest_tsc(cpu);
    PUT4(RAX, v);
    PUT4(RDX, v >> 32);
    if (op->imm)
        PUT4(RCX, cpu->tsc_aux);
    return system_done(cpu, op);
}
HANDLER(op_rdpid)
{
    if (!cpu_feature(cpu, FEAT_RDPID))
        RAISE_UD(cpu, op);
    cpu->r[op->rm] = (u32)cpu->tsc_aux;
    NEXT;
}
HANDLER(op_rdpmc)
{
    INTERCEPT(0x6F);
    if (cpu->cpl && !(cpu->cr4 & CR4_PCE))
        RAISE_GP0(cpu, op);
    if ((u32)cpu->r[RCX] > 5)
        RAISE_GP0(cpu, op);
    PUT4(RAX, 0);
    PUT4(RDX, 0);
    NEXT;
}
HANDLER(op_cpuid)
{
    u32 out[4];
    INTERCEPT(0x72);
    cpuid_query(cpu, (u32)cpu->r[RAX], (u32)cpu->r[RCX], out);
    PUT4(RAX, out[0]);
    PUT4(RBX, out[1]);
    PUT4(RCX, out[2]);
    PUT4(RDX, out[3]);
    NEXT;
}
HANDLER(op_rdmsr)
{
    need_cpl0(cpu, op);
    u32 index = (u32)cpu->r[RCX];
    u64 v = 0;
    svm_msr_intercept(cpu, op, index, false);
    cpu->op = op;
    if (!msr_read(cpu, index, &v))
        RAISE_GP0(cpu, op);
    PUT4(RAX, v);
    PUT4(RDX, v >> 32);
    return system_done(cpu, op);
}
HANDLER(op_wrmsr)
{
    need_cpl0(cpu, op);
    u32 index = (u32)cpu->r[RCX];
    svm_msr_intercept(cpu, op, index, true);
    cpu->op = op;
    if (!msr_write(cpu, index, (u64)(u32)cpu->r[RDX] << 32 | (u32)cpu->r[RAX]))
        RAISE_GP0(cpu, op);
    const Op *next = system_done(cpu, op);
    cpu_update_mode(cpu);
    return next;
}
HANDLER(op_xgetbv)
{
    if (!cpu_feature(cpu, FEAT_XSAVE) || !(cpu->cr4 & CR4_OSXSAVE))
        RAISE_UD(cpu, op);
    u32 index = (u32)cpu->r[RCX];
    if (index > (cpu_feature(cpu, FEAT_XGETBV1) ? 1u : 0u))
        RAISE_GP0(cpu, op);
    u64 value = index ? xsave_in_use(cpu) : cpu->xcr0;
    PUT4(RAX, value);
    PUT4(RDX, value >> 32);
    NEXT;
}
HANDLER(op_xsetbv)
{
    if (!cpu_feature(cpu, FEAT_XSAVE) || !(cpu->cr4 & CR4_OSXSAVE))
        RAISE_UD(cpu, op);
    need_cpl0(cpu, op);
    INTERCEPT(0x8D);
    if (!xsetbv(cpu, (u32)cpu->r[RCX], (u64)(u32)cpu->r[RDX] << 32 | (u32)cpu->r[RAX]))
        RAISE_GP0(cpu, op);
    NEXT;
}

/* ---- fast system calls ---- */

static void flat_segment(Cpu *cpu, unsigned seg, u16 sel, unsigned attrib)
{
    cpu->seg[seg] = (SimSegment){.selector = sel, .attrib = (u16)attrib, .limit = 0xFFFFFFFF, .base = 0};
}

HANDLER(op_syscall)
{
    if (!(cpu->efer & EFER_SCE) || !(cpu->cr0 & CR0_PE))
        RAISE_UD(cpu, op);
    u64 next = next_rip(cpu, op);
    u16 sel = (u16)(cpu->star >> 32) & 0xFFFC;
    if (long_mode(cpu)) {
        u64 flags = cpu_rflags(cpu);
        cpu->r[RCX] = next;
        cpu->r[11] = flags & ~(u64)FLAG_RF;
        cpu->r[REG_RIP] = cpu->code_size == 8 ? cpu->lstar : cpu->cstar;
        cpu_set_rflags(cpu, flags & ~cpu->sfmask & ~(u64)FLAG_RF);
        flat_segment(cpu, SEG_CS, sel, 0xA9B);
    } else {
        cpu->r[RCX] = (u32)next;
        cpu->r[REG_RIP] = (u32)cpu->star;
        cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
        flat_segment(cpu, SEG_CS, sel, 0xC9B);
    }
    flat_segment(cpu, SEG_SS, (u16)(sel + 8), 0xC93);
    cpu->cpl = 0;
    return far_done(cpu);
}
HANDLER(op_sysret)
{
    if (!(cpu->efer & EFER_SCE) || !(cpu->cr0 & CR0_PE))
        RAISE_UD(cpu, op);
    need_cpl0(cpu, op);
    u16 sel = (u16)(cpu->star >> 48);
    if (cpu->code_size == 8) {
        bool wide = op->osize == 8;
        if (wide && !is_canonical(cpu, cpu->r[RCX]))
            RAISE_GP0(cpu, op);
        flat_segment(cpu, SEG_CS, (u16)((wide ? sel + 16 : sel) | 3), wide ? 0xAFB : 0xCFB);
        cpu->r[REG_RIP] = wide ? cpu->r[RCX] : (u32)cpu->r[RCX];
        cpu_set_rflags(cpu, (cpu->r[11] & 0x3C7FD7 & ~(u64)(FLAG_RF | FLAG_VM)) | 2);
        cpu->seg[SEG_SS] = (SimSegment){.selector = (u16)((sel + 8) | 3), .attrib = 0xCF3, .limit = 0xFFFFFFFF};
        if (cpu->rflags & (FLAG_IF | FLAG_TF))
            cpu->attention = 1;
    } else {
        flat_segment(cpu, SEG_CS, (u16)(sel | 3), 0xCFB);
        cpu->r[REG_RIP] = (u32)cpu->r[RCX];
        cpu->rflags |= FLAG_IF;
        cpu->attention = 1;
        cpu->seg[SEG_SS] = (SimSegment){.selector = (u16)((sel + 8) | 3), .attrib = 0xCF3, .limit = 0xFFFFFFFF};
    }
    cpu->cpl = 3;
    return far_done(cpu);
}
HANDLER(op_sysenter)
{
    if (!(cpu->cr0 & CR0_PE) || !(cpu->sysenter_cs & 0xFFFC))
        RAISE_GP0(cpu, op);
    if (long_mode(cpu))
        RAISE_UD(cpu, op); /* AMD: not in long mode */
    u16 sel = (u16)cpu->sysenter_cs & 0xFFFC;
    cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    flat_segment(cpu, SEG_CS, sel, 0xC9B);
    flat_segment(cpu, SEG_SS, (u16)(sel + 8), 0xC93);
    cpu->r[RSP] = (u32)cpu->sysenter_esp;
    cpu->r[REG_RIP] = (u32)cpu->sysenter_eip;
    cpu->cpl = 0;
    return far_done(cpu);
}
HANDLER(op_sysexit)
{
    if (!(cpu->cr0 & CR0_PE) || !(cpu->sysenter_cs & 0xFFFC))
        RAISE_GP0(cpu, op);
    need_cpl0(cpu, op);
    if (long_mode(cpu))
        RAISE_UD(cpu, op);
    u16 sel = (u16)cpu->sysenter_cs;
    flat_segment(cpu, SEG_CS, (u16)((sel + 16) | 3), 0xCFB);
    flat_segment(cpu, SEG_SS, (u16)((sel + 24) | 3), 0xCF3);
    cpu->r[RSP] = (u32)cpu->r[RCX];
    cpu->r[REG_RIP] = (u32)cpu->r[RDX];
    cpu->cpl = 3;
    return far_done(cpu);
}

/* ---- I/O ports ---- */

static void io_check(Cpu *cpu, const Op *op, u16 port, unsigned size)
{
    if (!(cpu->cr0 & CR0_PE))
        return;
    if (!(cpu->rflags & FLAG_VM) && cpu->cpl <= (cpu->rflags & FLAG_IOPL) >> 12)
        return;
    const SimSegment *tr = &cpu->seg[SEG_TR];
    if (!(tr->attrib & 0x80) || !(tr->attrib & 8) || tr->limit < 0x67)
        RAISE_GP0(cpu, op);
    u32 map = (u32)mem_read_sys(cpu, op, tr->base + 0x66, 2), at = map + port / 8;
    if (at + 1 > tr->limit)
        RAISE_GP0(cpu, op);
    u32 bits = (u32)mem_read_sys(cpu, op, tr->base + at, 2) >> (port & 7);
    if (bits & ((1u << size) - 1))
        RAISE_GP0(cpu, op);
}

static u64 io_port_in(Cpu *cpu, const Op *op, u16 port, unsigned size, bool string, u64 count)
{
    u64 v = 0;
    if (mmio_replay(cpu, port, size, 2, &v))
        return v;
    mmio_record(cpu, op, port, size, 2, 0);
    cpu->access.string = string;
    cpu->access.count = (u32)count;
    leave_stop(cpu, op, SIM_STOP_PIO);
}

static void io_port_out(Cpu *cpu, const Op *op, u16 port, unsigned size, u64 value, bool string, u64 count)
{
    u64 v;
    if (mmio_replay(cpu, port, size, 3, &v))
        return;
    mmio_record(cpu, op, port, size, 3, value);
    cpu->access.string = string;
    cpu->access.count = (u32)count;
    leave_stop(cpu, op, SIM_STOP_PIO);
}

/* imm is the port, or -1 for DX */
HANDLER(op_in)
{
    u16 port = op->imm < 0 ? (u16)cpu->r[RDX] : (u16)op->imm;
    io_check(cpu, op, port, op->osize);
    io_intercept(cpu, op, port, op->osize, true, false, next_rip(cpu, op));
    reg_put(cpu, RAX, op->osize, io_port_in(cpu, op, port, op->osize, false, 1));
    return system_done(cpu, op);
}
HANDLER(op_out)
{
    u16 port = op->imm < 0 ? (u16)cpu->r[RDX] : (u16)op->imm;
    io_check(cpu, op, port, op->osize);
    io_intercept(cpu, op, port, op->osize, false, false, next_rip(cpu, op));
    io_port_out(cpu, op, port, op->osize, reg_get(cpu, RAX, op->osize), false, 1);
    return system_done(cpu, op);
}
HANDLER(op_rsm)
{
    INTERCEPT(0x73);
    RAISE_UD(cpu, op); /* no system management mode */
}
