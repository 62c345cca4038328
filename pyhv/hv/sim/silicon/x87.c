/* The x87 unit: decoding, pending exceptions, control instructions; arithmetic by stubs.
 *
 * A stub runs under the guest's own control word: an unmasked exception is then recorded by the host as it would be for
 * the guest (the unmasked response, FSW.ES) and never delivered, because nothing that waits follows in the stub. */
#include "vec.h"

/* ---- state ---- */
void x87_update_es(Cpu *cpu)
{
    uint16_t fsw = area16(cpu, AREA_FSW) & (uint16_t)~(FSW_ES | FSW_B);
    area_set16(cpu, AREA_FSW, x87_pending(cpu) ? fsw | FSW_ES | FSW_B : fsw);
}

void x87_set_top(Cpu *cpu, unsigned top)
{
    unsigned by = (top - x87_top(cpu)) & 7;
    if (by == 0)
        return;
    uint8_t old[128];
    uint8_t *st = cpu->fpu.area + AREA_ST;
    memcpy(old, st, 128);
    for (unsigned i = 0; i < 8; i++)
        memcpy(st + 16 * i, old + 16 * ((i + by) & 7), 16);
    area_set16(cpu, AREA_FSW, (uint16_t)((area16(cpu, AREA_FSW) & ~0x3800u) | top << 11));
}

void x87_init_state(Cpu *cpu)
{
    x87_set_top(cpu, 0);
    area_set16(cpu, AREA_FCW, FCW_INIT);
    area_set16(cpu, AREA_FSW, 0);
    cpu->fpu.area[AREA_FTW] = 0;
    area_set16(cpu, AREA_FOP, 0);
    area_set64(cpu, AREA_FIP, 0);
    area_set64(cpu, AREA_FDP, 0);
    area_set16(cpu, AREA_FCS, 0);
    area_set16(cpu, AREA_FDS, 0);
}

/* ---- checks ---- */
#define SVM_INTERCEPT_FERR_FREEZE 30
#define SVM_EXIT_FERR_FREEZE 0x7E

void x87_pending_fault(Cpu *cpu, const Op *op)
{
    if (likely(!x87_pending(cpu)))
        return;
    if (!(cpu->cr0 & CR0_NE)) /* FERR# would freeze the processor until an interrupt; a hypervisor may intercept that */
        svm_intercept(cpu, op, SVM_INTERCEPT_FERR_FREEZE, SVM_EXIT_FERR_FREEZE, 0, 0);
    raise_exception(cpu, op, EXC_MF);
}

void x87_available(Cpu *cpu, const Op *op)
{
    if (unlikely(cpu->cr0 & (CR0_EM | CR0_TS)))
        raise_exception(cpu, op, EXC_NM);
}

void x87_ready(Cpu *cpu, const Op *op)
{
    x87_available(cpu, op);
    x87_pending_fault(cpu, op);
}

/* ---- arithmetic, loads and stores ---- */
/* Memory operand of D8-DF /digit: bytes, and whether it is written. 0: undefined or a control instruction. */
static const struct { int8_t size[8]; } x87_memory[8] = { /* negative: a store */
    {{4, 4, 4, 4, 4, 4, 4, 4}},
    {{4, 0, -4, -4, 0, 0, 0, 0}},
    {{4, 4, 4, 4, 4, 4, 4, 4}},
    {{4, -4, -4, -4, 0, 10, 0, -10}},
    {{8, 8, 8, 8, 8, 8, 8, 8}},
    {{8, -8, -8, -8, 0, 0, 0, 0}},
    {{2, 2, 2, 2, 2, 2, 2, 2}},
    {{2, -2, -2, -2, 10, 8, -10, -8}},
};

/* VecInfo of an x87 stub uses VF_DEST_RM (memory is written), VF_EFLAGS, and: */
#define X87_READS_FLAGS 0x80000000u

static const Op *x87_op_stub(Cpu *cpu, const Op *op)
{
    const VecStub *stub = op->ptr;
    const uint32_t f = stub->info.flags;
    const unsigned size = stub->info.msize;
    X87Frame frame;
    uint64_t linear = 0, offset = 0;
    x87_ready(cpu, op);
    if (size) {
        linear = op_linear(cpu, op, size, f & VF_DEST_RM ? ACC_WRITE : ACC_READ);
        offset = cpu->r[op->base] + (cpu->r[op->index] << op->scale) + (uint64_t)(int64_t)op->disp;
        if (op->asize < 8)
            offset &= op->asize == 4 ? 0xFFFFFFFF : 0xFFFF;
        if (f & VF_DEST_RM)
            mem_probe(cpu, op, linear, size, ACC_WRITE);
        else
            mem_read(cpu, op, linear, frame.mem, size);
    }
    if (f & X87_READS_FLAGS)
        frame.rflags = cpu_status_flags(cpu) | 2;

    uint8_t *area = cpu->fpu.area;
    uint8_t before[AREA_XMM]; /* a store that faults after all (a device) must not have popped */
    if (f & VF_DEST_RM)
        memcpy(before, area, sizeof(before));
    const uint32_t mxcsr = area32(cpu, AREA_MXCSR);
    const uint16_t ds = area16(cpu, AREA_FDS);
    const uint64_t fdp = area64(cpu, AREA_FDP);
    area_set32(cpu, AREA_MXCSR, MXCSR_INIT);
    area_set64(cpu, AREA_FIP, 0);
    area_set64(cpu, AREA_FDP, 0);
    stub->run.x87(area, &frame);
    area_set32(cpu, AREA_MXCSR, mxcsr);
    area_set16(cpu, AREA_FOP, (uint16_t)(op->reg << 8 | op->rm));
    area_set64(cpu, AREA_FIP, (cpu->r[REG_RIP] + op->off) & cpu->linmask);
    area_set64(cpu, AREA_FDP, size ? offset : fdp);
    area_set16(cpu, AREA_FCS, cpu->seg[SEG_CS].selector);
    area_set16(cpu, AREA_FDS, size ? cpu->seg[op->seg & 7].selector : ds);

    if (f & VF_DEST_RM) {
        /* an unmasked exception other than precision, found in this instruction, keeps the result from memory */
        bool stored = !(area16(cpu, AREA_FSW) & ~area16(cpu, AREA_FCW) & 0x1F);
        if (stored) {
            uint8_t after[AREA_XMM];
            memcpy(after, area, sizeof(after));
            memcpy(area, before, sizeof(before));
            mem_write(cpu, op, linear, frame.mem, size);
            memcpy(area, after, sizeof(after));
        }
    }
    if (f & VF_EFLAGS)
        set_status_flags(cpu, (uint32_t)frame.rflags & FLAGS_STATUS);
    NEXT;
}

/* ---- control instructions ---- */
static const Op *x87_fwait(Cpu *cpu, const Op *op)
{
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        raise_exception(cpu, op, EXC_NM);
    x87_pending_fault(cpu, op);
    NEXT;
}

static const Op *x87_fninit(Cpu *cpu, const Op *op)
{
    x87_available(cpu, op);
    x87_init_state(cpu);
    NEXT;
}

static const Op *x87_fnclex(Cpu *cpu, const Op *op)
{
    x87_available(cpu, op);
    area_set16(cpu, AREA_FSW, area16(cpu, AREA_FSW) & 0x7F00);
    NEXT;
}

static const Op *x87_nothing(Cpu *cpu, const Op *op) /* FNENI, FNDISI, FNSETPM: of older coprocessors */
{
    x87_available(cpu, op);
    NEXT;
}

static const Op *x87_fnstsw_ax(Cpu *cpu, const Op *op)
{
    x87_available(cpu, op);
    x87_update_es(cpu);
    cpu->r[RAX] = (cpu->r[RAX] & ~0xFFFFull) | area16(cpu, AREA_FSW);
    NEXT;
}

static const Op *x87_fnstsw(Cpu *cpu, const Op *op)
{
    x87_available(cpu, op);
    x87_update_es(cpu);
    uint16_t fsw = area16(cpu, AREA_FSW);
    vec_write(cpu, op, &fsw, 2, ALIGN_NO);
    NEXT;
}

static const Op *x87_fnstcw(Cpu *cpu, const Op *op)
{
    x87_available(cpu, op);
    uint16_t fcw = area16(cpu, AREA_FCW);
    vec_write(cpu, op, &fcw, 2, ALIGN_NO);
    NEXT;
}

static const Op *x87_fldcw(Cpu *cpu, const Op *op)
{
    x87_ready(cpu, op);
    uint16_t fcw;
    vec_read(cpu, op, &fcw, 2, ALIGN_NO);
    area_set16(cpu, AREA_FCW, (fcw & FCW_WRITABLE) | FCW_ALWAYS);
    x87_update_es(cpu);
    NEXT;
}

/* ---- decoding ---- */
static OpFn *x87_control_memory(unsigned opcode, unsigned digit)
{
    switch (opcode << 4 | digit) {
    case 0xD94: return x87_fldenv;
    case 0xD95: return x87_fldcw;
    case 0xD96: return x87_fnstenv;
    case 0xD97: return x87_fnstcw;
    case 0xDD4: return x87_frstor;
    case 0xDD6: return x87_fnsave;
    case 0xDD7: return x87_fnstsw;
    default: return NULL;
    }
}

/* Register forms: false for what is undefined. Aliases of other encodings become those. */
static bool x87_register_form(uint8_t *opcode, uint8_t *modrm)
{
    const unsigned i = *modrm & 7, row = *modrm >> 3 & 7;
    switch (*opcode) {
    case 0xD8:
        return true;
    case 0xD9:
        if (row == 2)
            return i == 0; /* FNOP */
        if (row == 4)
            return i == 0 || i == 1 || i == 4 || i == 5; /* FCHS FABS FTST FXAM */
        if (row == 5)
            return i != 7;
        return true; /* with FSTP1 (row 3), which finds no stack underflow */
    case 0xDA:
        return row <= 3 || *modrm == 0xE9; /* FCMOVcc, FUCOMPP */
    case 0xDB:
        return row <= 3 || row == 5 || row == 6; /* FCMOVNcc, FUCOMI, FCOMI */
    case 0xDC:
        if (row == 2 || row == 3) /* FCOM2, FCOMP3 */
            *opcode = 0xD8;
        return true;
    case 0xDD:
        if (row == 1) { /* FXCH4 */
            *opcode = 0xD9;
            return true;
        }
        return row <= 5; /* FFREE, FST, FSTP, FUCOM, FUCOMP */
    case 0xDE:
        if (row == 2) { /* FCOMP5 */
            *opcode = 0xD8;
            *modrm = (uint8_t)(0xD8 | i);
            return true;
        }
        return row != 3 || i == 1; /* FCOMPP */
    default: /* DF */
        if (row == 1) { /* FXCH7 */
            *opcode = 0xD9;
            return true;
        }
        if (row == 2 || row == 3) { /* FSTP8, FSTP9 */
            *opcode = 0xDD;
            *modrm = (uint8_t)(0xD8 | i);
            return true;
        }
        return row == 0 || row == 5 || row == 6; /* FFREEP, FUCOMIP, FCOMIP */
    }
}

bool x87_decode(Cpu *cpu, const Insn *insn, Op *op)
{
    if (insn->lock || insn->map != 0)
        return false;
    if (insn->opcode == 0x9B) {
        op->fn = x87_fwait;
        return true;
    }
    if (insn->opcode < 0xD8 || insn->opcode > 0xDF || !insn->has_modrm)
        return false;
    const unsigned digit = insn->modrm >> 3 & 7;
    uint8_t opcode = insn->opcode, modrm = insn->modrm;
    bool reads_flags = false, writes_flags = false;
    int size = 0;
    if (insn->mod != 3) {
        OpFn *control = x87_control_memory(opcode, digit);
        if (control != NULL) {
            op->fn = control;
            return true;
        }
        size = x87_memory[opcode & 7].size[digit];
        if (size == 0)
            return false;
        if ((opcode & 1) && digit == 1 && !vec_guest_has(cpu, ISA_SSE3)) /* FISTTP */
            return false;
        modrm = (uint8_t)(modrm & 0x38);
    } else {
        if (opcode == 0xDF && modrm == 0xE0) {
            op->fn = x87_fnstsw_ax;
            return true;
        }
        if (opcode == 0xDB && digit == 4) {
            op->fn = modrm == 0xE2 ? x87_fnclex : modrm == 0xE3 ? x87_fninit : x87_nothing;
            return modrm <= 0xE4;
        }
        if (!x87_register_form(&opcode, &modrm))
            return false;
        reads_flags = (opcode == 0xDA || opcode == 0xDB) && digit <= 3;
        writes_flags = (opcode == 0xDB || opcode == 0xDF) && (digit == 5 || digit == 6);
        if ((reads_flags || writes_flags) && !vec_guest_has(cpu, ISA_FCMOV))
            return false;
    }
    if (!vec_host_has(ISA_X87))
        return false;
    VecStub *stub = vec_stub_x87(cpu->machine, opcode, modrm, reads_flags, writes_flags);
    if (stub == NULL) {
        op->fn = vec_no_stub;
        return true;
    }
    stub->info.msize = (uint8_t)(size < 0 ? -size : size);
    stub->info.flags = (size < 0 ? VF_DEST_RM : 0) | (reads_flags ? X87_READS_FLAGS : 0) |
                       (writes_flags ? VF_EFLAGS : 0);
    op->reg = insn->opcode & 7; /* what FOP shows */
    op->rm = insn->modrm;
    op->fn = x87_op_stub;
    op->ptr = stub;
    return true;
}
