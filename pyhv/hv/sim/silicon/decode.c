/* Instruction formats: prefixes, opcode maps, ModRM, displacement, immediate (APM vol. 3 chapter 1). */
#include "access.h"
#include "block.h"
#include "decode.h"

enum { F_M = 1, F_I8 = 2, F_IZ = 4, F_I16 = 8, F_IV = 16, F_FAR = 32, F_MOFFS = 64, F_ENTER = 128 };

/* Map 0. Groups F6 and F7 take their immediate by ModRM.reg. */
static const u8 format0[256] = {
#define ALU_FORMAT F_M, F_M, F_M, F_M, F_I8, F_IZ, 0, 0
    ALU_FORMAT, ALU_FORMAT, ALU_FORMAT, ALU_FORMAT, ALU_FORMAT, ALU_FORMAT, ALU_FORMAT, ALU_FORMAT,
#undef ALU_FORMAT
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 40 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, F_M, F_M, 0, 0, 0, 0, F_IZ, F_M | F_IZ, F_I8, F_M | F_I8, 0, 0, 0, 0, /* 60 */
    F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8,
    F_M | F_I8, F_M | F_IZ, F_M | F_I8, F_M | F_I8, F_M, F_M, F_M, F_M, F_M, F_M, F_M, F_M, F_M, F_M, F_M, F_M, /* 80 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, F_FAR, 0, 0, 0, 0, 0,
    F_MOFFS, F_MOFFS, F_MOFFS, F_MOFFS, 0, 0, 0, 0, F_I8, F_IZ, 0, 0, 0, 0, 0, 0, /* A0 */
    F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_IV, F_IV, F_IV, F_IV, F_IV, F_IV, F_IV, F_IV,
    F_M | F_I8, F_M | F_I8, F_I16, 0, F_M, F_M, F_M | F_I8, F_M | F_IZ, F_ENTER, 0, F_I16, 0, 0, F_I8, 0, 0, /* C0 */
    F_M, F_M, F_M, F_M, F_I8, F_I8, 0, 0, F_M, F_M, F_M, F_M, F_M, F_M, F_M, F_M,
    F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_I8, F_IZ, F_IZ, F_FAR, F_I8, 0, 0, 0, 0, /* E0 */
    0, 0, 0, 0, 0, 0, F_M, F_M, 0, 0, 0, 0, 0, 0, F_M, F_M,
};

static unsigned format1(unsigned opcode)
{
    switch (opcode) {
    case 0x05: case 0x06: case 0x07: case 0x08: case 0x09: case 0x0B: case 0x0E: case 0x0A: case 0x0C:
    case 0x30 ... 0x37: case 0x77: case 0xA0: case 0xA1: case 0xA2: case 0xA8: case 0xA9: case 0xAA:
    case 0xC8 ... 0xCF:
        return 0;
    case 0x80 ... 0x8F:
        return F_IZ;
    case 0x0F: /* 3DNow!: the opcode follows as an immediate */
    case 0x70 ... 0x73: case 0xA4: case 0xAC: case 0xBA: case 0xC2: case 0xC4: case 0xC5: case 0xC6:
        return F_M | F_I8;
    default:
        return F_M;
    }
}

typedef struct Reader {
    const u8 *bytes;
    unsigned at, avail;
} Reader;

static int parse_modrm(Insn *i, Reader *r)
{
    if (r->at >= r->avail)
        return 0;
    u8 b = r->bytes[r->at++];
    i->has_modrm = 1;
    i->modrm = b;
    i->mod = b >> 6;
    i->reg = (u8)((b >> 3 & 7) | (i->rex & 4) << 1);
    i->rm = (u8)((b & 7) | (i->rex & 1) << 3);
    i->base = i->index = REG_ZERO;
    i->scale = 0;
    i->disp = 0;
    if (i->mod == 3)
        return 1;
    unsigned disp = i->mod == 1 ? 1 : i->mod == 2 ? 4 : 0;
    bool stack = false;
    if (i->asize == 2) {
        static const u8 bases[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
        static const u8 indexes[8] = {RSI, RDI, RSI, RDI, REG_ZERO, REG_ZERO, REG_ZERO, REG_ZERO};
        unsigned rm = b & 7;
        disp = i->mod == 1 ? 1 : i->mod == 2 ? 2 : 0;
        i->base = bases[rm];
        i->index = indexes[rm];
        if (i->mod == 0 && rm == 6) {
            i->base = REG_ZERO;
            disp = 2;
        }
        stack = i->base == RBP;
    } else {
        unsigned rm = b & 7;
        if (rm == 4) {
            if (r->at >= r->avail)
                return 0;
            u8 sib = r->bytes[r->at++];
            unsigned index = (sib >> 3 & 7) | (i->rex & 2u) << 2, base = (sib & 7) | (i->rex & 1u) << 3;
            if (index != 4) {
                i->index = (u8)index;
                i->scale = sib >> 6;
            }
            if ((sib & 7) == 5 && i->mod == 0)
                disp = 4;
            else
                i->base = (u8)base;
        } else if (rm == 5 && i->mod == 0) {
            disp = 4;
            if (i->mode == 8)
                i->base = REG_RIP;
        } else {
            i->base = i->rm;
        }
        stack = i->base == RSP || i->base == RBP;
    }
    if (i->seg == 0xFF)
        i->seg = stack ? SEG_SS : SEG_DS;
    if (r->at + disp > r->avail)
        return 0;
    u32 d = 0;
    memcpy(&d, r->bytes + r->at, disp);
    i->disp = disp == 1 ? (int8_t)d : disp == 2 ? (int16_t)d : (int32_t)d;
    r->at += disp;
    return 1;
}

static int parse_immediate(Insn *i, Reader *r, unsigned size, bool is_signed)
{
    if (r->at + size > r->avail)
        return 0;
    u64 v = 0;
    memcpy(&v, r->bytes + r->at, size);
    r->at += size;
    i->imm_size = (u8)size;
    i->imm = is_signed ? sign_extend(v, size) : (i64)v;
    return 1;
}

static int insn_parse(Insn *i, const uint8_t *bytes, unsigned avail, unsigned mode)
{
    Reader r = {bytes, 0, avail > 15 ? 15 : avail};
    int too_few = avail >= 15 ? -1 : 0;
    memset(i, 0, sizeof *i);
    i->mode = (mode & MODE_SIZE_MASK) == MODE_64 ? 8 : (mode & MODE_SIZE_MASK) == MODE_32 ? 4 : 2;
    i->seg = 0xFF;
    bool has67 = false;
    u8 b;
    for (;;) {
        if (r.at >= r.avail)
            return too_few;
        b = bytes[r.at++];
        if (i->mode == 8 && (b & 0xF0) == 0x40) {
            i->rex = b;
            continue;
        }
        bool prefix = true;
        switch (b) {
        case 0x26: i->seg = i->mode == 8 ? i->seg : SEG_ES; break;
        case 0x2E: i->seg = i->mode == 8 ? i->seg : SEG_CS; break;
        case 0x36: i->seg = i->mode == 8 ? i->seg : SEG_SS; break;
        case 0x3E: i->seg = i->mode == 8 ? i->seg : SEG_DS; break;
        case 0x64: i->seg = SEG_FS; break;
        case 0x65: i->seg = SEG_GS; break;
        case 0x66: i->has66 = 1; break;
        case 0x67: has67 = true; break;
        case 0xF0: i->lock = 1; break;
        case 0xF2: case 0xF3: i->rep = b; break;
        default: prefix = false;
        }
        if (!prefix)
            break;
        i->rex = 0; /* a REX not right before the opcode does not count */
    }
    i->asize = i->mode == 8 ? (has67 ? 4 : 8) : (i->mode == 4) == has67 ? 2 : 4;
    i->opcode_at = (u8)(r.at - 1);
    unsigned format;
    if ((b == 0xC4 || b == 0xC5) && r.at < r.avail && (i->mode == 8 || bytes[r.at] >= 0xC0)) {
        /* VEX. With a REX, 66, F2, F3 or LOCK prefix it is #UD, which the decoder of its map sees by vex = 0xFF. */
        bool bad = i->rex || i->has66 || i->rep || i->lock;
        u8 p1 = bytes[r.at++], p2 = p1;
        i->vex = b == 0xC4 ? 3 : 2;
        i->map = 1;
        i->rex = (u8)(p1 & 0x80 ? 0x40 : 0x44);
        if (b == 0xC4) {
            if (r.at >= r.avail)
                return too_few;
            p2 = bytes[r.at++];
            i->map = p1 & 0x1F;
            i->rex = (u8)(0x40 | (p1 & 0x80 ? 0 : 4) | (p1 & 0x40 ? 0 : 2) | (p1 & 0x20 ? 0 : 1) | (p2 & 0x80 ? 8 : 0));
        }
        i->vex_v = (u8)(~p2 >> 3 & 15);
        i->vex_l = p2 >> 2 & 1;
        static const u8 reps[4] = {0, 0, 0xF3, 0xF2};
        i->has66 = (p2 & 3) == 1;
        i->rep = reps[p2 & 3];
        if (i->mode != 8) {
            i->rex &= 0x48;
            i->vex_v &= 7;
        }
        if (r.at >= r.avail)
            return too_few;
        i->opcode = bytes[r.at++];
        i->osize = i->rex & 8 ? 8 : 4;
        if (bad || i->map < 1 || i->map > 3) {
            i->vex = 0xFF;
            i->map = i->map < 1 || i->map > 3 ? 1 : i->map;
        }
        format = i->map == 1 ? format1(i->opcode) : i->map == 2 ? F_M : F_M | F_I8;
    } else {
        if (b == 0x0F) {
            if (r.at >= r.avail)
                return too_few;
            b = bytes[r.at++];
            i->map = 1;
            format = format1(b);
            if (b == 0x38 || b == 0x3A) {
                i->map = b == 0x38 ? 2 : 3;
                if (r.at >= r.avail)
                    return too_few;
                format = b == 0x38 ? F_M : F_M | F_I8;
                b = bytes[r.at++];
            }
        } else {
            format = format0[b];
        }
        i->opcode = b;
        i->opcode_at = (u8)(r.at - 1);
        i->osize = i->mode == 8 ? (i->rex & 8 ? 8 : i->has66 ? 2 : 4) : (i->mode == 4) == i->has66 ? 2 : 4;
    }
    if (i->vex)
        i->opcode_at = (u8)(r.at - 1);
    if (i->map == 1 && !i->vex && (b & 0xFC) == 0x20 && r.at < r.avail) {
        /* MOV to and from control and debug registers: mod is taken to be 3 whatever it is */
        Reader forced = {(const u8[]){bytes[r.at++] | 0xC0}, 0, 1};
        parse_modrm(i, &forced);
    } else if ((format & F_M) && !parse_modrm(i, &r)) {
        return too_few;
    }
    if (i->map == 0 && !i->vex && (b & 0xFE) == 0xF6 && (i->modrm & 0x30) == 0)
        format |= b & 1 ? F_IZ : F_I8;
    if (i->map == 1 && !i->vex && b == 0x78 && (i->has66 || i->rep == 0xF2))
        format |= F_I16; /* EXTRQ, INSERTQ: two bytes */
    if (i->seg == 0xFF)
        i->seg = SEG_DS;
    int ok = 1;
    unsigned z = i->osize == 2 ? 2 : 4;
    if (format & F_I8)
        ok = parse_immediate(i, &r, 1, true);
    else if (format & F_IZ)
        ok = parse_immediate(i, &r, z, true);
    else if (format & F_I16)
        ok = parse_immediate(i, &r, 2, false);
    else if (format & F_IV)
        ok = parse_immediate(i, &r, i->osize, true);
    else if (format & F_MOFFS)
        ok = parse_immediate(i, &r, i->asize, false);
    else if (format & F_FAR) {
        i64 offset;
        ok = parse_immediate(i, &r, i->osize == 2 ? 2 : 4, false);
        offset = i->imm;
        ok = ok && parse_immediate(i, &r, 2, false);
        i->imm = i->imm << 32 | offset;
    } else if (format & F_ENTER) {
        i64 size;
        ok = parse_immediate(i, &r, 2, false);
        size = i->imm;
        ok = ok && parse_immediate(i, &r, 1, false);
        i->imm = i->imm << 16 | size;
    }
    if (!ok)
        return too_few;
    i->len = (u8)r.at;
    memcpy(i->bytes, bytes, r.at);
    return (int)r.at;
}

static void op_trailer(Op *op, unsigned off)
{
    *op = (Op){.fn = op_end, .off = (uint16_t)off, .base = REG_ZERO, .index = REG_ZERO, .flags = OPF_LINK};
}

/* Whether a memory operand needs no segment checks in this mode, and no address truncation but linmask. */
static bool address_is_fast(const Insn *i, unsigned mode)
{
    if (i->mode == 8)
        return i->asize == 8;
    return (mode & MODE_FLAT) && i->asize == 4 && (i->seg == SEG_DS || i->seg == SEG_ES || i->seg == SEG_SS);
}

static unsigned byte_reg(const Insn *i, unsigned reg)
{
    if (i->rex || reg < 4)
        return reg * 8;
    return reg < 8 ? (reg - 4) * 8 + 1 : reg * 8;
}

static unsigned size_index(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

/* Compare and jump become one op; the jump's op stays behind it for its links. */
static void ops_optimize(Op *ops, unsigned n, unsigned mode)
{
    if (n < 2 || (mode & MODE_SIZE_MASK) == MODE_16)
        return;
    Op *jump = &ops[n - 1], *test = &ops[n - 2];
    unsigned cc;
    for (cc = 0; cc < 16; cc++)
        if (jump->fn == jcc_table[cc])
            break;
    if (cc == 16)
        return;
    static const struct { OpFn *from; OpFn *const *to; } fusions[] = {
        {cmp8_rr, fuse_cmp8rr_table}, {cmp8_ri, fuse_cmp8ri_table}, {cmp4_rr, fuse_cmp4rr_table},
        {cmp4_ri, fuse_cmp4ri_table}, {cmp1_rr, fuse_cmp1rr_table}, {cmp1_ri, fuse_cmp1ri_table},
        {test8_rr, fuse_test8rr_table}, {test8_ri, fuse_test8ri_table}, {test4_rr, fuse_test4rr_table},
        {test4_ri, fuse_test4ri_table}, {test1_rr, fuse_test1rr_table}, {test1_ri, fuse_test1ri_table},
    };
    for (unsigned k = 0; k < sizeof fusions / sizeof *fusions; k++)
        if (test->fn == fusions[k].from && fusions[k].to[cc]) {
            test->fn = fusions[k].to[cc];
            test->flags |= OPF_FUSED;
            return;
        }
}
