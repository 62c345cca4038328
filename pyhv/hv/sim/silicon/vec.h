/* What the files of the vector and x87 units share.
 *
 * Registers live in Cpu.fpu.area, a standard-format XSAVE image, all the time. The most common moves and integer
 * operations are plain C (vec_fast.c). Everything else runs on the host's own unit: a stub, emitted once for each
 * opcode, prefix and immediate, loads the operands from a frame into fixed host registers, executes the same opcode and
 * stores the results back to the frame (vec_stub.c). So guest registers never name host registers, a memory operand is
 * always the frame, and nothing architectural has changed before the caller commits the frame.
 */
#ifndef SIM_VEC_H
#define SIM_VEC_H

#include "cpu.h"

/* ---- the XSAVE image ---- */
enum {
    AREA_FCW = 0, AREA_FSW = 2, AREA_FTW = 4, AREA_FOP = 6, AREA_FIP = 8, AREA_FDP = 16, AREA_MXCSR = 24,
    AREA_MXCSR_MASK = 28, AREA_ST = 32, AREA_XMM = 160, AREA_LEGACY_END = 416, AREA_HEADER = 512, AREA_YMM = 576,
    AREA_FCS = 4080, AREA_FDS = 4082 /* selectors of FIP and FDP: no place in the 64-bit image, kept at its far end */
};

#define FSW_EXCEPTIONS 0x3Fu
#define FSW_SF 0x40u
#define FSW_ES 0x80u
#define FSW_B 0x8000u
#define FCW_WRITABLE 0x1F3Fu
#define FCW_ALWAYS 0x40u
#define FCW_INIT 0x37Fu

#define MXCSR_EXCEPTIONS 0x3Fu
#define MXCSR_DAZ 0x40u
#define MXCSR_MASKS 0x1F80u
#define MXCSR_FTZ 0x8000u
#define MXCSR_MM 0x20000u /* misaligned exception mask (AMD) */
#define MXCSR_INIT 0x1F80u

#define XCR0_X87 1u
#define XCR0_SSE 2u
#define XCR0_AVX 4u

/* Any alignment, any type: the image's registers and guest memory are addressed through these. */
typedef uint16_t Unaligned16 __attribute__((aligned(1), may_alias));
typedef uint32_t Unaligned32 __attribute__((aligned(1), may_alias));
typedef uint64_t Unaligned64 __attribute__((aligned(1), may_alias));

static inline uint16_t area16(const Cpu *cpu, unsigned at) { return *(const Unaligned16 *)(cpu->fpu.area + at); }
static inline uint32_t area32(const Cpu *cpu, unsigned at) { return *(const Unaligned32 *)(cpu->fpu.area + at); }
static inline uint64_t area64(const Cpu *cpu, unsigned at) { return *(const Unaligned64 *)(cpu->fpu.area + at); }
static inline void area_set16(Cpu *cpu, unsigned at, uint16_t v) { *(Unaligned16 *)(cpu->fpu.area + at) = v; }
static inline void area_set32(Cpu *cpu, unsigned at, uint32_t v) { *(Unaligned32 *)(cpu->fpu.area + at) = v; }
static inline void area_set64(Cpu *cpu, unsigned at, uint64_t v) { *(Unaligned64 *)(cpu->fpu.area + at) = v; }
static inline uint8_t *area_xmm(Cpu *cpu, unsigned i) { return cpu->fpu.area + AREA_XMM + 16 * (i & 15); }
static inline uint8_t *area_ymm_high(Cpu *cpu, unsigned i) { return cpu->fpu.area + AREA_YMM + 16 * (i & 15); }

/* ---- instruction-set extensions ---- */
enum VecIsa {
    ISA_NONE, ISA_X87, ISA_MMX, ISA_MMXEXT, ISA_SSE, ISA_SSE2, ISA_SSE3, ISA_SSSE3, ISA_SSE41, ISA_SSE42, ISA_SSE4A,
    ISA_AES, ISA_CLMUL, ISA_SHA, ISA_GFNI, ISA_AVX, ISA_AVX2, ISA_FMA, ISA_F16C, ISA_VAES, ISA_VCLMUL,
    ISA_FXSR, ISA_XSAVE, ISA_XSAVEOPT, ISA_XSAVEC, ISA_XSAVES, ISA_CLFLUSH, ISA_CLFLUSHOPT, ISA_CLWB, ISA_CMOV,
    ISA_FCMOV, ISA_MISALIGN, ISA_XGETBV1,
    ISA_ERROR_POINTERS, /* FXRSTOR and XRSTOR always load the x87 error pointers */
    ISA_COUNT
};
bool vec_guest_has(const Cpu *cpu, unsigned isa);  /* by the guest's CPUID */
bool vec_host_has(unsigned isa);                   /* the silicon can run it on this host */

/* ---- descriptions of instructions (vec_table.c) ---- */
enum { OPND_NONE, OPND_X, OPND_M, OPND_G }; /* XMM register, MMX register, general register; none */
enum { PFX_NONE, PFX_66, PFX_F3, PFX_F2 };

typedef struct VecInfo {
    uint8_t isa;    /* ISA_NONE: undefined */
    uint8_t reg, rm;/* OPND_x of ModRM.reg and of ModRM.rm when it is a register */
    uint8_t msize;  /* bytes of the memory operand */
    uint32_t flags; /* VF_x */
} VecInfo;

#define VF_DEST_RM 0x1u     /* the result goes to the rm operand */
#define VF_NO_DEST 0x2u
#define VF_FP 0x4u          /* obeys and sets MXCSR */
#define VF_ALIGN 0x8u       /* memory operand must be aligned, unless MXCSR.MM */
#define VF_ALIGN_ALWAYS 0x10u
#define VF_MEM_ONLY 0x20u
#define VF_REG_ONLY 0x40u
#define VF_XMM0 0x80u       /* XMM0 is an implied operand */
#define VF_EFLAGS 0x100u    /* writes the status flags */
#define VF_TINY_SINGLE 0x200u /* arithmetic whose single-precision results may be tiny (for the unmasked underflow) */
#define VF_TINY_DOUBLE 0x400u
#define VF_SCALAR 0x800u    /* of these, only the lowest element is a result */
#define VF_REXW 0x1000u     /* REX.W matters: 64-bit general register, and memory operand when that is 4 bytes */
#define VF_STR_LENGTHS 0x2000u /* PCMPESTRx: lengths in rAX and rDX */
#define VF_STR_INDEX 0x4000u   /* PCMPxSTRI: result in ECX */
#define VF_STR_MASK 0x8000u    /* PCMPxSTRM: result in XMM0 */
#define VF_MMX_QUIET 0x10000u  /* memory form does not enter MMX mode: CVTPI2PS, CVTPI2PD */
#define VF_GROUP 0x20000u      /* ModRM.reg extends the opcode */
#define VF_NO_OSFXSR 0x40000u  /* not checked: MMX registers only */
/* of VEX forms */
#define VF_VVVV 0x80000u       /* VEX.vvvv is an operand */
#define VF_DEST_VVVV 0x100000u /* and the destination */
#define VF_LIG 0x200000u       /* VEX.L is ignored */
#define VF_L256 0x400000u      /* VEX.L must be 1 */
#define VF_FIXED 0x800000u     /* memory operand does not grow with VEX.L */
#define VF_W0 0x1000000u       /* VEX.W must be 0 */
#define VF_W1 0x2000000u
#define VF_ENCODE_W 0x4000000u /* VEX.W selects the operation */
#define VF_REG_AVX2 0x8000000u /* the register form came with AVX2 */

const VecInfo *vec_info(unsigned map, unsigned prefix, unsigned opcode); /* NULL: undefined */
/* Which group members of 0F 71-73 exist with that prefix. */
bool vec_group_valid(unsigned opcode, unsigned prefix, unsigned digit);

/* ---- stubs (vec_stub.c) ---- */
typedef struct VecFrame {
    uint8_t a[32] __attribute__((aligned(32)));  /* the reg operand */
    uint8_t b[32];                               /* the rm operand: register or memory */
    uint8_t v[32];                               /* VEX.vvvv */
    uint8_t x0[32];                              /* XMM0, or the fourth register of VEX */
    uint64_t gpr, rax, rdx, rcx, rflags;
    uint32_t mxcsr, host_mxcsr;
} VecFrame;

typedef struct X87Frame {
    uint8_t mem[16] __attribute__((aligned(16)));
    uint64_t rflags;
    uint32_t host_mxcsr;
    uint16_t host_fcw;
} X87Frame;

#define STUB_MAX_CODE 160u

typedef struct VecStub {
    uint64_t key;              /* what it stands for; never 0 */
    union {
        void (*vec)(VecFrame *frame);
        void (*x87)(uint8_t *area, X87Frame *frame);
    } run;
    void (*lean)(VecFrame *frame); /* of an instruction that obeys MXCSR: under the host's MXCSR as it stands */
    VecInfo info;
    uint8_t imm;
    uint8_t wide;              /* VEX.L */
    struct VecStub *next;      /* same bucket */
} VecStub;

/* The stub for `key`, or NULL. */
VecStub *vec_stub_find(Machine *m, uint64_t key);
/* Makes it from `size` bytes of code, and its lean form from another `lean_size`, which follow at STUB_MAX_CODE; NULL
 * when the host gives no executable memory. */
VecStub *vec_stub_add(Machine *m, uint64_t key, const uint8_t *code, unsigned size, unsigned lean_size);
/* Stub of an SSE or MMX instruction with these fields. */
VecStub *vec_stub_sse(Machine *m, const Insn *insn, unsigned prefix, const VecInfo *info);
VecStub *vec_stub_vex(Machine *m, const Insn *insn, unsigned prefix, const VecInfo *info, bool wide);
/* Stub of an x87 instruction, canonical encoding. `reads_flags`, `writes_flags`: FCMOVcc, FCOMI. */
VecStub *vec_stub_x87(Machine *m, uint8_t opcode, uint8_t modrm, bool reads_flags, bool writes_flags);
/* Handler for ops whose stub could not be made: stops the machine with an error. */
const Op *vec_no_stub(Cpu *cpu, const Op *op);

/* ---- common checks and operands ---- */
_Noreturn void vec_blocked(Cpu *cpu, const Op *op);                /* raises what sse_ready() found: #UD or #NM */
static inline void sse_ready(Cpu *cpu, const Op *op)
{
    if (unlikely((cpu->cr0 & (CR0_EM | CR0_TS)) | (~cpu->cr4 & CR4_OSFXSR)))
        vec_blocked(cpu, op);
}
void mmx_ready(Cpu *cpu, const Op *op);                            /* #UD, #NM, #MF */
_Noreturn void vec_misaligned(Cpu *cpu, const Op *op);
/* The SIMD exceptions of `raised` (MXCSR flags of a run with all masked): sets MXCSR, or leaves with #XF or #UD. */
void vec_fp_exceptions(Cpu *cpu, const Op *op, uint32_t raised);
/* Corrects PE in `raised` where overflow or underflow is unmasked (vec_fp.c). */
uint32_t vec_post_exceptions(Cpu *cpu, const Op *op, const VecStub *stub, const VecFrame *frame, uint32_t raised);
uint32_t vec_mxcsr_mask(const Cpu *cpu);                           /* writable bits */
bool vec_direct(const Insn *insn, unsigned prefix, Op *op);        /* vec_fast.c: sets op->fn, or false */
bool vec_special(Cpu *cpu, const Insn *insn, unsigned prefix, Op *op, bool *defined); /* vec_misc.c */

bool vex_decode(Cpu *cpu, const Insn *insn, unsigned prefix, Op *op);          /* vec_vex.c */
bool vex_direct(const Insn *insn, unsigned prefix, bool wide, Op *op);            /* vec_vex_fast.c */
void vex_ready(Cpu *cpu, const Op *op);                                        /* #UD, #NM of AVX */
/* Runs a stub that obeys MXCSR; takes the exceptions that are unmasked. */
void vec_run_fp(Cpu *cpu, const Op *op, const VecStub *stub, VecFrame *frame);
const Op *misc_ldmxcsr(Cpu *cpu, const Op *op);
const Op *misc_stmxcsr(Cpu *cpu, const Op *op);
const Op *misc_maskmovdqu(Cpu *cpu, const Op *op);

/* Linear address of the memory operand when segmentation cannot object (64-bit mode; the TLB rejects what is not
 * canonical), and the general way. */
static inline bool vec_flat(const Cpu *cpu, const Op *op) { return cpu->code_size == 8 && op->asize == 8; }
static inline uint64_t vec_flat_linear(const Cpu *cpu, const Op *op)
{
    return cpu->r[op->base] + (cpu->r[op->index] << op->scale) + (uint64_t)(int64_t)op->disp + cpu->sbase[op->seg];
}

enum { ALIGN_NO, ALIGN_YES, ALIGN_ALWAYS };
static inline void vec_check_alignment(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, int align)
{
    if (align != ALIGN_NO && unlikely(linear & (size - 1)) &&
        (align == ALIGN_ALWAYS || !(area32(cpu, AREA_MXCSR) & MXCSR_MM)))
        vec_misaligned(cpu, op);
}
void vec_read_slow(Cpu *cpu, const Op *op, void *out, unsigned size, int align);
void vec_write_slow(Cpu *cpu, const Op *op, const void *in, unsigned size, int align);
/* Memory operand of `size` bytes (a constant, so that the copy is inline). */
static inline void vec_read(Cpu *cpu, const Op *op, void *out, unsigned size, int align)
{
    if (likely(vec_flat(cpu, op))) {
        uint64_t linear = vec_flat_linear(cpu, op);
        const void *p = mem_fast_read(cpu, linear, size);
        if (likely(p != NULL) && (align == ALIGN_NO || likely(!(linear & (size - 1))))) {
            memcpy(out, p, size);
            return;
        }
    }
    vec_read_slow(cpu, op, out, size, align);
}
static inline void vec_write(Cpu *cpu, const Op *op, const void *in, unsigned size, int align)
{
    if (likely(vec_flat(cpu, op))) {
        uint64_t linear = vec_flat_linear(cpu, op);
        void *p = mem_fast_write(cpu, linear, size);
        if (likely(p != NULL) && (align == ALIGN_NO || likely(!(linear & (size - 1))))) {
            memcpy(p, in, size);
            return;
        }
    }
    vec_write_slow(cpu, op, in, size, align);
}

/* ---- x87 state ---- */
static inline unsigned x87_top(const Cpu *cpu) { return area16(cpu, AREA_FSW) >> 11 & 7; }
static inline bool x87_pending(const Cpu *cpu)
{
    return (area16(cpu, AREA_FSW) & ~area16(cpu, AREA_FCW) & FSW_EXCEPTIONS) != 0;
}
void x87_update_es(Cpu *cpu);               /* FSW.ES and FSW.B from flags and masks */
void x87_set_top(Cpu *cpu, unsigned top);   /* changes TOP; the physical registers keep their contents */
void x87_pending_fault(Cpu *cpu, const Op *op); /* #MF, or its FERR# form, when an exception is pending */
void x87_available(Cpu *cpu, const Op *op); /* #NM */
void x87_ready(Cpu *cpu, const Op *op);     /* #NM, then x87_pending_fault */
const Op *x87_fnstenv(Cpu *cpu, const Op *op); /* x87_env.c */
const Op *x87_fldenv(Cpu *cpu, const Op *op);
const Op *x87_fnsave(Cpu *cpu, const Op *op);
const Op *x87_frstor(Cpu *cpu, const Op *op);
void x87_init_state(Cpu *cpu);              /* FNINIT */
uint8_t *mmx_register(Cpu *cpu, unsigned i);/* its 8 bytes in the image */
void mmx_enter(Cpu *cpu);                   /* TOP = 0, all tags valid */

/* ---- XSAVE family (xsave.c) ---- */
bool xsave_decode(Cpu *cpu, const Insn *insn, Op *op);

#endif
