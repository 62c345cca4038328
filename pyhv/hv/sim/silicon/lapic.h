/* Local APIC (APM vol. 2 chapter 16; SDM vol. 3 chapter 10): state and interface. Implemented in lapic.c. */
#ifndef SIM_LAPIC_H
#define SIM_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

typedef struct SimCpu Cpu;
typedef struct SimMachine Machine;

#define LAPIC_NO_DEADLINE UINT64_MAX

typedef struct Lapic {
    uint64_t base;        /* MSR 1Bh: base address, bit 11 enable, bit 10 x2APIC, bit 8 BSP */
    uint32_t id;          /* initial APIC id = CPU index */
    uint32_t regs[0x40];  /* register at offset 16*n is regs[n] (xAPIC form); ICR high in 0x31 */
    uint64_t irr[4], isr[4], tmr[4]; /* 256-bit vectors; the register views come from these */
    uint32_t esr_latched;
    uint64_t timer_start; /* TSC at which the current count began */
    uint64_t timer_deadline; /* TSC of the next timer event, LAPIC_NO_DEADLINE when stopped */
    uint64_t tsc_deadline;   /* MSR 6E0h */
    uint8_t lint_level[2];
    uint8_t extint;       /* LINT0 in ExtINT mode is asserted */
    uint8_t nmi, init, sipi, smi; /* latched for the CPU; the CPU clears what it takes */
    uint8_t sipi_vector;
    uint8_t eoi_queue[64]; /* level-triggered EOIs for the host's I/O APIC */
    uint8_t eoi_head, eoi_tail;
    uint8_t pending_vector_cache; /* 0: unknown/none; free for lapic.c's use */
    /* lapic.c may append its own fields below */
    uint64_t extra[8];
} Lapic;

void lapic_reset(Cpu *cpu, bool init);           /* RESET, or INIT which keeps id and base */
/* MMIO. offset 0..0xFFF, size 1, 2, 4 or 8. Never faults: what the bus does not define reads 0 and ignores writes. */
uint32_t lapic_mmio_read(Cpu *cpu, uint32_t offset, uint32_t size);
void lapic_mmio_write(Cpu *cpu, uint32_t offset, uint32_t size, uint32_t value);
/* MSRs 1Bh, 6E0h and 800h-8FFh; false: #GP. */
bool lapic_rdmsr(Cpu *cpu, uint32_t index, uint64_t *value);
bool lapic_wrmsr(Cpu *cpu, uint32_t index, uint64_t value);
/* Highest interrupt that exceeds the processor priority, or -1. `tpr_override` replaces the TPR when >= 0 (V_TPR). */
int lapic_pending(const Cpu *cpu);
void lapic_accept(Cpu *cpu, int vector);         /* INTA: IRR -> ISR */
void lapic_set_tpr(Cpu *cpu, uint8_t tpr);       /* CR8 is tpr >> 4 */
uint8_t lapic_get_tpr(const Cpu *cpu);
/* The timer: called when the CPU's TSC has reached lapic_deadline(), possibly later; fires what is due. */
uint64_t lapic_deadline(const Cpu *cpu);
void lapic_tick(Cpu *cpu);
/* Messages on the (simulated) bus; return the number of CPUs that accepted. */
uint32_t lapic_msi(Machine *m, uint64_t address, uint32_t data);
void lapic_lint(Cpu *cpu, int pin, int level);
/* Delivers one vector to this CPU's IRR (fixed delivery), as the bus or AVIC would. */
void lapic_set_irr(Cpu *cpu, uint8_t vector, bool level);
/* Anything a halted CPU wakes for: pending vector, NMI, INIT, SIPI, ExtINT. Ignores RFLAGS.IF. */
bool lapic_wakes(const Cpu *cpu);

/* What lapic.c calls back in the CPU (events.c): */
void cpu_attention(Cpu *cpu);        /* something changed that the CPU must look at before its next instruction; also
                                        after changing lapic_deadline() */
uint64_t cpu_tsc_now(Cpu *cpu);      /* the APIC's clock, unaffected by guest TSC offsets: machine ticks */
Cpu *machine_cpu(Machine *m, uint32_t index);    /* NULL past the end */
uint32_t machine_ncpus(const Machine *m);
Machine *cpu_machine(Cpu *cpu);
Lapic *cpu_lapic(Cpu *cpu);
const Lapic *cpu_lapic_const(const Cpu *cpu);
uint64_t machine_tsc_hz(const Machine *m);
uint64_t machine_apic_hz(const Machine *m);      /* the timer's clock before its divider */
uint64_t cpu_guest_tsc_offset(const Cpu *cpu);   /* guest TSC = machine ticks + this (for the TSC deadline) */
#endif
