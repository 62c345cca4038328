/* What follows from the control registers, CS, SS and CPL: the keys under which code and translations are cached. */
#include "access.h"
#include "block.h"

void cpu_flush_jumps(Cpu *cpu)
{
    cpu->jump_generation++;
    cpu->jump_key = cpu->jump_generation << 16 | (cpu->jump_key & 0xFFFF);
}

static bool flat_data(const SimSegment *s)
{
    return s->base == 0 && s->limit == 0xFFFFFFFF && (s->attrib & 0x9E) == 0x92; /* P, S, writable, expand up */
}

/* The first level holds permissions as these bits made them; each ASID slot remembers for which. */
static void check_slot_permissions(Cpu *cpu)
{
    u64 bits = (cpu->cr0 & (CR0_WP | CR0_PG)) | (cpu->cr4 & (CR4_SMEP | CR4_SMAP)) << 32
             | (cpu->efer & (EFER_NXE | EFER_LMA)) << 16 | cpu->nested_paging;
    if (unlikely(cpu->slot_permissions[cpu->slot] != bits)) {
        cpu->slot_permissions[cpu->slot] = bits;
        tlb_clear_slot(cpu, cpu->slot);
    }
}

void cpu_update_mode(Cpu *cpu)
{
    check_slot_permissions(cpu);
    const SimSegment *cs = &cpu->seg[SEG_CS], *ss = &cpu->seg[SEG_SS];
    uint32_t mode;
    if ((cpu->efer & EFER_LMA) && (cs->attrib & 0x200)) {
        mode = MODE_64;
        cpu->code_size = cpu->stack_size = 8;
        cpu->linmask = ~0ull;
        for (unsigned i = 0; i < SEG_FS; i++)
            cpu->sbase[i] = 0;
    } else {
        bool v86 = cpu->rflags & FLAG_VM;
        mode = cs->attrib & 0x400 && !v86 ? MODE_32 : MODE_16;
        cpu->code_size = mode == MODE_32 ? 4 : 2;
        cpu->stack_size = ss->attrib & 0x400 && !v86 ? 4 : 2;
        if (cpu->stack_size == 4)
            mode |= MODE_SS32;
        cpu->linmask = 0xFFFFFFFF;
        if (mode & MODE_32 && flat_data(&cpu->seg[SEG_DS]) && flat_data(&cpu->seg[SEG_ES]) && flat_data(ss))
            mode |= MODE_FLAT;
        if (cs->limit != 0xFFFFFFFF)
            mode |= MODE_CSLIM;
        if (cs->base != cpu->jump_cs_base || cs->limit != cpu->jump_cs_limit) {
            cpu->jump_cs_base = cs->base;
            cpu->jump_cs_limit = cs->limit;
            cpu_flush_jumps(cpu);
        }
        for (unsigned i = 0; i < SEG_FS; i++)
            cpu->sbase[i] = cpu->seg[i].base;
    }
    cpu->sbase[SEG_FS] = cpu->seg[SEG_FS].base;
    cpu->sbase[SEG_GS] = cpu->seg[SEG_GS].base;
    bool user = cpu->cpl == 3;
    if (user)
        mode |= MODE_USER;
    cpu->priv_class = user ? TLB_USER
                    : (cpu->cr4 & CR4_SMAP) && (cpu->rflags & FLAG_AC) ? TLB_SUPER_AC : TLB_SUPER;
    cpu->watch = (user && (cpu->cr0 & CR0_AM) && (cpu->rflags & FLAG_AC) ? 1 : 0)
               | (cpu->dr[7] & 0xFF && cpu->dr[7] & 0x33330000 ? 2 : 0);
    cpu->tlb = cpu->watch ? tlb_empty(cpu) : tlb_class(cpu, cpu->slot, cpu->priv_class);
    cpu->mode = mode;
    cpu->jump_key = cpu->jump_generation << 16 | mode;
}

/* Alignment check and data breakpoints, for accesses on the slow path; sees accesses only while Cpu.watch is set. */
static void watch_access(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, int acc, unsigned class)
{
    if ((cpu->watch & 1) && class == TLB_USER && size > 1 && size <= 8 && (linear & (size - 1)))
        raise_error(cpu, op, EXC_AC, 0);
    if (!(cpu->watch & 2))
        return;
    for (unsigned i = 0; i < 4; i++) {
        unsigned rw = cpu->dr[7] >> (16 + i * 4) & 3, len = cpu->dr[7] >> (18 + i * 4) & 3;
        unsigned bytes = len == 2 ? 8 : len + 1;
        if (!(cpu->dr[7] >> (i * 2) & 3) || !(rw & 1) || (rw == 1 && acc != ACC_WRITE))
            continue;
        u64 start = cpu->dr[i] & ~(u64)(bytes - 1);
        if (linear < start + bytes && start < linear + size)
            cpu->pending_dbg |= 1ull << i;
    }
}
