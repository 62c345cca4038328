/* Decoded operations: what the decoder makes of an instruction and the interpreter runs. */
#ifndef SIM_OP_H
#define SIM_OP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct SimCpu Cpu;
typedef struct SimMachine Machine;
typedef struct Op Op;
typedef struct Block Block;

/* A handler executes one op and returns the op that runs next: usually through NEXT. It must not change any guest
 * state before the last thing in it that can fault: an exception leaves by longjmp and the op is restarted later. */
typedef const Op *OpFn(Cpu *cpu, const Op *op);

/* Extra slots of Cpu.r: constant zero, RIP of the running block's start, constant 2^31. */
enum { REG_ZERO = 16, REG_RIP = 17, REG_2G = 18 };

struct Op {
    OpFn *fn;
    union {
        int64_t imm;      /* immediate, sign-extended; or what the handler likes */
        uint64_t uimm;
        void *ptr;
    };
    int32_t disp;         /* displacement; for RIP-relative operands op->off + op->len is added in already */
    uint8_t reg;          /* ModRM.reg with REX.R; for byte operands the byte offset in Cpu.r (AH = 1) */
    uint8_t rm;           /* ModRM.rm as a register, likewise */
    uint8_t base, index;  /* of the memory operand; REG_ZERO when absent */
    uint8_t scale;        /* shift, 0..3 */
    uint8_t seg;          /* SEG_x of the memory operand */
    uint8_t len;          /* instruction length */
    uint8_t flags;        /* OPF_x */
    uint16_t off;         /* of the instruction from its block's start, bytes */
    uint8_t osize;        /* operand size in bytes: 1, 2, 4, 8 */
    uint8_t asize;        /* address size: 2, 4, 8 */
};
_Static_assert(sizeof(Op) == 32, "an op is two to a cache line");

#define OPF_MEM 0x01      /* has a memory operand (ModRM.mod != 3) */
#define OPF_RIPREL 0x02   /* memory operand is RIP-relative */
#define OPF_REP 0x04      /* F3 */
#define OPF_REPNE 0x08    /* F2 */
#define OPF_LOCK 0x10
#define OPF_FUSED 0x20    /* stands for two instructions */
#define OPF_REXW 0x40
#define OPF_LINK 0x80     /* ptr is a direct link to a block of the same page, or NULL */

/* An instruction as parsed, before it becomes an op. */
typedef struct Insn {
    uint8_t bytes[16];
    uint8_t len;
    uint8_t mode;         /* 2, 4 or 8: code size in bytes */
    uint8_t osize, asize; /* effective, bytes (osize already follows REX.W / 66 / mode; not the 64-bit defaults of
                             near branches and stack ops) */
    uint8_t seg;          /* effective segment of the memory operand */
    uint8_t has66, rep;   /* rep: 0, 0xF2 or 0xF3, the last one seen */
    uint8_t lock;
    uint8_t rex;          /* whole REX byte, 0 when none */
    uint8_t vex;          /* 0, or 2/3: length of a VEX prefix (then map/rep/has66/rex are set from it) */
    uint8_t vex_l, vex_v; /* VEX.L, and VEX.vvvv already inverted */
    uint8_t map;          /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t opcode;
    uint8_t opcode_at;    /* index of the opcode byte in bytes[] */
    uint8_t has_modrm;
    uint8_t modrm, mod, reg, rm; /* reg and rm extended with REX.R / REX.B (rm only meaningful for mod 3) */
    uint8_t base, index, scale;  /* of the memory operand, extended; REG_ZERO / REG_RIP */
    uint8_t imm_size;     /* bytes of immediate; imm8 of SSE instructions included */
    int32_t disp;
    int64_t imm;          /* sign-extended from imm_size */
} Insn;

/* Decoders of the vector and x87 units (vec.c, x87.c), called for every opcode that the integer decoder leaves to them:
 * x87 D8-DF (map 0), and in maps 1-3 every SSE/MMX/AES/SHA/... opcode, FXSAVE/XSAVE family (0F AE, 0F C7 /3-5),
 * LDMXCSR/STMXCSR, EMMS, FWAIT (9B). The op has all operand fields filled in already (fn, imm excepted: imm holds
 * insn->imm). They set op->fn (and may use op->imm as a pointer to longer-lived data of their own), and return true, or
 * false for #UD. Whether CPUID or CR4 allow the instruction is checked at execution (the block may outlive CR4).  */
bool vec_decode(Cpu *cpu, const Insn *insn, Op *op);
bool x87_decode(Cpu *cpu, const Insn *insn, Op *op);
void vec_machine_init(Machine *m);   /* allocates the stub buffer lazily: keep it cheap */
void vec_machine_free(Machine *m);
void vec_reset(Cpu *cpu, bool init); /* x87/SSE/XCR0 state at RESET or INIT */
bool xsetbv(Cpu *cpu, uint32_t index, uint64_t value); /* false: #GP */
/* Bytes that XSAVE needs for `xcr0` (standard format) or for a compacted image of `mask`: CPUID 0Dh EBX and ECX. */
uint32_t xsave_size(uint64_t mask, bool compacted);
uint64_t xsave_in_use(const Cpu *cpu); /* XINUSE: XGETBV with ECX = 1 */

#endif
