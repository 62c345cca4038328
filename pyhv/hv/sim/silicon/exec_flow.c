/* Stack instructions and near transfers of control. */
#include "access.h"

/* ---- the stack ---- */

static inline u64 stack_mask(const Cpu *cpu)
{
    return cpu->stack_size == 8 ? ~0ull : cpu->stack_size == 4 ? 0xFFFFFFFFull : 0xFFFFull;
}

static inline void set_sp(Cpu *cpu, u64 sp)
{
    if (cpu->stack_size == 8)
        cpu->r[RSP] = sp;
    else if (cpu->stack_size == 4)
        cpu->r[RSP] = (u32)sp;
    else
        PUT2(RSP, sp);
}

/* Stores below the stack pointer; *sp is moved, the register is not. */
static void push_at(Cpu *cpu, const Op *op, u64 *sp, unsigned size, u64 value)
{
    u64 to = (*sp - size) & stack_mask(cpu);
    store(cpu, op, seg_linear(cpu, op, SEG_SS, to, size, ACC_WRITE), size, value);
    *sp = to;
}

static u64 pop_at(Cpu *cpu, const Op *op, u64 *sp, unsigned size)
{
    u64 at = *sp & stack_mask(cpu);
    u64 v = load(cpu, op, seg_linear(cpu, op, SEG_SS, at, size, ACC_READ), size);
    *sp = (at + size) & stack_mask(cpu);
    return v;
}

static inline void push(Cpu *cpu, const Op *op, unsigned size, u64 value)
{
    if (likely(cpu->code_size == 8)) {
        u64 to = cpu->r[RSP] - size;
        void *p = mem_fast_write(cpu, to, size);
        if (likely(p)) {
            if (size == 8)
                *(u64u *)p = value;
            else
                *(u16u *)p = (u16)value;
            cpu->r[RSP] = to;
            return;
        }
    }
    u64 sp = cpu->r[RSP];
    push_at(cpu, op, &sp, size, value);
    set_sp(cpu, sp);
}

HANDLER(push_r8)
{
    u64 to = cpu->r[RSP] - 8;
    u64u *p = mem_fast_write(cpu, to, 8);
    if (unlikely(!p)) {
        push(cpu, op, 8, cpu->r[op->rm]);
        NEXT;
    }
    *p = cpu->r[op->rm];
    cpu->r[RSP] = to;
    NEXT;
}
HANDLER(push_r) { push(cpu, op, op->osize, cpu->r[op->rm]); NEXT; }
HANDLER(push_i) { push(cpu, op, op->osize, (u64)op->imm); NEXT; }
HANDLER(push_m)
{
    u64 v = load(cpu, op, op_linear(cpu, op, op->osize, ACC_READ), op->osize);
    push(cpu, op, op->osize, v);
    NEXT;
}
HANDLER(pop_r8)
{
    const u64u *p = mem_fast_read(cpu, cpu->r[RSP], 8);
    u64 v;
    if (likely(p)) {
        v = *p;
        cpu->r[RSP] += 8;
    } else {
        v = pop_at(cpu, op, &cpu->r[RSP], 8);
    }
    cpu->r[op->rm] = v;
    NEXT;
}
HANDLER(pop_r)
{
    u64 sp = cpu->r[RSP];
    u64 v = pop_at(cpu, op, &sp, op->osize);
    set_sp(cpu, sp);
    reg_put(cpu, op->rm, op->osize, v);
    NEXT;
}
/* POP to memory: an RSP base counts after the increment */
HANDLER(pop_m)
{
    u64 old = cpu->r[RSP], sp = old;
    u64 v = pop_at(cpu, op, &sp, op->osize);
    if (op->base == RSP) {
        u64 now = cpu->stack_size == 2 ? (old & ~0xFFFFull) | sp : sp;
        u64 ea = now + (cpu->r[op->index] << op->scale) + (u64)(i64)op->disp;
        ea = op->asize == 8 ? ea : op->asize == 4 ? (u32)ea : (u16)ea;
        store(cpu, op, seg_linear(cpu, op, op->seg, ea, op->osize, ACC_WRITE), op->osize, v);
    } else {
        store(cpu, op, op_linear(cpu, op, op->osize, ACC_WRITE), op->osize, v);
    }
    set_sp(cpu, sp);
    NEXT;
}
HANDLER(op_pusha)
{
    u64 sp = cpu->r[RSP];
    /* every fault before the first store shows: probe both ends */
    u64 low = (sp - 8u * op->osize) & stack_mask(cpu);
    if (((sp - 1) & stack_mask(cpu)) > low)
        mem_probe(cpu, op, seg_linear(cpu, op, SEG_SS, low, 8u * op->osize, ACC_WRITE), 8u * op->osize, ACC_WRITE);
    for (unsigned i = 0; i < 8; i++)
        push_at(cpu, op, &sp, op->osize, cpu->r[i]);
    set_sp(cpu, sp);
    NEXT;
}
HANDLER(op_popa)
{
    u64 sp = cpu->r[RSP], v[8];
    for (int i = 7; i >= 0; i--)
        v[i] = pop_at(cpu, op, &sp, op->osize);
    set_sp(cpu, sp);
    for (unsigned i = 0; i < 8; i++)
        if (i != RSP)
            reg_put(cpu, i, op->osize, v[i]);
    NEXT;
}
HANDLER(op_enter)
{
    unsigned size = op->osize, depth = (unsigned)(op->imm >> 16) & 31, alloc = (u16)op->imm;
    u64 sp = cpu->r[RSP], bp = cpu->r[RBP];
    push_at(cpu, op, &sp, size, bp);
    u64 frame = sp;
    for (unsigned i = 1; i < depth; i++) {
        bp = (bp - size) & stack_mask(cpu);
        u64 v = load(cpu, op, seg_linear(cpu, op, SEG_SS, bp, size, ACC_READ), size);
        push_at(cpu, op, &sp, size, v);
    }
    if (depth)
        push_at(cpu, op, &sp, size, frame);
    sp = (sp - alloc) & stack_mask(cpu);
    mem_probe(cpu, op, seg_linear(cpu, op, SEG_SS, sp, size, ACC_WRITE), size, ACC_WRITE);
    set_sp(cpu, sp);
    if (size == 2)
        PUT2(RBP, frame);
    else if (size == 4)
        PUT4(RBP, frame);
    else
        cpu->r[RBP] = frame;
    NEXT;
}
HANDLER(op_leave)
{
    u64 sp = cpu->r[RBP];
    u64 v = pop_at(cpu, op, &sp, op->osize);
    set_sp(cpu, sp);
    reg_put(cpu, RBP, op->osize, v);
    NEXT;
}

/* ---- near branches ---- */

/* A near target outside the code segment or not canonical is the branch's own #GP(0). */
static inline void check_target(Cpu *cpu, const Op *op, u64 target)
{
    if (likely(cpu->code_size == 8)) {
        if (unlikely(!is_canonical(cpu, target)))
            RAISE_GP0(cpu, op);
    } else if (unlikely(target > cpu->seg[SEG_CS].limit)) {
        RAISE_GP0(cpu, op);
    }
}

/* Fall through at a block's end. */
HANDLER(op_end)
{
    u64 from = cpu->r[REG_RIP];
    cpu->r[REG_RIP] = (from + op->off) & cpu->linmask;
    return link_to(cpu, op, from);
}

/* Direct branches in 64-bit code, or 32-bit code with 32-bit operands and an unlimited CS: disp is the distance from the block's start. */
static inline const Op *take_near(Cpu *cpu, const Op *op)
{
    u64 from = cpu->r[REG_RIP];
    cpu->r[REG_RIP] = (from + (u64)(i64)op->disp) & cpu->linmask;
    return link_to(cpu, op, from);
}
static inline const Op *not_taken(Cpu *cpu, const Op *op)
{
    u64 from = cpu->r[REG_RIP];
    cpu->r[REG_RIP] = (from + op[1].off) & cpu->linmask;
    return link_to(cpu, op + 1, from);
}
HANDLER(jmp_near64) { return take_near(cpu, op); }
#define JCC(cc, n) \
    HANDLER(j##cc##_64) { \
        if (cond_##cc(cpu)) return take_near(cpu, op); \
        return not_taken(cpu, op); }
EACH_COND(JCC)
#undef JCC
#define J_ENTRY(cc, n) j##cc##_64,
static OpFn *const jcc_table[16] = {EACH_COND(J_ENTRY)};

/* Direct branches in other modes, or too far for disp: imm is the displacement relative to the next instruction. */
static const Op *branch_general(Cpu *cpu, const Op *op)
{
    u64 target = cpu->r[REG_RIP] + op->off + op->len + (u64)op->imm;
    if (op->osize == 2)
        target = (u16)target;
    else
        target &= cpu->linmask;
    check_target(cpu, op, target);
    cpu->r[REG_RIP] = target;
    return jump_here(cpu);
}
static bool cond_by_number(const Cpu *cpu, unsigned n)
{
#define BY_NUMBER(cc, k) case k: return cond_##cc(cpu);
    switch (n & 15) {
        EACH_COND(BY_NUMBER)
    }
    return false;
#undef BY_NUMBER
}
HANDLER(jmp_general) { return branch_general(cpu, op); }
HANDLER(jcc_general)
{
    if (cond_by_number(cpu, op->reg))
        return branch_general(cpu, op);
    return op_end(cpu, op + 1);
}
/* LOOPNE 0, LOOPE 1, LOOP 2, JrCXZ 3 in op->reg; the counter's size is the address size */
HANDLER(op_loop)
{
    u64 count = reg_get(cpu, RCX, op->asize);
    bool taken;
    if (op->reg == 3) {
        taken = count == 0;
    } else {
        count = (count - 1) & size_mask(op->asize);
        taken = count && (op->reg == 2 || flag_zf(cpu) == (op->reg == 1));
        u64 target = cpu->r[REG_RIP] + op->off + op->len + (u64)op->imm;
        if (taken)
            check_target(cpu, op, op->osize == 2 ? (u16)target : target & cpu->linmask);
        reg_put(cpu, RCX, op->asize, count);
    }
    if (taken)
        return branch_general(cpu, op);
    return op_end(cpu, op + 1);
}

HANDLER(call_near64)
{
    u64 rip = cpu->r[REG_RIP], to = cpu->r[RSP] - 8;
    u64u *p = mem_fast_write(cpu, to, 8);
    if (likely(p)) {
        *p = rip + op->off + op->len;
        cpu->r[RSP] = to;
    } else {
        check_target(cpu, op, rip + (u64)(i64)op->disp);
        push(cpu, op, 8, rip + op->off + op->len);
    }
    cpu->r[REG_RIP] = rip + (u64)(i64)op->disp;
    return link_to(cpu, op, rip);
}
HANDLER(call_general)
{
    u64 target = cpu->r[REG_RIP] + op->off + op->len + (u64)op->imm;
    target = op->osize == 2 ? (u16)target : target & cpu->linmask;
    check_target(cpu, op, target);
    push(cpu, op, op->osize, next_rip(cpu, op));
    cpu->r[REG_RIP] = target;
    return jump_here(cpu);
}
HANDLER(call_rm)
{
    u64 target = rm_get(cpu, op, op->osize);
    check_target(cpu, op, target);
    push(cpu, op, op->osize, next_rip(cpu, op));
    cpu->r[REG_RIP] = target;
    return jump_here(cpu);
}
HANDLER(jmp_rm)
{
    u64 target = rm_get(cpu, op, op->osize);
    check_target(cpu, op, target);
    cpu->r[REG_RIP] = target;
    return jump_here(cpu);
}
HANDLER(ret_near64)
{
    u64 sp = cpu->r[RSP];
    const u64u *p = mem_fast_read(cpu, sp, 8);
    if (unlikely(!p)) {
        u64 target = pop_at(cpu, op, &sp, 8);
        check_target(cpu, op, target);
        cpu->r[RSP] = sp + (u64)op->imm;
        cpu->r[REG_RIP] = target;
        return jump_here(cpu);
    }
    u64 target = *p;
    check_target(cpu, op, target);
    cpu->r[RSP] = sp + 8 + (u64)op->imm;
    cpu->r[REG_RIP] = target;
    return jump_here(cpu);
}
HANDLER(ret_general)
{
    u64 sp = cpu->r[RSP];
    u64 target = pop_at(cpu, op, &sp, op->osize);
    check_target(cpu, op, target);
    set_sp(cpu, sp + (u64)op->imm);
    cpu->r[REG_RIP] = target;
    return jump_here(cpu);
}

/* Compare and branch in one op: the second instruction's op follows in the block for its links. */
#define FUSED(name, cc, SETUP, COND) \
    HANDLER(name) { \
        SETUP; \
        const Op *j = op + 1; \
        if (COND) return take_near(cpu, j); \
        return not_taken(cpu, j); }
#define FUSE_CMP(size, ST, a_expr, b_expr, form) \
    FUSED(fuse_cmp##size##form##_b, b, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), (u64)a < (u64)b) \
    FUSED(fuse_cmp##size##form##_nb, nb, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), (u64)a >= (u64)b) \
    FUSED(fuse_cmp##size##form##_e, e, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), a == b) \
    FUSED(fuse_cmp##size##form##_ne, ne, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), a != b) \
    FUSED(fuse_cmp##size##form##_be, be, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), (u64)a <= (u64)b) \
    FUSED(fuse_cmp##size##form##_nbe, nbe, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), (u64)a > (u64)b) \
    FUSED(fuse_cmp##size##form##_l, l, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), a < b) \
    FUSED(fuse_cmp##size##form##_nl, nl, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), a >= b) \
    FUSED(fuse_cmp##size##form##_le, le, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), a <= b) \
    FUSED(fuse_cmp##size##form##_nle, nle, i64 a = (ST)(a_expr); i64 b = (ST)(b_expr); cc_set(cpu, CC_SUB, (ST)(a - b), a, b), a > b) \
    static OpFn *const fuse_cmp##size##form##_table[16] = {NULL, NULL, fuse_cmp##size##form##_b, \
        fuse_cmp##size##form##_nb, fuse_cmp##size##form##_e, fuse_cmp##size##form##_ne, fuse_cmp##size##form##_be, \
        fuse_cmp##size##form##_nbe, NULL, NULL, NULL, NULL, fuse_cmp##size##form##_l, fuse_cmp##size##form##_nl, \
        fuse_cmp##size##form##_le, fuse_cmp##size##form##_nle};
/* a - b is computed in 64 bits of sign-extended operands; its low part, sign-extended again, is the result */
FUSE_CMP(8, i64, (u64)cpu->r[op->rm], (u64)cpu->r[op->reg], rr)
FUSE_CMP(8, i64, (u64)cpu->r[op->rm], op->imm, ri)
FUSE_CMP(4, int32_t, (u32)cpu->r[op->rm], (u32)cpu->r[op->reg], rr)
FUSE_CMP(4, int32_t, (u32)cpu->r[op->rm], op->imm, ri)
FUSE_CMP(1, int8_t, REG1(op->rm), REG1(op->reg), rr)
FUSE_CMP(1, int8_t, REG1(op->rm), op->imm, ri)
#define FUSE_TEST(size, ST, expr, form) \
    FUSED(fuse_test##size##form##_e, e, i64 r = (ST)(expr); cc_logic(cpu, r), r == 0) \
    FUSED(fuse_test##size##form##_ne, ne, i64 r = (ST)(expr); cc_logic(cpu, r), r != 0) \
    FUSED(fuse_test##size##form##_s, s, i64 r = (ST)(expr); cc_logic(cpu, r), r < 0) \
    FUSED(fuse_test##size##form##_ns, ns, i64 r = (ST)(expr); cc_logic(cpu, r), r >= 0) \
    FUSED(fuse_test##size##form##_le, le, i64 r = (ST)(expr); cc_logic(cpu, r), r <= 0) \
    FUSED(fuse_test##size##form##_nle, nle, i64 r = (ST)(expr); cc_logic(cpu, r), r > 0) \
    static OpFn *const fuse_test##size##form##_table[16] = {NULL, NULL, NULL, NULL, fuse_test##size##form##_e, \
        fuse_test##size##form##_ne, NULL, NULL, fuse_test##size##form##_s, fuse_test##size##form##_ns, NULL, NULL, \
        fuse_test##size##form##_s, fuse_test##size##form##_ns, fuse_test##size##form##_le, \
        fuse_test##size##form##_nle};
FUSE_TEST(8, i64, cpu->r[op->rm] & cpu->r[op->reg], rr)
FUSE_TEST(8, i64, cpu->r[op->rm] & (u64)op->imm, ri)
FUSE_TEST(4, int32_t, (u32)(cpu->r[op->rm] & cpu->r[op->reg]), rr)
FUSE_TEST(4, int32_t, (u32)(cpu->r[op->rm] & (u64)op->imm), ri)
FUSE_TEST(1, int8_t, (u8)(REG1(op->rm) & REG1(op->reg)), rr)
FUSE_TEST(1, int8_t, (u8)(REG1(op->rm) & (u8)op->imm), ri)
