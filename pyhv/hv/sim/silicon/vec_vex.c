/* AVX, AVX2, FMA, F16C: the VEX-encoded instructions, decoding and execution.
 *
 * Most of them are the SSE instruction of the same map, prefix and opcode with a third operand and twice the width, so
 * their descriptions are made from those; what AVX adds has a table. Masked moves and gathers read only the elements
 * that are asked for, and are written out. */
#include "vec.h"

static const Op *vex_op_stub(Cpu *cpu, const Op *op);

/* ---- what AVX adds ---- */
#define L256 VF_L256
#define V_ VF_VVVV
static const struct { uint8_t map, prefix, opcode; VecInfo info; } vex_added[] = {
    {2, PFX_66, 0x0C, {ISA_AVX, OPND_X, OPND_X, 16, V_ | VF_W0}},
    {2, PFX_66, 0x0D, {ISA_AVX, OPND_X, OPND_X, 16, V_ | VF_W0}},
    {2, PFX_66, 0x0E, {ISA_AVX, OPND_X, OPND_X, 16, VF_NO_DEST | VF_EFLAGS | VF_W0}},
    {2, PFX_66, 0x0F, {ISA_AVX, OPND_X, OPND_X, 16, VF_NO_DEST | VF_EFLAGS | VF_W0}},
    {2, PFX_66, 0x13, {ISA_F16C, OPND_X, OPND_X, 8, VF_FP | VF_W0}},
    {2, PFX_66, 0x16, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | L256 | VF_W0}},
    {2, PFX_66, 0x18, {ISA_AVX, OPND_X, OPND_X, 4, VF_FIXED | VF_W0 | VF_REG_AVX2}},
    {2, PFX_66, 0x19, {ISA_AVX, OPND_X, OPND_X, 8, VF_FIXED | L256 | VF_W0 | VF_REG_AVX2}},
    {2, PFX_66, 0x1A, {ISA_AVX, OPND_X, OPND_X, 16, VF_FIXED | L256 | VF_W0 | VF_MEM_ONLY}},
    {2, PFX_66, 0x36, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | L256 | VF_W0}},
    {2, PFX_66, 0x45, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | VF_ENCODE_W}},
    {2, PFX_66, 0x46, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | VF_W0}},
    {2, PFX_66, 0x47, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | VF_ENCODE_W}},
    {2, PFX_66, 0x58, {ISA_AVX2, OPND_X, OPND_X, 4, VF_FIXED | VF_W0}},
    {2, PFX_66, 0x59, {ISA_AVX2, OPND_X, OPND_X, 8, VF_FIXED | VF_W0}},
    {2, PFX_66, 0x5A, {ISA_AVX2, OPND_X, OPND_X, 16, VF_FIXED | L256 | VF_W0 | VF_MEM_ONLY}},
    {2, PFX_66, 0x78, {ISA_AVX2, OPND_X, OPND_X, 1, VF_FIXED | VF_W0}},
    {2, PFX_66, 0x79, {ISA_AVX2, OPND_X, OPND_X, 2, VF_FIXED | VF_W0}},
    {3, PFX_66, 0x00, {ISA_AVX2, OPND_X, OPND_X, 16, L256 | VF_W1}},
    {3, PFX_66, 0x01, {ISA_AVX2, OPND_X, OPND_X, 16, L256 | VF_W1}},
    {3, PFX_66, 0x02, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | VF_W0}},
    {3, PFX_66, 0x04, {ISA_AVX, OPND_X, OPND_X, 16, VF_W0}},
    {3, PFX_66, 0x05, {ISA_AVX, OPND_X, OPND_X, 16, VF_W0}},
    {3, PFX_66, 0x06, {ISA_AVX, OPND_X, OPND_X, 16, V_ | L256 | VF_W0}},
    {3, PFX_66, 0x18, {ISA_AVX, OPND_X, OPND_X, 16, V_ | VF_FIXED | L256 | VF_W0}},
    {3, PFX_66, 0x19, {ISA_AVX, OPND_X, OPND_X, 16, VF_DEST_RM | VF_FIXED | L256 | VF_W0}},
    {3, PFX_66, 0x1D, {ISA_F16C, OPND_X, OPND_X, 8, VF_DEST_RM | VF_FP | VF_W0}},
    {3, PFX_66, 0x38, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | VF_FIXED | L256 | VF_W0}},
    {3, PFX_66, 0x39, {ISA_AVX2, OPND_X, OPND_X, 16, VF_DEST_RM | VF_FIXED | L256 | VF_W0}},
    {3, PFX_66, 0x46, {ISA_AVX2, OPND_X, OPND_X, 16, V_ | L256 | VF_W0}},
    {3, PFX_66, 0x4A, {ISA_AVX, OPND_X, OPND_X, 16, V_ | VF_XMM0 | VF_W0}},
    {3, PFX_66, 0x4B, {ISA_AVX, OPND_X, OPND_X, 16, V_ | VF_XMM0 | VF_W0}},
    {3, PFX_66, 0x4C, {ISA_AVX, OPND_X, OPND_X, 16, V_ | VF_XMM0 | VF_W0}},
};
#undef L256
#undef V_

static bool vex_in(const uint8_t *list, unsigned count, unsigned opcode)
{
    for (unsigned i = 0; i < count; i++)
        if (list[i] == opcode)
            return true;
    return false;
}
#define VEX_IN(opcode, ...) \
    vex_in((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), opcode)

/* The first source of the SSE form is VEX.vvvv here. */
static bool vex_has_vvvv(unsigned map, unsigned prefix, unsigned o, bool mem)
{
    const bool scalar = prefix == PFX_F3 || prefix == PFX_F2;
    switch (map) {
    case 1:
        if (o == 0x10 || o == 0x11)
            return scalar && !mem;
        if (o == 0x12 || o == 0x16)
            return !scalar;
        if (VEX_IN(o, 0x2A, 0x51, 0x52, 0x53, 0x5A))
            return scalar;
        return VEX_IN(o, 0x14, 0x15, 0x7C, 0x7D, 0xC2, 0xC4, 0xC6) || (o >= 0x54 && o <= 0x5F && o != 0x5B) ||
               (o >= 0x60 && o <= 0x6D) || (o >= 0x71 && o <= 0x76) ||
               (o >= 0xD0 && o <= 0xFE && !VEX_IN(o, 0xD6, 0xD7, 0xE6, 0xE7, 0xF0));
    case 2:
        return o <= 0x0B || VEX_IN(o, 0x28, 0x29, 0x2B, 0xCF) || (o >= 0x37 && o <= 0x40) || (o >= 0xDC && o <= 0xDF);
    default:
        return (o >= 0x0A && o <= 0x0F) || (o >= 0x20 && o <= 0x22) || (o >= 0x40 && o <= 0x44) || o == 0xCE ||
               o == 0xCF;
    }
}

/* Only 128 bits wide. */
static bool vex_narrow(unsigned map, unsigned prefix, unsigned o)
{
    switch (map) {
    case 1:
        if (o == 0x12 || o == 0x16)
            return prefix == PFX_NONE || prefix == PFX_66;
        return VEX_IN(o, 0x13, 0x17, 0x6E, 0x7E, 0xC4, 0xC5, 0xD6);
    case 2: return o == 0x41 || o == 0xDB;
    default:
        return (o >= 0x14 && o <= 0x17) || (o >= 0x20 && o <= 0x22) || o == 0x41 || (o >= 0x60 && o <= 0x63) ||
               o == 0xDF;
    }
}

/* L is ignored. */
static bool vex_scalar(unsigned map, unsigned prefix, unsigned o)
{
    if (map == 3)
        return o == 0x0A || o == 0x0B;
    if (map != 1)
        return false;
    if (o == 0x2E || o == 0x2F)
        return true;
    return (prefix == PFX_F3 || prefix == PFX_F2) &&
           (VEX_IN(o, 0x10, 0x11, 0x2A, 0x2C, 0x2D, 0xC2) || (o >= 0x51 && o <= 0x5F && o != 0x5B));
}

/* 256 bits came with AVX2. */
static bool vex_integer(unsigned map, unsigned o)
{
    switch (map) {
    case 1: return o >= 0x60 && !VEX_IN(o, 0x6F, 0x7C, 0x7D, 0x7F, 0xC2, 0xC6, 0xD0, 0xE6, 0xE7, 0xF0);
    case 2: return o != 0x17;
    default: return o == 0x0E || o == 0x0F || o == 0x42;
    }
}

static bool vex_from_sse(const Cpu *cpu, const Insn *insn, unsigned prefix, VecInfo *info)
{
    const unsigned map = insn->map, o = insn->opcode;
    const bool mem = insn->mod != 3;
    const VecInfo *sse = vec_info(map, prefix, o);
    if (sse == NULL || sse->reg == OPND_M || sse->rm == OPND_M || (sse->flags & VF_XMM0) || sse->isa == ISA_SSE4A ||
        sse->isa == ISA_SHA)
        return false;
    *info = *sse;
    info->flags &= ~VF_ALIGN;
    bool wide = insn->vex_l;
    if (vex_scalar(map, prefix, o))
        wide = false, info->flags |= VF_LIG;
    else if (wide && vex_narrow(map, prefix, o))
        return false;
    info->isa = wide && vex_integer(map, o) ? ISA_AVX2 : ISA_AVX;
    if (sse->isa == ISA_AES || sse->isa == ISA_CLMUL || sse->isa == ISA_GFNI) {
        if (!vec_guest_has(cpu, sse->isa))
            return false;
        info->isa = !wide || sse->isa == ISA_GFNI ? ISA_AVX : sse->isa == ISA_AES ? ISA_VAES : ISA_VCLMUL;
        if (sse->isa == ISA_GFNI)
            info->flags |= map == 2 ? VF_W0 : VF_W1;
    }
    if (map == 1 && o == 0x12 && prefix == PFX_F2 && wide) /* VMOVDDUP: 8 bytes, or 32 */
        info->msize = 16;
    if (vex_has_vvvv(map, prefix, o, mem))
        info->flags |= info->flags & VF_GROUP ? VF_VVVV | VF_DEST_VVVV : VF_VVVV;
    if (info->flags & VF_GROUP)
        info->flags &= ~VF_DEST_RM;
    return true;
}

static bool vex_describe(const Cpu *cpu, const Insn *insn, unsigned prefix, VecInfo *info)
{
    const bool w = insn->rex & 8;
    const unsigned o = insn->opcode;
    if (insn->map == 2 && prefix == PFX_66 && (o & 0xF) >= 6 && o >= 0x96 && o <= 0xBF) { /* FMA */
        const bool scalar = (o & 0xF) >= 9 && (o & 1);
        *info = (VecInfo){ISA_FMA, OPND_X, OPND_X, scalar ? (w ? 8 : 4) : 16,
                          VF_FP | VF_VVVV | VF_ENCODE_W | (w ? VF_TINY_DOUBLE : VF_TINY_SINGLE) |
                              (scalar ? VF_SCALAR | VF_LIG : 0)};
        return true;
    }
    for (unsigned i = 0; i < sizeof(vex_added) / sizeof(vex_added[0]); i++)
        if (vex_added[i].map == insn->map && vex_added[i].prefix == prefix && vex_added[i].opcode == o) {
            *info = vex_added[i].info;
            return true;
        }
    return vex_from_sse(cpu, insn, prefix, info);
}

/* ---- execution ---- */
void vex_ready(Cpu *cpu, const Op *op)
{
    if (!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & (XCR0_SSE | XCR0_AVX)) != (XCR0_SSE | XCR0_AVX) ||
        !(cpu->cr0 & CR0_PE) || (cpu->rflags & FLAG_VM))
        RAISE_UD(cpu, op);
    if (cpu->cr0 & CR0_TS)
        raise_exception(cpu, op, EXC_NM);
}

static void vex_get(Cpu *cpu, unsigned i, uint8_t *out)
{
    memcpy(out, area_xmm(cpu, i), 16);
    memcpy(out + 16, area_ymm_high(cpu, i), 16);
}

static void vex_put(Cpu *cpu, unsigned i, const uint8_t *in)
{
    memcpy(area_xmm(cpu, i), in, 16);
    memcpy(area_ymm_high(cpu, i), in + 16, 16);
}

/* VEX.vvvv of an op that vex_decode made. */
static unsigned vex_vvvv(const Op *op) { return op->osize; }

static const Op *vex_op_stub(Cpu *cpu, const Op *op)
{
    const VecStub *stub = op->ptr;
    const VecInfo *info = &stub->info;
    const uint32_t f = info->flags;
    const bool mem = op->flags & OPF_MEM;
    vex_ready(cpu, op);
    VecFrame frame;
    if (info->reg == OPND_X)
        vex_get(cpu, op->reg, frame.a);
    else if (info->reg == OPND_G)
        frame.gpr = cpu->r[op->reg & 15];
    if (f & VF_VVVV)
        vex_get(cpu, vex_vvvv(op), frame.v);
    if (f & VF_XMM0)
        vex_get(cpu, stub->imm >> 4, frame.x0);
    else if (f & VF_STR_MASK)
        vex_get(cpu, 0, frame.x0);
    uint64_t linear = 0;
    if (!mem) {
        if (info->rm == OPND_X)
            vex_get(cpu, op->rm, frame.b);
        else
            frame.gpr = cpu->r[op->rm & 15];
    } else {
        const int align = f & VF_ALIGN_ALWAYS ? ALIGN_ALWAYS : ALIGN_NO;
        if (f & VF_DEST_RM) {
            linear = op_linear(cpu, op, info->msize, ACC_WRITE);
            vec_check_alignment(cpu, op, linear, info->msize, align);
        } else {
            vec_read(cpu, op, frame.b, info->msize, align);
        }
    }
    if (f & VF_STR_LENGTHS) {
        frame.rax = cpu->r[RAX];
        frame.rdx = cpu->r[RDX];
    }
    if (mem && (f & VF_DEST_RM) && (f & VF_FP)) /* before MXCSR can change */
        mem_probe(cpu, op, linear, info->msize, ACC_WRITE);
    if (f & VF_FP)
        vec_run_fp(cpu, op, stub, &frame);
    else
        stub->run.vec(&frame);
    if (f & VF_EFLAGS)
        set_status_flags(cpu, (uint32_t)frame.rflags & FLAGS_STATUS);
    if (f & VF_STR_INDEX)
        cpu->r[RCX] = (uint32_t)frame.rcx;
    if (f & VF_STR_MASK)
        vex_put(cpu, 0, frame.x0);
    if (f & VF_NO_DEST)
        NEXT;
    if (f & VF_DEST_VVVV)
        vex_put(cpu, vex_vvvv(op), frame.v);
    else if (!(f & VF_DEST_RM) && info->reg == OPND_X)
        vex_put(cpu, op->reg, frame.a);
    else if (!(f & VF_DEST_RM))
        cpu->r[op->reg & 15] = frame.gpr;
    else if (mem)
        mem_write(cpu, op, linear, frame.b, info->msize);
    else if (info->rm == OPND_X)
        vex_put(cpu, op->rm, frame.b);
    else
        cpu->r[op->rm & 15] = frame.gpr;
    NEXT;
}

/* VZEROUPPER, VZEROALL. Outside 64-bit mode registers 8-15 are left alone. */
static const Op *vex_op_zero(Cpu *cpu, const Op *op)
{
    vex_ready(cpu, op);
    const unsigned size = cpu->code_size == 8 ? 256 : 128;
    memset(cpu->fpu.area + AREA_YMM, 0, size);
    if (op->reg)
        memset(cpu->fpu.area + AREA_XMM, 0, size);
    NEXT;
}

/* ---- masked moves: VMASKMOVPS/PD, VPMASKMOVD/Q. op->imm: element size, vector size << 8, a store << 16 ---- */
static const Op *vex_op_maskmov(Cpu *cpu, const Op *op)
{
    const unsigned element = op->imm & 255, size = op->imm >> 8 & 255;
    const bool store = op->imm >> 16 & 1;
    const int acc = store ? ACC_WRITE : ACC_READ;
    uint8_t mask[32], value[32] = {0};
    vex_ready(cpu, op);
    vex_get(cpu, vex_vvvv(op), mask);
    const uint64_t linear = op_linear(cpu, op, size, acc);
    if (store)
        vex_get(cpu, op->reg, value);
    for (unsigned at = 0; at < size; at += element)
        if (mask[at + element - 1] & 0x80) {
            const uint64_t where = (linear + at) & cpu->linmask;
            if (store)
                mem_probe(cpu, op, where, element, ACC_WRITE);
            else
                mem_read(cpu, op, where, value + at, element);
        }
    if (!store)
        vex_put(cpu, op->reg, value);
    else
        for (unsigned at = 0; at < size; at += element)
            if (mask[at + element - 1] & 0x80)
                mem_write(cpu, op, (linear + at) & cpu->linmask, value + at, element);
    NEXT;
}

/* ---- gathers. op->imm: element size, index size << 8, number of elements << 16; op->index is the vector of indexes.
 * Done elements stay done when a later one faults: their mask is cleared. ---- */
static const Op *vex_op_gather(Cpu *cpu, const Op *op)
{
    const unsigned element = op->imm & 255, index_size = op->imm >> 8 & 255, count = op->imm >> 16 & 255;
    uint8_t mask[32], value[32], indexes[32];
    vex_ready(cpu, op);
    vex_get(cpu, vex_vvvv(op), mask);
    vex_get(cpu, op->reg, value);
    vex_get(cpu, op->rm, indexes);
    for (unsigned i = 0; i < count; i++) /* the mask takes its sign's value first */
        memset(mask + i * element, mask[(i + 1) * element - 1] & 0x80 ? 0xFF : 0, element);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *m = mask + i * element;
        if (!m[0])
            continue;
        int64_t index;
        if (index_size == 4) {
            int32_t narrow;
            memcpy(&narrow, indexes + 4 * i, 4);
            index = narrow;
        } else {
            memcpy(&index, indexes + 8 * i, 8);
        }
        uint64_t offset = cpu->r[op->base] + ((uint64_t)index << op->scale) + (uint64_t)(int64_t)op->disp;
        if (op->asize < 8)
            offset = (uint32_t)offset;
        mem_read(cpu, op, seg_linear(cpu, op, op->seg, offset, element, ACC_READ), value + i * element, element);
        memset(m, 0, element);
        if (cpu->mmio_have) /* being restarted for a device's answers: it must go the same way again */
            continue;
        vex_put(cpu, op->reg, value);
        vex_put(cpu, vex_vvvv(op), mask);
    }
    memset(value + count * element, 0, 32 - count * element);
    memset(mask, 0, 32);
    vex_put(cpu, op->reg, value);
    vex_put(cpu, vex_vvvv(op), mask);
    NEXT;
}

/* ---- VEX forms of what vec_misc.c has ---- */
static const Op *vex_op_ldmxcsr(Cpu *cpu, const Op *op)
{
    vex_ready(cpu, op);
    return misc_ldmxcsr(cpu, op);
}

static const Op *vex_op_stmxcsr(Cpu *cpu, const Op *op)
{
    vex_ready(cpu, op);
    return misc_stmxcsr(cpu, op);
}

static const Op *vex_op_maskmovdqu(Cpu *cpu, const Op *op)
{
    vex_ready(cpu, op);
    return misc_maskmovdqu(cpu, op);
}

/* ---- decoding ---- */
static bool vex_special(const Cpu *cpu, const Insn *insn, unsigned prefix, Op *op, bool *defined)
{
    const unsigned o = insn->opcode;
    const bool mem = insn->has_modrm && insn->mod != 3, w = insn->rex & 8;
    op->reg = insn->reg;
    op->rm = insn->rm;
    op->osize = insn->vex_v;
    if (insn->map == 1 && o == 0x77) {
        *defined = prefix == PFX_NONE && insn->vex_v == 0 && vec_guest_has(cpu, ISA_AVX);
        op->fn = vex_op_zero;
        op->reg = insn->vex_l;
        return true;
    }
    if (insn->map == 1 && o == 0xAE) { /* VLDMXCSR, VSTMXCSR */
        const unsigned digit = insn->modrm >> 3 & 7;
        *defined = prefix == PFX_NONE && mem && !insn->vex_l && insn->vex_v == 0 && (digit == 2 || digit == 3) &&
                   vec_guest_has(cpu, ISA_AVX);
        op->fn = digit == 2 ? vex_op_ldmxcsr : vex_op_stmxcsr;
        return true;
    }
    if (insn->map == 1 && o == 0xF7) { /* VMASKMOVDQU */
        *defined = prefix == PFX_66 && !mem && !insn->vex_l && insn->vex_v == 0 && vec_guest_has(cpu, ISA_AVX);
        op->fn = vex_op_maskmovdqu;
        return true;
    }
    if (insn->map != 2 || prefix != PFX_66)
        return false;
    if ((o >= 0x2C && o <= 0x2F) || o == 0x8C || o == 0x8E) {
        const bool integer = o >= 0x8C, store = integer ? o == 0x8E : o >= 0x2E;
        const unsigned element = integer ? (w ? 8 : 4) : o & 1 ? 8 : 4;
        *defined = mem && (integer || !w) && vec_guest_has(cpu, integer ? ISA_AVX2 : ISA_AVX);
        op->fn = vex_op_maskmov;
        op->imm = element | (insn->vex_l ? 32 : 16) << 8 | (int)store << 16;
        return true;
    }
    if (o >= 0x90 && o <= 0x93) {
        const unsigned element = w ? 8 : 4, index_size = o & 1 ? 8 : 4, wider = w || (o & 1) ? 8 : 4;
        const unsigned index = (insn->bytes[insn->opcode_at + 2] >> 3 & 7u) | (insn->rex & 2u) << 2;
        *defined = mem && insn->asize != 2 && (insn->modrm & 7) == 4 && vec_guest_has(cpu, ISA_AVX2) &&
                   insn->reg != insn->vex_v && insn->reg != index && index != insn->vex_v;
        op->fn = vex_op_gather;
        op->rm = (uint8_t)index;
        op->index = REG_ZERO;
        op->scale = insn->bytes[insn->opcode_at + 2] >> 6;
        op->imm = element | index_size << 8 | (insn->vex_l ? 32 : 16) / wider << 16;
        return true;
    }
    return false;
}

bool vex_decode(Cpu *cpu, const Insn *insn, unsigned prefix, Op *op)
{
    bool defined = false;
    VecInfo info;
    if (insn->vex == 0xFF)
        return false;
    if (vex_special(cpu, insn, prefix, op, &defined))
        return defined;
    if (!insn->has_modrm || !vex_describe(cpu, insn, prefix, &info))
        return false;
    const bool mem = insn->mod != 3, w = insn->rex & 8;
    const uint32_t f = info.flags;
    if ((mem && (f & VF_REG_ONLY)) || (!mem && (f & VF_MEM_ONLY)) || (insn->vex_v != 0 && !(f & VF_VVVV)) ||
        ((f & VF_W0) && w) || ((f & VF_W1) && !w) || ((f & VF_L256) && !insn->vex_l))
        return false;
    if ((f & VF_GROUP) && !vec_group_valid(insn->opcode, prefix, insn->modrm >> 3 & 7))
        return false;
    const bool wide = insn->vex_l && !(f & VF_LIG);
    if (wide && !(f & VF_FIXED))
        info.msize *= 2;
    if (!vec_guest_has(cpu, info.isa) || !vec_host_has(info.isa) || !vec_guest_has(cpu, ISA_AVX) ||
        ((f & VF_REG_AVX2) && !mem && !vec_guest_has(cpu, ISA_AVX2)))
        return false;
    op->reg = insn->reg;
    op->rm = insn->rm;
    op->osize = insn->vex_v;
    if (vex_direct(insn, prefix, wide, op))
        return true;
    VecStub *stub = vec_stub_vex(cpu->machine, insn, prefix, &info, wide);
    op->fn = stub == NULL ? vec_no_stub : vex_op_stub;
    op->ptr = stub;
    return true;
}
