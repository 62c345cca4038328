/* CPUID from the host's table, and the features that follow from it. */
#include "access.h"

static const SimCpuidEntry *cpuid_find(const Machine *m, u32 function, u32 index)
{
    for (u32 i = 0; i < m->cpuid_count; i++) {
        const SimCpuidEntry *e = &m->cpuid[i];
        if (e->function == function && (!(e->flags & 1) || e->index == index))
            return e;
    }
    return NULL;
}

static u32 cpuid_reg(const SimCpuidEntry *e, int reg)
{
    return !e ? 0 : reg == 0 ? e->eax : reg == 1 ? e->ebx : reg == 2 ? e->ecx : e->edx;
}

bool cpu_has(const Cpu *cpu, uint32_t function, int reg, int bit)
{
    return cpuid_reg(cpuid_find(cpu->machine, function, 0), reg) >> bit & 1;
}

static void cpuid_derive(Machine *m)
{
    static const struct { u8 feature, reg, bit; u32 function, index; } map[] = {
        {FEAT_FPU, 3, 0, 1, 0}, {FEAT_VME, 3, 1, 1, 0}, {FEAT_PSE, 3, 3, 1, 0}, {FEAT_TSC, 3, 4, 1, 0},
        {FEAT_MSR, 3, 5, 1, 0}, {FEAT_PAE, 3, 6, 1, 0}, {FEAT_APIC, 3, 9, 1, 0}, {FEAT_SEP, 3, 11, 1, 0},
        {FEAT_MTRR, 3, 12, 1, 0}, {FEAT_PGE, 3, 13, 1, 0}, {FEAT_PAT, 3, 16, 1, 0}, {FEAT_CLFLUSH, 3, 19, 1, 0},
        {FEAT_MMX, 3, 23, 1, 0}, {FEAT_FXSR, 3, 24, 1, 0}, {FEAT_SSE, 3, 25, 1, 0}, {FEAT_SSE2, 3, 26, 1, 0},
        {FEAT_SSE3, 2, 0, 1, 0}, {FEAT_PCLMUL, 2, 1, 1, 0}, {FEAT_MONITOR, 2, 3, 1, 0}, {FEAT_SSSE3, 2, 9, 1, 0},
        {FEAT_CX16, 2, 13, 1, 0}, {FEAT_PCID, 2, 17, 1, 0}, {FEAT_SSE41, 2, 19, 1, 0}, {FEAT_SSE42, 2, 20, 1, 0},
        {FEAT_X2APIC, 2, 21, 1, 0}, {FEAT_MOVBE, 2, 22, 1, 0}, {FEAT_POPCNT, 2, 23, 1, 0},
        {FEAT_TSC_DEADLINE, 2, 24, 1, 0}, {FEAT_AES, 2, 25, 1, 0}, {FEAT_XSAVE, 2, 26, 1, 0}, {FEAT_AVX, 2, 28, 1, 0},
        {FEAT_RDRAND, 2, 30, 1, 0},
        {FEAT_FSGSBASE, 1, 0, 7, 0}, {FEAT_BMI1, 1, 3, 7, 0}, {FEAT_AVX2, 1, 5, 7, 0}, {FEAT_SMEP, 1, 7, 7, 0},
        {FEAT_BMI2, 1, 8, 7, 0}, {FEAT_INVPCID, 1, 10, 7, 0}, {FEAT_RDSEED, 1, 18, 7, 0}, {FEAT_ADX, 1, 19, 7, 0},
        {FEAT_SMAP, 1, 20, 7, 0}, {FEAT_CLFLUSHOPT, 1, 23, 7, 0}, {FEAT_CLWB, 1, 24, 7, 0}, {FEAT_SHA, 1, 29, 7, 0},
        {FEAT_UMIP, 2, 2, 7, 0}, {FEAT_LA57, 2, 16, 7, 0}, {FEAT_RDPID, 2, 22, 7, 0},
        {FEAT_XSAVEOPT, 0, 0, 0xD, 1}, {FEAT_XSAVEC, 0, 1, 0xD, 1}, {FEAT_XGETBV1, 0, 2, 0xD, 1},
        {FEAT_XSAVES, 0, 3, 0xD, 1},
        {FEAT_SYSCALL, 3, 11, 0x80000001, 0}, {FEAT_NX, 3, 20, 0x80000001, 0}, {FEAT_FFXSR, 3, 25, 0x80000001, 0},
        {FEAT_RDTSCP, 3, 27, 0x80000001, 0}, {FEAT_LM, 3, 29, 0x80000001, 0}, {FEAT_SVM, 2, 2, 0x80000001, 0},
        {FEAT_LZCNT, 2, 5, 0x80000001, 0}, {FEAT_SSE4A, 2, 6, 0x80000001, 0},
        {FEAT_3DNOWPREFETCH, 2, 8, 0x80000001, 0},
    };
    m->features = 0;
    for (unsigned i = 0; i < sizeof map / sizeof *map; i++)
        if (cpuid_reg(cpuid_find(m, map[i].function, map[i].index), map[i].reg) >> map[i].bit & 1)
            m->features |= 1ull << map[i].feature;
    u32 bits = cpuid_reg(cpuid_find(m, 0x80000008, 0), 0) & 0xFF;
    if (bits < 32 || bits > 52)
        bits = 40;
    m->phys_mask = (1ull << bits) - 1;
    m->has_1g = cpuid_reg(cpuid_find(m, 0x80000001, 0), 3) >> 26 & 1;
}

static void cpuid_query(Cpu *cpu, u32 function, u32 index, u32 out[4])
{
    const Machine *m = cpu->machine;
    const SimCpuidEntry *e = cpuid_find(m, function, index);
    memset(out, 0, 16);
    if (!e)
        return;
    out[0] = e->eax;
    out[1] = e->ebx;
    out[2] = e->ecx;
    out[3] = e->edx;
    switch (function) {
    case 1:
        out[1] = (out[1] & 0x00FFFFFF) | cpu->lapic.id << 24;
        out[2] &= ~(1u << 27);
        if (cpu->cr4 & CR4_OSXSAVE)
            out[2] |= 1u << 27;
        if (!(cpu->lapic.base & 0x800))
            out[3] &= ~(1u << 9);
        break;
    case 0xB:
        out[3] = cpu->lapic.id;
        break;
    case 0xD:
        if (index == 0)
            out[1] = xsave_size(cpu->xcr0, false);
        else if (index == 1)
            out[1] = xsave_size(cpu->xcr0 | cpu->xss, true);
        break;
    case 0x8000001E:
        out[0] = cpu->lapic.id;
        break;
    }
}

void sim_set_cpuid(SimMachine *m, const SimCpuidEntry *entries, uint32_t count)
{
    if (count > 128)
        count = 128;
    memcpy(m->cpuid, entries, count * sizeof *entries);
    m->cpuid_count = count;
    cpuid_derive(m);
    for (u32 i = 0; i < m->ncpus; i++)
        tlb_flush_all(m->cpus[i]);
}
