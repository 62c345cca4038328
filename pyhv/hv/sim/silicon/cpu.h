/* State of one AMD64 CPU and of the machine around it, and the interfaces between the parts of the silicon.
 *
 * Control flow: run.c calls handlers of decoded ops in a loop. Whatever ends an instruction early (an exception, an
 * intercept, a device access) leaves through longjmp to that loop, after sync_op() has made RIP, the instruction count
 * and the budget those of the instruction at hand. So handlers have no error paths, and must follow the rule of op.h:
 * nothing of the guest's state changes before the last possible fault.
 */
#ifndef SIM_CPU_H
#define SIM_CPU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "api.h"
#include "lapic.h"
#include "op.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- registers ---- */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

#define FLAG_CF 0x1u
#define FLAG_PF 0x4u
#define FLAG_AF 0x10u
#define FLAG_ZF 0x40u
#define FLAG_SF 0x80u
#define FLAG_TF 0x100u
#define FLAG_IF 0x200u
#define FLAG_DF 0x400u
#define FLAG_OF 0x800u
#define FLAG_IOPL 0x3000u
#define FLAG_NT 0x4000u
#define FLAG_RF 0x10000u
#define FLAG_VM 0x20000u
#define FLAG_AC 0x40000u
#define FLAG_VIF 0x80000u
#define FLAG_VIP 0x100000u
#define FLAG_ID 0x200000u
#define FLAGS_STATUS 0x8D5u /* OF SF ZF AF PF CF: what the lazy flags stand for */

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME 0x1u
#define CR4_PVI 0x2u
#define CR4_TSD 0x4u
#define CR4_DE 0x8u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_MCE 0x40u
#define CR4_PGE 0x80u
#define CR4_PCE 0x100u
#define CR4_OSFXSR 0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP 0x800u
#define CR4_LA57 0x1000u
#define CR4_FSGSBASE 0x10000u
#define CR4_PCIDE 0x20000u
#define CR4_OSXSAVE 0x40000u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u
#define EFER_SVME 0x1000u
#define EFER_LMSLE 0x2000u
#define EFER_FFXSR 0x4000u
#define EFER_TCE 0x8000u

enum {
    EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6, EXC_NM = 7, EXC_DF = 8,
    EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14, EXC_MF = 16, EXC_AC = 17, EXC_MC = 18, EXC_XF = 19
};

/* #PF error code bits (APM vol. 2, 8.4.2) */
#define PF_P 0x1u
#define PF_W 0x2u
#define PF_U 0x4u
#define PF_RSV 0x8u
#define PF_I 0x10u

/* ---- lazy flags: what the last flag-setting instruction was; operands and result are sign-extended to 64 bits ---- */
enum {
    CC_FLAGS, /* flags are explicit: cc_a holds OF SF ZF AF PF CF in RFLAGS positions */
    CC_ADD,   /* res = a + b */
    CC_SUB,   /* res = a - b; CMP, NEG (a = 0) */
    CC_LOGIC, /* res; CF = OF = AF = 0 */
    CC_ADC,   /* res = a + b + 1 (with carry in; ADC without carry in is CC_ADD) */
    CC_SBB,   /* res = a - b - 1 */
    CC_INC,   /* res; CF in cc_b */
    CC_DEC,
};

/* ---- TLB ---- */
#define TLB_BITS 10
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_NONE UINT64_MAX
#define TLB_SLOTS 3      /* ASID slots in the first level: the host (bare machine) and recent guests */
enum { TLB_SUPER, TLB_USER, TLB_SUPER_AC, TLB_CLASSES }; /* CPL 0-2; CPL 3; CPL 0-2 with SMAP lifted by EFLAGS.AC */

typedef struct TlbEntry {
    uint64_t tag_r, tag_w, tag_x; /* page's linear address when that access may go straight to memory */
    uint64_t addend;              /* host pointer = linear + addend */
} TlbEntry;

struct ArchTlb;   /* tlb.h: the exact model (ASID, PCID, page, global, permissions, GPA, HPA) */
struct CodePage;  /* block.h */

/* ---- memory-access kinds ---- */
enum { ACC_READ = 0, ACC_WRITE = 1, ACC_FETCH = 2 };

#define MMIO_LOG_MAX 160
typedef struct MmioLogEntry {
    uint64_t addr, data;
    uint8_t size, write;
} MmioLogEntry;

typedef struct JumpEntry {
    uint64_t rip;
    uint64_t key;     /* generation and mode, see Cpu.jump_key */
    Block *block;
} JumpEntry;
#define JUMP_BITS 12
#define JUMP_SIZE (1u << JUMP_BITS)

/* ---- reasons for longjmp to run.c ---- */
enum { LEAVE_EXCEPTION = 1, LEAVE_STOP, LEAVE_VMEXIT, LEAVE_RESYNC };

typedef struct PendingException {
    uint8_t vector;
    uint8_t has_error;
    uint8_t db_fault;     /* #DB that is a fault: instruction breakpoint, general detect */
    uint32_t error;
    uint64_t cr2;         /* of #PF */
    uint64_t dr6;         /* bits to set, of #DB */
} PendingException;

struct SimCpu {
    /* hot */
    uint64_t r[20];            /* RAX..R15, REG_ZERO, REG_RIP, two spare */
    int64_t cc_res, cc_a, cc_b;
    uint32_t cc_kind;
    uint32_t rflags;           /* all but the status flags, which are lazy (cpu_rflags() has it whole); bit 1 set */
    TlbEntry *tlb;             /* first-level TLB of the current ASID slot and privilege class */
    int64_t budget;            /* instructions to the next event; goes below zero when a block does not fit */
    uint64_t linmask;          /* ~0 in 64-bit mode, 0xFFFFFFFF outside */
    uint64_t sbase[8];         /* segment bases as the address of an operand needs them (0 in 64-bit mode but FS, GS) */
    uint64_t jump_key;         /* generation << 16 | mode; a different value invalidates every cached jump */
    JumpEntry *jumps;
    const Block *block;        /* running block, NULL between blocks */
    const Op *op;              /* the op that last went to a slow path */

    /* mode */
    uint32_t mode;             /* MODE_x bits, the key of decoded blocks */
    uint8_t cpl;
    uint8_t code_size;         /* 2, 4, 8 */
    uint8_t stack_size;        /* 2, 4, 8 */
    uint8_t priv_class;        /* TLB_x */
    uint8_t in_guest;          /* inside VMRUN */
    uint8_t nested_paging;
    uint8_t gif;
    uint8_t nmi_masked, nmi_pending;
    uint8_t shadow;            /* 1: after STI, 2: after MOV SS / POP SS; for the next instruction boundary */
    uint8_t mp_state;
    uint8_t vapic;
    uint8_t attention;         /* look at events before the next instruction */
    uint8_t python_host;       /* #VMEXIT returns to the caller instead of to simulated host code */

    /* segments and system registers */
    SimSegment seg[SEG_COUNT]; /* attrib 0 with P clear: null/unusable */
    SimSegment gdtr, idtr;     /* base and limit */
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[8];
    uint64_t pdpte[4];         /* PAE: loaded with CR3 */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, debugctl, xss;
    uint64_t mtrr_def, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t msr_misc[24];

    /* time */
    uint64_t icount;           /* instructions retired up to the start of this run of `budget` */
    int64_t budget_start;      /* value of budget then */
    uint64_t ticks;            /* machine ticks at icount 0, moved by idling and TSC writes to the machine clock */
    uint64_t tsc_offset;       /* added to ticks for RDTSC: TSC writes, TSC_ADJUST */
    uint64_t run_end;          /* icount at which the caller's budget ends */
    int64_t step_hold;         /* budget kept back while a single instruction runs */
    uint64_t start_vmrun;      /* sim_vmrun: VMCB to enter */
    uint8_t start_pending, event_taken, step_shadow, debug_first, told_another, nested_faults;
    uint64_t jump_cs_base;
    uint32_t jump_cs_limit;

    /* events */
    PendingException exc;      /* set before LEAVE_EXCEPTION */
    uint64_t pending_dbg;      /* DR6 bits to report after this instruction (single step, data breakpoints, task switch) */
    int stop_reason;           /* set before LEAVE_STOP */
    volatile int stop_request;
    jmp_buf leave;

    /* device access in flight */
    SimAccess access;
    MmioLogEntry mmio_log[MMIO_LOG_MAX];
    uint32_t mmio_have, mmio_at; /* answered accesses of the instruction being restarted; how many it has used */
    uint8_t access_port;       /* the access in flight is to a port */
    uint8_t in_string;           /* within a string instruction: SimAccess.string */
    uint8_t stepping;            /* running one instruction outside the cache */
    uint8_t tracing;             /* branches or instructions are traced: nothing comes from the cache */
    uint8_t want_step;           /* the next instruction cannot come from the cache */
    uint8_t watch;               /* DR7 watches data, or #AC is on: every access takes the slow path */
    uint8_t extint_have, extint_vector;

    /* SVM: the VMCB's control area as VMRUN loaded it (svm.c) */
    struct {
        uint64_t vmcb_pa, hsave_pa, vm_cr;
        uint32_t cr_read, cr_write, dr_read, dr_write; /* 16 bits each */
        uint32_t exceptions;
        uint64_t intercepts;   /* VMCB 00Ch-013h: bit 0 INTR ... 31 SHUTDOWN... bit 32 VMRUN ... */
        uint32_t intercepts3;  /* 014h */
        uint64_t iopm, msrpm;
        uint64_t tsc_offset;
        uint32_t asid;
        uint64_t int_ctl;      /* V_TPR, V_IRQ, V_INTR_MASKING, AVIC enable ... live */
        uint32_t int_vector;
        uint64_t ncr3, hcr4, hefer, hcr0; /* nested root and the host's paging mode */
        uint64_t hpat;
        uint64_t exitintinfo;  /* event being delivered, for #VMEXIT in its course */
        uint8_t delivering;
        uint64_t next_rip;     /* nRIP of an intercepted instruction */
        uint8_t v_intr_masking, host_if;
        uint8_t inject;        /* EVENTINJ is to be delivered before the next instruction */
        uint64_t eventinj, inject_nrip;
        struct {               /* the host's state, as VMRUN keeps it */
            SimSegment es, cs, ss, ds, gdtr, idtr;
            uint64_t efer, cr0, cr3, cr4, rflags, rip, rsp, rax, pat, pdpte[4];
        } host;
        /* AVIC and memory encryption: reserved for them, zero until they exist */
        uint64_t avic_bar, avic_backing, avic_logical, avic_physical;
        uint64_t cbit_mask;
    } svm;

    /* x87, SSE: standard-format XSAVE image; register values live here all the time */
    struct {
        uint8_t area[4096];    /* FCW 0, FSW 2, FTW(abridged) 4, FOP 6, FIP 8, FDP 16, MXCSR 24, ST 32, XMM 160 */
        void *vec_private;     /* vec.c's own */
    } __attribute__((aligned(64))) fpu;

    Lapic lapic;
    uint64_t rng[2];
    uint64_t jump_generation;
    struct ArchTlb *arch_tlb;
    TlbEntry *tlb_slots;       /* [TLB_SLOTS][TLB_CLASSES][TLB_SIZE] */
    uint32_t slot_asid[TLB_SLOTS];
    uint32_t slot, slot_clock, slot_used[TLB_SLOTS];
    uint64_t slot_permissions[TLB_SLOTS];
    Op step_ops[4];            /* a single instruction run outside the block cache */
    struct { uint64_t linear[64]; uint32_t count; uint8_t step; } debug;
    SimMachine *machine;
    uint32_t index;
    SimStats stats;
    char error[256];
};

struct SimMachine {
    uint8_t *ram;
    uint64_t ram_size;
    struct { uint64_t pa, size, offset; uint32_t flags; } map[16];
    uint32_t maps;
    bool mapped_explicitly;
    uint32_t ncpus;
    Cpu *cpus[256];
    Cpu *running;                  /* whose run function is active */
    uint64_t tsc_hz, tsc_per_instr, apic_hz;
    uint64_t phys_mask;            /* of valid physical address bits, from CPUID 8000_0008h */
    bool has_1g;                   /* CPUID: 1 GiB pages */
    uint64_t features;             /* FEAT_x, from CPUID */
    uint64_t seed;
    uint32_t breakpoints;          /* host breakpoints of all CPUs */
    struct CodePage **code_pages;  /* by ram offset >> 12 */
    struct CodeArena *arena;
    struct {
        uint32_t kinds, used, capacity;
        uint64_t low, high, lost;
        SimTraceRecord *buffer;
    } trace;                       /* trace.c */
    SimCpuidEntry cpuid[128];
    uint32_t cpuid_count;
    void *vec_private;             /* vec.c: its stub buffer */
};

/* ---- leaving an instruction (run.c, exception.c) ---- */
/* Make RIP, instruction count and budget those of `op` (NULL: they already are). Ends the running block. */
void sync_op(Cpu *cpu, const Op *op);
_Noreturn void raise_exception(Cpu *cpu, const Op *op, unsigned vector);               /* no error code */
_Noreturn void raise_error(Cpu *cpu, const Op *op, unsigned vector, uint32_t error);   /* #TS #NP #SS #GP #AC ... */
_Noreturn void raise_page_fault(Cpu *cpu, const Op *op, uint64_t linear, uint32_t error);
_Noreturn void leave_stop(Cpu *cpu, const Op *op, int stop_reason);
_Noreturn void leave_error(Cpu *cpu, const Op *op, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define RAISE_UD(cpu, op) raise_exception(cpu, op, EXC_UD)
#define RAISE_GP0(cpu, op) raise_error(cpu, op, EXC_GP, 0)

/* ---- flags (flags.h has the inline parts) ---- */
uint32_t cpu_status_flags(const Cpu *cpu);         /* OF SF ZF AF PF CF, computed */
uint64_t cpu_rflags(const Cpu *cpu);               /* RFLAGS whole */
static inline void set_status_flags(Cpu *cpu, uint32_t flags) /* OF SF ZF AF PF CF in place; others ignored */
{
    cpu->cc_kind = CC_FLAGS;
    cpu->cc_a = flags & FLAGS_STATUS;
}

/* ---- linear memory. `op` is the op at hand, or NULL in event delivery. All may leave by exception. ---- */
/* Linear address of the op's memory operand for `size` bytes, segment checks included (#GP/#SS); acc is ACC_x. */
uint64_t op_linear(Cpu *cpu, const Op *op, unsigned size, int acc);
/* Likewise, for an operand at `offset` in segment `seg`. */
uint64_t seg_linear(Cpu *cpu, const Op *op, unsigned seg, uint64_t offset, unsigned size, int acc);
uint64_t mem_read_slow(Cpu *cpu, const Op *op, uint64_t linear, unsigned size);                 /* 1, 2, 4, 8 */
void mem_write_slow(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, uint64_t value);
/* Any size up to 4096, with the CPU's current privilege; a write is all or nothing. */
void mem_read(Cpu *cpu, const Op *op, uint64_t linear, void *out, unsigned size);
void mem_write(Cpu *cpu, const Op *op, uint64_t linear, const void *in, unsigned size);
/* Takes every fault that a write (or read) there would, without doing it. */
void mem_probe(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, int acc);
/* Supervisor access whatever the CPL: descriptor tables, TSS. */
uint64_t mem_read_sys(Cpu *cpu, const Op *op, uint64_t linear, unsigned size);
void mem_write_sys(Cpu *cpu, const Op *op, uint64_t linear, unsigned size, uint64_t value);
/* Host pointer when `size` bytes at `linear` lie in one page of plain RAM that the access may touch; else NULL. */
static inline void *mem_fast_read(Cpu *cpu, uint64_t linear, unsigned size)
{
    const TlbEntry *e = &cpu->tlb[(linear >> 12) & (TLB_SIZE - 1)];
    if (likely(((linear + size - 1) & ~0xFFFull) == e->tag_r))
        return (void *)(uintptr_t)(linear + e->addend);
    return NULL;
}
static inline void *mem_fast_write(Cpu *cpu, uint64_t linear, unsigned size)
{
    const TlbEntry *e = &cpu->tlb[(linear >> 12) & (TLB_SIZE - 1)];
    if (likely(((linear + size - 1) & ~0xFFFull) == e->tag_w))
        return (void *)(uintptr_t)(linear + e->addend);
    return NULL;
}

/* ---- physical memory (memory.c) ---- */
/* Host pointer to RAM at `pa` when [pa, pa+size) is backed in one piece, else NULL. `writable` refuses ROM. */
uint8_t *phys_ptr(const Machine *m, uint64_t pa, uint64_t size, bool writable);
/* A write went to host pointer `p` (inside ram): drop decoded instructions there. */
void code_written(Machine *m, const uint8_t *p, uint64_t size);

/* ---- mode and events ---- */
void cpu_update_mode(Cpu *cpu);       /* after any change of CR0/CR4/EFER/CS/SS/CPL/AC/DS/ES: mode, linmask, TLB set */
void cpu_flush_jumps(Cpu *cpu);
bool cpu_has(const Cpu *cpu, uint32_t function, int reg, int bit); /* CPUID bit; reg 0-3 = eax ebx ecx edx */
/* CPUID features that decide whether an instruction exists, as bits of SimMachine.features (cpuid.c). */
enum { FEAT_BMI1, FEAT_BMI2, FEAT_LZCNT, FEAT_POPCNT, FEAT_SSE42, FEAT_ADX, FEAT_CX16, FEAT_RDRAND, FEAT_RDSEED,
       FEAT_MOVBE, FEAT_SVM, FEAT_RDTSCP, FEAT_FSGSBASE, FEAT_SYSCALL, FEAT_SEP, FEAT_XSAVE, FEAT_INVPCID, FEAT_PCID,
       FEAT_SMEP, FEAT_SMAP, FEAT_UMIP, FEAT_LA57, FEAT_NX, FEAT_PGE, FEAT_PSE, FEAT_PAE, FEAT_LM, FEAT_TSC, FEAT_MSR,
       FEAT_X2APIC, FEAT_TSC_DEADLINE, FEAT_VME, FEAT_MONITOR, FEAT_CLFLUSH, FEAT_SSE, FEAT_SSE2, FEAT_SSE3, FEAT_SSSE3,
       FEAT_SSE41, FEAT_AES, FEAT_SHA, FEAT_PCLMUL, FEAT_FXSR, FEAT_MMX, FEAT_FPU, FEAT_RDPID, FEAT_CLFLUSHOPT,
       FEAT_CLWB, FEAT_SSE4A, FEAT_FFXSR, FEAT_AVX, FEAT_AVX2, FEAT_XSAVEOPT, FEAT_XSAVEC, FEAT_XGETBV1, FEAT_XSAVES,
       FEAT_3DNOWPREFETCH, FEAT_MTRR, FEAT_PAT, FEAT_APIC };
static inline bool cpu_feature(const Cpu *cpu, int feature)
{
    return cpu->machine->features >> feature & 1;
}
/* SVM intercept check for the op at hand: leaves with #VMEXIT(code) when in a guest that intercepts it. */
void svm_intercept(Cpu *cpu, const Op *op, int bit, uint64_t code, uint64_t info1, uint64_t info2);

#define NEXT return (op + 1)->fn(cpu, op + 1)

#endif
