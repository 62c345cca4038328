/* Descriptor-table registers, segment registers, and the instructions that look at descriptors. */
#include "access.h"
#include "block.h"

/* ---- descriptor-table registers ---- */

HANDLER(op_lgdt)
{
    need_cpl0(cpu, op);
    bool idt = op->reg & 1;
    INTERCEPT(idt ? 0x6A : 0x6B);
    unsigned size = cpu->code_size == 8 ? 8 : 4;
    u64 lin = op_linear(cpu, op, size + 2, ACC_READ);
    u64 limit = load(cpu, op, lin, 2), base = load(cpu, op, lin + 2, size);
    if (size == 4 && op->osize == 2)
        base &= 0xFFFFFF;
    if (size == 8 && !is_canonical(cpu, base))
        RAISE_GP0(cpu, op);
    SimSegment *t = idt ? &cpu->idtr : &cpu->gdtr;
    t->base = base;
    t->limit = (u32)limit;
    NEXT;
}
HANDLER(op_sgdt)
{
    check_umip(cpu, op);
    bool idt = op->reg & 1;
    INTERCEPT(idt ? 0x66 : 0x67);
    const SimSegment *t = idt ? &cpu->idtr : &cpu->gdtr;
    unsigned size = cpu->code_size == 8 ? 8 : 4;
    u64 lin = op_linear(cpu, op, size + 2, ACC_WRITE);
    u8 image[10];
    memcpy(image, &t->limit, 2);
    memcpy(image + 2, &t->base, 8);
    mem_write(cpu, op, lin, image, size + 2);
    NEXT;
}
HANDLER(op_sldt)
{
    need_protected(cpu, op);
    check_umip(cpu, op);
    INTERCEPT(0x68);
    return store_word(cpu, op, cpu->seg[SEG_LDTR].selector);
}
HANDLER(op_str)
{
    need_protected(cpu, op);
    check_umip(cpu, op);
    INTERCEPT(0x69);
    return store_word(cpu, op, cpu->seg[SEG_TR].selector);
}
static SimSegment system_segment(const Cpu *cpu, u16 sel, const Descriptor *d)
{
    SimSegment s = descriptor_segment(sel, d->raw);
    if (long_mode(cpu))
        s.base |= d->high << 32;
    return s;
}
HANDLER(op_lldt)
{
    need_protected(cpu, op);
    need_cpl0(cpu, op);
    INTERCEPT(0x6C);
    u16 sel = (u16)rm_get(cpu, op, 2);
    if (!(sel & 0xFFFC)) {
        set_null(cpu, SEG_LDTR, sel);
        NEXT;
    }
    if (sel & 4)
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
    if (desc_s(d.raw) || desc_type(d.raw) != 2)
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    if (long_mode(cpu))
        read_descriptor_high(cpu, op, sel, &d, EXC_GP, 0);
    cpu->seg[SEG_LDTR] = system_segment(cpu, sel, &d);
    NEXT;
}
HANDLER(op_ltr)
{
    need_protected(cpu, op);
    need_cpl0(cpu, op);
    INTERCEPT(0x6D);
    u16 sel = (u16)rm_get(cpu, op, 2);
    if (!(sel & 0xFFFC))
        RAISE_GP0(cpu, op);
    if (sel & 4)
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    Descriptor d = read_descriptor(cpu, op, sel, EXC_GP, 0);
    unsigned type = desc_type(d.raw);
    if (desc_s(d.raw) || (type != 9 && (type != 1 || long_mode(cpu))))
        raise_error(cpu, op, EXC_GP, sel & 0xFFFC);
    if (!desc_p(d.raw))
        raise_error(cpu, op, EXC_NP, sel & 0xFFFC);
    if (long_mode(cpu))
        read_descriptor_high(cpu, op, sel, &d, EXC_GP, 0);
    mem_write_sys(cpu, op, d.linear + 5, 1, (d.raw >> 40 & 0xFF) | 2);
    cpu->seg[SEG_TR] = system_segment(cpu, sel, &d);
    cpu->seg[SEG_TR].attrib |= 2;
    NEXT;
}

/* LAR, LSL, VERR, VERW: a selector that may not be seen clears ZF and faults not at all */
static bool visible_descriptor(Cpu *cpu, const Op *op, u16 sel, u64 *raw)
{
    u64 at;
    if (!(sel & 0xFFFC) || !descriptor_address(cpu, sel, 8, &at))
        return false;
    *raw = mem_read_sys(cpu, op, at, 8);
    unsigned dpl = desc_dpl(*raw);
    if (desc_is_code(*raw) && desc_conforming(*raw))
        return true;
    return dpl >= cpu->cpl && dpl >= (sel & 3u);
}
static void set_zf(Cpu *cpu, bool zf)
{
    set_status_flags(cpu, (cpu_status_flags(cpu) & ~FLAG_ZF) | (zf ? FLAG_ZF : 0));
}
HANDLER(op_lar)
{
    need_protected(cpu, op);
    u16 sel = (u16)rm_get(cpu, op, 2);
    u64 raw = 0;
    bool ok = visible_descriptor(cpu, op, sel, &raw);
    if (ok && !desc_s(raw)) {
        unsigned types = long_mode(cpu) ? 1u << 2 | 1u << 9 | 1u << 11 | 1u << 12
                                        : 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 9 | 1u << 11 | 1u << 12;
        ok = types >> desc_type(raw) & 1;
    }
    if (ok)
        reg_put(cpu, op->reg, op->osize, (raw >> 32) & (op->osize == 2 ? 0xFF00 : 0x00FFFF00));
    set_zf(cpu, ok);
    NEXT;
}
HANDLER(op_lsl)
{
    need_protected(cpu, op);
    u16 sel = (u16)rm_get(cpu, op, 2);
    u64 raw = 0;
    bool ok = visible_descriptor(cpu, op, sel, &raw);
    if (ok && !desc_s(raw)) {
        unsigned types = long_mode(cpu) ? 1u << 2 | 1u << 9 | 1u << 11 : 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;
        ok = types >> desc_type(raw) & 1;
    }
    if (ok)
        reg_put(cpu, op->reg, op->osize, descriptor_segment(sel, raw).limit);
    set_zf(cpu, ok);
    NEXT;
}
HANDLER(op_verr)
{
    need_protected(cpu, op);
    u16 sel = (u16)rm_get(cpu, op, 2);
    u64 raw = 0;
    bool ok = visible_descriptor(cpu, op, sel, &raw) && desc_s(raw);
    if (ok)
        ok = op->reg & 1 ? (desc_type(raw) & 0xA) == 2 : (desc_type(raw) & 0xA) != 8;
    set_zf(cpu, ok);
    NEXT;
}
HANDLER(op_arpl)
{
    need_protected(cpu, op);
    u64 lin = 0;
    u16 v;
    if (op->flags & OPF_MEM) {
        lin = op_linear(cpu, op, 2, ACC_WRITE);
        v = (u16)mem_read_for_write(cpu, op, lin, 2);
    } else {
        v = (u16)cpu->r[op->rm];
    }
    unsigned rpl = cpu->r[op->reg] & 3;
    bool raise = (v & 3u) < rpl;
    if (raise) {
        v = (u16)((v & ~3u) | rpl);
        if (op->flags & OPF_MEM)
            store(cpu, op, lin, 2, v);
        else
            PUT2(op->rm, v);
    }
    set_zf(cpu, raise);
    NEXT;
}

/* ---- segment registers ---- */

static const Op *segment_done(Cpu *cpu, const Op *op, unsigned seg)
{
    if (seg == SEG_SS) {
        cpu->shadow = 2;
        return system_done(cpu, op);
    }
    if (cpu->code_size == 8)
        NEXT; /* bases and limits of DS and ES do not count; FS and GS bases are read anew by every op */
    return system_done(cpu, op);
}
HANDLER(mov_to_seg)
{
    unsigned seg = op->reg;
    if (seg > SEG_GS || seg == SEG_CS)
        RAISE_UD(cpu, op);
    cpu->op = op;
    load_segment(cpu, op, seg, (u16)rm_get(cpu, op, 2));
    return segment_done(cpu, op, seg);
}
HANDLER(mov_from_seg)
{
    if (op->reg > SEG_GS)
        RAISE_UD(cpu, op);
    return store_word(cpu, op, cpu->seg[op->reg].selector);
}
HANDLER(push_seg) { push(cpu, op, op->osize, cpu->seg[op->reg].selector); NEXT; }
HANDLER(pop_seg)
{
    u64 sp = cpu->r[RSP];
    u16 sel = (u16)pop_at(cpu, op, &sp, op->osize);
    cpu->op = op;
    load_segment(cpu, op, op->reg, sel);
    set_sp(cpu, sp);
    return segment_done(cpu, op, op->reg);
}
HANDLER(op_lxs) /* LES LDS LSS LFS LGS: imm is the segment */
{
    u64 lin = op_linear(cpu, op, op->osize + 2u, ACC_READ);
    u64 offset = load(cpu, op, lin, op->osize);
    u16 sel = (u16)load(cpu, op, lin + op->osize, 2);
    unsigned seg = (unsigned)op->imm;
    load_segment(cpu, op, seg, sel);
    reg_put(cpu, op->reg, op->osize, offset);
    if (cpu->code_size == 8)
        NEXT;
    return system_done(cpu, op);
}
HANDLER(op_swapgs)
{
    if (cpu->code_size != 8)
        RAISE_UD(cpu, op);
    need_cpl0(cpu, op);
    u64 base = cpu->seg[SEG_GS].base;
    cpu->seg[SEG_GS].base = cpu->sbase[SEG_GS] = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    NEXT;
}
/* RDFSBASE 0, RDGSBASE 1, WRFSBASE 2, WRGSBASE 3 in op->reg */
HANDLER(op_fsgsbase)
{
    unsigned seg = op->reg & 1 ? SEG_GS : SEG_FS;
    if (cpu->code_size != 8 || !(cpu->cr4 & CR4_FSGSBASE))
        RAISE_UD(cpu, op);
    if (op->reg < 2) {
        reg_put(cpu, op->rm, op->osize, cpu->seg[seg].base);
    } else {
        u64 v = reg_get(cpu, op->rm, op->osize);
        if (!is_canonical(cpu, v))
            RAISE_GP0(cpu, op);
        cpu->seg[seg].base = cpu->sbase[seg] = v;
    }
    NEXT;
}
