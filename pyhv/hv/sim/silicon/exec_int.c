/* Integer instructions that are not plain two-operand arithmetic: multiply, divide, conversions, BCD, exchanges. */
#include "access.h"

#define SIZE 1
#include "exec_alu.inc"
#define SIZE 2
#include "exec_alu.inc"
#define SIZE 4
#include "exec_alu.inc"
#define SIZE 8
#include "exec_alu.inc"

HANDLER(op_nop) { NEXT; }
HANDLER(op_ud) { RAISE_UD(cpu, op); }

/* MOVSXD with a 32-bit source is movsx of 4 bytes to 8 */
HANDLER(movsxd_r) { cpu->r[op->reg] = (u64)(i64)(int32_t)cpu->r[op->rm]; NEXT; }
HANDLER(movsxd_m)
{
    cpu->r[op->reg] = (u64)(i64)(int32_t)load(cpu, op, op_linear(cpu, op, 4, ACC_READ), 4);
    NEXT;
}
HANDLER(movsxd_m_f)
{
    cpu->r[op->reg] = (u64)(i64)(int32_t)load(cpu, op, EA_FAST, 4);
    NEXT;
}

/* MUL, IMUL, DIV, IDIV of group 3; op->osize is the operand's size */
HANDLER(op_mul)
{
    u64 v = rm_get(cpu, op, op->osize);
    bool over;
    switch (op->osize) {
    case 1: { u16 r = (u16)((u8)cpu->r[RAX] * (u8)v); PUT2(RAX, r); over = r >> 8; break; }
    case 2: {
        u32 r = (u32)(u16)cpu->r[RAX] * (u32)(u16)v;
        PUT2(RAX, r);
        PUT2(RDX, r >> 16);
        over = r >> 16;
        break;
    }
    case 4: {
        u64 r = (u64)(u32)cpu->r[RAX] * (u32)v;
        PUT4(RAX, r);
        PUT4(RDX, r >> 32);
        over = r >> 32;
        break;
    }
    default: {
        u128 r = (u128)cpu->r[RAX] * v;
        cpu->r[RAX] = (u64)r;
        cpu->r[RDX] = (u64)(r >> 64);
        over = cpu->r[RDX] != 0;
    }
    }
    cc_result(cpu, sign_extend(cpu->r[RAX], op->osize), over, over);
    NEXT;
}

HANDLER(op_imul1)
{
    i64 v = sign_extend(rm_get(cpu, op, op->osize), op->osize), a = sign_extend(cpu->r[RAX], op->osize);
    __int128 r = (__int128)a * v;
    switch (op->osize) {
    case 1: PUT2(RAX, (u16)r); break;
    case 2: PUT2(RAX, (u16)r); PUT2(RDX, (u16)(r >> 16)); break;
    case 4: PUT4(RAX, r); PUT4(RDX, (u64)(r >> 32)); break;
    default: cpu->r[RAX] = (u64)r; cpu->r[RDX] = (u64)(r >> 64);
    }
    bool over = r != (__int128)sign_extend((u64)r, op->osize);
    cc_result(cpu, sign_extend((u64)r, op->osize), over, over);
    NEXT;
}

HANDLER(op_div)
{
    u64 v = rm_get(cpu, op, op->osize);
    if (!v)
        raise_exception(cpu, op, EXC_DE);
    switch (op->osize) {
    case 1: {
        u16 n = (u16)cpu->r[RAX];
        if (n / v > 0xFF)
            raise_exception(cpu, op, EXC_DE);
        PUT2(RAX, (n / v) | (n % v) << 8);
        break;
    }
    case 2: {
        u32 n = (u32)(u16)cpu->r[RDX] << 16 | (u16)cpu->r[RAX];
        if (n / v > 0xFFFF)
            raise_exception(cpu, op, EXC_DE);
        PUT2(RAX, n / v);
        PUT2(RDX, n % v);
        break;
    }
    case 4: {
        u64 n = (u64)(u32)cpu->r[RDX] << 32 | (u32)cpu->r[RAX];
        if (n / v > 0xFFFFFFFFull)
            raise_exception(cpu, op, EXC_DE);
        PUT4(RAX, n / v);
        PUT4(RDX, n % v);
        break;
    }
    default: {
        if (cpu->r[RDX] >= v)
            raise_exception(cpu, op, EXC_DE);
        if (!cpu->r[RDX]) {
            u64 n = cpu->r[RAX];
            cpu->r[RAX] = n / v;
            cpu->r[RDX] = n % v;
        } else {
            u128 n = (u128)cpu->r[RDX] << 64 | cpu->r[RAX];
            cpu->r[RAX] = (u64)(n / v);
            cpu->r[RDX] = (u64)(n % v);
        }
    }
    }
    NEXT;
}

HANDLER(op_idiv)
{
    i64 v = sign_extend(rm_get(cpu, op, op->osize), op->osize);
    if (!v)
        raise_exception(cpu, op, EXC_DE);
    __int128 n;
    switch (op->osize) {
    case 1: n = (int16_t)cpu->r[RAX]; break;
    case 2: n = (int32_t)((u32)(u16)cpu->r[RDX] << 16 | (u16)cpu->r[RAX]); break;
    case 4: n = (i64)((u64)(u32)cpu->r[RDX] << 32 | (u32)cpu->r[RAX]); break;
    default: n = (__int128)((u128)cpu->r[RDX] << 64 | cpu->r[RAX]);
    }
    if (v == -1 && n == (__int128)((u128)1 << 127))
        raise_exception(cpu, op, EXC_DE);
    __int128 q = n / v;
    i64 rem = (i64)(n % v);
    if (q != (__int128)sign_extend((u64)q, op->osize))
        raise_exception(cpu, op, EXC_DE);
    switch (op->osize) {
    case 1: PUT2(RAX, (u8)q | (u16)((u8)rem << 8)); break;
    case 2: PUT2(RAX, (u16)q); PUT2(RDX, (u16)rem); break;
    case 4: PUT4(RAX, (u32)q); PUT4(RDX, (u32)rem); break;
    default: cpu->r[RAX] = (u64)q; cpu->r[RDX] = (u64)rem;
    }
    NEXT;
}

/* SETcc */
#define SETCC(cc, n) \
    HANDLER(set_##cc##_r) { PUT1(op->rm, cond_##cc(cpu)); NEXT; } \
    HANDLER(set_##cc##_m) { store(cpu, op, op_linear(cpu, op, 1, ACC_WRITE), 1, cond_##cc(cpu)); NEXT; }
EACH_COND(SETCC)
#undef SETCC
#define R_ENTRY(cc, n) set_##cc##_r,
#define M_ENTRY(cc, n) set_##cc##_m,
static OpFn *const setcc_table[2][16] = {{EACH_COND(R_ENTRY)}, {EACH_COND(M_ENTRY)}};
#define CMOV_ENTRIES(size) \
    {{EACH_COND(CMOV_R##size)}, {EACH_COND(CMOV_M##size)}}
#define CMOV_R2(cc, n) cmov2_##cc##_r,
#define CMOV_M2(cc, n) cmov2_##cc##_m,
#define CMOV_R4(cc, n) cmov4_##cc##_r,
#define CMOV_M4(cc, n) cmov4_##cc##_m,
#define CMOV_R8(cc, n) cmov8_##cc##_r,
#define CMOV_M8(cc, n) cmov8_##cc##_m,
static OpFn *const cmov_table[3][2][16] = {CMOV_ENTRIES(2), CMOV_ENTRIES(4), CMOV_ENTRIES(8)};

/* CBW CWDE CDQE; CWD CDQ CQO */
HANDLER(op_cbw)
{
    switch (op->osize) {
    case 2: PUT2(RAX, (int8_t)cpu->r[RAX]); break;
    case 4: PUT4(RAX, (int32_t)(int16_t)cpu->r[RAX]); break;
    default: cpu->r[RAX] = (u64)(i64)(int32_t)cpu->r[RAX];
    }
    NEXT;
}
HANDLER(op_cwd)
{
    switch (op->osize) {
    case 2: PUT2(RDX, (int16_t)cpu->r[RAX] < 0 ? 0xFFFF : 0); break;
    case 4: PUT4(RDX, (int32_t)cpu->r[RAX] < 0 ? 0xFFFFFFFFu : 0); break;
    default: cpu->r[RDX] = (i64)cpu->r[RAX] < 0 ? ~0ull : 0;
    }
    NEXT;
}

HANDLER(op_bswap)
{
    if (op->osize == 8)
        cpu->r[op->rm] = __builtin_bswap64(cpu->r[op->rm]);
    else if (op->osize == 4)
        PUT4(op->rm, __builtin_bswap32((u32)cpu->r[op->rm]));
    else
        PUT2(op->rm, 0); /* undefined; what processors do */
    NEXT;
}

HANDLER(op_movbe_load)
{
    u64 v = load(cpu, op, op_linear(cpu, op, op->osize, ACC_READ), op->osize);
    reg_put(cpu, op->reg, op->osize, __builtin_bswap64(v) >> (64 - op->osize * 8));
    NEXT;
}
HANDLER(op_movbe_store)
{
    u64 v = __builtin_bswap64(reg_get(cpu, op->reg, op->osize)) >> (64 - op->osize * 8);
    store(cpu, op, op_linear(cpu, op, op->osize, ACC_WRITE), op->osize, v);
    NEXT;
}

/* BCD */
static void bcd_flags(Cpu *cpu, u8 al, bool cf, bool af)
{
    set_status_flags(cpu, (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0) | (al ? 0 : FLAG_ZF) | (al & 0x80 ? FLAG_SF : 0)
                     | (__builtin_parity(al) ? 0 : FLAG_PF));
}
HANDLER(op_daa)
{
    u8 al = REG1(0), old = al;
    bool cf = flag_cf(cpu), af = (al & 0xF) > 9 || flag_af(cpu), c = cf || old > 0x99;
    if (af)
        al += 6;
    if (c)
        al += 0x60;
    REG1(0) = al;
    bcd_flags(cpu, al, c, af);
    NEXT;
}
HANDLER(op_das)
{
    u8 al = REG1(0), old = al;
    bool cf = flag_cf(cpu), af = (al & 0xF) > 9 || flag_af(cpu), c = cf || old > 0x99;
    if (af) {
        c = c || al < 6;
        al -= 6;
    }
    if (cf || old > 0x99)
        al -= 0x60;
    REG1(0) = al;
    bcd_flags(cpu, al, c, af);
    NEXT;
}
HANDLER(op_aaa)
{
    bool a = (REG1(0) & 0xF) > 9 || flag_af(cpu);
    if (a)
        PUT2(RAX, (u16)cpu->r[RAX] + 0x106);
    REG1(0) &= 0xF;
    bcd_flags(cpu, REG1(0), a, a);
    NEXT;
}
HANDLER(op_aas)
{
    bool a = (REG1(0) & 0xF) > 9 || flag_af(cpu);
    if (a)
        PUT2(RAX, (u16)cpu->r[RAX] - 0x106);
    REG1(0) &= 0xF;
    bcd_flags(cpu, REG1(0), a, a);
    NEXT;
}
HANDLER(op_aam)
{
    u8 base = (u8)op->imm, al = REG1(0);
    if (!base)
        raise_exception(cpu, op, EXC_DE);
    REG1(1) = al / base;
    REG1(0) = al % base;
    bcd_flags(cpu, REG1(0), false, false);
    NEXT;
}
HANDLER(op_aad)
{
    u8 al = (u8)(REG1(0) + REG1(1) * (u8)op->imm);
    PUT2(RAX, al);
    bcd_flags(cpu, al, false, false);
    NEXT;
}

/* Flag instructions */
HANDLER(op_clc) { bit_flags(cpu, false); NEXT; }
HANDLER(op_stc) { bit_flags(cpu, true); NEXT; }
HANDLER(op_cmc) { set_status_flags(cpu, cpu_status_flags(cpu) ^ FLAG_CF); NEXT; }
HANDLER(op_cld) { cpu->rflags &= ~FLAG_DF; NEXT; }
HANDLER(op_std) { cpu->rflags |= FLAG_DF; NEXT; }
HANDLER(op_lahf) { REG1(1) = (u8)(cpu_status_flags(cpu) | 2); NEXT; }
HANDLER(op_sahf)
{
    set_status_flags(cpu, (cpu_status_flags(cpu) & FLAG_OF) | (REG1(1) & 0xD5));
    NEXT;
}
HANDLER(op_salc) { REG1(0) = flag_cf(cpu) ? 0xFF : 0; NEXT; }

/* XLAT: base is RBX, the index AL is added here */
HANDLER(op_xlat)
{
    u64 ea = cpu->r[RBX] + REG1(0);
    ea = op->asize == 8 ? ea : op->asize == 4 ? (u32)ea : (u16)ea;
    REG1(0) = (u8)load(cpu, op, seg_linear(cpu, op, op->seg, ea, 1, ACC_READ), 1);
    NEXT;
}

/* BOUND */
HANDLER(op_bound)
{
    unsigned size = op->osize;
    u64 lin = op_linear(cpu, op, size * 2, ACC_READ);
    i64 low = sign_extend(load(cpu, op, lin, size), size);
    i64 high = sign_extend(load(cpu, op, lin + size, size), size);
    i64 v = sign_extend(cpu->r[op->reg], size);
    if (v < low || v > high)
        raise_exception(cpu, op, EXC_BR);
    NEXT;
}

/* CMPXCHG8B, CMPXCHG16B */
HANDLER(op_cmpxchg8b)
{
    u64 lin = op_linear(cpu, op, 8, ACC_WRITE);
    u64 v = mem_fast_write(cpu, lin, 8) ? load(cpu, op, lin, 8) : mem_read_for_write(cpu, op, lin, 8);
    u32 f = cpu_status_flags(cpu) & ~FLAG_ZF;
    if (v == ((u64)(u32)cpu->r[RDX] << 32 | (u32)cpu->r[RAX])) {
        store(cpu, op, lin, 8, cpu->r[RCX] << 32 | (u32)cpu->r[RBX]);
        f |= FLAG_ZF;
    } else {
        store(cpu, op, lin, 8, v);
        PUT4(RAX, v);
        PUT4(RDX, v >> 32);
    }
    set_status_flags(cpu, f);
    NEXT;
}
HANDLER(op_cmpxchg16b)
{
    u64 v[2], w[2];
    NEED(FEAT_CX16);
    u64 lin = op_linear(cpu, op, 16, ACC_WRITE);
    if (lin & 15)
        RAISE_GP0(cpu, op);
    mem_probe(cpu, op, lin, 16, ACC_WRITE);
    mem_read(cpu, op, lin, v, 16);
    bool same = v[0] == cpu->r[RAX] && v[1] == cpu->r[RDX];
    w[0] = same ? cpu->r[RBX] : v[0];
    w[1] = same ? cpu->r[RCX] : v[1];
    mem_write(cpu, op, lin, w, 16);
    if (!same) {
        cpu->r[RAX] = v[0];
        cpu->r[RDX] = v[1];
    }
    u32 f = cpu_status_flags(cpu) & ~FLAG_ZF;
    set_status_flags(cpu, same ? f | FLAG_ZF : f);
    NEXT;
}

/* RDRAND, RDSEED from the machine's seeded generator (xorshift128+) */
static u64 cpu_random(Cpu *cpu)
{
    u64 a = cpu->rng[0], b = cpu->rng[1];
    cpu->rng[0] = b;
    a ^= a << 23;
    cpu->rng[1] = a ^ b ^ a >> 18 ^ b >> 5;
    return cpu->rng[1] + b;
}
HANDLER(op_rdrand)
{
    NEED(op->imm ? FEAT_RDSEED : FEAT_RDRAND);
    reg_put(cpu, op->rm, op->osize, cpu_random(cpu));
    set_status_flags(cpu, FLAG_CF);
    NEXT;
}

/* MOV between rAX and a 64-bit absolute address, in imm */
#define MOV_ABS(size) \
    HANDLER(mov_abs_load##size) { \
        u64 v = load(cpu, op, seg_linear(cpu, op, op->seg, op->uimm, size, ACC_READ), size); \
        PUT##size(RAX, v); NEXT; } \
    HANDLER(mov_abs_store##size) { \
        store(cpu, op, seg_linear(cpu, op, op->seg, op->uimm, size, ACC_WRITE), size, cpu->r[RAX]); NEXT; }
MOV_ABS(1)
MOV_ABS(2)
MOV_ABS(4)
MOV_ABS(8)
