/* System instructions: flags, HLT, TLB and caches, time, identification, MSRs, fast system calls. */
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
        flat_segment(cpu, SEG_CS, (u16)((wide ? sel + 16 : sel) | 3), wide ? 0xAFB : 0xCFB);
        cpu->r[REG_RIP] = wide ? cpu->r[RCX] : (u32)cpu->r[RCX]; /* AMD: one not canonical faults in user mode */
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
    if (long_mode(cpu))
        RAISE_UD(cpu, op); /* AMD: not in long mode */
    if (!(cpu->cr0 & CR0_PE) || !(cpu->sysenter_cs & 0xFFFC))
        RAISE_GP0(cpu, op);
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
    if (long_mode(cpu))
        RAISE_UD(cpu, op);
    if (!(cpu->cr0 & CR0_PE) || !(cpu->sysenter_cs & 0xFFFC))
        RAISE_GP0(cpu, op);
    need_cpl0(cpu, op);
    u16 sel = (u16)cpu->sysenter_cs;
    flat_segment(cpu, SEG_CS, (u16)((sel + 16) | 3), 0xCFB);
    flat_segment(cpu, SEG_SS, (u16)((sel + 24) | 3), 0xCF3);
    cpu->r[RSP] = (u32)cpu->r[RCX];
    cpu->r[REG_RIP] = (u32)cpu->r[RDX];
    cpu->cpl = 3;
    return far_done(cpu);
}
