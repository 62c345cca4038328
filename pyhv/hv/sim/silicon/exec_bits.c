/* Bit instructions: BT and its kin, scans and counts, CRC32, BMI, ADX. */
#include "access.h"

/* BT BTS BTR BTC: with a register bit offset a memory operand is a bit string. */
enum { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };
static inline u64 bit_apply(unsigned kind, u64 v, unsigned bit)
{
    switch (kind) {
    case BIT_SET: return v | 1ull << bit;
    case BIT_RESET: return v & ~(1ull << bit);
    case BIT_COMPLEMENT: return v ^ 1ull << bit;
    default: return v;
    }
}
static inline void bit_flags(Cpu *cpu, bool cf)
{
    set_status_flags(cpu, (cpu_status_flags(cpu) & ~FLAG_CF) | cf);
}
static inline const Op *bit_reg(Cpu *cpu, const Op *op, unsigned kind, u64 offset)
{
    unsigned bit = (unsigned)offset & (op->osize * 8u - 1);
    u64 v = reg_get(cpu, op->rm, op->osize);
    bit_flags(cpu, (v >> bit) & 1);
    if (kind != BIT_TEST)
        reg_put(cpu, op->rm, op->osize, bit_apply(kind, v, bit));
    NEXT;
}
static inline const Op *bit_mem(Cpu *cpu, const Op *op, unsigned kind, bool from_reg)
{
    unsigned size = op->osize, bits = size * 8;
    u64 ea = op_offset(cpu, op);
    i64 offset = op->imm;
    if (from_reg) {
        offset = sign_extend(cpu->r[op->reg], size);
        ea += (u64)(offset >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * size;
        ea &= op->asize == 8 ? ~0ull : op->asize == 4 ? 0xFFFFFFFFull : 0xFFFFull;
    }
    unsigned bit = (unsigned)offset & (bits - 1);
    u64 lin = seg_linear(cpu, op, op->seg, ea, size, kind == BIT_TEST ? ACC_READ : ACC_WRITE);
    u64 v;
    if (kind == BIT_TEST) {
        v = load(cpu, op, lin, size);
    } else {
        v = mem_fast_write(cpu, lin, size) ? load(cpu, op, lin, size) : mem_read_for_write(cpu, op, lin, size);
        store(cpu, op, lin, size, bit_apply(kind, v, bit));
    }
    bit_flags(cpu, (v >> bit) & 1);
    NEXT;
}
#define BIT_OP(name, kind) \
    HANDLER(name##_rr) { return bit_reg(cpu, op, kind, cpu->r[op->reg]); } \
    HANDLER(name##_ri) { return bit_reg(cpu, op, kind, (u64)op->imm); } \
    HANDLER(name##_mr) { return bit_mem(cpu, op, kind, true); } \
    HANDLER(name##_mi) { return bit_mem(cpu, op, kind, false); }
BIT_OP(bt, BIT_TEST)
BIT_OP(bts, BIT_SET)
BIT_OP(btr, BIT_RESET)
BIT_OP(btc, BIT_COMPLEMENT)
static OpFn *const bit_table[4][4] = {{bt_rr, bt_ri, bt_mr, bt_mi}, {bts_rr, bts_ri, bts_mr, bts_mi},
                                      {btr_rr, btr_ri, btr_mr, btr_mi}, {btc_rr, btc_ri, btc_mr, btc_mi}};

/* BSF BSR TZCNT LZCNT POPCNT CRC32 */
HANDLER(op_bsf)
{
    u64 v = rm_get(cpu, op, op->osize);
    if (v)
        reg_put(cpu, op->reg, op->osize, (u64)__builtin_ctzll(v));
    cc_result(cpu, v ? 1 : 0, false, false);
    NEXT;
}
HANDLER(op_bsr)
{
    u64 v = rm_get(cpu, op, op->osize);
    if (v)
        reg_put(cpu, op->reg, op->osize, 63 - (u64)__builtin_clzll(v));
    cc_result(cpu, v ? 1 : 0, false, false);
    NEXT;
}
static void count_flags(Cpu *cpu, u64 result, bool cf)
{
    set_status_flags(cpu, (cf ? FLAG_CF : 0) | (result ? 0 : FLAG_ZF));
}
HANDLER(op_tzcnt)
{
    if (!cpu_feature(cpu, FEAT_BMI1))
        return op_bsf(cpu, op);
    u64 v = rm_get(cpu, op, op->osize), n = v ? (u64)__builtin_ctzll(v) : op->osize * 8u;
    reg_put(cpu, op->reg, op->osize, n);
    count_flags(cpu, n, !v);
    NEXT;
}
HANDLER(op_lzcnt)
{
    if (!cpu_feature(cpu, FEAT_LZCNT))
        return op_bsr(cpu, op);
    u64 v = rm_get(cpu, op, op->osize), n = (v ? (u64)__builtin_clzll(v) : 64) - (64 - op->osize * 8u);
    reg_put(cpu, op->reg, op->osize, n);
    count_flags(cpu, n, !v);
    NEXT;
}
HANDLER(op_popcnt)
{
    if (!cpu_feature(cpu, FEAT_POPCNT))
        RAISE_UD(cpu, op);
    u64 n = (u64)__builtin_popcountll(rm_get(cpu, op, op->osize));
    reg_put(cpu, op->reg, op->osize, n);
    set_status_flags(cpu, n ? 0 : FLAG_ZF);
    NEXT;
}
/* CRC-32C; imm is the source's size, the destination is 32 or 64 bits by REX.W */
HANDLER(op_crc32)
{
    if (!cpu_feature(cpu, FEAT_SSE42))
        RAISE_UD(cpu, op);
    unsigned size = (unsigned)op->imm;
    u64 v = rm_get(cpu, op, size);
    u32 crc = (u32)cpu->r[op->reg];
    for (unsigned i = 0; i < size; i++) {
        crc ^= (u8)(v >> i * 8);
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    cpu->r[op->reg] = crc;
    NEXT;
}

/* BMI1, BMI2. VEX.vvvv is in imm's low byte. */
#define VVVV ((unsigned)op->imm & 15)
static void bmi_flags(Cpu *cpu, u64 r, unsigned size, bool cf)
{
    cc_result(cpu, sign_extend(r, size), cf, false);
}
HANDLER(op_andn)
{
    NEED(FEAT_BMI1);
    u64 r = ~reg_get(cpu, VVVV, op->osize) & rm_get(cpu, op, op->osize);
    bmi_flags(cpu, r, op->osize, false);
    reg_put(cpu, op->reg, op->osize, r);
    NEXT;
}
/* Group 17: BLSR 1, BLSMSK 2, BLSI 3, in op->reg; the destination is vvvv */
HANDLER(op_bls)
{
    NEED(FEAT_BMI1);
    u64 v = rm_get(cpu, op, op->osize), r;
    bool cf;
    switch (op->reg & 7) {
    case 1: r = v & (v - 1); cf = !v; break;
    case 2: r = v ^ (v - 1); cf = !v; break;
    case 3: r = v & -v; cf = v != 0; break;
    default: RAISE_UD(cpu, op);
    }
    r &= size_mask(op->osize);
    bmi_flags(cpu, r, op->osize, cf);
    reg_put(cpu, VVVV, op->osize, r);
    NEXT;
}
HANDLER(op_bextr)
{
    NEED(FEAT_BMI1);
    u64 v = rm_get(cpu, op, op->osize), c = cpu->r[VVVV];
    unsigned start = c & 0xFF, len = (c >> 8) & 0xFF;
    u64 r = start < op->osize * 8u ? v >> start : 0;
    if (len < op->osize * 8u)
        r &= (1ull << len) - 1;
    set_status_flags(cpu, r ? 0 : FLAG_ZF);
    reg_put(cpu, op->reg, op->osize, r);
    NEXT;
}
HANDLER(op_bzhi)
{
    NEED(FEAT_BMI2);
    u64 r = rm_get(cpu, op, op->osize);
    unsigned n = (u8)cpu->r[VVVV];
    if (n < op->osize * 8u)
        r &= (1ull << n) - 1;
    bmi_flags(cpu, r, op->osize, n > op->osize * 8u - 1);
    reg_put(cpu, op->reg, op->osize, r);
    NEXT;
}
HANDLER(op_pdep)
{
    NEED(FEAT_BMI2);
    u64 mask = rm_get(cpu, op, op->osize), v = cpu->r[VVVV], r = 0;
    for (; mask; mask &= mask - 1, v >>= 1)
        if (v & 1)
            r |= mask & -mask;
    reg_put(cpu, op->reg, op->osize, r);
    NEXT;
}
HANDLER(op_pext)
{
    NEED(FEAT_BMI2);
    u64 mask = rm_get(cpu, op, op->osize), v = cpu->r[VVVV], r = 0;
    for (unsigned k = 0; mask; mask &= mask - 1, k++)
        if (v & (mask & -mask))
            r |= 1ull << k;
    reg_put(cpu, op->reg, op->osize, r);
    NEXT;
}
HANDLER(op_mulx)
{
    NEED(FEAT_BMI2);
    u64 v = rm_get(cpu, op, op->osize);
    if (op->osize == 8) {
        u128 r = (u128)cpu->r[RDX] * v;
        cpu->r[VVVV] = (u64)r;
        cpu->r[op->reg] = (u64)(r >> 64);
    } else {
        u64 r = (u64)(u32)cpu->r[RDX] * (u32)v;
        PUT4(VVVV, r);
        PUT4(op->reg, r >> 32);
    }
    NEXT;
}
HANDLER(op_rorx)
{
    NEED(FEAT_BMI2);
    unsigned bits = op->osize * 8u, n = (unsigned)op->imm & (bits - 1);
    u64 v = rm_get(cpu, op, op->osize);
    reg_put(cpu, op->reg, op->osize, n ? v >> n | v << (bits - n) : v);
    NEXT;
}
/* SHLX 66, SARX F3, SHRX F2: the prefix is in imm's second byte */
HANDLER(op_shiftx)
{
    NEED(FEAT_BMI2);
    unsigned n = (unsigned)cpu->r[VVVV] & (op->osize * 8u - 1);
    u64 v = rm_get(cpu, op, op->osize), r;
    switch ((op->imm >> 8) & 0xFF) {
    case 0x66: r = v << n; break;
    case 0xF3: r = (u64)(sign_extend(v, op->osize) >> n); break;
    default: r = v >> n;
    }
    reg_put(cpu, op->reg, op->osize, r);
    NEXT;
}
/* ADCX (imm 1) and ADOX (imm 0) */
HANDLER(op_adx)
{
    NEED(FEAT_ADX);
    u32 f = cpu_status_flags(cpu), flag = op->imm ? FLAG_CF : FLAG_OF;
    u128 r = (u128)reg_get(cpu, op->reg, op->osize) + rm_get(cpu, op, op->osize) + ((f & flag) != 0);
    bool carry = (r >> op->osize * 8) & 1;
    reg_put(cpu, op->reg, op->osize, (u64)r);
    set_status_flags(cpu, carry ? f | flag : f & ~flag);
    NEXT;
}
