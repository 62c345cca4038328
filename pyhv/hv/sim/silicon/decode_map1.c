/* Opcode maps 0F, 0F 38 and 0F 3A, and the VEX-encoded integer instructions. */
#include "access.h"
#include "block.h"
#include "decode.h"

static int decode_group7(const Insn *i, Op *op)
{
    unsigned reg = i->modrm >> 3 & 7;
    op->reg = (u8)reg;
    op->rm = i->rm;
    if (i->mod != 3) {
        switch (reg) {
        case 0: case 1: op->fn = op_sgdt; op->reg = reg == 1; return DECODE_NEXT;
        case 2: case 3: op->fn = op_lgdt; op->reg = reg == 3; return DECODE_NEXT;
        case 4: op->fn = op_smsw; return DECODE_NEXT;
        case 6: op->fn = op_lmsw; return DECODE_END;
        case 7: op->fn = op_invlpg; return DECODE_END;
        default: return -1;
        }
    }
    switch (i->modrm) {
    case 0xC8: op->fn = op_monitor; return DECODE_NEXT;
    case 0xC9: op->fn = op_mwait; return DECODE_END;
    case 0xCA: op->fn = op_clac; return DECODE_NEXT;
    case 0xCB: op->fn = op_stac; return DECODE_NEXT;
    case 0xD0: op->fn = op_xgetbv; return DECODE_NEXT;
    case 0xD1: op->fn = op_xsetbv; return DECODE_NEXT;
    case 0xD8: op->fn = op_vmrun; return DECODE_END;
    case 0xD9: op->fn = op_vmmcall; return DECODE_END;
    case 0xDA: op->fn = op_vmload; return DECODE_END;
    case 0xDB: op->fn = op_vmsave; return DECODE_END;
    case 0xDC: op->fn = op_stgi; return DECODE_END;
    case 0xDD: op->fn = op_clgi; return DECODE_END;
    case 0xDE: op->fn = op_skinit; return DECODE_END;
    case 0xDF: op->fn = op_invlpga; return DECODE_END;
    case 0xF8: op->fn = op_swapgs; return DECODE_NEXT;
    case 0xF9: op->fn = op_rdtsc; op->imm = 1; return DECODE_END;
    default: break;
    }
    if (reg == 4) {
        op->fn = op_smsw;
        return DECODE_NEXT;
    }
    if (reg == 6) {
        op->fn = op_lmsw;
        return DECODE_END;
    }
    return -1;
}

static int decode_vector(Cpu *cpu, const Insn *i, Op *op)
{
    return vec_decode(cpu, i, op) ? DECODE_NEXT : -1;
}

static int decode_map1(Cpu *cpu, const Insn *i, Op *op, unsigned mode)
{
    unsigned b = i->opcode, size = i->osize, reg = i->modrm >> 3 & 7;
    bool fast = address_is_fast(i, mode);
    switch (b) {
    case 0x00:
        op->reg = (u8)reg;
        op->rm = i->rm;
        switch (reg) {
        case 0: op->fn = op_sldt; break;
        case 1: op->fn = op_str; break;
        case 2: op->fn = op_lldt; break;
        case 3: op->fn = op_ltr; break;
        case 4: case 5: op->fn = op_verr; break;
        default: return -1;
        }
        return DECODE_NEXT;
    case 0x01: return decode_group7(i, op);
    case 0x02: case 0x03:
        op->fn = b & 1 ? op_lsl : op_lar;
        return DECODE_NEXT;
    case 0x05: op->fn = op_syscall; return DECODE_END;
    case 0x06: op->fn = op_clts; return DECODE_END;
    case 0x07: op->fn = op_sysret; return DECODE_END;
    case 0x08: op->fn = op_invd; return DECODE_NEXT;
    case 0x09: op->fn = op_wbinvd; return DECODE_NEXT;
    case 0x0B: case 0xB9: case 0xFF: op->fn = op_ud; return DECODE_END;
    case 0x0D: /* PREFETCH */
        if (i->mod == 3)
            return -1;
        op->fn = op_nop;
        return DECODE_NEXT;
    case 0x18 ... 0x1F: op->fn = op_nop; return DECODE_NEXT;
    case 0x20: case 0x22:
        op->reg = (u8)(i->reg | (i->lock ? 8 : 0));
        op->rm = (u8)((i->modrm & 7) | (i->rex & 1) << 3);
        op->fn = b == 0x20 ? mov_from_cr : mov_to_cr;
        return b == 0x20 ? DECODE_NEXT : DECODE_END;
    case 0x21: case 0x23:
        op->reg = i->reg;
        op->rm = (u8)((i->modrm & 7) | (i->rex & 1) << 3);
        op->fn = b == 0x21 ? mov_from_dr : mov_to_dr;
        return b == 0x21 ? DECODE_NEXT : DECODE_END;
    case 0x30: op->fn = op_wrmsr; return DECODE_END;
    case 0x31: op->fn = op_rdtsc; op->imm = 0; return DECODE_END;
    case 0x32: op->fn = op_rdmsr; return DECODE_END;
    case 0x33: op->fn = op_rdpmc; return DECODE_NEXT;
    case 0x34: op->fn = op_sysenter; return DECODE_END;
    case 0x35: op->fn = op_sysexit; return DECODE_END;
    case 0x40 ... 0x4F:
        op->reg = i->reg;
        op->rm = i->rm;
        op->fn = cmov_table[size_index(size) - 1][i->mod != 3][b & 15];
        return DECODE_NEXT;
    case 0x80 ... 0x8F:
        op->reg = b & 15;
        return near_branch(i, op, mode, jcc_table[b & 15], jcc_general);
    case 0x90 ... 0x9F:
        op->rm = (u8)byte_reg(i, i->rm);
        op->fn = setcc_table[i->mod != 3][b & 15];
        return DECODE_NEXT;
    case 0xA0: case 0xA8:
        op->osize = (u8)stack_operand(i);
        op->reg = b == 0xA0 ? SEG_FS : SEG_GS;
        op->fn = push_seg;
        return DECODE_NEXT;
    case 0xA1: case 0xA9:
        op->osize = (u8)stack_operand(i);
        op->reg = b == 0xA1 ? SEG_FS : SEG_GS;
        op->fn = pop_seg;
        return DECODE_END;
    case 0xA2: op->fn = op_cpuid; return DECODE_NEXT;
    case 0xAA: op->fn = op_rsm; return DECODE_END;
    case 0xA3: case 0xAB: case 0xB3: case 0xBB:
        operands(i, op, size);
        op->fn = bit_table[b >> 3 & 3][i->mod == 3 ? 0 : 2];
        return DECODE_NEXT;
    case 0xBA:
        if (reg < 4)
            return -1;
        operands(i, op, size);
        op->imm = i->imm & 0xFF;
        op->fn = bit_table[reg & 3][i->mod == 3 ? 1 : 3];
        return DECODE_NEXT;
    case 0xA4: case 0xA5: case 0xAC: case 0xAD:
        operands(i, op, size);
        op->imm = b & 1 ? -1 : i->imm & 0xFF;
        if (i->mod == 3) {
            op->scale = b >= 0xAC;
            op->fn = BY_SIZE3(size, shd_r, );
        } else {
            op->fn = b < 0xAC ? BY_SIZE3(size, shld_m, ) : BY_SIZE3(size, shrd_m, );
        }
        return DECODE_NEXT;
    case 0xAF:
        operands(i, op, size);
        op->fn = PICK(BY_SIZE3(size, imul_rr, ), BY_SIZE3(size, imul_rm, _f), BY_SIZE3(size, imul_rm, _g));
        return DECODE_NEXT;
    case 0xB0: case 0xB1:
        size = b & 1 ? size : 1;
        operands(i, op, size);
        op->fn = PICK(BY_SIZE(size, cmpxchg_rr, ), BY_SIZE(size, cmpxchg_m, _f), BY_SIZE(size, cmpxchg_m, _g));
        return DECODE_NEXT;
    case 0xC0: case 0xC1:
        size = b & 1 ? size : 1;
        operands(i, op, size);
        op->fn = PICK(BY_SIZE(size, xadd_rr, ), BY_SIZE(size, xadd_m, _f), BY_SIZE(size, xadd_m, _g));
        return DECODE_NEXT;
    case 0xB2: case 0xB4: case 0xB5:
        if (i->mod == 3)
            return -1;
        op->imm = b == 0xB2 ? SEG_SS : b == 0xB4 ? SEG_FS : SEG_GS;
        op->reg = i->reg;
        op->fn = op_lxs;
        return DECODE_END;
    case 0xB6: case 0xBE:
        op->reg = i->reg;
        op->rm = (u8)byte_reg(i, i->rm);
        op->fn = b == 0xB6 ? PICK(BY_SIZE3(size, movzx1_r, ), BY_SIZE3(size, movzx1_m, _f), BY_SIZE3(size, movzx1_m, _g))
                           : PICK(BY_SIZE3(size, movsx1_r, ), BY_SIZE3(size, movsx1_m, _f), BY_SIZE3(size, movsx1_m, _g));
        return DECODE_NEXT;
    case 0xB7: case 0xBF:
        op->reg = i->reg;
        op->rm = i->rm;
        op->fn = b == 0xB7 ? PICK(BY_SIZE3(size, movzx2_r, ), BY_SIZE3(size, movzx2_m, _f), BY_SIZE3(size, movzx2_m, _g))
                           : PICK(BY_SIZE3(size, movsx2_r, ), BY_SIZE3(size, movsx2_m, _f), BY_SIZE3(size, movsx2_m, _g));
        return DECODE_NEXT;
    case 0xB8:
        if (i->rep != 0xF3)
            return -1;
        operands(i, op, size);
        op->fn = op_popcnt;
        return DECODE_NEXT;
    case 0xBC: case 0xBD:
        operands(i, op, size);
        op->fn = b == 0xBC ? (i->rep == 0xF3 ? op_tzcnt : op_bsf) : (i->rep == 0xF3 ? op_lzcnt : op_bsr);
        return DECODE_NEXT;
    case 0xAE:
        if (i->mod == 3 && i->rep == 0xF3 && reg < 4) {
            op->reg = (u8)reg;
            op->rm = i->rm;
            op->fn = op_fsgsbase;
            return DECODE_NEXT;
        }
        if (i->mod == 3 && i->rep != 0xF3 && reg >= 5) { /* LFENCE, MFENCE, SFENCE */
            op->fn = op_nop;
            return DECODE_NEXT;
        }
        if (i->mod != 3 && reg == 7 && !i->rep) { /* CLFLUSH, CLFLUSHOPT */
            op->fn = op_clflush;
            return DECODE_NEXT;
        }
        if (i->mod != 3 && reg == 6 && i->has66) { /* CLWB */
            op->fn = op_clflush;
            return DECODE_NEXT;
        }
        return decode_vector(cpu, i, op);
    case 0xC3:
        if (i->mod == 3 || i->has66 || i->rep)
            return -1;
        operands(i, op, size); /* MOVNTI */
        op->fn = fast ? BY_SIZE3(size, mov_mr_f, ) : BY_SIZE3(size, mov_mr_g, );
        return DECODE_NEXT;
    case 0xC7:
        operands(i, op, size);
        if (i->mod != 3 && reg == 1) {
            op->fn = i->rex & 8 ? op_cmpxchg16b : op_cmpxchg8b;
            return DECODE_NEXT;
        }
        if (i->mod == 3 && reg >= 6) {
            if (reg == 7 && i->rep == 0xF3)
                op->fn = op_rdpid;
            else
                op->fn = op_rdrand;
            op->imm = reg == 7;
            return DECODE_NEXT;
        }
        return decode_vector(cpu, i, op);
    case 0xC8 ... 0xCF:
        op->rm = (u8)((b & 7) | (i->rex & 1) << 3);
        op->fn = op_bswap;
        return DECODE_NEXT;
    default: return decode_vector(cpu, i, op);
    }
}

static int decode_map23(Cpu *cpu, const Insn *i, Op *op)
{
    unsigned b = i->opcode;
    operands(i, op, i->osize);
    if (i->map == 2 && (b == 0xF0 || b == 0xF1)) {
        if (i->rep == 0xF2) {
            unsigned size = b == 0xF0 ? 1 : i->osize;
            op->rm = (u8)(size == 1 ? byte_reg(i, i->rm) : i->rm);
            op->imm = size;
            op->fn = op_crc32;
            return DECODE_NEXT;
        }
        if (i->mod == 3 || i->rep == 0xF3 || !cpu_feature(cpu, FEAT_MOVBE))
            return -1;
        op->fn = b & 1 ? op_movbe_store : op_movbe_load;
        return DECODE_NEXT;
    }
    if (i->map == 2 && b == 0xF6 && (i->has66 || i->rep == 0xF3)) {
        op->osize = i->rex & 8 ? 8 : 4;
        op->imm = i->rep != 0xF3;
        op->fn = op_adx;
        return DECODE_NEXT;
    }
    if (i->map == 2 && b == 0x82 && i->has66 && i->mod != 3) {
        op->reg = i->reg;
        op->fn = op_invpcid;
        return DECODE_END;
    }
    return decode_vector(cpu, i, op);
}

static int decode_vex(Cpu *cpu, const Insn *i, Op *op)
{
    unsigned b = i->opcode;
    unsigned pp = i->has66 ? 0x66 : i->rep;
    if (i->vex == 0xFF)
        return -1;
    operands(i, op, i->osize);
    op->imm = i->vex_v | (i64)pp << 8;
    if (i->map == 2 && !i->vex_l) {
        switch (b) {
        case 0xF2: if (pp) break; op->fn = op_andn; return DECODE_NEXT;
        case 0xF3:
            if (pp)
                break;
            op->reg = i->modrm >> 3 & 7;
            if (op->reg < 1 || op->reg > 3)
                return -1;
            op->fn = op_bls;
            return DECODE_NEXT;
        case 0xF5:
            if (pp == 0x66)
                break;
            op->fn = pp == 0 ? op_bzhi : pp == 0xF2 ? op_pdep : op_pext;
            return DECODE_NEXT;
        case 0xF6: if (pp != 0xF2) break; op->fn = op_mulx; return DECODE_NEXT;
        case 0xF7: op->fn = pp ? op_shiftx : op_bextr; return DECODE_NEXT;
        default: break;
        }
    }
    if (i->map == 3 && b == 0xF0 && pp == 0xF2 && !i->vex_l) {
        op->imm = i->imm;
        op->fn = op_rorx;
        return DECODE_NEXT;
    }
    op->imm = i->imm;
    return decode_vector(cpu, i, op);
}

static int op_decode(Cpu *cpu, const Insn *i, Op *op, unsigned mode, unsigned off)
{
    int kind;
    *op = (Op){.imm = i->imm, .disp = i->disp, .reg = i->reg, .rm = i->rm, .base = REG_ZERO, .index = REG_ZERO,
               .scale = i->scale, .seg = i->seg, .len = i->len, .off = (uint16_t)off, .osize = i->osize,
               .asize = i->asize};
    if (i->has_modrm && i->mod != 3) {
        op->base = i->base;
        op->index = i->index;
        op->flags |= OPF_MEM;
        if (i->base == REG_RIP) {
            i64 d = (i64)i->disp + off + i->len;
            op->flags |= OPF_RIPREL;
            if (d != (int32_t)d) { /* past 2 GiB with the instruction's length added in */
                op->index = REG_2G;
                d -= 1ll << 31;
            }
            op->disp = (int32_t)d;
        }
    }
    if (i->rep == 0xF3)
        op->flags |= OPF_REP;
    else if (i->rep == 0xF2)
        op->flags |= OPF_REPNE;
    if (i->rex & 8)
        op->flags |= OPF_REXW;
    if (i->lock) {
        op->flags |= OPF_LOCK;
        if (!lockable(i) && !(i->map == 1 && (i->opcode == 0x20 || i->opcode == 0x22))) {
            op->fn = op_ud;
            return DECODE_END;
        }
    }
    if (i->vex)
        kind = decode_vex(cpu, i, op);
    else if (i->map == 0)
        kind = decode_map0(cpu, i, op, mode);
    else if (i->map == 1)
        kind = decode_map1(cpu, i, op, mode);
    else
        kind = decode_map23(cpu, i, op);
    if (kind < 0) {
        op->fn = op_ud;
        return DECODE_END;
    }
    return kind;
}
