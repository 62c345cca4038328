/* Physical memory, and linear loads and stores when the first-level TLB does not answer. */
#include "cpu.h"

uint8_t *phys_ptr(const Machine *m, uint64_t pa, uint64_t size, bool writable)
{
    for (uint32_t i = 0; i < m->maps; i++) {
        uint64_t at = pa - m->map[i].pa;
        if (at < m->map[i].size && size <= m->map[i].size - at) {
            if (writable && (m->map[i].flags & 1))
                return NULL;
            return m->ram + m->map[i].offset + at;
        }
    }
    return NULL;
}

static uint64_t load_le(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    switch (size) {
    case 1: return *p;
    case 2: { uint16_t x; memcpy(&x, p, 2); return x; }
    case 4: { uint32_t x; memcpy(&x, p, 4); return x; }
    case 8: memcpy(&v, p, 8); return v;
    default: memcpy(&v, p, size > 8 ? 8 : size); return v;
    }
}

static void store_le(uint8_t *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1: *p = (uint8_t)v; break;
    case 2: { uint16_t x = (uint16_t)v; memcpy(p, &x, 2); break; }
    case 4: { uint32_t x = (uint32_t)v; memcpy(p, &x, 4); break; }
    default: memcpy(p, &v, size > 8 ? 8 : size); break;
    }
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? ~0ull : (1ull << size * 8) - 1;
}

static bool is_canonical(const Cpu *cpu, uint64_t a)
{
    unsigned s = cpu->cr4 & CR4_LA57 ? 7 : 16;
    return (uint64_t)((int64_t)(a << s) >> s) == a;
}

/* ---- devices ---- */

static void mmio_forget(Cpu *cpu)
{
    cpu->mmio_have = cpu->mmio_at = 0;
}

/* An access that the host answered before the instruction was restarted. */
static bool mmio_replay(Cpu *cpu, uint64_t addr, unsigned size, unsigned kind, uint64_t *data)
{
    if (cpu->mmio_at >= cpu->mmio_have)
        return false;
    const MmioLogEntry *e = &cpu->mmio_log[cpu->mmio_at];
    if (e->addr != addr || e->size != size || e->write != kind) {
        mmio_forget(cpu);
        return false;
    }
    cpu->mmio_at++;
    *data = e->data;
    return true;
}

static void mmio_record(Cpu *cpu, const Op *op, uint64_t addr, unsigned size, unsigned kind, uint64_t data)
{
    if (cpu->mmio_at >= MMIO_LOG_MAX) {
        mmio_forget(cpu);
        leave_error(cpu, op, "one instruction made more than %d device accesses at %#llx", MMIO_LOG_MAX,
                    (unsigned long long)addr);
    }
    cpu->access_port = kind >> 1 & 1;
    cpu->access = (SimAccess){.addr = addr, .data = data & size_mask(size), .size = size, .write = kind & 1, .valid = 1,
                              .string = cpu->in_string, .implicit = op == NULL, .count = 1};
}

static bool is_vapic_page(const Cpu *cpu, uint64_t gpa)
{
    return cpu->vapic && (cpu->lapic.base & 0xC00) == 0x800 && (gpa & ~0xFFFull) == (cpu->lapic.base & PTE_ADDR);
}

static uint64_t apic_access(Cpu *cpu, const Op *op, uint64_t addr, unsigned size, unsigned kind, uint64_t data)
{
    uint64_t logged;
    if (mmio_replay(cpu, addr, size, kind, &logged))
        return logged;
    if (op)
        cpu->op = op;
    if (kind & 1)
        lapic_mmio_write(cpu, addr & 0xFFF, size, (uint32_t)data);
    else
        data = lapic_mmio_read(cpu, addr & 0xFFF, size);
    /* a later part of this instruction may still restart it */
    if (cpu->mmio_have && cpu->mmio_have < MMIO_LOG_MAX) {
        cpu->mmio_log[cpu->mmio_have++] = (MmioLogEntry){addr, data, (uint8_t)size, (uint8_t)kind};
        cpu->mmio_at = cpu->mmio_have;
    }
    return data;
}

/* kind: 0 read, 1 write; size 1, 2, 4, 8. */
static uint64_t device_access(Cpu *cpu, const Op *op, const Xlate *x, unsigned size, unsigned kind, uint64_t data)
{
    uint64_t addr = x->npf ? x->gpa : x->pa;
    if (x->npf) {
        if (is_vapic_page(cpu, addr)) {
            cpu->stats.vapic_accesses++;
            return apic_access(cpu, op, addr, size, kind, data);
        }
    } else if (is_apic_page(cpu, addr & ~0xFFFull)) {
        return apic_access(cpu, op, addr, size, kind, data);
    }
    if (mmio_replay(cpu, addr, size, kind, &data))
        return data;
    if (!x->npf && cpu->svm.delivering)
        return ~0ull; /* the bare machine's own event delivery meets no device */
    mmio_record(cpu, op, addr, size, kind, data);
    if (x->npf)
        npf_exit(cpu, op, addr, NPF_FINAL | x->npf);
    leave_stop(cpu, op, SIM_STOP_MMIO);
}

/* Largest power of two that may be accessed at once at `addr` with `left` bytes to go. */
static unsigned device_piece(uint64_t addr, unsigned left)
{
    unsigned n = 8;
    if (left == 1 || left == 2 || left == 4 || left == 8)
        return left;
    while (n > left || (addr & (n - 1)))
        n >>= 1;
    return n;
}

/* ---- linear accesses ---- */

static void watch_access(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, int acc, unsigned class);

static void page_access(Cpu *cpu, const Op *op, uint64_t linear, unsigned class, int acc, Xlate *x)
{
    if (cpu->code_size == 8 || (cpu->efer & EFER_LMA)) {
        if (unlikely(!is_canonical(cpu, linear)))
            raise_error(cpu, op, op && op->seg == SEG_SS && (op->flags & OPF_MEM) ? EXC_SS : EXC_GP, 0);
    }
    translate(cpu, op, linear, acc, class, x);
}

static void read_class(Cpu *cpu, const Op *op, uint64_t linear, void *out, unsigned size, unsigned class)
{
    uint8_t *p = out;
    if (unlikely(cpu->watch))
        watch_access(cpu, op, linear, size, ACC_READ, class);
    while (size) {
        unsigned n = 0x1000 - (linear & 0xFFF);
        Xlate x;
        if (n > size)
            n = size;
        page_access(cpu, op, linear, class, ACC_READ, &x);
        if (x.host) {
            memcpy(p, x.host, n);
        } else {
            for (unsigned at = 0; at < n;) {
                unsigned k = device_piece(linear + at, n - at);
                Xlate y = x;
                y.pa += at;
                y.gpa += at;
                store_le(p + at, k, device_access(cpu, op, &y, k, 0, 0));
                at += k;
            }
        }
        p += n;
        size -= n;
        linear = (linear + n) & (cpu->efer & EFER_LMA ? ~0ull : 0xFFFFFFFFull);
    }
}

static void store_ram(Cpu *cpu, const Xlate *x, const uint8_t *in, unsigned n)
{
    if (x->rom)
        return;
    memcpy(x->host, in, n);
    code_written(cpu->machine, x->host, n);
}

static void write_device(Cpu *cpu, const Op *op, const Xlate *x, uint64_t linear, const uint8_t *in, unsigned n)
{
    for (unsigned at = 0; at < n;) {
        unsigned k = device_piece(linear + at, n - at);
        Xlate y = *x;
        y.pa += at;
        y.gpa += at;
        device_access(cpu, op, &y, k, 1, load_le(in + at, k));
        at += k;
    }
}

static void write_class(Cpu *cpu, const Op *op, uint64_t linear, const void *in, unsigned size, unsigned class)
{
    const uint8_t *p = in;
    unsigned first = 0x1000 - (linear & 0xFFF);
    Xlate x[2];
    if (unlikely(cpu->watch))
        watch_access(cpu, op, linear, size, ACC_WRITE, class);
    if (first > size)
        first = size;
    page_access(cpu, op, linear, class, ACC_WRITE, &x[0]);
    if (first == size) {
        if (x[0].host)
            store_ram(cpu, &x[0], p, size);
        else
            write_device(cpu, op, &x[0], linear, p, size);
        return;
    }
    /* at most two pages: callers write no more than a page */
    uint64_t second = (linear + first) & (cpu->efer & EFER_LMA ? ~0ull : 0xFFFFFFFFull);
    page_access(cpu, op, second, class, ACC_WRITE, &x[1]);
    if (!x[0].host)
        write_device(cpu, op, &x[0], linear, p, first);
    if (!x[1].host)
        write_device(cpu, op, &x[1], second, p + first, size - first);
    if (x[0].host)
        store_ram(cpu, &x[0], p, first);
    if (x[1].host)
        store_ram(cpu, &x[1], p + first, size - first);
}

uint64_t mem_read_slow(Cpu *cpu, const Op *op, uint64_t linear, unsigned size)
{
    uint8_t buffer[8];
    cpu->op = op;
    read_class(cpu, op, linear, buffer, size, cpu->priv_class);
    return load_le(buffer, size);
}

void mem_write_slow(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, uint64_t value)
{
    uint8_t buffer[8];
    cpu->op = op;
    memcpy(buffer, &value, 8);
    write_class(cpu, op, linear, buffer, size, cpu->priv_class);
}

void mem_read(Cpu *cpu, const Op *op, uint64_t linear, void *out, unsigned size)
{
    const void *p = size <= 4096 ? mem_fast_read(cpu, linear, size) : NULL;
    if (likely(p)) {
        memcpy(out, p, size);
        return;
    }
    cpu->op = op;
    read_class(cpu, op, linear, out, size, cpu->priv_class);
}

void mem_write(Cpu *cpu, const Op *op, uint64_t linear, const void *in, unsigned size)
{
    void *p = mem_fast_write(cpu, linear, size);
    if (likely(p)) {
        memcpy(p, in, size);
        return;
    }
    cpu->op = op;
    write_class(cpu, op, linear, in, size, cpu->priv_class);
}

static void probe_class(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, int acc, unsigned class)
{
    Xlate x;
    if (!size)
        return;
    unsigned first = 0x1000 - (linear & 0xFFF);
    page_access(cpu, op, linear, class, acc, &x);
    /* a nested fault of a device page is left to the access itself */
    if (first < size)
        page_access(cpu, op, (linear + first) & (cpu->efer & EFER_LMA ? ~0ull : 0xFFFFFFFFull), class, acc, &x);
}

void mem_probe(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, int acc)
{
    if (likely(acc == ACC_WRITE ? mem_fast_write(cpu, linear, size) : mem_fast_read(cpu, linear, size)))
        return;
    cpu->op = op;
    probe_class(cpu, op, linear, size, acc, cpu->priv_class);
}

/* The read half of a read-modify-write: faults are those of a write. */
static uint64_t mem_read_for_write(Cpu *cpu, const Op *op, uint64_t linear, unsigned size)
{
    cpu->op = op;
    probe_class(cpu, op, linear, size, ACC_WRITE, cpu->priv_class);
    return mem_read_slow(cpu, op, linear, size);
}

uint64_t mem_read_sys(Cpu *cpu, const Op *op, uint64_t linear, unsigned size)
{
    uint8_t buffer[8];
    const TlbEntry *e = &tlb_class(cpu, cpu->slot, TLB_SUPER)[(linear >> 12) & (TLB_SIZE - 1)];
    if (((linear + size - 1) & ~0xFFFull) == e->tag_r)
        return load_le((const uint8_t *)(uintptr_t)(linear + e->addend), size);
    if (op)
        cpu->op = op;
    uint8_t watch = cpu->watch;
    cpu->watch = 0;
    read_class(cpu, op, linear, buffer, size, TLB_SUPER);
    cpu->watch = watch;
    return load_le(buffer, size);
}

void mem_write_sys(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, uint64_t value)
{
    uint8_t buffer[8];
    memcpy(buffer, &value, 8);
    if (op)
        cpu->op = op;
    write_class(cpu, op, linear, buffer, size, TLB_SUPER);
}

/* ---- segments and effective addresses ---- */

static uint64_t op_offset(Cpu *cpu, const Op *op)
{
    uint64_t ea = cpu->r[op->base] + (cpu->r[op->index] << op->scale) + (uint64_t)(int64_t)op->disp;
    if (op->asize == 4)
        ea = (uint32_t)ea;
    else if (op->asize == 2)
        ea = (uint16_t)ea;
    return ea;
}

uint64_t seg_linear(Cpu *cpu, const Op *op, unsigned seg, uint64_t offset, unsigned size, int acc)
{
    if (cpu->code_size == 8) {
        if (seg >= SEG_FS)
            offset += cpu->seg[seg].base;
        if (unlikely(!is_canonical(cpu, offset) || !is_canonical(cpu, offset + size - 1)))
            raise_error(cpu, op, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
        return offset;
    }
    const SimSegment *s = &cpu->seg[seg];
    unsigned type = s->attrib & 0xF;
    uint64_t last = offset + size - 1;
    bool bad;
    if (!(s->attrib & 0x80) || !(s->attrib & 0x10)) { /* null, or not a memory segment */
        bad = true;
    } else if ((cpu->cr0 & CR0_PE) && !(cpu->rflags & FLAG_VM)
               && (acc == ACC_WRITE ? (type & 8) || !(type & 2) : (type & 8) && !(type & 2))) {
        bad = true;
    } else if (!(type & 8) && (type & 4)) { /* expand down */
        bad = offset <= s->limit || last > (s->attrib & 0x400 ? 0xFFFFFFFFull : 0xFFFFull);
    } else {
        bad = last > s->limit;
    }
    if (unlikely(bad))
        raise_error(cpu, op, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
    return (uint32_t)(s->base + offset);
}

uint64_t op_linear(Cpu *cpu, const Op *op, unsigned size, int acc)
{
    return seg_linear(cpu, op, op->seg, op_offset(cpu, op), size, acc);
}
