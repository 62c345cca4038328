/* The AVX instructions that C libraries copy, compare and clear memory with, in plain C. */
#include "vec.h"

#define WIDE(T) __attribute__((vector_size(32), aligned(1), may_alias)) T
typedef WIDE(uint8_t) Y8;
typedef WIDE(uint16_t) Y16;
typedef WIDE(uint32_t) Y32;
typedef WIDE(uint64_t) Y64;
typedef WIDE(int8_t) YS8;
typedef WIDE(int32_t) YS32;
#undef WIDE

#define VEX_FAST(name) static const Op *name(Cpu *cpu, const Op *op)

/* A register's two halves lie apart in the image. */
static inline void vex_load(const Cpu *cpu, unsigned i, void *out)
{
    memcpy(out, cpu->fpu.area + AREA_XMM + 16 * (i & 15), 16);
    memcpy((uint8_t *)out + 16, cpu->fpu.area + AREA_YMM + 16 * (i & 15), 16);
}

/* `size` 16 clears the upper half. */
static inline void vex_store(Cpu *cpu, unsigned i, const void *in, unsigned size)
{
    memcpy(area_xmm(cpu, i), in, 16);
    if (size == 32)
        memcpy(area_ymm_high(cpu, i), (const uint8_t *)in + 16, 16);
    else
        memset(area_ymm_high(cpu, i), 0, 16);
}

static inline void vex_check(Cpu *cpu, const Op *op)
{
    if (unlikely((~cpu->cr4 & CR4_OSXSAVE) | (~cpu->xcr0 & (XCR0_SSE | XCR0_AVX)) | (cpu->cr0 & CR0_TS)) ||
        unlikely(cpu->code_size != 8))
        vex_ready(cpu, op);
}

/* ---- moves ---- */
#define VEX_MOVES(size, suffix, align) \
    VEX_FAST(vex_load_##suffix) \
    { \
        uint8_t v[32]; \
        vex_check(cpu, op); \
        vec_read(cpu, op, v, size, align); \
        vex_store(cpu, op->reg, v, size); \
        NEXT; \
    } \
    VEX_FAST(vex_store_##suffix) \
    { \
        uint8_t v[32]; \
        vex_check(cpu, op); \
        vex_load(cpu, op->reg, v); \
        vec_write(cpu, op, v, size, align); \
        NEXT; \
    }
VEX_MOVES(16, 16u, ALIGN_NO)
VEX_MOVES(32, 32u, ALIGN_NO)
VEX_MOVES(16, 16a, ALIGN_ALWAYS)
VEX_MOVES(32, 32a, ALIGN_ALWAYS)

#define VEX_COPIES(size) \
    VEX_FAST(vex_copy_##size) \
    { \
        uint8_t v[32]; \
        vex_check(cpu, op); \
        vex_load(cpu, op->rm, v); \
        vex_store(cpu, op->reg, v, size); \
        NEXT; \
    } \
    VEX_FAST(vex_copy_back_##size) \
    { \
        uint8_t v[32]; \
        vex_check(cpu, op); \
        vex_load(cpu, op->reg, v); \
        vex_store(cpu, op->rm, v, size); \
        NEXT; \
    }
VEX_COPIES(16)
VEX_COPIES(32)

/* VMOVD, VMOVQ */
VEX_FAST(vex_movd_from_gpr)
{
    const uint64_t v[2] = {(uint32_t)cpu->r[op->rm], 0};
    vex_check(cpu, op);
    vex_store(cpu, op->reg, v, 16);
    NEXT;
}
VEX_FAST(vex_movq_from_gpr)
{
    const uint64_t v[2] = {cpu->r[op->rm], 0};
    vex_check(cpu, op);
    vex_store(cpu, op->reg, v, 16);
    NEXT;
}
VEX_FAST(vex_movd_to_gpr) { vex_check(cpu, op); cpu->r[op->rm] = *(Unaligned32 *)area_xmm(cpu, op->reg); NEXT; }
VEX_FAST(vex_movq_to_gpr) { vex_check(cpu, op); cpu->r[op->rm] = *(Unaligned64 *)area_xmm(cpu, op->reg); NEXT; }
VEX_FAST(vex_load_8)
{
    uint64_t v[2] = {0, 0};
    vex_check(cpu, op);
    vec_read(cpu, op, v, 8, ALIGN_NO);
    vex_store(cpu, op->reg, v, 16);
    NEXT;
}
VEX_FAST(vex_store_8) { vex_check(cpu, op); vec_write(cpu, op, area_xmm(cpu, op->reg), 8, ALIGN_NO); NEXT; }

/* ---- three operands; the upper halves of a 128-bit form are computed and dropped ---- */
#define VEX_BINARY_SIZE(name, T, size, expression) \
    VEX_FAST(vex_##name##_rr_##size) \
    { \
        T a, b; \
        vex_check(cpu, op); \
        vex_load(cpu, op->osize, &a); \
        vex_load(cpu, op->rm, &b); \
        T result = (T)(expression); \
        vex_store(cpu, op->reg, &result, size); \
        NEXT; \
    } \
    VEX_FAST(vex_##name##_rm_##size) \
    { \
        T a, b = {0}; \
        vex_check(cpu, op); \
        vec_read(cpu, op, &b, size, ALIGN_NO); \
        vex_load(cpu, op->osize, &a); \
        T result = (T)(expression); \
        vex_store(cpu, op->reg, &result, size); \
        NEXT; \
    }
#define VEX_BINARY(name, T, expression) \
    VEX_BINARY_SIZE(name, T, 16, expression) \
    VEX_BINARY_SIZE(name, T, 32, expression)

VEX_BINARY(xor, Y64, a ^ b)
VEX_BINARY(or, Y64, a | b)
VEX_BINARY(and, Y64, a & b)
VEX_BINARY(andn, Y64, ~a & b)
VEX_BINARY(paddb, Y8, a + b)
VEX_BINARY(paddd, Y32, a + b)
VEX_BINARY(paddq, Y64, a + b)
VEX_BINARY(psubb, Y8, a - b)
VEX_BINARY(psubd, Y32, a - b)
VEX_BINARY(psubq, Y64, a - b)
VEX_BINARY(pcmpeqb, Y8, a == b)
VEX_BINARY(pcmpeqw, Y16, a == b)
VEX_BINARY(pcmpeqd, Y32, a == b)
VEX_BINARY(pcmpgtb, YS8, a > b)
VEX_BINARY(pcmpgtd, YS32, a > b)
VEX_BINARY(pminub, Y8, (a & (Y8)(a < b)) | (b & (Y8)(a >= b)))
VEX_BINARY(pmaxub, Y8, (a & (Y8)(a > b)) | (b & (Y8)(a <= b)))

VEX_FAST(vex_pmovmskb_16)
{
    uint64_t mask = 0;
    const uint8_t *x = area_xmm(cpu, op->rm);
    vex_check(cpu, op);
    for (unsigned i = 0; i < 16; i++)
        mask |= (uint64_t)(x[i] >> 7) << i;
    cpu->r[op->reg] = mask;
    NEXT;
}
VEX_FAST(vex_pmovmskb_32)
{
    uint64_t mask = 0;
    const uint8_t *x = area_xmm(cpu, op->rm), *y = area_ymm_high(cpu, op->rm);
    vex_check(cpu, op);
    for (unsigned i = 0; i < 16; i++)
        mask |= (uint64_t)(x[i] >> 7) << i | (uint64_t)(y[i] >> 7) << (16 + i);
    cpu->r[op->reg] = mask;
    NEXT;
}

/* ---- decoding: the caller has checked that the instruction exists ---- */
#define PICK_SIZE(name) (wide ? name##_32 : name##_16)
#define PICK_BINARY(name) \
    (mem ? (wide ? vex_##name##_rm_32 : vex_##name##_rm_16) : (wide ? vex_##name##_rr_32 : vex_##name##_rr_16))

bool vex_direct(const Insn *insn, unsigned prefix, bool wide, Op *op)
{
    const bool mem = insn->mod != 3, w = (insn->rex & 8) && insn->mode == 8;
    OpFn *fn = NULL;
    if (insn->map != 1)
        return false;
    switch (insn->opcode) {
    case 0x10: case 0x11: case 0x6F: case 0x7F: case 0x28: case 0x29: case 0xE7: case 0x2B: {
        const bool integer = insn->opcode >= 0x6F && insn->opcode != 0xE7;
        const bool aligned = (integer && prefix == PFX_66) || !(integer || insn->opcode <= 0x11);
        const bool store = insn->opcode != 0x10 && insn->opcode != 0x6F && insn->opcode != 0x28;
        if (prefix == PFX_F2 || (prefix == PFX_F3 && !integer)) /* VMOVSS, VMOVSD */
            return false;
        if (!mem)
            fn = store ? PICK_SIZE(vex_copy_back) : PICK_SIZE(vex_copy);
        else if (aligned)
            fn = store ? (wide ? vex_store_32a : vex_store_16a) : wide ? vex_load_32a : vex_load_16a;
        else
            fn = store ? (wide ? vex_store_32u : vex_store_16u) : wide ? vex_load_32u : vex_load_16u;
        break;
    }
    case 0x54: fn = PICK_BINARY(and); break;
    case 0x55: fn = PICK_BINARY(andn); break;
    case 0x56: fn = PICK_BINARY(or); break;
    case 0x57: fn = PICK_BINARY(xor); break;
    case 0x64: fn = PICK_BINARY(pcmpgtb); break;
    case 0x66: fn = PICK_BINARY(pcmpgtd); break;
    case 0x6E:
        if (!mem)
            fn = w ? vex_movq_from_gpr : vex_movd_from_gpr;
        break;
    case 0x74: fn = PICK_BINARY(pcmpeqb); break;
    case 0x75: fn = PICK_BINARY(pcmpeqw); break;
    case 0x76: fn = PICK_BINARY(pcmpeqd); break;
    case 0x7E:
        if (prefix == PFX_F3)
            fn = mem ? vex_load_8 : NULL;
        else if (!mem)
            fn = w ? vex_movq_to_gpr : vex_movd_to_gpr;
        break;
    case 0xD4: fn = PICK_BINARY(paddq); break;
    case 0xD6:
        if (mem)
            fn = vex_store_8;
        break;
    case 0xD7: fn = PICK_SIZE(vex_pmovmskb); break;
    case 0xDA: fn = PICK_BINARY(pminub); break;
    case 0xDB: fn = PICK_BINARY(and); break;
    case 0xDE: fn = PICK_BINARY(pmaxub); break;
    case 0xDF: fn = PICK_BINARY(andn); break;
    case 0xEB: fn = PICK_BINARY(or); break;
    case 0xEF: fn = PICK_BINARY(xor); break;
    case 0xF8: fn = PICK_BINARY(psubb); break;
    case 0xFA: fn = PICK_BINARY(psubd); break;
    case 0xFB: fn = PICK_BINARY(psubq); break;
    case 0xFC: fn = PICK_BINARY(paddb); break;
    case 0xFE: fn = PICK_BINARY(paddd); break;
    default: break;
    }
    if (fn == NULL)
        return false;
    op->fn = fn;
    return true;
}
