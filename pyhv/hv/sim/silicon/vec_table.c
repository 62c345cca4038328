/* Which SSE, MMX, AES, ... instructions exist and what their operands are (APM volumes 4 and 5). */
#include "vec.h"

#define X OPND_X
#define M OPND_M
#define G OPND_G
#define AL VF_ALIGN
#define FP VF_FP
#define RM VF_DEST_RM
#define MO VF_MEM_ONLY
#define RO VF_REG_ONLY
#define NF VF_NO_OSFXSR
#define TS_ VF_TINY_SINGLE
#define TD VF_TINY_DOUBLE
#define SC VF_SCALAR

/* packed integer: MMX form without a prefix, XMM form with 66 */
#define INT(o) [PFX_NONE][o] = {ISA_MMX, M, M, 8, NF}, [PFX_66][o] = {ISA_SSE2, X, X, 16, AL}
#define INT_LOW(o) [PFX_NONE][o] = {ISA_MMX, M, M, 4, NF}, [PFX_66][o] = {ISA_SSE2, X, X, 16, AL}
#define INT_EXT(o) [PFX_NONE][o] = {ISA_MMXEXT, M, M, 8, NF}, [PFX_66][o] = {ISA_SSE2, X, X, 16, AL}
#define INT_SSE2(o) [PFX_NONE][o] = {ISA_SSE2, M, M, 8, NF}, [PFX_66][o] = {ISA_SSE2, X, X, 16, AL}
#define INT_SSSE3(o) [PFX_NONE][o] = {ISA_SSSE3, M, M, 8, NF}, [PFX_66][o] = {ISA_SSSE3, X, X, 16, AL}
#define SHIFT_GROUP(o) \
    [PFX_NONE][o] = {ISA_MMX, 0, M, 8, RM | RO | VF_GROUP | NF}, \
    [PFX_66][o] = {ISA_SSE2, 0, X, 16, RM | RO | VF_GROUP}
#define PACKED_FLOAT(o, f) [PFX_NONE][o] = {ISA_SSE, X, X, 16, AL | (f)}, [PFX_66][o] = {ISA_SSE2, X, X, 16, AL | (f)}
#define ARITH(o, tiny_single, tiny_double) \
    [PFX_NONE][o] = {ISA_SSE, X, X, 16, AL | FP | (tiny_single)}, \
    [PFX_66][o] = {ISA_SSE2, X, X, 16, AL | FP | (tiny_double)}, \
    [PFX_F3][o] = {ISA_SSE, X, X, 4, FP | SC | (tiny_single)}, \
    [PFX_F2][o] = {ISA_SSE2, X, X, 8, FP | SC | (tiny_double)}

static const VecInfo vec_map_0f[4][256] = {
    [PFX_NONE][0x10] = {ISA_SSE, X, X, 16, 0}, [PFX_66][0x10] = {ISA_SSE2, X, X, 16, 0},
    [PFX_F3][0x10] = {ISA_SSE, X, X, 4, 0}, [PFX_F2][0x10] = {ISA_SSE2, X, X, 8, 0},
    [PFX_NONE][0x11] = {ISA_SSE, X, X, 16, RM}, [PFX_66][0x11] = {ISA_SSE2, X, X, 16, RM},
    [PFX_F3][0x11] = {ISA_SSE, X, X, 4, RM}, [PFX_F2][0x11] = {ISA_SSE2, X, X, 8, RM},
    [PFX_NONE][0x12] = {ISA_SSE, X, X, 8, 0}, [PFX_66][0x12] = {ISA_SSE2, X, X, 8, MO},
    [PFX_F3][0x12] = {ISA_SSE3, X, X, 16, AL}, [PFX_F2][0x12] = {ISA_SSE3, X, X, 8, 0},
    [PFX_NONE][0x13] = {ISA_SSE, X, X, 8, RM | MO}, [PFX_66][0x13] = {ISA_SSE2, X, X, 8, RM | MO},
    PACKED_FLOAT(0x14, 0), PACKED_FLOAT(0x15, 0),
    [PFX_NONE][0x16] = {ISA_SSE, X, X, 8, 0}, [PFX_66][0x16] = {ISA_SSE2, X, X, 8, MO},
    [PFX_F3][0x16] = {ISA_SSE3, X, X, 16, AL},
    [PFX_NONE][0x17] = {ISA_SSE, X, X, 8, RM | MO}, [PFX_66][0x17] = {ISA_SSE2, X, X, 8, RM | MO},
    [PFX_NONE][0x28] = {ISA_SSE, X, X, 16, VF_ALIGN_ALWAYS}, [PFX_66][0x28] = {ISA_SSE2, X, X, 16, VF_ALIGN_ALWAYS},
    [PFX_NONE][0x29] = {ISA_SSE, X, X, 16, RM | VF_ALIGN_ALWAYS},
    [PFX_66][0x29] = {ISA_SSE2, X, X, 16, RM | VF_ALIGN_ALWAYS},
    [PFX_NONE][0x2A] = {ISA_SSE, X, M, 8, FP | VF_MMX_QUIET}, [PFX_66][0x2A] = {ISA_SSE2, X, M, 8, FP | VF_MMX_QUIET},
    [PFX_F3][0x2A] = {ISA_SSE, X, G, 4, FP | VF_REXW}, [PFX_F2][0x2A] = {ISA_SSE2, X, G, 4, FP | VF_REXW},
    [PFX_NONE][0x2B] = {ISA_SSE, X, X, 16, RM | MO | VF_ALIGN_ALWAYS},
    [PFX_66][0x2B] = {ISA_SSE2, X, X, 16, RM | MO | VF_ALIGN_ALWAYS},
    [PFX_F3][0x2B] = {ISA_SSE4A, X, X, 4, RM | MO}, [PFX_F2][0x2B] = {ISA_SSE4A, X, X, 8, RM | MO},
    [PFX_NONE][0x2C] = {ISA_SSE, M, X, 8, FP}, [PFX_66][0x2C] = {ISA_SSE2, M, X, 16, FP | AL},
    [PFX_F3][0x2C] = {ISA_SSE, G, X, 4, FP | VF_REXW}, [PFX_F2][0x2C] = {ISA_SSE2, G, X, 8, FP | VF_REXW},
    [PFX_NONE][0x2D] = {ISA_SSE, M, X, 8, FP}, [PFX_66][0x2D] = {ISA_SSE2, M, X, 16, FP | AL},
    [PFX_F3][0x2D] = {ISA_SSE, G, X, 4, FP | VF_REXW}, [PFX_F2][0x2D] = {ISA_SSE2, G, X, 8, FP | VF_REXW},
    [PFX_NONE][0x2E] = {ISA_SSE, X, X, 4, FP | VF_NO_DEST | VF_EFLAGS},
    [PFX_66][0x2E] = {ISA_SSE2, X, X, 8, FP | VF_NO_DEST | VF_EFLAGS},
    [PFX_NONE][0x2F] = {ISA_SSE, X, X, 4, FP | VF_NO_DEST | VF_EFLAGS},
    [PFX_66][0x2F] = {ISA_SSE2, X, X, 8, FP | VF_NO_DEST | VF_EFLAGS},
    [PFX_NONE][0x50] = {ISA_SSE, G, X, 0, RO}, [PFX_66][0x50] = {ISA_SSE2, G, X, 0, RO},
    ARITH(0x51, 0, 0),
    [PFX_NONE][0x52] = {ISA_SSE, X, X, 16, AL}, [PFX_F3][0x52] = {ISA_SSE, X, X, 4, 0},
    [PFX_NONE][0x53] = {ISA_SSE, X, X, 16, AL}, [PFX_F3][0x53] = {ISA_SSE, X, X, 4, 0},
    PACKED_FLOAT(0x54, 0), PACKED_FLOAT(0x55, 0), PACKED_FLOAT(0x56, 0), PACKED_FLOAT(0x57, 0),
    ARITH(0x58, TS_, TD), ARITH(0x59, TS_, TD),
    [PFX_NONE][0x5A] = {ISA_SSE2, X, X, 8, FP}, [PFX_66][0x5A] = {ISA_SSE2, X, X, 16, FP | AL | TS_},
    [PFX_F3][0x5A] = {ISA_SSE2, X, X, 4, FP}, [PFX_F2][0x5A] = {ISA_SSE2, X, X, 8, FP | TS_ | SC},
    [PFX_NONE][0x5B] = {ISA_SSE2, X, X, 16, FP | AL}, [PFX_66][0x5B] = {ISA_SSE2, X, X, 16, FP | AL},
    [PFX_F3][0x5B] = {ISA_SSE2, X, X, 16, FP | AL},
    ARITH(0x5C, TS_, TD), ARITH(0x5D, 0, 0), ARITH(0x5E, TS_, TD), ARITH(0x5F, 0, 0),
    INT_LOW(0x60), INT_LOW(0x61), INT_LOW(0x62), INT(0x63), INT(0x64), INT(0x65), INT(0x66), INT(0x67),
    INT(0x68), INT(0x69), INT(0x6A), INT(0x6B),
    [PFX_66][0x6C] = {ISA_SSE2, X, X, 16, AL}, [PFX_66][0x6D] = {ISA_SSE2, X, X, 16, AL},
    [PFX_NONE][0x6E] = {ISA_MMX, M, G, 4, VF_REXW | NF}, [PFX_66][0x6E] = {ISA_SSE2, X, G, 4, VF_REXW},
    [PFX_NONE][0x6F] = {ISA_MMX, M, M, 8, NF}, [PFX_66][0x6F] = {ISA_SSE2, X, X, 16, VF_ALIGN_ALWAYS},
    [PFX_F3][0x6F] = {ISA_SSE2, X, X, 16, 0},
    [PFX_NONE][0x70] = {ISA_MMXEXT, M, M, 8, NF}, [PFX_66][0x70] = {ISA_SSE2, X, X, 16, AL},
    [PFX_F3][0x70] = {ISA_SSE2, X, X, 16, AL}, [PFX_F2][0x70] = {ISA_SSE2, X, X, 16, AL},
    SHIFT_GROUP(0x71), SHIFT_GROUP(0x72), SHIFT_GROUP(0x73),
    INT(0x74), INT(0x75), INT(0x76),
    [PFX_66][0x79] = {ISA_SSE4A, X, X, 0, RO}, [PFX_F2][0x79] = {ISA_SSE4A, X, X, 0, RO},
    [PFX_66][0x7C] = {ISA_SSE3, X, X, 16, AL | FP | TD}, [PFX_F2][0x7C] = {ISA_SSE3, X, X, 16, AL | FP | TS_},
    [PFX_66][0x7D] = {ISA_SSE3, X, X, 16, AL | FP | TD}, [PFX_F2][0x7D] = {ISA_SSE3, X, X, 16, AL | FP | TS_},
    [PFX_NONE][0x7E] = {ISA_MMX, M, G, 4, RM | VF_REXW | NF}, [PFX_66][0x7E] = {ISA_SSE2, X, G, 4, RM | VF_REXW},
    [PFX_F3][0x7E] = {ISA_SSE2, X, X, 8, 0},
    [PFX_NONE][0x7F] = {ISA_MMX, M, M, 8, RM | NF}, [PFX_66][0x7F] = {ISA_SSE2, X, X, 16, RM | VF_ALIGN_ALWAYS},
    [PFX_F3][0x7F] = {ISA_SSE2, X, X, 16, RM},
    ARITH(0xC2, 0, 0),
    [PFX_NONE][0xC4] = {ISA_MMXEXT, M, G, 2, NF}, [PFX_66][0xC4] = {ISA_SSE2, X, G, 2, 0},
    [PFX_NONE][0xC5] = {ISA_MMXEXT, G, M, 0, RO | NF}, [PFX_66][0xC5] = {ISA_SSE2, G, X, 0, RO},
    PACKED_FLOAT(0xC6, 0),
    [PFX_66][0xD0] = {ISA_SSE3, X, X, 16, AL | FP | TD}, [PFX_F2][0xD0] = {ISA_SSE3, X, X, 16, AL | FP | TS_},
    INT(0xD1), INT(0xD2), INT(0xD3), INT_SSE2(0xD4), INT(0xD5),
    [PFX_66][0xD6] = {ISA_SSE2, X, X, 8, RM}, [PFX_F3][0xD6] = {ISA_SSE2, X, M, 0, RO},
    [PFX_F2][0xD6] = {ISA_SSE2, M, X, 0, RO},
    [PFX_NONE][0xD7] = {ISA_MMXEXT, G, M, 0, RO | NF}, [PFX_66][0xD7] = {ISA_SSE2, G, X, 0, RO},
    INT(0xD8), INT(0xD9), INT_EXT(0xDA), INT(0xDB), INT(0xDC), INT(0xDD), INT_EXT(0xDE), INT(0xDF),
    INT_EXT(0xE0), INT(0xE1), INT(0xE2), INT_EXT(0xE3), INT_EXT(0xE4), INT(0xE5),
    [PFX_66][0xE6] = {ISA_SSE2, X, X, 16, AL | FP}, [PFX_F3][0xE6] = {ISA_SSE2, X, X, 8, FP},
    [PFX_F2][0xE6] = {ISA_SSE2, X, X, 16, AL | FP},
    [PFX_NONE][0xE7] = {ISA_MMXEXT, M, M, 8, RM | MO | NF},
    [PFX_66][0xE7] = {ISA_SSE2, X, X, 16, RM | MO | VF_ALIGN_ALWAYS},
    INT(0xE8), INT(0xE9), INT_EXT(0xEA), INT(0xEB), INT(0xEC), INT(0xED), INT_EXT(0xEE), INT(0xEF),
    [PFX_F2][0xF0] = {ISA_SSE3, X, X, 16, MO},
    INT(0xF1), INT(0xF2), INT(0xF3), INT_SSE2(0xF4), INT(0xF5), INT_EXT(0xF6),
    INT(0xF8), INT(0xF9), INT(0xFA), INT_SSE2(0xFB), INT(0xFC), INT(0xFD), INT(0xFE),
};

#define SSE41(o, size, f) [PFX_66][o] = {ISA_SSE41, X, X, size, f}

static const VecInfo vec_map_0f38[4][256] = {
    INT_SSSE3(0x00), INT_SSSE3(0x01), INT_SSSE3(0x02), INT_SSSE3(0x03), INT_SSSE3(0x04), INT_SSSE3(0x05),
    INT_SSSE3(0x06), INT_SSSE3(0x07), INT_SSSE3(0x08), INT_SSSE3(0x09), INT_SSSE3(0x0A), INT_SSSE3(0x0B),
    INT_SSSE3(0x1C), INT_SSSE3(0x1D), INT_SSSE3(0x1E),
    SSE41(0x10, 16, AL | VF_XMM0), SSE41(0x14, 16, AL | VF_XMM0), SSE41(0x15, 16, AL | VF_XMM0),
    SSE41(0x17, 16, AL | VF_NO_DEST | VF_EFLAGS),
    SSE41(0x20, 8, 0), SSE41(0x21, 4, 0), SSE41(0x22, 2, 0), SSE41(0x23, 8, 0), SSE41(0x24, 4, 0), SSE41(0x25, 8, 0),
    SSE41(0x28, 16, AL), SSE41(0x29, 16, AL), SSE41(0x2A, 16, MO | VF_ALIGN_ALWAYS), SSE41(0x2B, 16, AL),
    SSE41(0x30, 8, 0), SSE41(0x31, 4, 0), SSE41(0x32, 2, 0), SSE41(0x33, 8, 0), SSE41(0x34, 4, 0), SSE41(0x35, 8, 0),
    [PFX_66][0x37] = {ISA_SSE42, X, X, 16, AL},
    SSE41(0x38, 16, AL), SSE41(0x39, 16, AL), SSE41(0x3A, 16, AL), SSE41(0x3B, 16, AL),
    SSE41(0x3C, 16, AL), SSE41(0x3D, 16, AL), SSE41(0x3E, 16, AL), SSE41(0x3F, 16, AL),
    SSE41(0x40, 16, AL), SSE41(0x41, 16, AL),
    [PFX_NONE][0xC8] = {ISA_SHA, X, X, 16, 0}, [PFX_NONE][0xC9] = {ISA_SHA, X, X, 16, 0},
    [PFX_NONE][0xCA] = {ISA_SHA, X, X, 16, 0}, [PFX_NONE][0xCB] = {ISA_SHA, X, X, 16, VF_XMM0},
    [PFX_NONE][0xCC] = {ISA_SHA, X, X, 16, 0}, [PFX_NONE][0xCD] = {ISA_SHA, X, X, 16, 0},
    [PFX_66][0xCF] = {ISA_GFNI, X, X, 16, AL},
    [PFX_66][0xDB] = {ISA_AES, X, X, 16, AL}, [PFX_66][0xDC] = {ISA_AES, X, X, 16, AL},
    [PFX_66][0xDD] = {ISA_AES, X, X, 16, AL}, [PFX_66][0xDE] = {ISA_AES, X, X, 16, AL},
    [PFX_66][0xDF] = {ISA_AES, X, X, 16, AL},
};

static const VecInfo vec_map_0f3a[4][256] = {
    SSE41(0x08, 16, AL | FP), SSE41(0x09, 16, AL | FP), SSE41(0x0A, 4, FP), SSE41(0x0B, 8, FP),
    SSE41(0x0C, 16, AL), SSE41(0x0D, 16, AL), SSE41(0x0E, 16, AL), INT_SSSE3(0x0F),
    [PFX_66][0x14] = {ISA_SSE41, X, G, 1, RM}, [PFX_66][0x15] = {ISA_SSE41, X, G, 2, RM},
    [PFX_66][0x16] = {ISA_SSE41, X, G, 4, RM | VF_REXW}, [PFX_66][0x17] = {ISA_SSE41, X, G, 4, RM},
    [PFX_66][0x20] = {ISA_SSE41, X, G, 1, 0}, SSE41(0x21, 4, 0),
    [PFX_66][0x22] = {ISA_SSE41, X, G, 4, VF_REXW},
    SSE41(0x40, 16, AL | FP | TS_), SSE41(0x41, 16, AL | FP | TD), SSE41(0x42, 16, AL),
    [PFX_66][0x44] = {ISA_CLMUL, X, X, 16, AL},
    [PFX_66][0x60] = {ISA_SSE42, X, X, 16, VF_NO_DEST | VF_EFLAGS | VF_STR_LENGTHS | VF_STR_MASK | VF_REXW},
    [PFX_66][0x61] = {ISA_SSE42, X, X, 16, VF_NO_DEST | VF_EFLAGS | VF_STR_LENGTHS | VF_STR_INDEX | VF_REXW},
    [PFX_66][0x62] = {ISA_SSE42, X, X, 16, VF_NO_DEST | VF_EFLAGS | VF_STR_MASK},
    [PFX_66][0x63] = {ISA_SSE42, X, X, 16, VF_NO_DEST | VF_EFLAGS | VF_STR_INDEX},
    [PFX_NONE][0xCC] = {ISA_SHA, X, X, 16, 0},
    [PFX_66][0xCE] = {ISA_GFNI, X, X, 16, AL}, [PFX_66][0xCF] = {ISA_GFNI, X, X, 16, AL},
    [PFX_66][0xDF] = {ISA_AES, X, X, 16, AL},
};

#undef X
#undef M
#undef G
#undef AL
#undef FP
#undef RM
#undef MO
#undef RO
#undef NF
#undef TS_
#undef TD
#undef SC
#undef INT
#undef INT_LOW
#undef INT_EXT
#undef INT_SSE2
#undef INT_SSSE3
#undef SHIFT_GROUP
#undef PACKED_FLOAT
#undef ARITH
#undef SSE41

const VecInfo *vec_info(unsigned map, unsigned prefix, unsigned opcode)
{
    const VecInfo *info;
    switch (map) {
    case 1: info = &vec_map_0f[prefix & 3][opcode & 255]; break;
    case 2: info = &vec_map_0f38[prefix & 3][opcode & 255]; break;
    case 3: info = &vec_map_0f3a[prefix & 3][opcode & 255]; break;
    default: return NULL;
    }
    return info->isa == ISA_NONE ? NULL : info;
}

bool vec_group_valid(unsigned opcode, unsigned prefix, unsigned digit)
{
    switch (opcode) {
    case 0x71: case 0x72: return digit == 2 || digit == 4 || digit == 6;
    case 0x73: return digit == 2 || digit == 6 || (prefix == PFX_66 && (digit == 3 || digit == 7));
    default: return false;
    }
}

/* ---- where CPUID names the extensions ---- */
static const struct { uint32_t function, index; uint8_t reg, bit; } vec_isa_bits[ISA_COUNT] = {
    [ISA_X87] = {1, 0, 3, 0}, [ISA_CMOV] = {1, 0, 3, 15}, [ISA_CLFLUSH] = {1, 0, 3, 19}, [ISA_MMX] = {1, 0, 3, 23},
    [ISA_FXSR] = {1, 0, 3, 24}, [ISA_SSE] = {1, 0, 3, 25}, [ISA_SSE2] = {1, 0, 3, 26}, [ISA_SSE3] = {1, 0, 2, 0},
    [ISA_CLMUL] = {1, 0, 2, 1}, [ISA_SSSE3] = {1, 0, 2, 9}, [ISA_FMA] = {1, 0, 2, 12}, [ISA_SSE41] = {1, 0, 2, 19},
    [ISA_SSE42] = {1, 0, 2, 20}, [ISA_AES] = {1, 0, 2, 25}, [ISA_XSAVE] = {1, 0, 2, 26}, [ISA_AVX] = {1, 0, 2, 28},
    [ISA_F16C] = {1, 0, 2, 29}, [ISA_AVX2] = {7, 0, 1, 5}, [ISA_CLFLUSHOPT] = {7, 0, 1, 23}, [ISA_CLWB] = {7, 0, 1, 24},
    [ISA_SHA] = {7, 0, 1, 29}, [ISA_GFNI] = {7, 0, 2, 8}, [ISA_VAES] = {7, 0, 2, 9}, [ISA_VCLMUL] = {7, 0, 2, 10},
    [ISA_XSAVEOPT] = {0xD, 1, 0, 0}, [ISA_XSAVEC] = {0xD, 1, 0, 1}, [ISA_XSAVES] = {0xD, 1, 0, 3},
    [ISA_XGETBV1] = {0xD, 1, 0, 2}, [ISA_ERROR_POINTERS] = {0x80000008, 0, 1, 2},
    [ISA_MMXEXT] = {0x80000001, 0, 3, 22}, [ISA_SSE4A] = {0x80000001, 0, 2, 6}, [ISA_MISALIGN] = {0x80000001, 0, 2, 7},
};

static bool vec_index_matters(uint32_t function) { return function == 7 || function == 0xD; }

static bool vec_guest_bit(const Cpu *cpu, uint32_t function, uint32_t index, int reg, int bit)
{
    const Machine *m = cpu->machine;
    for (uint32_t i = 0; i < m->cpuid_count && i < 128; i++) {
        const SimCpuidEntry *e = &m->cpuid[i];
        if (e->function != function || (vec_index_matters(function) && (e->flags & 1) && e->index != index))
            continue;
        const uint32_t regs[4] = {e->eax, e->ebx, e->ecx, e->edx};
        return regs[reg] >> bit & 1;
    }
    return false;
}

bool vec_guest_has(const Cpu *cpu, unsigned isa)
{
    if (isa == ISA_FCMOV)
        return vec_guest_has(cpu, ISA_X87) && vec_guest_has(cpu, ISA_CMOV);
    if (isa == ISA_NONE || isa >= ISA_COUNT)
        return false;
    if (vec_guest_bit(cpu, vec_isa_bits[isa].function, vec_isa_bits[isa].index, vec_isa_bits[isa].reg,
                      vec_isa_bits[isa].bit))
        return true;
    return isa == ISA_MMXEXT && vec_guest_has(cpu, ISA_SSE);
}

#if defined(__x86_64__)
#include <cpuid.h>

static bool vec_host_bit(unsigned isa)
{
    unsigned r[4];
    if (!__get_cpuid_count(vec_isa_bits[isa].function, vec_isa_bits[isa].index, &r[0], &r[1], &r[2], &r[3]))
        return false;
    return r[vec_isa_bits[isa].reg] >> vec_isa_bits[isa].bit & 1;
}

static bool vec_host_saves_ymm(void) /* its operating system, in XCR0 */
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx >> 27 & 1))
        return false;
    __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (eax & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX);
}

bool vec_host_has(unsigned isa)
{
    switch (isa) {
    case ISA_X87: case ISA_MMX: case ISA_MMXEXT: case ISA_SSE: case ISA_SSE2: case ISA_FCMOV: /* AMD64 itself */
    case ISA_FXSR: case ISA_XSAVE: case ISA_XSAVEOPT: case ISA_XSAVEC: case ISA_XSAVES:
    case ISA_XGETBV1: case ISA_ERROR_POINTERS: /* written in C */
    case ISA_CLFLUSH: case ISA_CLFLUSHOPT: case ISA_CLWB: case ISA_MISALIGN: case ISA_CMOV:
        return true;
    case ISA_SSE3: case ISA_SSSE3: case ISA_SSE41: case ISA_SSE42: case ISA_SSE4A: case ISA_AES: case ISA_CLMUL:
    case ISA_SHA: case ISA_GFNI:
        return vec_host_bit(isa);
    case ISA_AVX: case ISA_AVX2: case ISA_FMA: case ISA_F16C: case ISA_VAES: case ISA_VCLMUL:
        return vec_host_bit(ISA_AVX) && vec_host_bit(isa) && vec_host_saves_ymm();
    default:
        return false;
    }
}
#else
bool vec_host_has(unsigned isa)
{
    switch (isa) {
    case ISA_FXSR: case ISA_XSAVE: case ISA_XSAVEOPT: case ISA_XSAVEC: case ISA_XSAVES: case ISA_CLFLUSH:
    case ISA_CLFLUSHOPT: case ISA_CLWB: case ISA_CMOV: case ISA_XGETBV1:
        return true;
    default:
        return false;
    }
}
#endif

uint32_t vec_cpuid_mask(uint32_t function, uint32_t index, int reg)
{
    uint32_t mask = 0;
    for (unsigned isa = 1; isa < ISA_COUNT; isa++) {
        if (isa == ISA_FCMOV || vec_isa_bits[isa].function != function || vec_isa_bits[isa].reg != reg)
            continue;
        if ((!vec_index_matters(function) || vec_isa_bits[isa].index == index) && vec_host_has(isa))
            mask |= 1u << vec_isa_bits[isa].bit;
    }
    if (function == 0xD && index == 0 && reg == 0)
        mask |= XCR0_X87 | XCR0_SSE | (vec_host_has(ISA_AVX) ? XCR0_AVX : 0);
    if (function == 0xD && index == 2 && vec_host_has(ISA_AVX)) /* size and place of the YMM component */
        mask |= reg == 0 ? 256 : reg == 1 ? AREA_YMM : 0;
    if (function == 0x80000001 && reg == 3) /* AMD repeats these of function 1 */
        mask |= vec_cpuid_mask(1, 0, 3) & (1u << 0 | 1u << 15 | 1u << 23 | 1u << 24);
    return mask;
}
