/* Translation lookaside buffers.
 *
 * Two levels. The first is what loads and stores test inline: direct-mapped, one array for each ASID slot and privilege
 * class, holding only what may go straight to a host pointer. The second is the architectural TLB, tagged by ASID and
 * PCID with the page's permissions of both translation stages; hits and misses are counted there.
 */
#include "cpu.h"

enum {
    TE_W = 1, TE_U = 2, TE_NX = 4, TE_G = 8, TE_D = 16,     /* (guest's) own tables, combined over the levels */
    TE_NW = 32, TE_NNX = 64, TE_ND = 128,                   /* nested tables */
    TE_RO = 256,                                            /* backed by ROM */
};

typedef struct ArchEntry {
    uint64_t vpn, hpa, gpa; /* page numbers: linear, and page addresses: host and guest physical */
    uint32_t gen;
    uint16_t pcid;
    uint16_t flags;
    uint8_t slot, shift, valid, pad;
} ArchEntry;

#define ARCH_SETS 512
#define ARCH_WAYS 4
#define FILL_LOG 192
#define ASID_STATS 64

typedef struct ArchTlb {
    ArchEntry set[ARCH_SETS][ARCH_WAYS];
    uint8_t victim[ARCH_SETS];
    uint32_t gen[TLB_SLOTS], global_gen[TLB_SLOTS]; /* an entry of another generation is invalid */
    uint64_t large[64];  /* filter: 2 MiB regions that a large page's fragment may have come from */
    struct { uint32_t n; uint16_t index[FILL_LOG]; } fills[TLB_SLOTS][TLB_CLASSES];
    SimTlbAsidStats stats[ASID_STATS];
    uint32_t stat_count;
    uint32_t stat_slot[TLB_SLOTS];
} ArchTlb;

static TlbEntry *tlb_class(Cpu *cpu, unsigned slot, unsigned class)
{
    return cpu->tlb_slots + (size_t)(slot * TLB_CLASSES + class) * TLB_SIZE;
}

static bool tlb_init(Cpu *cpu)
{
    cpu->arch_tlb = calloc(1, sizeof(ArchTlb));
    size_t entries = (size_t)(TLB_SLOTS * TLB_CLASSES + 1) * TLB_SIZE; /* the last set stays empty */
    cpu->tlb_slots = malloc(entries * sizeof(TlbEntry));
    if (!cpu->arch_tlb || !cpu->tlb_slots)
        return false;
    for (unsigned s = 0; s < TLB_SLOTS; s++) {
        cpu->arch_tlb->gen[s] = cpu->arch_tlb->global_gen[s] = 1;
        cpu->slot_asid[s] = UINT32_MAX;
        for (unsigned c = 0; c < TLB_CLASSES; c++)
            cpu->arch_tlb->fills[s][c].n = FILL_LOG + 1; /* cleared at first use */
    }
    memset(cpu->tlb_slots + entries - TLB_SIZE, 0xFF, TLB_SIZE * sizeof(TlbEntry));
    return true;
}

static TlbEntry *tlb_empty(Cpu *cpu)
{
    return cpu->tlb_slots + (size_t)(TLB_SLOTS * TLB_CLASSES) * TLB_SIZE;
}

static void tlb_clear_class(Cpu *cpu, unsigned slot, unsigned class)
{
    ArchTlb *t = cpu->arch_tlb;
    TlbEntry *e = tlb_class(cpu, slot, class);
    uint32_t n = t->fills[slot][class].n;
    if (n > FILL_LOG)
        memset(e, 0xFF, TLB_SIZE * sizeof(TlbEntry));
    else
        for (uint32_t i = 0; i < n; i++) {
            TlbEntry *x = &e[t->fills[slot][class].index[i]];
            x->tag_r = x->tag_w = x->tag_x = TLB_NONE;
        }
    t->fills[slot][class].n = 0;
}

static void tlb_clear_slot(Cpu *cpu, unsigned slot)
{
    for (unsigned c = 0; c < TLB_CLASSES; c++)
        if (cpu->arch_tlb->fills[slot][c].n)
            if (slot == cpu->slot || cpu->arch_tlb->fills[slot][c].n <= FILL_LOG)
                tlb_clear_class(cpu, slot, c);
    if (slot == cpu->slot)
        cpu_flush_jumps(cpu);
}

static void tlb_flush_slot(Cpu *cpu, unsigned slot, bool globals)
{
    ArchTlb *t = cpu->arch_tlb;
    t->gen[slot]++;
    if (globals)
        t->global_gen[slot]++;
    cpu->stats.tlb_flushes++;
    tlb_clear_slot(cpu, slot);
}

static void tlb_flush_all(Cpu *cpu)
{
    for (unsigned s = 0; s < TLB_SLOTS; s++)
        tlb_flush_slot(cpu, s, true);
    memset(cpu->arch_tlb->large, 0, sizeof cpu->arch_tlb->large);
}

/* Flush by ASID (TLB_CTL, INVLPGA's host, the sim_tlb_flush call). */
static void tlb_flush_asid(Cpu *cpu, uint32_t asid, bool globals)
{
    for (unsigned s = 0; s < TLB_SLOTS; s++)
        if (cpu->slot_asid[s] == asid)
            tlb_flush_slot(cpu, s, globals);
}

/* Flush of what a PCID holds; PCID outside of CR4.PCIDE is 0. */
static void tlb_flush_pcid(Cpu *cpu, unsigned pcid, bool globals)
{
    ArchTlb *t = cpu->arch_tlb;
    for (unsigned i = 0; i < ARCH_SETS; i++)
        for (unsigned w = 0; w < ARCH_WAYS; w++) {
            ArchEntry *e = &t->set[i][w];
            if (e->valid && e->slot == cpu->slot && e->pcid == pcid && (globals || !(e->flags & TE_G)))
                e->valid = 0;
        }
    cpu->stats.tlb_flushes++;
    tlb_clear_slot(cpu, cpu->slot);
}

static uint64_t large_bit(uint64_t x, unsigned *word)
{
    x *= 0x9E3779B97F4A7C15ull;
    *word = (x >> 58) & 63;
    return 1ull << ((x >> 52) & 63);
}

static void tlb_note_large(ArchTlb *t, uint64_t linear, unsigned shift)
{
    unsigned w;
    uint64_t b = large_bit(linear >> (shift >= 30 ? 30 : 21) << 1 | (shift >= 30), &w);
    t->large[w] |= b;
}

static bool tlb_maybe_large(ArchTlb *t, uint64_t linear)
{
    unsigned w2, w1;
    uint64_t b2 = large_bit(linear >> 21 << 1, &w2), b1 = large_bit(linear >> 30 << 1 | 1, &w1);
    return (t->large[w2] & b2) || (t->large[w1] & b1);
}

/* INVLPG in one ASID slot: the page's translation whatever its PCID or globality. */
static void tlb_invlpg_slot(Cpu *cpu, unsigned slot, uint64_t linear)
{
    ArchTlb *t = cpu->arch_tlb;
    if (tlb_maybe_large(t, linear)) {
        for (unsigned i = 0; i < ARCH_SETS; i++)
            for (unsigned w = 0; w < ARCH_WAYS; w++) {
                ArchEntry *e = &t->set[i][w];
                if (e->valid && e->slot == slot && ((e->vpn << 12 ^ linear) >> e->shift) == 0)
                    e->valid = 0;
            }
        tlb_clear_slot(cpu, slot);
        return;
    }
    ArchEntry *set = t->set[(linear >> 12) & (ARCH_SETS - 1)];
    for (unsigned w = 0; w < ARCH_WAYS; w++)
        if (set[w].valid && set[w].slot == slot && set[w].vpn == linear >> 12)
            set[w].valid = 0;
    for (unsigned c = 0; c < TLB_CLASSES; c++) {
        if (t->fills[slot][c].n > FILL_LOG && slot != cpu->slot)
            continue; /* never used, or cleared as a whole on entry */
        TlbEntry *e = &tlb_class(cpu, slot, c)[(linear >> 12) & (TLB_SIZE - 1)];
        e->tag_r = e->tag_w = e->tag_x = TLB_NONE;
    }
    if (slot == cpu->slot)
        cpu_flush_jumps(cpu);
}

static void tlb_invlpg(Cpu *cpu, uint64_t linear)
{
    tlb_invlpg_slot(cpu, cpu->slot, linear);
}

static void tlb_invlpg_asid(Cpu *cpu, uint64_t linear, uint32_t asid)
{
    for (unsigned s = 0; s < TLB_SLOTS; s++)
        if (cpu->slot_asid[s] == asid)
            tlb_invlpg_slot(cpu, s, linear);
}

static void tlb_select_stats(Cpu *cpu, unsigned slot, uint32_t asid)
{
    ArchTlb *t = cpu->arch_tlb;
    for (uint32_t i = 0; i < t->stat_count; i++)
        if (t->stats[i].asid == asid) {
            t->stat_slot[slot] = i;
            return;
        }
    if (t->stat_count < ASID_STATS)
        t->stats[t->stat_count++].asid = asid;
    t->stat_slot[slot] = t->stat_count - 1;
}

/* Makes `asid`'s slot the current one; 0 is the host. A slot that must be reused loses its entries. */
static void tlb_select_asid(Cpu *cpu, uint32_t asid)
{
    ArchTlb *t = cpu->arch_tlb;
    unsigned s = 0, oldest = 0;
    for (; s < TLB_SLOTS; s++)
        if (cpu->slot_asid[s] == asid)
            break;
    bool fresh = s == TLB_SLOTS;
    if (fresh) {
        for (unsigned i = 1; i < TLB_SLOTS; i++)
            if (cpu->slot_used[i] < cpu->slot_used[oldest])
                oldest = i;
        s = oldest;
        cpu->slot_asid[s] = asid;
        t->gen[s]++;
        t->global_gen[s]++;
        tlb_select_stats(cpu, s, asid);
    }
    cpu->slot = s;
    cpu->slot_used[s] = ++cpu->slot_clock;
    for (unsigned c = 0; c < TLB_CLASSES; c++)
        if (fresh || t->fills[s][c].n > FILL_LOG)
            tlb_clear_class(cpu, s, c);
    cpu_flush_jumps(cpu);
}

static unsigned cpu_pcid(const Cpu *cpu)
{
    return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xFFF : 0;
}

static ArchEntry *tlb_lookup(Cpu *cpu, uint64_t linear)
{
    ArchTlb *t = cpu->arch_tlb;
    ArchEntry *set = t->set[(linear >> 12) & (ARCH_SETS - 1)];
    unsigned pcid = cpu_pcid(cpu);
    for (unsigned w = 0; w < ARCH_WAYS; w++) {
        ArchEntry *e = &set[w];
        if (e->vpn != linear >> 12 || !e->valid || e->slot != cpu->slot)
            continue;
        if (e->flags & TE_G ? e->gen == t->global_gen[e->slot] : e->gen == t->gen[e->slot] && e->pcid == pcid)
            return e;
    }
    return NULL;
}

static ArchEntry *tlb_insert(Cpu *cpu, uint64_t linear, uint64_t hpa, uint64_t gpa, unsigned flags, unsigned shift)
{
    ArchTlb *t = cpu->arch_tlb;
    unsigned i = (linear >> 12) & (ARCH_SETS - 1);
    ArchEntry *e = tlb_lookup(cpu, linear);
    for (unsigned w = 0; !e && w < ARCH_WAYS; w++) {
        ArchEntry *x = &t->set[i][w];
        if (!x->valid || x->gen != (x->flags & TE_G ? t->global_gen[x->slot] : t->gen[x->slot]))
            e = x;
    }
    if (!e)
        e = &t->set[i][t->victim[i]++ & (ARCH_WAYS - 1)];
    *e = (ArchEntry){.vpn = linear >> 12, .hpa = hpa & ~0xFFFull, .gpa = gpa & ~0xFFFull, .flags = (uint16_t)flags,
                     .gen = flags & TE_G ? t->global_gen[cpu->slot] : t->gen[cpu->slot],
                     .pcid = (uint16_t)cpu_pcid(cpu), .slot = (uint8_t)cpu->slot, .shift = (uint8_t)shift, .valid = 1};
    if (shift > 12)
        tlb_note_large(t, linear, shift);
    return e;
}

/* First-level fill. `host` is the page's start. */
static void tlb_fill(Cpu *cpu, unsigned class, uint64_t linear, uint8_t *host, bool r, bool w, bool x)
{
    ArchTlb *t = cpu->arch_tlb;
    uint64_t page = linear & ~0xFFFull;
    unsigned i = (linear >> 12) & (TLB_SIZE - 1);
    TlbEntry *e = &tlb_class(cpu, cpu->slot, class)[i];
    e->tag_r = r ? page : TLB_NONE;
    e->tag_w = w ? page : TLB_NONE;
    e->tag_x = x ? page : TLB_NONE;
    e->addend = (uint64_t)(uintptr_t)host - page;
    uint32_t n = t->fills[cpu->slot][class].n;
    if (n < FILL_LOG)
        t->fills[cpu->slot][class].index[n] = (uint16_t)i;
    if (n <= FILL_LOG)
        t->fills[cpu->slot][class].n = n + 1;
}

/* A page of RAM got its first decoded code: no first-level entry may write to it behind the cache's back. */
static void tlb_drop_write_tags(Machine *m, const uint8_t *host_page)
{
    for (uint32_t c = 0; c < m->ncpus; c++) {
        Cpu *cpu = m->cpus[c];
        for (unsigned s = 0; s < TLB_SLOTS; s++)
            for (unsigned k = 0; k < TLB_CLASSES; k++) {
                uint32_t n = cpu->arch_tlb->fills[s][k].n;
                TlbEntry *e = tlb_class(cpu, s, k);
                if (n > FILL_LOG) {
                    if (s != cpu->slot)
                        continue; /* cleared as a whole on entry */
                    for (unsigned i = 0; i < TLB_SIZE; i++)
                        if (e[i].tag_w != TLB_NONE && e[i].tag_w + e[i].addend == (uint64_t)(uintptr_t)host_page)
                            e[i].tag_w = TLB_NONE;
                } else
                    for (uint32_t j = 0; j < n; j++) {
                        TlbEntry *x = &e[cpu->arch_tlb->fills[s][k].index[j]];
                        if (x->tag_w != TLB_NONE && x->tag_w + x->addend == (uint64_t)(uintptr_t)host_page)
                            x->tag_w = TLB_NONE;
                    }
            }
    }
}
