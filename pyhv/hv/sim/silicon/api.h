/* The public C interface of the simulated AMD64 machine. cffi parses this file as it stands, so it holds plain
 * declarations and integer #defines only. Everything here is called from one host thread at a time per machine,
 * except sim_stop_request, which any thread may call.
 *
 * Physical memory of the simulated machine is lent by the caller: `ram` points to `ram_size` bytes, which appear at
 * physical addresses by sim_map_ram. Every access by the machine is checked against those ranges.
 *
 * Time: one retired instruction is `tsc_per_instr` TSC ticks; sim_idle_to advances a halted CPU's TSC.
 */

/* ---- why a run function came back ---- */
#define SIM_STOP_BUDGET 0     /* the instructions asked for have retired; call sim_run to go on */
#define SIM_STOP_VMEXIT 1     /* #VMEXIT: the VMCB holds the guest and the exit code */
#define SIM_STOP_REQUEST 2    /* sim_stop_request was called */
#define SIM_STOP_HALT 3       /* bare machine, or a guest whose HLT is not intercepted: halted, nothing pending */
#define SIM_STOP_SHUTDOWN 4   /* bare machine: triple fault */
#define SIM_STOP_MMIO 5       /* bare machine: access outside RAM, see sim_access; answer with sim_access_done */
#define SIM_STOP_PIO 6        /* bare machine: IN/OUT, see sim_access; answer with sim_access_done */
#define SIM_STOP_EOI 7        /* the local APIC broadcast the EOI of a level-triggered vector, see sim_eoi_vector */
#define SIM_STOP_INIT 8       /* this CPU waits for a start-up IPI (or has just received INIT or SIPI under vapic) */
#define SIM_STOP_EXTINT 9     /* bare machine: LINT0/ExtINT accepted; answer with sim_extint_vector and run again */
#define SIM_STOP_ERROR 10     /* the machine gave up; sim_error says why */
#define SIM_STOP_DEBUG 11     /* a host breakpoint or host single step (sim_debug_*) */
#define SIM_STOP_EVENT 12     /* something other CPUs or the host must see changed (an IPI was sent): reschedule */

/* ---- segments in the VMCB's form ---- */
typedef struct SimSegment {
    uint16_t selector;
    uint16_t attrib; /* VMCB attributes: 3:0 type, 4 S, 6:5 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G */
    uint32_t limit;  /* in bytes, scaled by G */
    uint64_t base;
} SimSegment;

/* Whole architectural state of one CPU as it stands now (the guest's while it is inside VMRUN). */
typedef struct SimState {
    uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
    uint64_t rip, rflags;
    SimSegment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer;
    uint64_t dr[8]; /* 0-3, 6, 7 */
    uint64_t apic_base, pat;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc, tsc_aux, icount;
    uint8_t cpl;
    uint8_t mp_state;      /* 0 running, 1 wait for SIPI, 3 halted */
    uint8_t shadow;        /* interrupt shadow of STI (1) or MOV SS (2) */
    uint8_t nmi_masked, nmi_pending;
    uint8_t in_guest;      /* inside VMRUN */
    uint8_t gif;
    uint8_t reserved;
} SimState;

typedef struct SimCpuidEntry {
    uint32_t function, index;
    uint32_t flags; /* 1: index is significant */
    uint32_t eax, ebx, ecx, edx;
} SimCpuidEntry;

/* One device access that the run stopped for. For an #NPF on a data access the same record is filled in as decode
 * assistance (`valid`); a page-table walk that faults has `valid` 0. An access that crosses a page comes in parts. */
typedef struct SimAccess {
    uint64_t addr; /* physical address (guest physical under VMRUN) or port */
    uint64_t data; /* little-endian value, for writes */
    uint32_t size; /* 1, 2, 4 or 8 */
    uint8_t write;
    uint8_t valid;
    uint8_t string; /* PIO: INS/OUTS; MMIO: from a string instruction */
    uint8_t implicit; /* a descriptor table, TSS or stack access by the CPU itself */
    uint32_t count; /* PIO strings: iterations that follow at most, 1 otherwise */
    uint32_t pad;
} SimAccess;

typedef struct SimStats {
    uint64_t instructions;
    uint64_t exceptions[32];      /* delivered, by vector */
    uint64_t interrupts;          /* external and APIC interrupts delivered through the IDT */
    uint64_t nmis;
    uint64_t vmruns, vmexits;
    uint64_t exit_count[160];     /* #VMEXIT codes 0..0x9F */
    uint64_t exit_npf, exit_avic_ipi, exit_avic_noaccel, exit_invalid, exit_other;
    uint64_t injections;          /* EVENTINJ by VMRUN */
    uint64_t virtual_interrupts;  /* V_IRQ or vapic interrupts taken by a guest */
    uint64_t vapic_accesses;      /* guest local APIC accesses answered by the C half of the host */
    uint64_t tlb_hits, tlb_misses;   /* second-level (architectural) TLB, this CPU, all ASIDs */
    uint64_t tlb_flushes;
    uint64_t walk_refs_guest;     /* page-table entries read of the (guest's) own tables */
    uint64_t walk_refs_nested;    /* nested page-table entries read */
    uint64_t walks;
    uint64_t pages_4k, pages_2m, pages_1g; /* translations filled, by effective size */
    uint64_t blocks_decoded, ops_decoded, smc_kills, cache_flushes;
    uint64_t jit_blocks;          /* room for the block JIT */
} SimStats;

typedef struct SimTlbAsidStats {
    uint32_t asid, pad;
    uint64_t hits, misses;
} SimTlbAsidStats;

typedef struct SimMachine SimMachine;
typedef struct SimCpu SimCpu;

/* ---- machine ---- */
SimMachine *sim_machine_new(uint8_t *ram, uint64_t ram_size, uint32_t ncpus, uint64_t seed); /* NULL: no memory */
void sim_machine_free(SimMachine *m);
SimCpu *sim_machine_cpu(SimMachine *m, uint32_t index);
/* Bytes [offset, offset+size) of `ram` appear at physical `pa`; all 4 KiB multiples; -1 if they do not fit. With no
 * call at all, ram appears once at 0. flags: 1 = read-only (ROM: writes are ignored). */
int sim_map_ram(SimMachine *m, uint64_t pa, uint64_t size, uint64_t offset, uint32_t flags);
void sim_set_cpuid(SimMachine *m, const SimCpuidEntry *entries, uint32_t count); /* copied; at most 128 */
/* Bits of a CPUID leaf's register (0-3: eax ebx ecx edx) that the vector and x87 units can run on this host. */
uint32_t vec_cpuid_mask(uint32_t function, uint32_t index, int reg);
void sim_set_time(SimMachine *m, uint64_t tsc_hz, uint64_t tsc_per_instr, uint64_t apic_hz);
/* The host (or a device) wrote physical memory: drop cached instructions there. */
void sim_host_wrote(SimMachine *m, uint64_t pa, uint64_t size);

/* ---- one CPU ---- */
uint64_t *sim_gpr(SimCpu *cpu);                 /* live: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
void sim_get_state(SimCpu *cpu, SimState *out);
int sim_set_state(SimCpu *cpu, const SimState *in); /* -1: state that cannot be entered; flushes the TLB */
uint8_t *sim_xsave_area(SimCpu *cpu);           /* live: standard-format XSAVE image, 4096 bytes, legacy area first */
void sim_reset(SimCpu *cpu, int init);          /* RESET, or INIT when `init` */
int sim_rdmsr(SimCpu *cpu, uint32_t index, uint64_t *value);  /* -1: would be #GP */
int sim_wrmsr(SimCpu *cpu, uint32_t index, uint64_t value);
uint64_t sim_tsc(SimCpu *cpu);
uint64_t sim_icount(SimCpu *cpu);
void sim_idle_to(SimCpu *cpu, uint64_t tsc);    /* time passes while the CPU is halted; never back */
void sim_stats(SimCpu *cpu, SimStats *out);
uint32_t sim_stats_asids(SimCpu *cpu, SimTlbAsidStats *out, uint32_t max);

/* ---- running ----
 * `budget` is in retired instructions (each delivered exception or interrupt counts as one, so that no guest can loop
 * without using it up). Events of the local APIC land at their exact instruction whatever the budget. */
int sim_vmrun(SimCpu *cpu, uint64_t vmcb_pa, uint64_t budget); /* VMRUN as the host's CPU would; the state of the
    guest that the VMCB does not hold (other registers, FPU, VMLOAD state) is taken from the CPU */
int sim_run(SimCpu *cpu, uint64_t budget);      /* go on after SIM_STOP_BUDGET and the like; bare machine: run */
int sim_force_vmexit(SimCpu *cpu);              /* as by a physical interrupt: #VMEXIT(INTR); 0 if not in a guest */
void sim_vmload(SimCpu *cpu, uint64_t vmcb_pa);
void sim_vmsave(SimCpu *cpu, uint64_t vmcb_pa);
void sim_stop_request(SimCpu *cpu);             /* async; the run function returns within some 100 000 instructions */
void sim_tlb_flush(SimCpu *cpu, uint32_t asid); /* the host changed nested tables; 0xFFFFFFFF: all ASIDs */
void sim_tlb_flush_gpa(SimMachine *m, uint64_t gpa, uint64_t size); /* all CPUs, all guest ASIDs */
const SimAccess *sim_access(SimCpu *cpu);
void sim_access_done(SimCpu *cpu, uint64_t data); /* supplies a read's data, or completes a write; then run again */
/* String PIO (SIM_STOP_PIO, or #VMEXIT IOIO with STR): moves up to `count` items in one go between guest memory and
 * `buffer` with the segment, fault and REP rules of the instruction at RIP. Returns items moved (0: the next run takes
 * the fault), and leaves rCX/rSI/rDI/RIP updated. Python does the port accesses in order. */
uint32_t sim_string_io(SimCpu *cpu, uint8_t *buffer, uint32_t count, int write_to_guest);
const char *sim_error(SimCpu *cpu);
/* Instruction bytes at the current RIP; returns how many could be read (0..15). */
uint32_t sim_fetch_bytes(SimCpu *cpu, uint8_t *out);
/* Guest-virtual reads and writes with the CPU's current translation, no side effects; -1 when not mapped. */
int sim_virt_read(SimCpu *cpu, uint64_t linear, uint8_t *out, uint64_t size);
int sim_virt_write(SimCpu *cpu, uint64_t linear, const uint8_t *in, uint64_t size);
/* The format of the instruction at `bytes` in code of 16, 32 or 64 `bits`; nothing runs. Returns its length, 0 when
 * `size` bytes are too few, -1 when it is longer than 15. Whether it is #UD is not said here. */
typedef struct SimFormat {
    uint8_t osize, asize; /* operand and address size in bytes */
    uint8_t seg;          /* of a memory operand: 0-5, ES CS SS DS FS GS */
    uint8_t memory;       /* ModRM names memory: */
    uint8_t base, index;  /* register number, 16: none, 17: RIP */
    uint8_t scale;        /* shift, 0-3 */
    uint8_t imm_size;     /* in bytes */
    int32_t disp;
    int64_t imm;
} SimFormat;
int sim_decode_format(const uint8_t *bytes, uint32_t size, uint32_t bits, SimFormat *out);
/* Translation without side effects: 0 and *pa (host physical) and *gpa, or -1. */
int sim_translate(SimCpu *cpu, uint64_t linear, uint64_t *gpa, uint64_t *pa);

/* ---- tracing ----
 * What is traced goes into a buffer of the host's, which it empties (sim_trace_take) after each run; a run ends early, with
 * SIM_STOP_BUDGET, before the buffer is full. Branches and instructions make the CPU go op by op. Nothing of the guest
 * changes, its time included. */
#define SIM_TRACE_EXIT 1        /* #VMEXIT: code; a, b = EXITINFO1, EXITINFO2 */
#define SIM_TRACE_EXCEPTION 2   /* about to be delivered: code = vector; a = error code, b = CR2 of a page fault */
#define SIM_TRACE_INTERRUPT 4   /* delivered, or INT n: code = vector */
#define SIM_TRACE_BRANCH 8      /* taken: a = RIP, b = linear address, code = CS after it */
#define SIM_TRACE_INSTRUCTION 16 /* about to run: bytes, length; each iteration of a repeated one counts */
#define SIM_TRACE_HAS_ERROR 1   /* flags */
#define SIM_TRACE_INJECTED 2    /* by VMRUN */
#define SIM_TRACE_NMI 4
#define SIM_TRACE_SOFTWARE 8    /* INT n, INT3, INTO, INT1 */
#define SIM_TRACE_REAL 0        /* mode */
#define SIM_TRACE_V86 1
#define SIM_TRACE_16 2
#define SIM_TRACE_32 3
#define SIM_TRACE_COMPAT 4
#define SIM_TRACE_64 5
typedef struct SimTraceRecord {
    uint64_t icount;            /* instructions that this CPU retired before */
    uint64_t rip, linear;
    uint64_t code, a, b;
    uint16_t cs;
    uint8_t kind, flags, cpu, cpl, mode, length;
    uint8_t bytes[16];
} SimTraceRecord;
/* kinds 0: off. Only what happens at linear addresses low..high is recorded; capacity above 256. */
void sim_trace(SimMachine *m, uint32_t kinds, uint64_t low, uint64_t high, SimTraceRecord *buffer, uint32_t capacity);
uint32_t sim_trace_take(SimMachine *m, uint64_t *lost); /* records in the buffer, which is empty now; those that did not fit */

/* ---- host debugging ---- */
void sim_debug_step(SimCpu *cpu, int on);       /* stop with SIM_STOP_DEBUG after each instruction */
int sim_debug_breakpoint(SimCpu *cpu, uint64_t linear, int on); /* -1: table full (64) */

/* ---- local APIC ----
 * The bare machine's APIC. With `vapic` it is instead the guest's: accesses to the APIC page (#NPF) and to the APIC
 * MSRs are answered here, as a host kernel would in C, and its interrupts are taken by the guest directly. */
void sim_vapic_enable(SimCpu *cpu, int on);
int sim_lapic_mmio_read(SimCpu *cpu, uint32_t offset, uint32_t size, uint64_t *value);
int sim_lapic_mmio_write(SimCpu *cpu, uint32_t offset, uint32_t size, uint64_t value);
void sim_lapic_lint(SimCpu *cpu, int pin, int level);  /* LINT0/LINT1; LINT0 is the PIC's INTR, LINT1 is NMI */
/* A message from an I/O APIC or MSI, in the MSI's own address and data form; returns CPUs that took it. */
uint32_t sim_msi(SimMachine *m, uint64_t address, uint32_t data);
uint64_t sim_lapic_deadline(SimCpu *cpu);       /* TSC of the next timer interrupt, ~0 when none */
int sim_cpu_wakes(SimCpu *cpu);                 /* a halted CPU would run now: an interrupt, NMI, INIT or SIPI waits */
int sim_lapic_get(SimCpu *cpu, uint8_t *regs);  /* 1024 bytes, KVM_GET_LAPIC form */
int sim_lapic_set(SimCpu *cpu, const uint8_t *regs);
int sim_eoi_vector(SimCpu *cpu);                /* next vector of the EOI broadcast queue, -1 when empty */
void sim_extint_vector(SimCpu *cpu, uint32_t vector);
int sim_extint_wanted(SimCpu *cpu);             /* the CPU would accept ExtINT (LINT0) now */
/* SIM_STOP_INIT under vapic: takes the pending kind: 0 none, 1 INIT, 2 SIPI (*vector). */
int sim_take_init(SimCpu *cpu, uint32_t *vector);
void sim_nmi(SimCpu *cpu);
void sim_set_mp_state(SimCpu *cpu, uint32_t state);
