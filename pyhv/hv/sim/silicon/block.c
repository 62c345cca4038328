/* The cache of decoded code, its lookup and its invalidation by stores. */
#include <sys/mman.h>

#include "access.h"
#include "block.h"
#include "decode.h"

static bool arena_init(Machine *m)
{
    m->arena = calloc(1, sizeof *m->arena);
    m->code_pages = calloc((m->ram_size >> 12) + 1, sizeof *m->code_pages);
    if (!m->arena || !m->code_pages)
        return false;
    m->arena->size = ARENA_SIZE;
    m->arena->base = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return m->arena->base != MAP_FAILED;
}

static void arena_free(Machine *m)
{
    if (m->arena && m->arena->base && m->arena->base != MAP_FAILED)
        munmap(m->arena->base, m->arena->size);
    free(m->arena);
    free(m->code_pages);
}

/* Everything decoded goes. No block may be running. */
static void code_flush(Machine *m)
{
    for (CodePage *p = m->arena->pages; p; p = p->next_page)
        m->code_pages[p->index] = NULL;
    m->arena->pages = NULL;
    m->arena->used = 0;
    m->arena->flushes++;
    for (uint32_t i = 0; i < m->ncpus; i++)
        cpu_flush_jumps(m->cpus[i]);
    m->cpus[0]->stats.cache_flushes++;
}

static void *arena_alloc(Machine *m, size_t size)
{
    size = (size + 63) & ~(size_t)63;
    void *p = m->arena->base + m->arena->used;
    m->arena->used += size;
    return p;
}

/* Handler of every op of a killed block: go back to the loop with RIP at this op. */
static const Op *op_stale(Cpu *cpu, const Op *op)
{
    sync_op(cpu, op);
    return NULL;
}

static void block_kill(Cpu *owner, Block *b)
{
    b->dead = 1;
    for (unsigned i = 0; i <= b->n; i++)
        b->ops[i].fn = op_stale;
    owner->stats.smc_kills++;
}

/* Drops the blocks of a page that hold any of the bytes [start, end). Their ops stay readable until the arena is flushed.
 * To the byte, since small programs keep variables right beside the loops that use them. */
static void page_kill(Machine *m, CodePage *page, unsigned start, unsigned end)
{
    uint64_t live = 0;
    for (unsigned h = 0; h < PAGE_HEADS; h++)
        for (Block **at = &page->heads[h]; *at;) {
            Block *b = *at;
            if (b->off < end && start < (unsigned)b->off + b->bytes) {
                *at = b->next;
                block_kill(m->cpus[0], b);
            } else {
                live |= b->granules;
                at = &b->next;
            }
        }
    page->granules = live;
}

void code_written(Machine *m, const uint8_t *p, uint64_t size)
{
    uint64_t at = (uint64_t)(p - m->ram);
    while (size) {
        uint64_t n = 0x1000 - (at & 0xFFF);
        CodePage *page = m->code_pages[at >> 12];
        if (n > size)
            n = size;
        if (unlikely(page)) {
            unsigned start = at & 0xFFF, end = start + (unsigned)n;
            if (page->granules & granule_mask(start, (unsigned)n))
                page_kill(m, page, start, end);
        }
        at += n;
        size -= n;
    }
}

void sim_host_wrote(SimMachine *m, uint64_t pa, uint64_t size)
{
    for (uint32_t i = 0; i < m->maps; i++) {
        uint64_t start = pa > m->map[i].pa ? pa : m->map[i].pa;
        uint64_t end = pa + size < m->map[i].pa + m->map[i].size ? pa + size : m->map[i].pa + m->map[i].size;
        if (start < end)
            code_written(m, m->ram + m->map[i].offset + (start - m->map[i].pa), end - start);
    }
}

static unsigned head_of(unsigned off, unsigned mode)
{
    return (off ^ off >> 6 ^ mode) & (PAGE_HEADS - 1);
}

static Block *block_find(CodePage *page, unsigned off, unsigned mode)
{
    for (Block *b = page->heads[head_of(off, mode)]; b; b = b->next)
        if (b->off == off && b->mode == mode)
            return b;
    return NULL;
}

/* Host breakpoints. Blocks end before one, and none begins at one, so that it is met by the loop. */
static bool host_breakpoint(const Cpu *cpu)
{
    u64 rip = cpu->r[REG_RIP], linear = cpu->code_size == 8 ? rip : (u32)(rip + cpu->seg[SEG_CS].base);
    for (u32 i = 0; i < cpu->debug.count; i++)
        if (cpu->debug.linear[i] == linear)
            return true;
    return false;
}

static bool breakpoint_at_offset(const Machine *m, unsigned off)
{
    for (u32 c = 0; m->breakpoints && c < m->ncpus; c++)
        for (u32 i = 0; i < m->cpus[c]->debug.count; i++)
            if ((m->cpus[c]->debug.linear[i] & 0xFFF) == off)
                return true;
    return false;
}

/* Decodes a block at page offset `off`; NULL when not even its first instruction lies in the page whole. */
static Block *block_make(Cpu *cpu, const uint8_t *host_page, unsigned off, unsigned mode)
{
    Machine *m = cpu->machine;
    size_t most = sizeof(CodePage) + sizeof(Block) + (BLOCK_MAX_OPS + 2) * sizeof(Op) + 256;
    if (m->arena->size - m->arena->used < most)
        code_flush(m);
    Op ops[BLOCK_MAX_OPS + 2];
    unsigned n = 0, at = off;
    bool ended = false;
    while (n < BLOCK_MAX_OPS && !ended) {
        Insn insn;
        if (unlikely(m->breakpoints) && n && breakpoint_at_offset(m, at))
            break;
        int len = insn_parse(&insn, host_page + at, 0x1000 - at, mode);
        if (len <= 0)
            break; /* straddles the page, or longer than 15 bytes: the single-instruction path takes it */
        Op *op = &ops[n];
        int kind = op_decode(cpu, &insn, op, mode, at - off);
        if (kind == DECODE_ALONE && n)
            break;
        n++;
        at += (unsigned)len;
        ended = kind != DECODE_NEXT;
    }
    if (!n)
        return NULL;
    CodePage *page = code_page_at(m, host_page);
    if (!page) {
        page = arena_alloc(m, sizeof *page);
        memset(page, 0, sizeof *page);
        page->index = (uint64_t)(host_page - m->ram) >> 12;
        page->next_page = m->arena->pages;
        m->arena->pages = page;
        m->code_pages[page->index] = page;
        tlb_drop_write_tags(m, host_page);
    }
    Block *b = arena_alloc(m, sizeof *b + (n + 1) * sizeof(Op));
    b->page = page;
    b->granules = granule_mask(off, at - off);
    b->off = (uint16_t)off;
    b->bytes = (uint16_t)(at - off);
    b->n = (uint16_t)n;
    b->mode = (uint8_t)mode;
    b->dead = 0;
    memcpy(b->ops, ops, n * sizeof(Op));
    op_trailer(&b->ops[n], at - off);
    ops_optimize(b->ops, n, mode);
    page->granules |= b->granules;
    Block **head = &page->heads[head_of(off, mode)];
    b->next = *head;
    *head = b;
    cpu->stats.blocks_decoded++;
    cpu->stats.ops_decoded += n;
    return b;
}

/* Host pointer of code at a linear address; faults as a fetch does. NULL: not RAM. */
static const uint8_t *fetch_pointer(Cpu *cpu, uint64_t linear)
{
    const TlbEntry *e = &cpu->tlb[(linear >> 12) & (TLB_SIZE - 1)];
    Xlate x;
    if (likely((linear & ~0xFFFull) == e->tag_x))
        return (const uint8_t *)(uintptr_t)(linear + e->addend);
    page_access(cpu, NULL, linear, cpu->priv_class, ACC_FETCH, &x);
    if (x.npf) {
        cpu->access.valid = 0;
        npf_exit(cpu, NULL, x.gpa, NPF_FINAL | x.npf);
    }
    return x.host;
}

/* Whether [rip, rip + bytes) passes the CS limit. */
static bool code_in_limit(const Cpu *cpu, uint64_t rip, unsigned bytes)
{
    return cpu->code_size == 8 || rip + bytes - 1 <= cpu->seg[SEG_CS].limit;
}

static const Op *enter_block(Cpu *cpu, Block *b)
{
    if (unlikely((cpu->budget -= b->n) < 0)) {
        cpu->budget += b->n;
        cpu->block = NULL;
        cpu->want_step = 1;
        return NULL;
    }
    cpu->block = b;
    return b->ops;
}

/* The block at RIP, found or made. NULL with want_step: that instruction must run alone. May take a fetch fault. */
static const Op *lookup_slow(Cpu *cpu)
{
    uint64_t rip = cpu->r[REG_RIP];
    cpu->block = NULL;
    if (cpu->budget <= 0)
        return NULL;
    uint64_t linear = cpu->code_size == 8 ? rip : (uint32_t)(rip + cpu->seg[SEG_CS].base);
    if (!code_in_limit(cpu, rip, 1))
        raise_error(cpu, NULL, EXC_GP, 0);
    const uint8_t *p = fetch_pointer(cpu, linear);
    cpu->want_step = 1;
    if (!p || (unlikely(cpu->machine->breakpoints) && breakpoint_at_offset(cpu->machine, linear & 0xFFF)))
        return NULL;
    const uint8_t *page_start = p - (linear & 0xFFF);
    CodePage *page = code_page_at(cpu->machine, p);
    unsigned off = linear & 0xFFF, mode = cpu->mode & MODE_BLOCK_MASK;
    Block *b = page ? block_find(page, off, mode) : NULL;
    if (!b)
        b = block_make(cpu, page_start, off, mode);
    if (!b || ((mode & MODE_CSLIM) && !code_in_limit(cpu, rip, b->bytes)))
        return NULL;
    cpu->want_step = 0;
    JumpEntry *j = &cpu->jumps[(rip ^ rip >> JUMP_BITS) & (JUMP_SIZE - 1)];
    *j = (JumpEntry){rip, cpu->jump_key, b};
    return enter_block(cpu, b);
}

/* Goes on at RIP. */
static inline const Op *jump_here(Cpu *cpu)
{
    uint64_t rip = cpu->r[REG_RIP];
    const JumpEntry *j = &cpu->jumps[(rip ^ rip >> JUMP_BITS) & (JUMP_SIZE - 1)];
    if (likely(j->rip == rip && j->key == cpu->jump_key))
        return enter_block(cpu, j->block);
    return lookup_slow(cpu);
}

/* Goes on at RIP, which lies in the running block's page or not; remembers the block in the op when it does. */
static __attribute__((noinline)) const Op *link_slow(Cpu *cpu, const Op *op, uint64_t from)
{
    const Block *old = cpu->block;
    uint64_t rip = cpu->r[REG_RIP], flushes = cpu->machine->arena->flushes;
    bool same_page = old && !(cpu->mode & MODE_CSLIM)
        && ((((from + cpu->seg[SEG_CS].base) ^ (rip + cpu->seg[SEG_CS].base)) & cpu->linmask) >> 12) == 0;
    const CodePage *page = old ? old->page : NULL;
    const Op *next = jump_here(cpu);
    if (next && same_page && cpu->block && cpu->block->page == page && !old->dead
        && flushes == cpu->machine->arena->flushes)
        ((Op *)(uintptr_t)op)->ptr = (void *)(uintptr_t)cpu->block;
    return next;
}

static inline const Op *link_to(Cpu *cpu, const Op *op, uint64_t from)
{
    Block *b = op->ptr;
    if (likely(b != NULL))
        return enter_block(cpu, b);
    return link_slow(cpu, op, from);
}
