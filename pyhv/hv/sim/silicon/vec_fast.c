/* The vector instructions that copying, comparing and clearing memory is made of, in plain C. */
#include "vec.h"

typedef uint8_t V8 __attribute__((vector_size(16), aligned(1), may_alias));
typedef int8_t VS8 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t V16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef int16_t VS16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint32_t V32 __attribute__((vector_size(16), aligned(1), may_alias));
typedef int32_t VS32 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t V64 __attribute__((vector_size(16), aligned(1), may_alias));

#define FAST(name) static const Op *name(Cpu *cpu, const Op *op)
#define XREG(T, i) (*(T *)area_xmm(cpu, i))
#define LOW64(i) (*(Unaligned64 *)area_xmm(cpu, i))
#define HIGH64(i) (*(Unaligned64 *)(area_xmm(cpu, i) + 8))
#define LOW32(i) (*(Unaligned32 *)area_xmm(cpu, i))

/* ---- 16-byte moves ---- */
FAST(fast_mov_rr) /* to reg */
{
    sse_ready(cpu, op);
    XREG(V64, op->reg) = XREG(V64, op->rm);
    NEXT;
}
FAST(fast_mov_rr_back) /* to rm */
{
    sse_ready(cpu, op);
    XREG(V64, op->rm) = XREG(V64, op->reg);
    NEXT;
}
#define MOVE_16(suffix, align) \
    FAST(fast_load_##suffix) \
    { \
        sse_ready(cpu, op); \
        V64 v; \
        vec_read(cpu, op, &v, 16, align); \
        XREG(V64, op->reg) = v; \
        NEXT; \
    } \
    FAST(fast_store_##suffix) \
    { \
        sse_ready(cpu, op); \
        V64 v = XREG(V64, op->reg); \
        vec_write(cpu, op, &v, 16, align); \
        NEXT; \
    }
MOVE_16(unaligned, ALIGN_NO)
MOVE_16(aligned, ALIGN_ALWAYS)

/* ---- 4- and 8-byte moves ---- */
FAST(fast_load_4) /* MOVSS, MOVD: the rest is cleared */
{
    sse_ready(cpu, op);
    uint32_t v;
    vec_read(cpu, op, &v, 4, ALIGN_NO);
    XREG(V64, op->reg) = (V64){v, 0};
    NEXT;
}
FAST(fast_load_8) /* MOVSD, MOVQ */
{
    sse_ready(cpu, op);
    uint64_t v;
    vec_read(cpu, op, &v, 8, ALIGN_NO);
    XREG(V64, op->reg) = (V64){v, 0};
    NEXT;
}
FAST(fast_store_4)
{
    sse_ready(cpu, op);
    uint32_t v = LOW32(op->reg);
    vec_write(cpu, op, &v, 4, ALIGN_NO);
    NEXT;
}
FAST(fast_store_8)
{
    sse_ready(cpu, op);
    uint64_t v = LOW64(op->reg);
    vec_write(cpu, op, &v, 8, ALIGN_NO);
    NEXT;
}
FAST(fast_load_low)
{
    sse_ready(cpu, op);
    uint64_t v;
    vec_read(cpu, op, &v, 8, ALIGN_NO);
    LOW64(op->reg) = v;
    NEXT;
}
FAST(fast_load_high)
{
    sse_ready(cpu, op);
    uint64_t v;
    vec_read(cpu, op, &v, 8, ALIGN_NO);
    HIGH64(op->reg) = v;
    NEXT;
}
FAST(fast_store_high)
{
    sse_ready(cpu, op);
    uint64_t v = HIGH64(op->reg);
    vec_write(cpu, op, &v, 8, ALIGN_NO);
    NEXT;
}
FAST(fast_movss_rr) { sse_ready(cpu, op); LOW32(op->reg) = LOW32(op->rm); NEXT; }
FAST(fast_movss_rr_back) { sse_ready(cpu, op); LOW32(op->rm) = LOW32(op->reg); NEXT; }
FAST(fast_movsd_rr) { sse_ready(cpu, op); LOW64(op->reg) = LOW64(op->rm); NEXT; }
FAST(fast_movsd_rr_back) { sse_ready(cpu, op); LOW64(op->rm) = LOW64(op->reg); NEXT; }
FAST(fast_movhlps) { sse_ready(cpu, op); LOW64(op->reg) = HIGH64(op->rm); NEXT; }
FAST(fast_movlhps) { sse_ready(cpu, op); HIGH64(op->reg) = LOW64(op->rm); NEXT; }
FAST(fast_movq_rr)
{
    sse_ready(cpu, op);
    XREG(V64, op->reg) = (V64){LOW64(op->rm), 0};
    NEXT;
}
FAST(fast_movq_rr_back)
{
    sse_ready(cpu, op);
    XREG(V64, op->rm) = (V64){LOW64(op->reg), 0};
    NEXT;
}
FAST(fast_movd_from_gpr) { sse_ready(cpu, op); XREG(V64, op->reg) = (V64){(uint32_t)cpu->r[op->rm], 0}; NEXT; }
FAST(fast_movq_from_gpr) { sse_ready(cpu, op); XREG(V64, op->reg) = (V64){cpu->r[op->rm], 0}; NEXT; }
FAST(fast_movd_to_gpr) { sse_ready(cpu, op); cpu->r[op->rm] = LOW32(op->reg); NEXT; }
FAST(fast_movq_to_gpr) { sse_ready(cpu, op); cpu->r[op->rm] = LOW64(op->reg); NEXT; }

/* ---- two operands, 16 bytes, no rounding ---- */
#define BINARY(name, T, expression) \
    FAST(fast_##name##_rr) \
    { \
        sse_ready(cpu, op); \
        T a = XREG(T, op->reg), b = XREG(T, op->rm); \
        XREG(T, op->reg) = (T)(expression); \
        NEXT; \
    } \
    FAST(fast_##name##_rm) \
    { \
        sse_ready(cpu, op); \
        T b; \
        vec_read(cpu, op, &b, 16, ALIGN_YES); \
        T a = XREG(T, op->reg); \
        XREG(T, op->reg) = (T)(expression); \
        NEXT; \
    }
#define LESSER(a, b, less) (((a) & (less)) | ((b) & ~(less)))

BINARY(xor, V64, a ^ b)
BINARY(or, V64, a | b)
BINARY(and, V64, a & b)
BINARY(andn, V64, ~a & b)
BINARY(paddb, V8, a + b)
BINARY(paddw, V16, a + b)
BINARY(paddd, V32, a + b)
BINARY(paddq, V64, a + b)
BINARY(psubb, V8, a - b)
BINARY(psubw, V16, a - b)
BINARY(psubd, V32, a - b)
BINARY(psubq, V64, a - b)
BINARY(pcmpeqb, V8, a == b)
BINARY(pcmpeqw, V16, a == b)
BINARY(pcmpeqd, V32, a == b)
BINARY(pcmpgtb, VS8, a > b)
BINARY(pcmpgtw, VS16, a > b)
BINARY(pcmpgtd, VS32, a > b)
BINARY(pminub, V8, LESSER(a, b, (V8)(a < b)))
BINARY(pmaxub, V8, LESSER(b, a, (V8)(a < b)))
BINARY(punpcklbw, V8, __builtin_shuffle(a, b, (V8){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}))
BINARY(punpckhbw, V8, __builtin_shuffle(a, b, (V8){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}))
BINARY(punpcklwd, V16, __builtin_shuffle(a, b, (V16){0, 8, 1, 9, 2, 10, 3, 11}))
BINARY(punpckhwd, V16, __builtin_shuffle(a, b, (V16){4, 12, 5, 13, 6, 14, 7, 15}))
BINARY(punpckldq, V32, __builtin_shuffle(a, b, (V32){0, 4, 1, 5}))
BINARY(punpckhdq, V32, __builtin_shuffle(a, b, (V32){2, 6, 3, 7}))
BINARY(punpcklqdq, V64, ((V64){a[0], b[0]}))
BINARY(punpckhqdq, V64, ((V64){a[1], b[1]}))
#define IMM ((unsigned)op->imm)
BINARY(pshufd, V32, ((void)a, (V32){b[IMM & 3], b[IMM >> 2 & 3], b[IMM >> 4 & 3], b[IMM >> 6 & 3]}))

FAST(fast_pmovmskb)
{
    sse_ready(cpu, op);
    uint64_t mask = 0;
    for (unsigned half = 0; half < 2; half++) {
        uint64_t v = half ? HIGH64(op->rm) : LOW64(op->rm);
        /* gathers the top bits of eight bytes in the top byte of the product */
        mask |= ((v & 0x8080808080808080) * 0x0002040810204081 >> 56) << 8 * half;
    }
    cpu->r[op->reg] = mask;
    NEXT;
}

/* PSLLDQ, PSRLDQ */
FAST(fast_shift_bytes_left)
{
    sse_ready(cpu, op);
    uint8_t *x = area_xmm(cpu, op->rm);
    unsigned n = IMM & 255;
    n = n > 16 ? 16 : n;
    memmove(x + n, x, 16 - n);
    memset(x, 0, n);
    NEXT;
}
FAST(fast_shift_bytes_right)
{
    sse_ready(cpu, op);
    uint8_t *x = area_xmm(cpu, op->rm);
    unsigned n = IMM & 255;
    n = n > 16 ? 16 : n;
    memmove(x, x + n, 16 - n);
    memset(x + 16 - n, 0, n);
    NEXT;
}

typedef struct FastPair {
    OpFn *rr, *mem;
} FastPair;

#define PAIR(name) {fast_##name##_rr, fast_##name##_rm}
#define BOTH(o, pair_rr, pair_mem) [PFX_NONE][o] = {pair_rr, pair_mem}, [PFX_66][o] = {pair_rr, pair_mem}

static const FastPair vec_fast_table[4][256] = {
    BOTH(0x10, fast_mov_rr, fast_load_unaligned), BOTH(0x11, fast_mov_rr_back, fast_store_unaligned),
    [PFX_F3][0x10] = {fast_movss_rr, fast_load_4}, [PFX_F3][0x11] = {fast_movss_rr_back, fast_store_4},
    [PFX_F2][0x10] = {fast_movsd_rr, fast_load_8}, [PFX_F2][0x11] = {fast_movsd_rr_back, fast_store_8},
    BOTH(0x12, fast_movhlps, fast_load_low), BOTH(0x13, NULL, fast_store_8),
    BOTH(0x16, fast_movlhps, fast_load_high), BOTH(0x17, NULL, fast_store_high),
    BOTH(0x28, fast_mov_rr, fast_load_aligned), BOTH(0x29, fast_mov_rr_back, fast_store_aligned),
    BOTH(0x2B, NULL, fast_store_aligned),
    [PFX_F3][0x2B] = {NULL, fast_store_4}, [PFX_F2][0x2B] = {NULL, fast_store_8},
    BOTH(0x54, fast_and_rr, fast_and_rm), BOTH(0x55, fast_andn_rr, fast_andn_rm),
    BOTH(0x56, fast_or_rr, fast_or_rm), BOTH(0x57, fast_xor_rr, fast_xor_rm),
    [PFX_66][0x60] = PAIR(punpcklbw), [PFX_66][0x61] = PAIR(punpcklwd), [PFX_66][0x62] = PAIR(punpckldq),
    [PFX_66][0x64] = PAIR(pcmpgtb), [PFX_66][0x65] = PAIR(pcmpgtw), [PFX_66][0x66] = PAIR(pcmpgtd),
    [PFX_66][0x68] = PAIR(punpckhbw), [PFX_66][0x69] = PAIR(punpckhwd), [PFX_66][0x6A] = PAIR(punpckhdq),
    [PFX_66][0x6C] = PAIR(punpcklqdq), [PFX_66][0x6D] = PAIR(punpckhqdq),
    [PFX_66][0x6E] = {fast_movd_from_gpr, fast_load_4},
    [PFX_66][0x6F] = {fast_mov_rr, fast_load_aligned}, [PFX_F3][0x6F] = {fast_mov_rr, fast_load_unaligned},
    [PFX_66][0x70] = PAIR(pshufd),
    [PFX_66][0x74] = PAIR(pcmpeqb), [PFX_66][0x75] = PAIR(pcmpeqw), [PFX_66][0x76] = PAIR(pcmpeqd),
    [PFX_66][0x7E] = {fast_movd_to_gpr, fast_store_4}, [PFX_F3][0x7E] = {fast_movq_rr, fast_load_8},
    [PFX_66][0x7F] = {fast_mov_rr_back, fast_store_aligned},
    [PFX_F3][0x7F] = {fast_mov_rr_back, fast_store_unaligned},
    [PFX_66][0xD4] = PAIR(paddq), [PFX_66][0xD6] = {fast_movq_rr_back, fast_store_8},
    [PFX_66][0xD7] = {fast_pmovmskb, NULL},
    [PFX_66][0xDA] = PAIR(pminub), [PFX_66][0xDB] = PAIR(and), [PFX_66][0xDE] = PAIR(pmaxub),
    [PFX_66][0xDF] = PAIR(andn), [PFX_66][0xE7] = {NULL, fast_store_aligned},
    [PFX_66][0xEB] = PAIR(or), [PFX_66][0xEF] = PAIR(xor), [PFX_F2][0xF0] = {NULL, fast_load_unaligned},
    [PFX_66][0xF8] = PAIR(psubb), [PFX_66][0xF9] = PAIR(psubw), [PFX_66][0xFA] = PAIR(psubd),
    [PFX_66][0xFB] = PAIR(psubq), [PFX_66][0xFC] = PAIR(paddb), [PFX_66][0xFD] = PAIR(paddw),
    [PFX_66][0xFE] = PAIR(paddd),
};

bool vec_direct(const Insn *insn, unsigned prefix, Op *op)
{
    const bool mem = insn->mod != 3, wide = insn->rex & 8;
    OpFn *fn = NULL;
    if (insn->map == 1) {
        const FastPair *pair = &vec_fast_table[prefix][insn->opcode];
        fn = mem ? pair->mem : pair->rr;
        if (prefix == PFX_66 && wide) {
            if (insn->opcode == 0x6E)
                fn = mem ? fast_load_8 : fast_movq_from_gpr;
            else if (insn->opcode == 0x7E)
                fn = mem ? fast_store_8 : fast_movq_to_gpr;
        }
        if (prefix == PFX_66 && insn->opcode == 0x73) {
            unsigned digit = insn->modrm >> 3 & 7;
            fn = digit == 7 ? fast_shift_bytes_left : digit == 3 ? fast_shift_bytes_right : NULL;
        }
    } else if (insn->map == 2 && prefix == PFX_66 && insn->opcode == 0x2A && mem) {
        fn = fast_load_aligned;
    }
    if (fn == NULL)
        return false;
    op->fn = fn;
    return true;
}
