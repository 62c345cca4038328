/* Model-specific registers (APM vol. 2 appendix A). */
#include "access.h"

#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_SVME | EFER_FFXSR | EFER_TCE)

static u64 efer_allowed(const Cpu *cpu)
{
    u64 m = 0;
    m |= cpu_feature(cpu, FEAT_SYSCALL) ? EFER_SCE : 0;
    m |= cpu_feature(cpu, FEAT_LM) ? EFER_LME | EFER_LMA : 0;
    m |= cpu_feature(cpu, FEAT_NX) ? EFER_NXE : 0;
    m |= cpu_feature(cpu, FEAT_SVM) ? EFER_SVME : 0;
    m |= cpu_feature(cpu, FEAT_FFXSR) ? EFER_FFXSR : 0;
    return m;
}

static bool write_efer(Cpu *cpu, u64 v)
{
    u64 old = cpu->efer;
    if (v & ~efer_allowed(cpu))
        return false;
    if (((v ^ old) & EFER_LME) && (cpu->cr0 & CR0_PG))
        return false;
    if ((v & EFER_SVME) && !(old & EFER_SVME) && (cpu->svm.vm_cr & 0x10))
        return false;
    cpu->efer = (v & ~(u64)EFER_LMA) | (old & EFER_LMA);
    if ((v ^ old) & EFER_NXE)
        tlb_flush_slot(cpu, cpu->slot, true);
    return true;
}

static bool valid_pat(u64 v)
{
    for (unsigned i = 0; i < 8; i++, v >>= 8) {
        unsigned t = v & 0xFF;
        if (t > 7 || t == 2 || t == 3)
            return false;
    }
    return true;
}

static uint64_t *msr_slot(Cpu *cpu, u32 index)
{
    switch (index) {
    case 0x174: return &cpu->sysenter_cs;
    case 0x175: return &cpu->sysenter_esp;
    case 0x176: return &cpu->sysenter_eip;
    case 0x1D9: return &cpu->debugctl;
    case 0x277: return &cpu->pat;
    case 0x2FF: return &cpu->mtrr_def;
    case 0x250: return &cpu->mtrr_fixed[0];
    case 0x258: case 0x259: return &cpu->mtrr_fixed[1 + (index & 1)];
    case 0x268: case 0x269: case 0x26A: case 0x26B: case 0x26C: case 0x26D: case 0x26E: case 0x26F:
        return &cpu->mtrr_fixed[3 + (index & 7)];
    case 0xC0000081: return &cpu->star;
    case 0xC0000082: return &cpu->lstar;
    case 0xC0000083: return &cpu->cstar;
    case 0xC0000084: return &cpu->sfmask;
    case 0xC0000102: return &cpu->kernel_gs_base;
    case 0xC0000103: return &cpu->tsc_aux;
    case 0xC0010010: return &cpu->msr_misc[0]; /* SYSCFG */
    case 0xC0010015: return &cpu->msr_misc[1]; /* HWCR */
    case 0xC0010114: return &cpu->svm.vm_cr;
    case 0xC0010117: return &cpu->svm.hsave_pa;
    case 0x8B: return &cpu->msr_misc[2];       /* patch level */
    case 0x179: return &cpu->msr_misc[3];      /* MCG_CAP */
    case 0x17A: return &cpu->msr_misc[4];      /* MCG_STATUS */
    case 0x17B: return &cpu->msr_misc[5];      /* MCG_CTL */
    case 0x1DB: case 0x1DC: case 0x1DD: case 0x1DE: return &cpu->msr_misc[6 + (index & 3)]; /* LBR */
    case 0xC0010140: return &cpu->msr_misc[10]; /* OSVW */
    case 0xC0010141: return &cpu->msr_misc[11];
    case 0xDA0: return &cpu->xss;
    case 0xC001001F: return &cpu->msr_misc[12]; /* NB_CFG */
    case 0xC0011029: return &cpu->msr_misc[13]; /* DE_CFG */
    case 0xC0011022: return &cpu->msr_misc[14]; /* DC_CFG */
    case 0xC0011023: return &cpu->msr_misc[15];
    case 0x48: return &cpu->msr_misc[16];       /* SPEC_CTRL */
    case 0xC001011F: return &cpu->msr_misc[17]; /* VIRT_SPEC_CTRL */
    default: break;
    }
    if (index >= 0x200 && index < 0x210)
        return index & 1 ? &cpu->mtrr_mask[(index - 0x200) / 2] : &cpu->mtrr_base[(index - 0x200) / 2];
    return NULL;
}

static bool msr_read(Cpu *cpu, u32 index, u64 *v)
{
    if (index == 0x1B || index == 0x6E0 || (index >= 0x800 && index < 0x900))
        return lapic_rdmsr(cpu, index, v);
    switch (index) {
    case 0x10: *v = cpu_guest_tsc(cpu); return true;
    case 0x3B: *v = cpu->tsc_adjust; return true;
    case 0xE7: case 0xE8: *v = cpu_guest_tsc(cpu); return true;
    case 0xC0000080: *v = cpu->efer; return true;
    case 0xC0000100: *v = cpu->seg[SEG_FS].base; return true;
    case 0xC0000101: *v = cpu->seg[SEG_GS].base; return true;
    case 0xFE: *v = 0x508; return cpu_feature(cpu, FEAT_MTRR); /* 8 variable, fixed, write-combining */
    case 0x17: case 0x2A: case 0x33: case 0xCE: case 0x198: case 0x1A0: return false;
    case 0xC0010117: case 0xC0010114:
        if (!cpu_feature(cpu, FEAT_SVM))
            return false;
        break;
    case 0xC0010000: case 0xC0010001: case 0xC0010002: case 0xC0010003:
    case 0xC0010004: case 0xC0010005: case 0xC0010006: case 0xC0010007: /* performance counters */
    case 0xC0010058: /* MMIO configuration base */
    case 0xC0010061: case 0xC0010062: case 0xC0010063: case 0xC0010064:
    case 0xC0010112: case 0xC0010113: /* SMM ranges */
    case 0xC001001A: case 0xC001001D: /* TOP_MEM */
    case 0xC0010055: case 0xC0010056: case 0xC0010111:
        *v = 0;
        return true;
    }
    if (index >= 0x400 && index < 0x480) {
        *v = 0;
        return index < 0x400 + 4 * (cpu->msr_misc[3] & 0xFF);
    }
    const u64 *slot = msr_slot(cpu, index);
    if (!slot)
        return false;
    *v = *slot;
    return true;
}

static bool msr_write(Cpu *cpu, u32 index, u64 v)
{
    if (index == 0x1B || index == 0x6E0 || (index >= 0x800 && index < 0x900)) {
        if (!lapic_wrmsr(cpu, index, v))
            return false;
        cpu->attention = 1;
        if (index == 0x1B)
            tlb_flush_all(cpu);
        return true;
    }
    switch (index) {
    case 0x10:
        cpu->tsc_adjust += v - cpu_guest_tsc(cpu);
        cpu->tsc_offset += v - cpu_guest_tsc(cpu);
        cpu->attention = 1;
        return true;
    case 0x3B:
        cpu->tsc_offset += v - cpu->tsc_adjust;
        cpu->tsc_adjust = v;
        cpu->attention = 1;
        return true;
    case 0xE7: case 0xE8: return true;
    case 0xC0000080: return write_efer(cpu, v);
    case 0xC0000100: case 0xC0000101:
        if (!is_canonical(cpu, v))
            return false;
        cpu->seg[index & 1 ? SEG_GS : SEG_FS].base = v;
        return true;
    case 0xC0000082: case 0xC0000083: case 0xC0000102: case 0x175: case 0x176:
        if (!is_canonical(cpu, v))
            return false;
        break;
    case 0xC0000084: case 0x174: v = (u32)v; break;
    case 0xC0000103:
        if (v >> 32 || !cpu_feature(cpu, FEAT_RDTSCP))
            return false;
        break;
    case 0x277:
        if (!valid_pat(v))
            return false;
        break;
    case 0x2FF:
        if (v & ~0xCFFull)
            return false;
        break;
    case 0xFE: case 0x179: return false;
    case 0x8B: return false;
    case 0xC0010020: return true; /* microcode update: ignored */
    case 0x1D9: v &= 0x3F; break;
    case 0x49: return true;       /* PRED_CMD */
    case 0x10B: return true;
    case 0xC0010114:
        if (!cpu_feature(cpu, FEAT_SVM))
            return false;
        v &= 0x1F;
        if (cpu->svm.vm_cr & 8) /* locked: SVMDIS and LOCK keep */
            v = (v & ~0x18ull) | (cpu->svm.vm_cr & 0x18);
        if ((v & 0x10) && (cpu->efer & EFER_SVME) && !(cpu->svm.vm_cr & 0x10))
            return false;
        break;
    case 0xC0010117:
        if (!cpu_feature(cpu, FEAT_SVM) || (v & 0xFFF) || (v & ~cpu->machine->phys_mask))
            return false;
        break;
    case 0xC0010000: case 0xC0010001: case 0xC0010002: case 0xC0010003:
    case 0xC0010004: case 0xC0010005: case 0xC0010006: case 0xC0010007:
    case 0xC0010058: case 0xC0010062: case 0xC0010112: case 0xC0010113: case 0xC0010111:
    case 0xC001001A: case 0xC001001D:
        return true;
    }
    if (index >= 0x400 && index < 0x480)
        return index < 0x400 + 4 * (cpu->msr_misc[3] & 0xFF);
    u64 *slot = msr_slot(cpu, index);
    if (!slot)
        return false;
    *slot = v;
    return true;
}
