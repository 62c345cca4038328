/* What handlers are written with: operand access by size, effective addresses, loads and stores. */
#ifndef SIM_ACCESS_H
#define SIM_ACCESS_H

#include "cpu.h"
#include "flags.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned __int128 u128;
typedef u16 __attribute__((aligned(1), may_alias)) u16u;
typedef u32 __attribute__((aligned(1), may_alias)) u32u;
typedef u64 __attribute__((aligned(1), may_alias)) u64u;
typedef u8 u8u;

#define HANDLER(name) static const Op *name(Cpu *cpu, const Op *op)
#define SLOW(name) static __attribute__((noinline)) const Op *name(Cpu *cpu, const Op *op, u64 lin)

/* Register operands. Byte registers are named by their byte's offset in Cpu.r. */
#define REG1(x) (((u8 *)cpu->r)[x])
#define REG2(x) (*(u16 *)&cpu->r[x])
#define REG4(x) ((u32)cpu->r[x])
#define REG8(x) (cpu->r[x])
#define PUT1(x, v) (REG1(x) = (u8)(v))
#define PUT2(x, v) (REG2(x) = (u16)(v))
#define PUT4(x, v) (cpu->r[x] = (u32)(v))
#define PUT8(x, v) (cpu->r[x] = (v))

/* Linear address of a memory operand that needs no segment checks. */
#define EA_FAST ((cpu->r[op->base] + (cpu->r[op->index] << op->scale) + (u64)(i64)op->disp + cpu->sbase[op->seg]) \
                 & cpu->linmask)
typedef int64_t i64;

static inline u64 load(Cpu *cpu, const Op *op, u64 lin, unsigned size)
{
    const void *p = mem_fast_read(cpu, lin, size);
    if (likely(p))
        switch (size) {
        case 1: return *(const u8 *)p;
        case 2: return *(const u16u *)p;
        case 4: return *(const u32u *)p;
        default: return *(const u64u *)p;
        }
    return mem_read_slow(cpu, op, lin, size);
}

static inline void store(Cpu *cpu, const Op *op, u64 lin, unsigned size, u64 value)
{
    void *p = mem_fast_write(cpu, lin, size);
    if (likely(p)) {
        switch (size) {
        case 1: *(u8 *)p = (u8)value; break;
        case 2: *(u16u *)p = (u16)value; break;
        case 4: *(u32u *)p = (u32)value; break;
        default: *(u64u *)p = value; break;
        }
        return;
    }
    mem_write_slow(cpu, op, lin, size, value);
}

/* Register by operand size known only at run time. */
static inline u64 reg_get(const Cpu *cpu, unsigned reg, unsigned size)
{
    switch (size) {
    case 1: return ((const u8 *)cpu->r)[reg];
    case 2: return (u16)cpu->r[reg];
    case 4: return (u32)cpu->r[reg];
    default: return cpu->r[reg];
    }
}

static inline void reg_put(Cpu *cpu, unsigned reg, unsigned size, u64 v)
{
    switch (size) {
    case 1: PUT1(reg, v); break;
    case 2: PUT2(reg, v); break;
    case 4: PUT4(reg, v); break;
    default: PUT8(reg, v); break;
    }
}

static inline i64 sign_extend(u64 v, unsigned size)
{
    switch (size) {
    case 1: return (int8_t)v;
    case 2: return (int16_t)v;
    case 4: return (int32_t)v;
    default: return (i64)v;
    }
}

/* r/m operand of a handler that serves both forms and all modes. */
static inline u64 rm_get(Cpu *cpu, const Op *op, unsigned size)
{
    if (op->flags & OPF_MEM)
        return load(cpu, op, op_linear(cpu, op, size, ACC_READ), size);
    return reg_get(cpu, op->rm, size);
}

static inline void rm_put(Cpu *cpu, const Op *op, unsigned size, u64 v)
{
    if (op->flags & OPF_MEM)
        store(cpu, op, op_linear(cpu, op, size, ACC_WRITE), size, v);
    else
        reg_put(cpu, op->rm, size, v);
}

/* Instructions of an extension that CPUID does not show are #UD. */
#define NEED(feature) do { if (!cpu_feature(cpu, feature)) RAISE_UD(cpu, op); } while (0)

/* RIP after this op. */
static inline u64 next_rip(const Cpu *cpu, const Op *op)
{
    return (cpu->r[REG_RIP] + op->off + op->len) & cpu->linmask;
}

#endif
