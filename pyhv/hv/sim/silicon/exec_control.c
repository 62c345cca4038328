/* Control and debug registers (APM vol. 2 chapter 3 and 13.1). */
#include "access.h"
#include "block.h"

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
