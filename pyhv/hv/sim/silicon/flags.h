/* Lazy status flags: conditions evaluated from the operands and result that the last instruction left. */
#ifndef SIM_FLAGS_H
#define SIM_FLAGS_H

#include "cpu.h"

/* Kind CC_RES: SF ZF PF from cc_res, CF and OF given, AF 0 (shifts, multiplies). */
enum { CC_RES = CC_DEC + 1 };

static inline bool flag_cf(const Cpu *cpu)
{
    switch (cpu->cc_kind) {
    case CC_SUB: return (uint64_t)cpu->cc_a < (uint64_t)cpu->cc_b;
    case CC_LOGIC: return false;
    case CC_ADD: return (uint64_t)cpu->cc_res < (uint64_t)cpu->cc_a;
    case CC_ADC: return (uint64_t)cpu->cc_res <= (uint64_t)cpu->cc_a;
    case CC_SBB: return (uint64_t)cpu->cc_a <= (uint64_t)cpu->cc_b;
    case CC_FLAGS: return cpu->cc_a & FLAG_CF;
    default: return cpu->cc_b & 1; /* INC, DEC, RES */
    }
}

static inline bool flag_of(const Cpu *cpu)
{
    int64_t a = cpu->cc_a, b = cpu->cc_b, r = cpu->cc_res;
    switch (cpu->cc_kind) {
    case CC_SUB: case CC_SBB: return ((a ^ b) & (a ^ r)) < 0;
    case CC_LOGIC: return false;
    case CC_ADD: case CC_ADC: return ((a ^ r) & (b ^ r)) < 0;
    case CC_INC: return (~a & r) < 0;
    case CC_DEC: return (a & ~r) < 0;
    case CC_RES: return b & 2;
    default: return a & FLAG_OF;
    }
}

static inline bool flag_zf(const Cpu *cpu)
{
    return likely(cpu->cc_kind != CC_FLAGS) ? cpu->cc_res == 0 : (cpu->cc_a & FLAG_ZF) != 0;
}

static inline bool flag_sf(const Cpu *cpu)
{
    return likely(cpu->cc_kind != CC_FLAGS) ? cpu->cc_res < 0 : (cpu->cc_a & FLAG_SF) != 0;
}

static inline bool flag_pf(const Cpu *cpu)
{
    if (cpu->cc_kind == CC_FLAGS)
        return cpu->cc_a & FLAG_PF;
    return !__builtin_parity((uint8_t)cpu->cc_res);
}

static inline bool flag_af(const Cpu *cpu)
{
    switch (cpu->cc_kind) {
    case CC_ADD: case CC_ADC: case CC_SUB: case CC_SBB: return (cpu->cc_a ^ cpu->cc_b ^ cpu->cc_res) & 0x10;
    case CC_INC: case CC_DEC: return (cpu->cc_a ^ cpu->cc_res) & 0x10;
    case CC_FLAGS: return cpu->cc_a & FLAG_AF;
    default: return false;
    }
}

/* The sixteen conditions of Jcc, SETcc and CMOVcc. */
static inline bool cond_o(const Cpu *c) { return flag_of(c); }
static inline bool cond_b(const Cpu *c) { return flag_cf(c); }
static inline bool cond_e(const Cpu *c) { return flag_zf(c); }
static inline bool cond_be(const Cpu *c)
{
    if (likely(c->cc_kind == CC_SUB))
        return (uint64_t)c->cc_a <= (uint64_t)c->cc_b;
    return flag_zf(c) || flag_cf(c);
}
static inline bool cond_s(const Cpu *c) { return flag_sf(c); }
static inline bool cond_p(const Cpu *c) { return flag_pf(c); }
static inline bool cond_l(const Cpu *c)
{
    if (likely(c->cc_kind == CC_SUB))
        return c->cc_a < c->cc_b;
    return flag_sf(c) != flag_of(c);
}
static inline bool cond_le(const Cpu *c)
{
    if (likely(c->cc_kind == CC_SUB))
        return c->cc_a <= c->cc_b;
    return flag_zf(c) || flag_sf(c) != flag_of(c);
}
static inline bool cond_no(const Cpu *c) { return !cond_o(c); }
static inline bool cond_nb(const Cpu *c) { return !cond_b(c); }
static inline bool cond_ne(const Cpu *c) { return !cond_e(c); }
static inline bool cond_nbe(const Cpu *c) { return !cond_be(c); }
static inline bool cond_ns(const Cpu *c) { return !cond_s(c); }
static inline bool cond_np(const Cpu *c) { return !cond_p(c); }
static inline bool cond_nl(const Cpu *c) { return !cond_l(c); }
static inline bool cond_nle(const Cpu *c) { return !cond_le(c); }

#define EACH_COND(X) X(o, 0) X(no, 1) X(b, 2) X(nb, 3) X(e, 4) X(ne, 5) X(be, 6) X(nbe, 7) X(s, 8) X(ns, 9) \
    X(p, 10) X(np, 11) X(l, 12) X(nl, 13) X(le, 14) X(nle, 15)

static inline void cc_set(Cpu *cpu, uint32_t kind, int64_t res, int64_t a, int64_t b)
{
    cpu->cc_kind = kind;
    cpu->cc_res = res;
    cpu->cc_a = a;
    cpu->cc_b = b;
}
static inline void cc_logic(Cpu *cpu, int64_t res)
{
    cpu->cc_kind = CC_LOGIC;
    cpu->cc_res = res;
}
static inline void cc_result(Cpu *cpu, int64_t res, bool cf, bool of)
{
    cpu->cc_kind = CC_RES;
    cpu->cc_res = res;
    cpu->cc_b = (cf ? 1 : 0) | (of ? 2 : 0);
}

uint32_t cpu_status_flags(const Cpu *cpu)
{
    if (cpu->cc_kind == CC_FLAGS)
        return (uint32_t)cpu->cc_a;
    return (flag_cf(cpu) ? FLAG_CF : 0) | (flag_pf(cpu) ? FLAG_PF : 0) | (flag_af(cpu) ? FLAG_AF : 0)
         | (flag_zf(cpu) ? FLAG_ZF : 0) | (flag_sf(cpu) ? FLAG_SF : 0) | (flag_of(cpu) ? FLAG_OF : 0);
}

uint64_t cpu_rflags(const Cpu *cpu)
{
    return cpu->rflags | cpu_status_flags(cpu) | 2;
}

static void cpu_set_rflags(Cpu *cpu, uint64_t value)
{
    cpu->rflags = ((uint32_t)value & 0x3F7700u & ~FLAGS_STATUS) | 2;
    set_status_flags(cpu, (uint32_t)value);
}

#endif
