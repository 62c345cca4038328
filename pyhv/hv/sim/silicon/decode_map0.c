/* One-byte opcodes. */
#include "access.h"
#include "block.h"
#include "decode.h"

/* Fills the r/m and reg operands for `size` and picks the register, fast-memory or checked-memory handler. */
static void operands(const Insn *i, Op *op, unsigned size)
{
    op->osize = (u8)size;
    op->reg = (u8)(size == 1 ? byte_reg(i, i->reg) : i->reg);
    op->rm = (u8)(size == 1 ? byte_reg(i, i->rm) : i->rm);
}

#define PICK(r, f, g) (i->mod == 3 ? (r) : fast ? (f) : (g))
#define BY_SIZE(size, n, suffix) ((size) == 1 ? n##1##suffix : (size) == 2 ? n##2##suffix \
                                  : (size) == 4 ? n##4##suffix : n##8##suffix)
#define BY_SIZE3(size, n, suffix) ((size) == 2 ? n##2##suffix : (size) == 4 ? n##4##suffix : n##8##suffix)
/* handlers of an operation with register, fast and checked memory forms, at a size */
#define RM_FORMS(n) PICK(BY_SIZE(size, n##_r, ), BY_SIZE(size, n##_m, _f), BY_SIZE(size, n##_m, _g))

static OpFn *const *alu_row(unsigned size, unsigned kind)
{
    return size == 1 ? alu_table1[kind] : size == 2 ? alu_table2[kind] : size == 4 ? alu_table4[kind]
                                                                                   : alu_table8[kind];
}

enum { ALU_RR, ALU_RI, ALU_RM, ALU_MR = 4, ALU_MI = 6 };

static bool lockable(const Insn *i)
{
    unsigned b = i->opcode, r = i->modrm >> 3 & 7;
    if (!i->has_modrm || i->mod == 3)
        return false;
    if (i->map == 0)
        return (b < 0x38 && (b & 7) < 2) || ((b >= 0x80 && b <= 0x83) && r != 7) || b == 0x86 || b == 0x87
            || ((b & 0xFE) == 0xF6 && (r == 2 || r == 3)) || ((b & 0xFE) == 0xFE && r < 2);
    if (i->map == 1)
        return b == 0xAB || b == 0xB3 || b == 0xBB || (b == 0xBA && r >= 5) || b == 0xB0 || b == 0xB1 || b == 0xC0
            || b == 0xC1 || (b == 0xC7 && r == 1) || (b == 0x22 && false);
    return false;
}

/* A stack operation's operand size: 64-bit mode has 8 or 2. */
static unsigned stack_operand(const Insn *i)
{
    return i->mode == 8 ? (i->has66 && !(i->rex & 8) ? 2 : 8) : i->osize;
}

/* Near branches: 64 bits in 64-bit mode too, but for 66 without REX.W, which AMD's processors obey (Intel's do not). */
static int near_branch(const Insn *i, Op *op, unsigned mode, OpFn *direct, OpFn *general)
{
    op->osize = (u8)stack_operand(i);
    i64 delta = (i64)op->off + i->len + i->imm;
    if (!(mode & MODE_CSLIM) && i->mode >= 4 && op->osize != 2 && delta == (int32_t)delta && direct) {
        op->disp = (int32_t)delta;
        op->fn = direct;
        op->ptr = NULL;
        op->flags |= OPF_LINK;
    } else {
        op->fn = general;
    }
    return DECODE_END;
}

static int decode_group1(const Insn *i, Op *op, bool fast, unsigned size)
{
    operands(i, op, size);
    OpFn *const *row = alu_row(size, i->modrm >> 3 & 7);
    op->fn = i->mod == 3 ? row[ALU_RI] : fast ? row[ALU_MI] : row[ALU_MI + 1];
    return DECODE_NEXT;
}

static int decode_shift(const Insn *i, Op *op, unsigned size, i64 count)
{
    operands(i, op, size);
    op->reg = i->modrm >> 3 & 7;
    op->imm = count < 0 ? -1 : count & 0xFF;
    if (i->mod != 3) {
        op->fn = BY_SIZE(size, shift_m, );
        return DECODE_NEXT;
    }
    op->fn = BY_SIZE(size, shift_r, );
    if (count >= 0 && (op->reg & 3) != 2 && op->reg >= 4) {
        op->fn = op->reg == 5 ? BY_SIZE(size, shr_ri, ) : op->reg == 7 ? BY_SIZE(size, sar_ri, )
                                                                        : BY_SIZE(size, shl_ri, );
    }
    return DECODE_NEXT;
}

static int decode_group3(const Insn *i, Op *op, bool fast, unsigned size)
{
    operands(i, op, size);
    switch (i->modrm >> 3 & 7) {
    case 0: case 1: {
        OpFn *const *row = alu_row(size, 8);
        op->fn = i->mod == 3 ? row[ALU_RI] : fast ? row[ALU_MI] : row[ALU_MI + 1];
        break;
    }
    case 2: op->fn = RM_FORMS(not); break;
    case 3: op->fn = RM_FORMS(neg); break;
    case 4: op->fn = op_mul; break;
    case 5: op->fn = op_imul1; break;
    case 6: op->fn = op_div; break;
    default: op->fn = op_idiv;
    }
    return DECODE_NEXT;
}

static int decode_group5(const Insn *i, Op *op, bool fast)
{
    unsigned size = i->osize;
    operands(i, op, size);
    switch (i->modrm >> 3 & 7) {
    case 0: op->fn = RM_FORMS(inc); return DECODE_NEXT;
    case 1: op->fn = RM_FORMS(dec); return DECODE_NEXT;
    case 2: op->fn = call_rm; op->osize = (u8)stack_operand(i); return DECODE_END;
    case 3: op->fn = i->mod == 3 ? op_ud : far_indirect_call; return DECODE_END;
    case 4: op->fn = jmp_rm; op->osize = (u8)stack_operand(i); return DECODE_END;
    case 5: op->fn = i->mod == 3 ? op_ud : far_indirect_jmp; return DECODE_END;
    case 6:
        op->osize = (u8)stack_operand(i);
        op->fn = i->mod == 3 ? (op->osize == 8 ? push_r8 : push_r) : push_m;
        return DECODE_NEXT;
    default: op->fn = op_ud; return DECODE_END;
    }
}

static int decode_string(const Insn *i, Op *op, OpFn *fn, unsigned size)
{
    op->fn = fn;
    op->osize = (u8)size;
    return i->rep ? DECODE_END : DECODE_NEXT;
}

static int decode_map0(Cpu *cpu, const Insn *i, Op *op, unsigned mode)
{
    unsigned b = i->opcode, size = b & 1 ? i->osize : 1;
    bool fast = address_is_fast(i, mode), wide = i->mode == 8;
    if (b < 0x40 && (b & 7) < 6) {
        unsigned kind = b >> 3;
        OpFn *const *row = alu_row(size, kind);
        operands(i, op, size);
        switch (b & 7) {
        case 0: case 1: op->fn = i->mod == 3 ? row[ALU_RR] : fast ? row[ALU_MR] : row[ALU_MR + 1]; break;
        case 2: case 3:
            if (i->mod == 3) {
                u8 t = op->reg;
                op->reg = op->rm;
                op->rm = t;
                op->fn = row[ALU_RR];
            } else {
                op->fn = fast ? row[ALU_RM] : row[ALU_RM + 1];
            }
            break;
        default:
            op->rm = RAX;
            op->fn = row[ALU_RI];
        }
        return DECODE_NEXT;
    }
    switch (b) {
    case 0x06: case 0x0E: case 0x16: case 0x1E:
        if (wide)
            break;
        op->reg = (u8)(b >> 3);
        op->fn = push_seg;
        return DECODE_NEXT;
    case 0x07: case 0x17: case 0x1F:
        if (wide)
            break;
        op->reg = (u8)(b >> 3);
        op->fn = pop_seg;
        return DECODE_END;
    case 0x27: case 0x2F: case 0x37: case 0x3F:
        if (wide)
            break;
        op->fn = b == 0x27 ? op_daa : b == 0x2F ? op_das : b == 0x37 ? op_aaa : op_aas;
        return DECODE_NEXT;
    case 0x40 ... 0x4F:
        op->rm = b & 7;
        size = i->osize;
        op->fn = b < 0x48 ? BY_SIZE3(size, inc_r, ) : BY_SIZE3(size, dec_r, );
        return DECODE_NEXT;
    case 0x50 ... 0x57:
        op->rm = (u8)((b & 7) | (i->rex & 1) << 3);
        op->osize = (u8)stack_operand(i);
        op->fn = op->osize == 8 ? push_r8 : push_r;
        return DECODE_NEXT;
    case 0x58 ... 0x5F:
        op->rm = (u8)((b & 7) | (i->rex & 1) << 3);
        op->osize = (u8)stack_operand(i);
        op->fn = op->osize == 8 ? pop_r8 : pop_r;
        return DECODE_NEXT;
    case 0x60: case 0x61:
        if (wide)
            break;
        op->fn = b & 1 ? op_popa : op_pusha;
        return DECODE_NEXT;
    case 0x62:
        if (wide || i->mod == 3)
            break;
        op->fn = op_bound;
        return DECODE_NEXT;
    case 0x63:
        operands(i, op, i->osize);
        if (!wide) {
            op->fn = op_arpl;
        } else if (i->osize == 8) {
            op->fn = PICK(movsxd_r, movsxd_m_f, movsxd_m);
        } else {
            size = i->osize;
            op->fn = PICK(BY_SIZE3(size, mov_rr, ), BY_SIZE3(size, mov_rm, _f), BY_SIZE3(size, mov_rm, _g));
            if (i->mod == 3) {
                op->rm = i->reg;
                op->reg = i->rm;
            }
        }
        return DECODE_NEXT;
    case 0x68: case 0x6A:
        op->osize = (u8)stack_operand(i);
        op->fn = push_i;
        return DECODE_NEXT;
    case 0x69: case 0x6B:
        size = i->osize;
        operands(i, op, size);
        op->fn = PICK(BY_SIZE3(size, imul_rri, ), BY_SIZE3(size, imul_rmi, _f), BY_SIZE3(size, imul_rmi, _g));
        return DECODE_NEXT;
    case 0x6C: case 0x6D: return decode_string(i, op, op_ins, b & 1 ? (i->osize == 2 ? 2 : 4) : 1);
    case 0x6E: case 0x6F: return decode_string(i, op, op_outs, b & 1 ? (i->osize == 2 ? 2 : 4) : 1);
    case 0x70 ... 0x7F:
        op->reg = b & 15;
        return near_branch(i, op, mode, jcc_table[b & 15], jcc_general);
    case 0x80: case 0x81: case 0x83: return decode_group1(i, op, fast, size);
    case 0x82:
        if (wide)
            break;
        return decode_group1(i, op, fast, 1);
    case 0x84: case 0x85: {
        OpFn *const *row = alu_row(size, 8);
        operands(i, op, size);
        op->fn = i->mod == 3 ? row[ALU_RR] : fast ? row[ALU_MR] : row[ALU_MR + 1];
        return DECODE_NEXT;
    }
    case 0x86: case 0x87:
        operands(i, op, size);
        op->fn = PICK(BY_SIZE(size, xchg_rr, ), BY_SIZE(size, xchg_m, _f), BY_SIZE(size, xchg_m, _g));
        return DECODE_NEXT;
    case 0x88: case 0x89:
        operands(i, op, size);
        op->fn = PICK(BY_SIZE(size, mov_rr, ), BY_SIZE(size, mov_mr_f, ), BY_SIZE(size, mov_mr_g, ));
        return DECODE_NEXT;
    case 0x8A: case 0x8B:
        operands(i, op, size);
        if (i->mod == 3) {
            u8 t = op->reg;
            op->reg = op->rm;
            op->rm = t;
        }
        op->fn = PICK(BY_SIZE(size, mov_rr, ), BY_SIZE(size, mov_rm, _f), BY_SIZE(size, mov_rm, _g));
        return DECODE_NEXT;
    case 0x8C:
        op->reg = i->modrm >> 3 & 7;
        op->rm = i->rm;
        op->fn = op->reg > 5 ? op_ud : mov_from_seg;
        return op->reg > 5 ? DECODE_END : DECODE_NEXT;
    case 0x8D:
        if (i->mod == 3)
            break;
        size = i->osize;
        operands(i, op, size);
        op->fn = i->asize == 2 || size > i->asize ? BY_SIZE3(size, lea_g, ) : BY_SIZE3(size, lea_f, );
        return DECODE_NEXT;
    case 0x8E:
        op->reg = i->modrm >> 3 & 7;
        op->rm = i->rm;
        op->fn = mov_to_seg;
        return DECODE_END;
    case 0x8F:
        if ((i->modrm & 0x38) != 0)
            break;
        op->rm = i->rm;
        op->osize = (u8)stack_operand(i);
        op->fn = i->mod == 3 ? pop_r : pop_m;
        return DECODE_NEXT;
    case 0x90 ... 0x97:
        if (b == 0x90 && !(i->rex & 1)) {
            op->fn = i->rep == 0xF3 ? op_pause : op_nop;
            return DECODE_NEXT;
        }
        size = i->osize;
        op->rm = (u8)((b & 7) | (i->rex & 1) << 3);
        op->reg = RAX;
        op->fn = BY_SIZE3(size, xchg_rr, );
        return DECODE_NEXT;
    case 0x98: op->fn = op_cbw; return DECODE_NEXT;
    case 0x99: op->fn = op_cwd; return DECODE_NEXT;
    case 0x9A: case 0xEA:
        if (wide)
            break;
        op->fn = b == 0x9A ? far_direct_call : far_direct_jmp;
        return DECODE_END;
    case 0x9B: return x87_decode(cpu, i, op) ? DECODE_NEXT : -1;
    case 0x9C:
        op->osize = (u8)stack_operand(i);
        op->fn = op_pushf;
        return DECODE_NEXT;
    case 0x9D:
        op->osize = (u8)stack_operand(i);
        op->fn = op_popf;
        return DECODE_END;
    case 0x9E: op->fn = op_sahf; return DECODE_NEXT;
    case 0x9F: op->fn = op_lahf; return DECODE_NEXT;
    case 0xA0 ... 0xA3:
        op->osize = (u8)size;
        op->rm = op->reg = RAX;
        op->base = op->index = REG_ZERO;
        op->flags |= OPF_MEM;
        if (i->imm == (int32_t)i->imm || i->asize != 8) {
            op->disp = (int32_t)i->imm;
        } else { /* a 64-bit absolute address: through the spare register slot that holds it */
            op->fn = b & 2 ? BY_SIZE(size, mov_abs_store, ) : BY_SIZE(size, mov_abs_load, );
            return DECODE_NEXT;
        }
        op->fn = b & 2 ? BY_SIZE(size, mov_mr_g, ) : BY_SIZE(size, mov_rm, _g);
        return DECODE_NEXT;
    case 0xA4: case 0xA5: return decode_string(i, op, op_movs, size);
    case 0xA6: case 0xA7: return decode_string(i, op, op_cmps, size);
    case 0xA8: case 0xA9:
        op->osize = (u8)size;
        op->rm = RAX;
        op->fn = alu_row(size, 8)[ALU_RI];
        return DECODE_NEXT;
    case 0xAA: case 0xAB: return decode_string(i, op, op_stos, size);
    case 0xAC: case 0xAD: return decode_string(i, op, op_lods, size);
    case 0xAE: case 0xAF: return decode_string(i, op, op_scas, size);
    case 0xB0 ... 0xB7:
        op->rm = (u8)byte_reg(i, (b & 7) | (i->rex & 1u) << 3);
        op->fn = mov_ri1;
        return DECODE_NEXT;
    case 0xB8 ... 0xBF:
        size = i->osize;
        op->rm = (u8)((b & 7) | (i->rex & 1) << 3);
        op->fn = BY_SIZE3(size, mov_ri, );
        return DECODE_NEXT;
    case 0xC0: case 0xC1: return decode_shift(i, op, size, i->imm & 0xFF);
    case 0xD0: case 0xD1: return decode_shift(i, op, size, 1);
    case 0xD2: case 0xD3: return decode_shift(i, op, size, -1);
    case 0xC2: case 0xC3:
        op->osize = (u8)stack_operand(i);
        op->imm = b & 1 ? 0 : i->imm;
        op->fn = op->osize == 8 ? ret_near64 : ret_general;
        return DECODE_END;
    case 0xC4: case 0xC5:
        if (wide || i->mod == 3)
            break;
        op->imm = b == 0xC4 ? SEG_ES : SEG_DS;
        op->reg = i->reg;
        op->fn = op_lxs;
        return DECODE_END;
    case 0xC6: case 0xC7:
        if (i->modrm & 0x38)
            break;
        operands(i, op, size);
        op->fn = PICK(BY_SIZE(size, mov_ri, ), BY_SIZE(size, mov_mi_f, ), BY_SIZE(size, mov_mi_g, ));
        return DECODE_NEXT;
    case 0xC8: case 0xC9:
        op->osize = (u8)stack_operand(i);
        op->fn = b & 1 ? op_leave : op_enter;
        return DECODE_NEXT;
    case 0xCA: case 0xCB:
        op->imm = b & 1 ? 0 : i->imm;
        op->fn = op_retf;
        return DECODE_END;
    case 0xCC: op->fn = op_int3; return DECODE_END;
    case 0xCD: op->fn = op_int; return DECODE_END;
    case 0xCE:
        if (wide)
            break;
        op->fn = op_into;
        return DECODE_END;
    case 0xCF: op->fn = op_iret; return DECODE_END;
    case 0xD4: case 0xD5:
        if (wide)
            break;
        op->fn = b & 1 ? op_aad : op_aam;
        return DECODE_NEXT;
    case 0xD6:
        if (wide)
            break;
        op->fn = op_salc;
        return DECODE_NEXT;
    case 0xD7: op->fn = op_xlat; return DECODE_NEXT;
    case 0xD8 ... 0xDF: return x87_decode(cpu, i, op) ? DECODE_NEXT : -1;
    case 0xE0 ... 0xE3:
        op->reg = b & 3;
        op->osize = (u8)stack_operand(i);
        op->fn = op_loop;
        return DECODE_END;
    case 0xE4: case 0xE5: case 0xEC: case 0xED:
        op->osize = (u8)(b & 1 ? (i->osize == 2 ? 2 : 4) : 1);
        op->imm = b < 0xE8 ? i->imm & 0xFF : -1;
        op->fn = op_in;
        return DECODE_END;
    case 0xE6: case 0xE7: case 0xEE: case 0xEF:
        op->osize = (u8)(b & 1 ? (i->osize == 2 ? 2 : 4) : 1);
        op->imm = b < 0xE8 ? i->imm & 0xFF : -1;
        op->fn = op_out;
        return DECODE_END;
    case 0xE8: return near_branch(i, op, mode, i->mode == 8 ? call_near64 : NULL, call_general);
    case 0xE9: case 0xEB: return near_branch(i, op, mode, jmp_near64, jmp_general);
    case 0xF1: op->fn = op_icebp; return DECODE_END;
    case 0xF4: op->fn = op_hlt; return DECODE_END;
    case 0xF5: op->fn = op_cmc; return DECODE_NEXT;
    case 0xF6: case 0xF7: return decode_group3(i, op, fast, size);
    case 0xF8: op->fn = op_clc; return DECODE_NEXT;
    case 0xF9: op->fn = op_stc; return DECODE_NEXT;
    case 0xFA: op->fn = op_cli; return DECODE_NEXT;
    case 0xFB: op->fn = op_sti; return DECODE_END;
    case 0xFC: op->fn = op_cld; return DECODE_NEXT;
    case 0xFD: op->fn = op_std; return DECODE_NEXT;
    case 0xFE:
        if ((i->modrm & 0x38) > 8)
            break;
        operands(i, op, 1);
        size = 1;
        op->fn = i->modrm & 8 ? RM_FORMS(dec) : RM_FORMS(inc);
        return DECODE_NEXT;
    case 0xFF: return decode_group5(i, op, fast);
    default: break;
    }
    return -1;
}
