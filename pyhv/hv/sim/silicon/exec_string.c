/* String instructions. A repeated one is the last op of its block; every iteration counts as an instruction, commits
 * its registers and can be the last before an event, after which RIP still points at the instruction. */
#include "access.h"

enum { STR_MOVS, STR_STOS, STR_LODS, STR_CMPS, STR_SCAS, STR_INS, STR_OUTS };

static u64 io_port_in(Cpu *cpu, const Op *op, u16 port, unsigned size, bool string, u64 count);
static void io_port_out(Cpu *cpu, const Op *op, u16 port, unsigned size, u64 value, bool string, u64 count);
static void io_check(Cpu *cpu, const Op *op, u16 port, unsigned size);
static void io_intercept(Cpu *cpu, const Op *op, u16 port, unsigned size, bool in, bool string, u64 next);

static inline u64 str_step(const Cpu *cpu, unsigned size)
{
    return cpu->rflags & FLAG_DF ? -(u64)size : size;
}

static inline void str_add(Cpu *cpu, unsigned reg, unsigned asize, u64 delta)
{
    reg_put(cpu, reg, asize, reg_get(cpu, reg, asize) + delta);
}

static inline u64 str_linear(Cpu *cpu, const Op *op, unsigned seg, u64 offset, unsigned size, int acc)
{
    if (cpu->code_size == 8 && seg < SEG_FS)
        return offset;
    return seg_linear(cpu, op, seg, offset, size, acc);
}

/* One iteration; true when it ends a REPE/REPNE loop early. */
static bool str_once(Cpu *cpu, const Op *op, unsigned kind)
{
    unsigned size = op->osize, a = op->asize;
    u64 step = str_step(cpu, size), v, w;
    u64 si = reg_get(cpu, RSI, a), di = reg_get(cpu, RDI, a);
    switch (kind) {
    case STR_MOVS: {
        u64 to = str_linear(cpu, op, SEG_ES, di, size, ACC_WRITE);
        v = load(cpu, op, str_linear(cpu, op, op->seg, si, size, ACC_READ), size);
        store(cpu, op, to, size, v);
        str_add(cpu, RSI, a, step);
        str_add(cpu, RDI, a, step);
        return false;
    }
    case STR_STOS:
        store(cpu, op, str_linear(cpu, op, SEG_ES, di, size, ACC_WRITE), size, cpu->r[RAX]);
        str_add(cpu, RDI, a, step);
        return false;
    case STR_LODS:
        v = load(cpu, op, str_linear(cpu, op, op->seg, si, size, ACC_READ), size);
        reg_put(cpu, RAX, size, v);
        str_add(cpu, RSI, a, step);
        return false;
    case STR_CMPS:
        v = load(cpu, op, str_linear(cpu, op, op->seg, si, size, ACC_READ), size);
        w = load(cpu, op, str_linear(cpu, op, SEG_ES, di, size, ACC_READ), size);
        str_add(cpu, RSI, a, step);
        str_add(cpu, RDI, a, step);
        break;
    case STR_SCAS:
        v = reg_get(cpu, RAX, size);
        w = load(cpu, op, str_linear(cpu, op, SEG_ES, di, size, ACC_READ), size);
        str_add(cpu, RDI, a, step);
        break;
    case STR_INS: {
        u64 to = str_linear(cpu, op, SEG_ES, di, size, ACC_WRITE);
        mem_probe(cpu, op, to, size, ACC_WRITE);
        v = io_port_in(cpu, op, (u16)cpu->r[RDX], size, true, 1);
        store(cpu, op, to, size, v);
        str_add(cpu, RDI, a, step);
        return false;
    }
    default:
        v = load(cpu, op, str_linear(cpu, op, op->seg, si, size, ACC_READ), size);
        io_port_out(cpu, op, (u16)cpu->r[RDX], size, v, true, 1);
        str_add(cpu, RSI, a, step);
        return false;
    }
    v = (u64)sign_extend(v, size);
    w = (u64)sign_extend(w, size);
    cc_set(cpu, CC_SUB, sign_extend(v - w, size), (i64)v, (i64)w);
    return op->flags & OPF_REP ? v != w : op->flags & OPF_REPNE ? v == w : false;
}

/* As many iterations as lie within one page of plain RAM at both ends, moved at once; 0: take them one by one. */
static u64 str_chunk(Cpu *cpu, const Op *op, unsigned kind, u64 most)
{
    unsigned size = op->osize;
    if (cpu->rflags & FLAG_DF)
        return 0;
    if (!(cpu->code_size == 8 && op->asize == 8) && !((cpu->mode & MODE_FLAT) && op->asize == 4))
        return 0;
    u64 di = cpu->r[RDI] & cpu->linmask, n = (0x1000 - (di & 0xFFF)) / size;
    if (n > most)
        n = most;
    if (kind == STR_MOVS) {
        if (op->seg >= SEG_FS || op->seg == SEG_CS)
            return 0;
        u64 si = cpu->r[RSI] & cpu->linmask, k = (0x1000 - (si & 0xFFF)) / size;
        if (n > k)
            n = k;
        if (!n)
            return 0;
        const u8 *from = mem_fast_read(cpu, si, 1);
        u8 *to = mem_fast_write(cpu, di, 1);
        if ((!from || !to) && !((si ^ di) >> 12 & (TLB_SIZE - 1))) { /* both pages want the same first-level entry */
            mem_probe(cpu, op, si, 1, ACC_READ);
            from = mem_fast_read(cpu, si, 1);
            mem_probe(cpu, op, di, 1, ACC_WRITE);
            to = mem_fast_write(cpu, di, 1);
        }
        if (!from || !to)
            return 0;
        u64 bytes = n * size;
        if (to > from && to < from + bytes) {
            for (u64 i = 0; i < bytes; i += size)
                store_le(to + i, size, load_le(from + i, size));
        } else {
            memmove(to, from, bytes);
        }
        str_add(cpu, RSI, op->asize, bytes);
        str_add(cpu, RDI, op->asize, bytes);
        return n;
    }
    if (kind == STR_STOS && n) {
        u8 *to = mem_fast_write(cpu, di, 1);
        if (!to)
            return 0;
        u64 v = cpu->r[RAX];
        if (size == 1)
            memset(to, (u8)v, n);
        else
            for (u64 i = 0; i < n; i++)
                memcpy(to + i * size, &v, size);
        str_add(cpu, RDI, op->asize, n * size);
        return n;
    }
    return 0;
}

static inline const Op *str_run(Cpu *cpu, const Op *op, unsigned kind)
{
    bool rep = op->flags & (OPF_REP | OPF_REPNE);
    u64 left = rep ? reg_get(cpu, RCX, op->asize) : 1;
    if (kind >= STR_INS)
        io_check(cpu, op, (u16)cpu->r[RDX], op->osize); /* even for a count of zero, as the real CPU does */
    if (kind >= STR_INS && left)
        io_intercept(cpu, op, (u16)cpu->r[RDX], op->osize, kind == STR_INS, true, next_rip(cpu, op));
    if (!rep) {
        cpu->in_string = 1;
        str_once(cpu, op, kind);
        cpu->in_string = 0;
        NEXT;
    }
    bool stop = left == 0, first = true;
    cpu->in_string = 1;
    while (!stop) {
        u64 n = 0;
        if (!first) { /* the first iteration is the instruction that the block counted */
            if (cpu->budget <= 0)
                break;
            cpu->budget--;
        }
        first = false;
        if (left > 1 && cpu->budget > 0 && kind <= STR_STOS)
            n = str_chunk(cpu, op, kind, left <= (u64)cpu->budget ? left : (u64)cpu->budget + 1);
        if (!n) {
            stop = str_once(cpu, op, kind);
            n = 1;
            if (cpu->mmio_have)
                mmio_forget(cpu);
        }
        left -= n;
        reg_put(cpu, RCX, op->asize, left);
        cpu->budget -= (i64)n - 1;
        stop = stop || left == 0;
        if (cpu->attention || (cpu->block && cpu->block->dead) || cpu->pending_dbg)
            break;
    }
    cpu->in_string = 0;
    if (stop)
        return op_end(cpu, op + 1);
    cpu->r[REG_RIP] += op->off;
    cpu->block = NULL;
    return NULL;
}
#define STRING_OP(name, kind) HANDLER(name) { return str_run(cpu, op, kind); }
STRING_OP(op_movs, STR_MOVS)
STRING_OP(op_stos, STR_STOS)
STRING_OP(op_lods, STR_LODS)
STRING_OP(op_cmps, STR_CMPS)
STRING_OP(op_scas, STR_SCAS)
STRING_OP(op_ins, STR_INS)
STRING_OP(op_outs, STR_OUTS)
