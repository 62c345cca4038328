/* Vector instructions of a shape of their own: implied addresses, MXCSR, EMMS, SSE4A fields. */
#include "vec.h"

static const Op *misc_emms(Cpu *cpu, const Op *op)
{
    mmx_ready(cpu, op);
    x87_set_top(cpu, 0);
    cpu->fpu.area[AREA_FTW] = 0;
    NEXT;
}

/* ---- LDMXCSR, STMXCSR ---- */
const Op *misc_ldmxcsr(Cpu *cpu, const Op *op)
{
    sse_ready(cpu, op);
    uint32_t value;
    vec_read(cpu, op, &value, 4, ALIGN_NO);
    if ((value & ~0xFFFFu) && (value & ~vec_mxcsr_mask(cpu)))
        RAISE_GP0(cpu, op);
    area_set32(cpu, AREA_MXCSR, value);
    NEXT;
}

const Op *misc_stmxcsr(Cpu *cpu, const Op *op)
{
    sse_ready(cpu, op);
    uint32_t value = area32(cpu, AREA_MXCSR);
    vec_write(cpu, op, &value, 4, ALIGN_NO);
    NEXT;
}

/* ---- MASKMOVDQU, MASKMOVQ: bytes of reg, chosen by rm's top bits, to DS:rDI ---- */
static void misc_masked_store(Cpu *cpu, const Op *op, const uint8_t *value, const uint8_t *mask, unsigned size)
{
    uint64_t offset = cpu->r[RDI];
    if (op->asize == 4)
        offset = (uint32_t)offset;
    else if (op->asize == 2)
        offset = (uint16_t)offset;
    uint64_t linear = seg_linear(cpu, op, op->seg, offset, size, ACC_WRITE);
    for (int store = 0; store < 2; store++)
        for (unsigned from = 0, to; from < size; from = to + 1) {
            for (to = from; to < size && mask[to] & 0x80; to++)
                ;
            if (to == from)
                continue;
            uint64_t at = (linear + from) & cpu->linmask;
            if (store)
                mem_write(cpu, op, at, value + from, to - from);
            else
                mem_probe(cpu, op, at, to - from, ACC_WRITE);
        }
}

const Op *misc_maskmovdqu(Cpu *cpu, const Op *op)
{
    sse_ready(cpu, op);
    misc_masked_store(cpu, op, area_xmm(cpu, op->reg), area_xmm(cpu, op->rm), 16);
    NEXT;
}

static const Op *misc_maskmovq(Cpu *cpu, const Op *op)
{
    mmx_ready(cpu, op);
    misc_masked_store(cpu, op, mmx_register(cpu, op->reg & 7), mmx_register(cpu, op->rm & 7), 8);
    mmx_enter(cpu);
    NEXT;
}

/* ---- EXTRQ, INSERTQ with immediates: length, then index of the field ---- */
static uint64_t misc_field_mask(unsigned length) { return length == 0 ? ~0ull : (1ull << length) - 1; }

static const Op *misc_extrq(Cpu *cpu, const Op *op)
{
    sse_ready(cpu, op);
    unsigned length = op->imm & 63, index = op->imm >> 8 & 63;
    Unaligned64 *x = (Unaligned64 *)area_xmm(cpu, op->rm);
    x[0] = x[0] >> index & misc_field_mask(length);
    x[1] = 0;
    NEXT;
}

static const Op *misc_insertq(Cpu *cpu, const Op *op)
{
    sse_ready(cpu, op);
    unsigned length = op->imm & 63, index = op->imm >> 8 & 63;
    uint64_t mask = misc_field_mask(length);
    Unaligned64 *x = (Unaligned64 *)area_xmm(cpu, op->reg);
    const Unaligned64 *y = (const Unaligned64 *)area_xmm(cpu, op->rm);
    x[0] = (x[0] & ~(mask << index)) | (y[0] & mask) << index;
    x[1] = 0;
    NEXT;
}

/* ---- decoding ---- */
static bool misc_set(Op *op, OpFn *fn, bool defined)
{
    if (defined)
        op->fn = fn;
    return defined;
}

/* Takes what is special: returns true, and `*defined` says whether the instruction exists. Fences, prefetches, cache
 * control and MOVNTI are the integer unit's. */
bool vec_special(Cpu *cpu, const Insn *insn, unsigned prefix, Op *op, bool *defined)
{
    const bool mem = insn->has_modrm && insn->mod != 3;
    const unsigned digit = insn->modrm >> 3 & 7;
    if (insn->map != 1)
        return false;
    op->reg = insn->reg;
    op->rm = insn->rm;
    switch (insn->opcode) {
    case 0x77:
        *defined = misc_set(op, misc_emms, prefix == PFX_NONE && vec_guest_has(cpu, ISA_MMX));
        return true;
    case 0x78:
        if (prefix == PFX_66)
            *defined = misc_set(op, misc_extrq, !mem && digit == 0 && vec_guest_has(cpu, ISA_SSE4A));
        else if (prefix == PFX_F2)
            *defined = misc_set(op, misc_insertq, !mem && vec_guest_has(cpu, ISA_SSE4A));
        return true;
    case 0xF7:
        if (prefix == PFX_66)
            *defined = misc_set(op, misc_maskmovdqu, !mem && vec_guest_has(cpu, ISA_SSE2));
        else if (prefix == PFX_NONE)
            *defined = misc_set(op, misc_maskmovq, !mem && vec_guest_has(cpu, ISA_MMXEXT));
        return true;
    case 0xC7:
        *defined = xsave_decode(cpu, insn, op);
        return true;
    case 0xAE:
        break;
    default:
        return false;
    }
    if (digit == 2 || digit == 3)
        *defined = misc_set(op, digit == 2 ? misc_ldmxcsr : misc_stmxcsr,
                            mem && prefix == PFX_NONE && vec_guest_has(cpu, ISA_SSE));
    else
        *defined = xsave_decode(cpu, insn, op);
    return true;
}
