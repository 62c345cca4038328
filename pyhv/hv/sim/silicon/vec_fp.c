/* The precision exception beside an unmasked overflow or underflow.
 *
 * When overflow or underflow is unmasked, the result that the handler would see has an unbounded exponent, and PE says
 * whether that result was rounded (APM vol. 1, 4.10.2). The masked run on the host has denormalised or saturated
 * it. So the elements are done again on the x87 unit, whose exponent range suffices and whose precision control
 * rounds to 24 or 53 bits. */
#include "vec.h"

#if defined(__x86_64__)

enum { LANE_ADD, LANE_SUB, LANE_MUL, LANE_DIV, LANE_CONVERT };

typedef struct LaneRules {
    uint16_t fcw;       /* of the x87 run: all masked, rounding as in MXCSR, precision of the result */
    bool narrow_in;     /* operands are single */
    bool narrow_out;    /* result is single */
    bool daz, ftz, overflow_masked, underflow_masked;
} LaneRules;

static bool vec_is_denormal(uint64_t x, bool narrow)
{
    return narrow ? (x & 0x7F800000) == 0 && (x & 0x7FFFFF) != 0
                  : (x & 0x7FF0000000000000) == 0 && (x & 0xFFFFFFFFFFFFF) != 0;
}

static void vec_x87_load(const LaneRules *rules, uint64_t x)
{
    if (rules->daz && vec_is_denormal(x, rules->narrow_in))
        x = 0;
    if (rules->narrow_in) {
        uint32_t narrow = (uint32_t)x;
        __asm__ volatile("flds %0" : : "m"(narrow));
    } else {
        __asm__ volatile("fldl %0" : : "m"(x));
    }
}

/* Whether the element's operation raises PE. */
static bool vec_lane_inexact(const LaneRules *rules, unsigned kind, uint64_t a, uint64_t b)
{
    uint16_t fcw, operation, stored;
    struct { uint64_t mantissa; uint16_t exponent; } __attribute__((packed)) wide;
    uint64_t out = 0;
    __asm__ volatile("fnstcw %0\n\tfldcw %1" : "=m"(fcw) : "m"(rules->fcw));
    vec_x87_load(rules, a);
    if (kind == LANE_CONVERT)
        __asm__ volatile("fld1" : :);
    else
        vec_x87_load(rules, b);
    __asm__ volatile("fnclex" : :);
    switch (kind) { /* ST(1) is a, ST(0) b */
    case LANE_ADD: __asm__ volatile("faddp" : :); break;
    case LANE_SUB: __asm__ volatile("fsubrp" : :); break;
    case LANE_DIV: __asm__ volatile("fdivrp" : :); break;
    default: __asm__ volatile("fmulp" : :); break;
    }
    __asm__ volatile("fnstsw %0\n\tfnclex" : "=m"(operation));
    if (rules->narrow_out)
        __asm__ volatile("fsts %0" : "=m"(*(uint32_t *)&out));
    else
        __asm__ volatile("fstl %0" : "=m"(out));
    __asm__ volatile("fnstsw %0" : "=m"(stored));
    __asm__ volatile("fstpt %0\n\tfninit\n\tfldcw %1" : "=m"(wide) : "m"(fcw));
    const int exponent = (wide.exponent & 0x7FFF) - 16383;
    const bool inexact = operation & 0x20;
    if ((operation & 5) || exponent == 16384 || wide.mantissa == 0)
        return inexact && wide.mantissa != 0 && exponent != 16384;
    if (exponent > (rules->narrow_out ? 127 : 1023))
        return rules->overflow_masked || inexact;
    if (exponent < (rules->narrow_out ? -126 : -1022) && rules->underflow_masked)
        return inexact || rules->ftz || (stored & 0x20);
    return inexact;
}

static uint64_t vec_lane(const uint8_t *from, unsigned i, bool narrow)
{
    uint64_t x = 0;
    memcpy(&x, from + (narrow ? 4 : 8) * i, narrow ? 4 : 8);
    return x;
}

uint32_t vec_post_exceptions(Cpu *cpu, const Op *op, const VecStub *stub, const VecFrame *frame, uint32_t raised)
{
    const uint32_t mxcsr = area32(cpu, AREA_MXCSR);
    const unsigned opcode = stub->key >> 8 & 255, prefix = stub->key >> 28 & 3, map = stub->key >> 32 & 3;
    const uint32_t unmasked = raised & ~(mxcsr >> 7) & MXCSR_EXCEPTIONS;
    if (map != 1 || (unmasked & 7) || !(unmasked & 0x18))
        return raised;
    const bool convert = opcode == 0x5A;
    const bool narrow = opcode == 0xD0 || opcode == 0x7C || opcode == 0x7D ? prefix == PFX_F2
                                                                           : prefix == PFX_NONE || prefix == PFX_F3;
    LaneRules rules = {
        .narrow_in = convert ? false : narrow, .narrow_out = convert ? true : narrow,
        .daz = mxcsr & MXCSR_DAZ, .ftz = mxcsr & MXCSR_FTZ,
        .overflow_masked = mxcsr & 0x400, .underflow_masked = mxcsr & 0x800,
    };
    rules.fcw = (uint16_t)(0x7F | (rules.narrow_out ? 0 : 0x200) | (mxcsr >> 13 & 3) << 10);
    const uint8_t *a = stub->info.flags & VF_VVVV ? frame->v : area_xmm(cpu, op->reg), *b = frame->b;
    const unsigned half = convert || !narrow ? 2 : 4;
    const unsigned lanes = stub->info.flags & VF_SCALAR ? 1 : stub->wide ? 2 * half : half;
    bool inexact = false;
    for (unsigned i = 0; i < lanes; i++) {
        uint64_t x = vec_lane(a, i, rules.narrow_in), y = vec_lane(b, i, rules.narrow_in);
        unsigned kind;
        switch (opcode) {
        case 0x58: kind = LANE_ADD; break;
        case 0x59: kind = LANE_MUL; break;
        case 0x5C: kind = LANE_SUB; break;
        case 0x5E: kind = LANE_DIV; break;
        case 0x5A: kind = LANE_CONVERT; x = y; break;
        case 0xD0: kind = i & 1 ? LANE_ADD : LANE_SUB; break;
        case 0x7C: case 0x7D: {
            const uint8_t *from = i % half < half / 2 ? a : b;
            const unsigned first = i / half * half + 2 * i % half; /* pairs within a half of 128 bits */
            x = vec_lane(from, first, narrow);
            y = vec_lane(from, first + 1, narrow);
            kind = opcode == 0x7C ? LANE_ADD : LANE_SUB;
            break;
        }
        default: return raised;
        }
        inexact = vec_lane_inexact(&rules, kind, x, y) || inexact;
    }
    return (raised & ~0x20u) | (inexact ? 0x20 : 0);
}

#else

uint32_t vec_post_exceptions(Cpu *cpu, const Op *op, const VecStub *stub, const VecFrame *frame, uint32_t raised)
{
    return raised;
}

#endif
