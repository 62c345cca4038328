/* SSE, MMX and their successors: decoding, and execution through stubs. */
#include "vec.h"

/* ---- checks and exceptions ---- */
_Noreturn void vec_blocked(Cpu *cpu, const Op *op)
{
    if ((cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR))
        RAISE_UD(cpu, op);
    raise_exception(cpu, op, EXC_NM);
}

void mmx_ready(Cpu *cpu, const Op *op)
{
    if (cpu->cr0 & CR0_EM)
        RAISE_UD(cpu, op);
    if (cpu->cr0 & CR0_TS)
        raise_exception(cpu, op, EXC_NM);
    x87_pending_fault(cpu, op);
}

_Noreturn void vec_misaligned(Cpu *cpu, const Op *op) { RAISE_GP0(cpu, op); }

uint32_t vec_mxcsr_mask(const Cpu *cpu)
{
    return vec_guest_has(cpu, ISA_MISALIGN) ? 0xFFFFu | MXCSR_MM : 0xFFFFu;
}

void vec_fp_exceptions(Cpu *cpu, const Op *op, uint32_t raised)
{
    uint32_t mxcsr = area32(cpu, AREA_MXCSR);
    uint32_t unmasked = raised & ~(mxcsr >> 7) & MXCSR_EXCEPTIONS;
    if (unmasked & 7) /* found before computing (#I #D #Z): nothing is computed that could raise the others */
        raised &= 7;
    area_set32(cpu, AREA_MXCSR, mxcsr | raised);
    if (unmasked) {
        if (cpu->cr4 & CR4_OSXMMEXCPT)
            raise_exception(cpu, op, EXC_XF);
        RAISE_UD(cpu, op);
    }
}

/* ---- memory operands, the general way ---- */
void vec_read_slow(Cpu *cpu, const Op *op, void *out, unsigned size, int align)
{
    uint64_t linear = op_linear(cpu, op, size, ACC_READ);
    vec_check_alignment(cpu, op, linear, size, align);
    mem_read(cpu, op, linear, out, size);
}

void vec_write_slow(Cpu *cpu, const Op *op, const void *in, unsigned size, int align)
{
    uint64_t linear = op_linear(cpu, op, size, ACC_WRITE);
    vec_check_alignment(cpu, op, linear, size, align);
    mem_write(cpu, op, linear, in, size);
}

/* ---- MMX registers ---- */
uint8_t *mmx_register(Cpu *cpu, unsigned i)
{
    return cpu->fpu.area + AREA_ST + 16 * ((i - x87_top(cpu)) & 7);
}

void mmx_enter(Cpu *cpu)
{
    x87_set_top(cpu, 0);
    cpu->fpu.area[AREA_FTW] = 0xFF;
}

static void mmx_write(Cpu *cpu, unsigned i, const uint8_t *value)
{
    uint8_t *slot = mmx_register(cpu, i);
    memcpy(slot, value, 8);
    memset(slot + 8, 0xFF, 2);
}

/* CVTPI2xS from memory leaves the x87 unit alone, pending exceptions included. */
static bool vec_enters_mmx(const Op *op, const VecInfo *info)
{
    return (info->reg == OPND_M || info->rm == OPND_M) && !((op->flags & OPF_MEM) && (info->flags & VF_MMX_QUIET));
}

/* ---- execution ---- */
/* With the underflow exception unmasked, a tiny result raises it even when it is exact; the masked run cannot tell. */
static bool vec_tiny_result(const VecFrame *frame, const VecStub *stub)
{
    const uint32_t flags = stub->info.flags;
    const unsigned bytes = stub->wide ? 32 : 16;
    if (flags & VF_TINY_SINGLE)
        for (unsigned i = 0; i < (flags & VF_SCALAR ? 1 : bytes / 4); i++) {
            uint32_t x;
            memcpy(&x, frame->a + 4 * i, 4);
            if ((x & 0x7F800000) == 0 && (x & 0x7FFFFF) != 0)
                return true;
        }
    if (flags & VF_TINY_DOUBLE)
        for (unsigned i = 0; i < (flags & VF_SCALAR ? 1 : bytes / 8); i++) {
            uint64_t x;
            memcpy(&x, frame->a + 8 * i, 8);
            if ((x & 0x7FF0000000000000) == 0 && (x & 0xFFFFFFFFFFFFF) != 0)
                return true;
        }
    return false;
}

void vec_run_fp(Cpu *cpu, const Op *op, const VecStub *stub, VecFrame *frame)
{
    uint32_t mxcsr = area32(cpu, AREA_MXCSR);
#if defined(__x86_64__)
    /* Loading MXCSR costs more than most operations. With the host's own modes, as compilers leave them, it can stay,
     * if the flags that are set in it already are set for the guest too; flags are the caller's to lose. */
    if ((mxcsr & ~MXCSR_EXCEPTIONS) == MXCSR_INIT) {
        uint32_t host = __builtin_ia32_stmxcsr();
        if ((host & ~MXCSR_EXCEPTIONS) == MXCSR_INIT && !(host & ~mxcsr)) {
            stub->lean(frame);
            area_set32(cpu, AREA_MXCSR, mxcsr | (__builtin_ia32_stmxcsr() & MXCSR_EXCEPTIONS));
            return;
        }
    }
#endif
    bool underflow_unmasked = !(mxcsr & 0x800);
    frame->mxcsr = (mxcsr & 0xE040) | MXCSR_MASKS;
    if (underflow_unmasked)
        frame->mxcsr &= ~MXCSR_FTZ; /* flushes only while underflow is masked */
    stub->run.vec(frame);
    uint32_t raised = frame->mxcsr & MXCSR_EXCEPTIONS;
    if (underflow_unmasked && vec_tiny_result(frame, stub))
        raised |= 0x10;
    if (raised) {
        raised = vec_post_exceptions(cpu, op, stub, frame, raised);
        if ((raised & ~(mxcsr >> 7)) && vec_enters_mmx(op, &stub->info))
            mmx_enter(cpu); /* even when the conversion then faults */
        vec_fp_exceptions(cpu, op, raised);
    }
}

static void vec_stub_operand(Cpu *cpu, VecFrame *frame, uint8_t *into, unsigned kind, unsigned i)
{
    switch (kind) {
    case OPND_X: memcpy(into, area_xmm(cpu, i), 16); break;
    case OPND_M: memcpy(into, mmx_register(cpu, i & 7), 8); break;
    case OPND_G: frame->gpr = cpu->r[i & 15]; break;
    default: break;
    }
}

static const Op *vec_op_stub(Cpu *cpu, const Op *op)
{
    const VecStub *stub = op->ptr;
    const VecInfo *info = &stub->info;
    const uint32_t f = info->flags;
    const bool mem = op->flags & OPF_MEM;
    if (!(f & VF_NO_OSFXSR))
        sse_ready(cpu, op);
    if (vec_enters_mmx(op, info))
        mmx_ready(cpu, op);

    VecFrame frame;
    vec_stub_operand(cpu, &frame, frame.a, info->reg, op->reg);
    uint64_t linear = 0;
    if (!mem) {
        vec_stub_operand(cpu, &frame, frame.b, info->rm, op->rm);
    } else {
        int align = f & VF_ALIGN_ALWAYS ? ALIGN_ALWAYS : f & VF_ALIGN ? ALIGN_YES : ALIGN_NO;
        if (f & VF_DEST_RM) {
            linear = op_linear(cpu, op, info->msize, ACC_WRITE);
            vec_check_alignment(cpu, op, linear, info->msize, align);
        } else {
            vec_read(cpu, op, frame.b, info->msize, align);
        }
    }
    if (f & (VF_XMM0 | VF_STR_MASK))
        memcpy(frame.x0, area_xmm(cpu, 0), 16);
    if (f & VF_STR_LENGTHS) {
        frame.rax = cpu->r[RAX];
        frame.rdx = cpu->r[RDX];
    }

    if (f & VF_FP)
        vec_run_fp(cpu, op, stub, &frame);
    else
        stub->run.vec(&frame);

    if (mem && (f & VF_DEST_RM)) {
        mem_write(cpu, op, linear, frame.b, info->msize);
        if (vec_enters_mmx(op, info))
            mmx_enter(cpu);
        NEXT;
    }
    if (vec_enters_mmx(op, info))
        mmx_enter(cpu);
    if (f & VF_EFLAGS)
        set_status_flags(cpu, (uint32_t)frame.rflags & FLAGS_STATUS);
    if (f & VF_STR_INDEX)
        cpu->r[RCX] = (uint32_t)frame.rcx;
    if (f & VF_STR_MASK)
        memcpy(area_xmm(cpu, 0), frame.x0, 16);
    if (!(f & VF_NO_DEST)) {
        const bool to_rm = f & VF_DEST_RM;
        const unsigned i = to_rm ? op->rm : op->reg;
        switch (to_rm ? info->rm : info->reg) {
        case OPND_X: memcpy(area_xmm(cpu, i), to_rm ? frame.b : frame.a, 16); break;
        case OPND_M: mmx_write(cpu, i & 7, to_rm ? frame.b : frame.a); break;
        default: cpu->r[i & 15] = frame.gpr; break;
        }
    }
    NEXT;
}

/* ---- decoding ---- */
bool vec_decode(Cpu *cpu, const Insn *insn, Op *op)
{
    const unsigned prefix = insn->rep == 0xF3 ? PFX_F3 : insn->rep == 0xF2 ? PFX_F2 : insn->has66 ? PFX_66 : PFX_NONE;
    bool defined = false;
    if (insn->lock)
        return false;
    if (insn->vex)
        return vex_decode(cpu, insn, prefix, op);
    if (vec_special(cpu, insn, prefix, op, &defined))
        return defined;
    const VecInfo *info = vec_info(insn->map, prefix, insn->opcode);
    if (info == NULL || !insn->has_modrm)
        return false;
    const bool mem = insn->mod != 3;
    if (mem ? info->flags & VF_REG_ONLY : info->flags & VF_MEM_ONLY)
        return false;
    if ((info->flags & VF_GROUP) && !vec_group_valid(insn->opcode, prefix, insn->modrm >> 3 & 7))
        return false;
    if (!vec_guest_has(cpu, info->isa))
        return false;
    op->reg = insn->reg;
    op->rm = insn->rm;
    if (vec_direct(insn, prefix, op))
        return true;
    if (!vec_host_has(info->isa))
        return false;
    VecStub *stub = vec_stub_sse(cpu->machine, insn, prefix, info);
    op->fn = stub == NULL ? vec_no_stub : vec_op_stub;
    op->ptr = stub;
    return true;
}
