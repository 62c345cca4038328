/* Page-table walks (APM vol. 2 chapter 5) and the two-dimensional walk of nested paging (15.25). */
#include "cpu.h"

#define PTE_P 0x1ull
#define PTE_W 0x2ull
#define PTE_U 0x4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000FFFFFFFFFF000ull

/* #NPF EXITINFO1 (APM 15.25.6): where in the guest's translation the nested fault came from */
#define NPF_FINAL (1ull << 32)
#define NPF_TABLE (1ull << 33)

typedef struct Walk {
    uint64_t pa;      /* of the page that holds the address, exact to the byte */
    unsigned shift;
    unsigned flags;   /* TE_W TE_U TE_NX TE_G TE_D */
    uint32_t error;   /* #PF-style error code, when it failed */
} Walk;

typedef struct WalkMode {
    uint64_t root;
    uint8_t levels;   /* 2: 32-bit; 3: PAE; 4, 5: long mode */
    bool nxe, pse, wp, smep, smap_strict;
    bool nested;      /* walks the nested tables */
} WalkMode;

static void vmexit(Cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2) __attribute__((noreturn));
static _Noreturn void npf_exit(Cpu *cpu, const Op *op, uint64_t gpa, uint64_t info1);

/* The local APIC's own page hides RAM at that physical address. */
static bool is_apic_page(const Cpu *cpu, uint64_t page)
{
    return !cpu->vapic && (cpu->lapic.base & 0xC00) == 0x800 && page == (cpu->lapic.base & PTE_ADDR);
}

static uint64_t machine_phys_mask(const Machine *m)
{
    return m->phys_mask;
}

/* Physical address of a table of the guest's own, through the nested tables when there are any. */
static uint64_t table_to_host(Cpu *cpu, const Op *op, uint64_t gpa);

static uint64_t phys_read_entry(Cpu *cpu, uint64_t pa, unsigned size)
{
    const uint8_t *p = phys_ptr(cpu->machine, pa, size, false);
    uint64_t v = ~0ull;
    if (p) {
        v = 0;
        memcpy(&v, p, size);
    }
    return size == 4 ? (uint32_t)v : v;
}

static void phys_set_bits(Cpu *cpu, uint64_t pa, unsigned size, uint64_t value)
{
    uint8_t *p = phys_ptr(cpu->machine, pa, size, true);
    if (!p)
        return;
    memcpy(p, &value, size);
    code_written(cpu->machine, p, size);
}

/* One walk of one stage. Sets accessed and dirty bits as it succeeds. False: w->error holds P, RSV; W, U and I are the
 * caller's. */
static bool walk_tables(Cpu *cpu, const Op *op, const WalkMode *m, uint64_t va, int acc, bool user, Walk *w)
{
    unsigned entry_size = m->levels == 2 ? 4 : 8, bits = m->levels == 2 ? 10 : 9;
    uint64_t table = m->root;
    uint64_t reserved = ~machine_phys_mask(cpu->machine) & PTE_ADDR;
    uint64_t *refs = m->nested ? &cpu->stats.walk_refs_nested : &cpu->stats.walk_refs_guest;
    bool writable = true, usable = true, nx = false;
    uint64_t entry = 0, entry_pa = 0;
    unsigned shift = 0;
    w->error = 0;
    for (int level = m->levels; level >= 1; level--) {
        shift = 12 + (unsigned)(level - 1) * bits;
        bool pdpte = m->levels == 3 && level == 3;
        uint64_t rsvd = reserved;
        if (pdpte && !m->nested && !cpu->nested_paging) {
            entry = cpu->pdpte[(va >> 30) & 3];
        } else {
            unsigned index = (unsigned)(va >> shift) & (pdpte ? 3u : (1u << bits) - 1);
            uint64_t pa = table + index * entry_size;
            entry_pa = m->nested ? pa : table_to_host(cpu, op, pa);
            entry = phys_read_entry(cpu, entry_pa, entry_size);
            ++*refs;
        }
        if (!(entry & PTE_P))
            return false;
        if (m->levels == 2)
            rsvd = 0;
        else if (!m->nxe || pdpte)
            rsvd |= PTE_NX;
        if (m->levels == 3)
            rsvd |= pdpte ? 0x1E6 | 0x7FF0000000000000ull : 0x7FF0000000000000ull;
        if (level >= 4)
            rsvd |= PTE_G; /* AMD: bit 8 of PML4 and PML5 entries must be zero */
        bool large = false;
        if (level > 1 && !pdpte && (entry & PTE_PS) && !(m->levels == 2 && !m->pse)) {
            if (level == 2) {
                large = true;
                if (m->levels == 2)
                    rsvd |= 1u << 21 | ((uint64_t)(0xFF & ~(machine_phys_mask(cpu->machine) >> 32)) << 13);
                else
                    rsvd |= 0x1FE000;
            } else if (level == 3 && cpu->machine->has_1g) {
                large = true;
                rsvd |= 0x3FFFE000;
            } else
                rsvd |= PTE_PS;
        }
        if (entry & rsvd) {
            w->error = PF_P | PF_RSV;
            return false;
        }
        if (!pdpte) {
            writable &= (entry & PTE_W) != 0;
            usable &= (entry & PTE_U) != 0;
            nx |= (entry & PTE_NX) && entry_size == 8;
        }
        if (level == 1 || large)
            break;
        if (!(entry & PTE_A) && !pdpte) {
            entry |= PTE_A;
            phys_set_bits(cpu, entry_pa, entry_size, entry);
        }
        table = entry & (m->levels == 2 ? 0xFFFFF000ull : PTE_ADDR);
    }
    w->error = PF_P;
    if (user ? !usable : acc != ACC_FETCH && usable && m->smap_strict)
        return false;
    if (acc == ACC_WRITE && !writable && (user || m->wp))
        return false;
    if (acc == ACC_FETCH && (nx || (!user && usable && m->smep)))
        return false;
    uint64_t wanted = entry | PTE_A | (acc == ACC_WRITE ? PTE_D : 0);
    if (wanted != entry)
        phys_set_bits(cpu, entry_pa, entry_size, wanted);
    uint64_t frame;
    if (m->levels == 2)
        frame = shift > 12 ? (entry & 0xFFC00000u) | (entry & 0x1FE000) << 19 : entry & 0xFFFFF000u;
    else
        frame = entry & PTE_ADDR & ~((1ull << shift) - 1);
    w->pa = frame | (va & ((1ull << shift) - 1));
    w->shift = shift;
    w->flags = (writable ? TE_W : 0) | (usable ? TE_U : 0) | (nx ? TE_NX : 0) | (entry & PTE_G ? TE_G : 0)
             | (wanted & PTE_D ? TE_D : 0);
    return true;
}

static unsigned paging_levels(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    if (!(cr0 & CR0_PG))
        return 0;
    if (efer & EFER_LMA)
        return cr4 & CR4_LA57 ? 5 : 4;
    return cr4 & CR4_PAE ? 3 : 2;
}

static uint64_t paging_root(unsigned levels, uint64_t cr3)
{
    return levels == 3 ? cr3 & 0xFFFFFFE0u : levels == 2 ? cr3 & 0xFFFFF000u : cr3 & PTE_ADDR;
}

/* Nested walk of a guest physical address: false with the #NPF's low error bits. Always a user access. */
static bool walk_nested(Cpu *cpu, const Op *op, uint64_t gpa, int acc, Walk *w)
{
    unsigned levels = paging_levels(cpu->svm.hcr0, cpu->svm.hcr4, cpu->svm.hefer);
    WalkMode m = {.root = paging_root(levels, cpu->svm.ncr3), .levels = (uint8_t)levels, .nested = true,
                  .nxe = cpu->svm.hefer & EFER_NXE, .pse = cpu->svm.hcr4 & CR4_PSE, .wp = true};
    w->error = 0;
    if ((levels >= 4 || !(gpa >> 32)) && walk_tables(cpu, op, &m, gpa, acc, true, w))
        return true;
    w->error |= PF_U | (acc == ACC_WRITE ? PF_W : 0) | (acc == ACC_FETCH && m.nxe ? PF_I : 0);
    return false;
}

static uint64_t table_to_host(Cpu *cpu, const Op *op, uint64_t gpa)
{
    Walk w;
    if (!cpu->nested_paging)
        return gpa;
    if (walk_nested(cpu, op, gpa, ACC_WRITE, &w))
        return w.pa;
    cpu->access.valid = 0;
    npf_exit(cpu, op, gpa, NPF_TABLE | w.error);
}

static _Noreturn void npf_exit(Cpu *cpu, const Op *op, uint64_t gpa, uint64_t info1)
{
    sync_op(cpu, op);
    vmexit(cpu, 0x400, info1, gpa);
}

/* The result of translating one linear address. */
typedef struct Xlate {
    uint8_t *host;    /* NULL: no RAM there */
    uint64_t pa, gpa;
    uint32_t npf;     /* nested fault's error bits when the final nested translation is missing, else 0 */
    bool rom;
} Xlate;

/* Translates a page for an access that the caller did not find in the first level; fills both levels. Page faults and
 * nested faults in the tables leave; a nested fault of the page itself is reported in out->npf (it may be a device). */
static void translate(Cpu *cpu, const Op *op, uint64_t linear, int acc, unsigned class, Xlate *out)
{
    unsigned levels = paging_levels(cpu->cr0, cpu->cr4, cpu->efer);
    bool user = class == TLB_USER;
    bool wp = cpu->cr0 & CR0_WP, smep = cpu->cr4 & CR4_SMEP, smap = (cpu->cr4 & CR4_SMAP) && class == TLB_SUPER;
    ArchEntry *e = tlb_lookup(cpu, linear);
    out->npf = 0;
    if (e) {
        unsigned f = e->flags;
        bool ok = user ? (f & TE_U) != 0 : !((f & TE_U) && smap && acc != ACC_FETCH);
        if (acc == ACC_WRITE)
            ok = ok && ((f & TE_W) || (!user && !wp)) && (f & TE_NW) && (f & TE_D) && (f & TE_ND);
        if (acc == ACC_FETCH)
            ok = ok && !(f & (TE_NX | TE_NNX)) && !(!user && (f & TE_U) && smep);
        if (!ok)
            e = NULL;
    }
    ArchTlb *t = cpu->arch_tlb;
    SimTlbAsidStats *st = &t->stats[t->stat_slot[cpu->slot]];
    if (e) {
        st->hits++;
        cpu->stats.tlb_hits++;
    } else {
        st->misses++;
        cpu->stats.tlb_misses++;
        cpu->stats.walks++;
        Walk g = {.pa = linear, .shift = 30, .flags = TE_W | TE_U | TE_D | TE_G}, n;
        unsigned flags, shift;
        uint64_t pa;
        if (levels) {
            WalkMode m = {.root = paging_root(levels, cpu->cr3), .levels = (uint8_t)levels,
                          .nxe = cpu->efer & EFER_NXE, .pse = cpu->cr4 & CR4_PSE, .wp = wp, .smep = smep,
                          .smap_strict = smap};
            if (!walk_tables(cpu, op, &m, linear, acc, user, &g))
                raise_page_fault(cpu, op, linear, g.error | (acc == ACC_WRITE ? PF_W : 0) | (user ? PF_U : 0)
                                 | (acc == ACC_FETCH && ((m.nxe && levels > 2) || smep) ? PF_I : 0));
            if (!(cpu->cr4 & CR4_PGE))
                g.flags &= ~(unsigned)TE_G;
        }
        flags = g.flags;
        shift = g.shift;
        pa = g.pa;
        if (cpu->nested_paging) {
            if (!walk_nested(cpu, op, g.pa, acc, &n)) {
                out->host = NULL;
                out->gpa = g.pa;
                out->npf = n.error;
                return;
            }
            pa = n.pa;
            flags |= (n.flags & TE_W ? TE_NW : 0) | (n.flags & TE_NX ? TE_NNX : 0) | (n.flags & TE_D ? TE_ND : 0);
            if (n.shift < shift)
                shift = n.shift;
        } else {
            flags |= TE_NW | TE_ND;
        }
        if (!levels && !cpu->nested_paging)
            shift = 12;
        if (shift >= 30)
            cpu->stats.pages_1g++;
        else if (shift >= 21)
            cpu->stats.pages_2m++;
        else
            cpu->stats.pages_4k++;
        e = tlb_insert(cpu, linear, pa, g.pa, flags, shift);
    }
    out->pa = e->hpa | (linear & 0xFFF);
    out->gpa = e->gpa | (linear & 0xFFF);
    uint8_t *page = phys_ptr(cpu->machine, e->hpa, 4096, false);
    out->rom = false;
    if (!page || is_apic_page(cpu, e->hpa)) {
        out->host = NULL;
        return;
    }
    out->host = page + (linear & 0xFFF);
    unsigned f = e->flags;
    bool r = user ? (f & TE_U) != 0 : !((f & TE_U) && smap);
    bool w = r && ((f & TE_W) || (!user && !wp)) && (f & TE_NW) && (f & TE_D) && (f & TE_ND);
    bool x = (user ? (f & TE_U) != 0 : !((f & TE_U) && smep)) && !(f & (TE_NX | TE_NNX));
    if (!phys_ptr(cpu->machine, e->hpa, 4096, true)) {
        out->rom = true;
        w = false;
    }
    if (w && code_page_at(cpu->machine, page))
        w = false;
    tlb_fill(cpu, class, linear, page, r, w, x);
}

/* Loads the four PDPTEs of PAE paging; false: a reserved bit is set (#GP). Under nested paging they are read by each
 * walk instead. */
static bool load_pdptes(Cpu *cpu, uint64_t cr3)
{
    uint64_t pdpte[4];
    if (cpu->nested_paging)
        return true;
    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = phys_read_entry(cpu, (cr3 & 0xFFFFFFE0u) + i * 8, 8);
        if ((pdpte[i] & PTE_P) && (pdpte[i] & (0x1E6 | PTE_NX | 0x7FF0000000000000ull
                                              | (~machine_phys_mask(cpu->machine) & PTE_ADDR))))
            return false;
    }
    memcpy(cpu->pdpte, pdpte, sizeof pdpte);
    return true;
}

/* Translation for the host's eyes: no faults, no accessed bits, no statistics. */
static bool peek_stage(Cpu *cpu, bool nested, uint64_t va, uint64_t *out);

static bool peek_tables(Cpu *cpu, bool nested, unsigned levels, bool pse, uint64_t root, uint64_t va, uint64_t *out)
{
    unsigned entry_size = levels == 2 ? 4 : 8, bits = levels == 2 ? 10 : 9;
    uint64_t table = root;
    for (unsigned level = levels; level >= 1; level--) {
        unsigned shift = 12 + (level - 1) * bits;
        bool pdpte = levels == 3 && level == 3;
        uint64_t pa = table + ((va >> shift) & (pdpte ? 3u : (1u << bits) - 1)) * entry_size;
        if (!nested && cpu->nested_paging && !peek_stage(cpu, true, pa, &pa))
            return false;
        if (!phys_ptr(cpu->machine, pa, entry_size, false))
            return false;
        uint64_t entry = phys_read_entry(cpu, pa, entry_size);
        if (pdpte && !nested && !cpu->nested_paging)
            entry = cpu->pdpte[(va >> 30) & 3];
        if (!(entry & PTE_P))
            return false;
        bool large = level > 1 && level < 4 && !pdpte && (entry & PTE_PS) && (levels > 2 || pse);
        if (level == 1 || large) {
            uint64_t frame = levels == 2 && large ? (entry & 0xFFC00000u) | (entry & 0x1FE000) << 19
                                                  : entry & PTE_ADDR & ~((1ull << shift) - 1);
            *out = frame | (va & ((1ull << shift) - 1));
            return true;
        }
        table = entry & (levels == 2 ? 0xFFFFF000ull : PTE_ADDR);
    }
    return false;
}

static bool peek_stage(Cpu *cpu, bool nested, uint64_t va, uint64_t *out)
{
    uint64_t cr0 = nested ? cpu->svm.hcr0 : cpu->cr0, cr4 = nested ? cpu->svm.hcr4 : cpu->cr4;
    unsigned levels = paging_levels(cr0, cr4, nested ? cpu->svm.hefer : cpu->efer);
    if (!levels) {
        *out = va;
        return true;
    }
    return peek_tables(cpu, nested, levels, cr4 & CR4_PSE, paging_root(levels, nested ? cpu->svm.ncr3 : cpu->cr3),
                       va, out);
}

int sim_translate(SimCpu *cpu, uint64_t linear, uint64_t *gpa, uint64_t *pa)
{
    uint64_t g, h;
    if (!peek_stage(cpu, false, linear, &g))
        return -1;
    h = g;
    if (cpu->nested_paging && !peek_stage(cpu, true, g, &h))
        return -1;
    *gpa = g;
    *pa = h;
    return 0;
}
