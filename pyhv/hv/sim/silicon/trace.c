/* The trace: records of what a CPU does, in a buffer that the host lends and empties between runs. */
#include "access.h"
#include "block.h"

#define TRACE_MARGIN 256 /* records that can follow before a run looks whether the buffer is full */

void sim_trace(SimMachine *m, uint32_t kinds, uint64_t low, uint64_t high, SimTraceRecord *buffer, uint32_t capacity)
{
    m->trace.kinds = buffer && capacity > TRACE_MARGIN ? kinds : 0;
    m->trace.low = low;
    m->trace.high = high;
    m->trace.buffer = buffer;
    m->trace.capacity = capacity;
    m->trace.used = 0;
    m->trace.lost = 0;
    for (u32 i = 0; i < m->ncpus; i++)
        m->cpus[i]->tracing = (m->trace.kinds & (SIM_TRACE_BRANCH | SIM_TRACE_INSTRUCTION)) != 0;
}

uint32_t sim_trace_take(SimMachine *m, uint64_t *lost)
{
    u32 used = m->trace.used;
    *lost = m->trace.lost;
    m->trace.used = 0;
    m->trace.lost = 0;
    return used;
}

static bool trace_full(const Machine *m)
{
    return m->trace.kinds && m->trace.used + TRACE_MARGIN > m->trace.capacity;
}

static u64 trace_linear(const Cpu *cpu, u64 rip)
{
    return cpu->code_size == 8 ? rip : (u32)(rip + cpu->seg[SEG_CS].base);
}

static bool trace_within(const Machine *m, u64 linear)
{
    return linear >= m->trace.low && linear <= m->trace.high;
}

static uint8_t trace_mode(const Cpu *cpu)
{
    if (!(cpu->cr0 & CR0_PE))
        return SIM_TRACE_REAL;
    if (cpu->rflags & FLAG_VM)
        return SIM_TRACE_V86;
    if (cpu->code_size == 8)
        return SIM_TRACE_64;
    if (cpu->efer & EFER_LMA)
        return SIM_TRACE_COMPAT;
    return cpu->code_size == 2 ? SIM_TRACE_16 : SIM_TRACE_32;
}

/* A record with the CPU's place filled in, or NULL where there is no room: then it counts as lost. */
static SimTraceRecord *trace_new(Cpu *cpu, u8 kind, u64 rip)
{
    Machine *m = cpu->machine;
    if (m->trace.used >= m->trace.capacity) {
        m->trace.lost++;
        return NULL;
    }
    SimTraceRecord *r = &m->trace.buffer[m->trace.used++];
    memset(r, 0, sizeof *r);
    r->icount = icount_now(cpu);
    r->rip = rip;
    r->linear = trace_linear(cpu, rip);
    r->kind = kind;
    r->cpu = (u8)cpu->index;
    r->cpl = cpu->cpl;
    r->mode = trace_mode(cpu);
    r->cs = cpu->seg[SEG_CS].selector;
    if (trace_full(m))
        cpu->attention = 1;
    return r;
}

static void trace_vmexit(Cpu *cpu, u64 code, u64 info1, u64 info2)
{
    Machine *m = cpu->machine;
    u64 rip = cpu->r[REG_RIP];
    if (!(m->trace.kinds & SIM_TRACE_EXIT) || !trace_within(m, trace_linear(cpu, rip)))
        return;
    SimTraceRecord *r = trace_new(cpu, SIM_TRACE_EXIT, rip);
    if (r) {
        r->code = code;
        r->a = info1;
        r->b = info2;
    }
}

/* An exception before its delivery, also one that another one's delivery raised. */
static void trace_exception(Cpu *cpu, u64 rip, unsigned vector, bool has_error, u32 error, u64 cr2, u8 flags)
{
    Machine *m = cpu->machine;
    if (!(m->trace.kinds & SIM_TRACE_EXCEPTION) || !trace_within(m, trace_linear(cpu, rip)))
        return;
    SimTraceRecord *r = trace_new(cpu, SIM_TRACE_EXCEPTION, rip);
    if (r) {
        r->code = vector;
        r->a = error;
        r->b = cr2;
        r->flags = flags | (has_error ? SIM_TRACE_HAS_ERROR : 0);
        r->icount -= (flags & SIM_TRACE_SOFTWARE) != 0; /* the instruction is not through yet */
    }
}

static void trace_interrupt(Cpu *cpu, u64 rip, unsigned vector, u8 flags)
{
    Machine *m = cpu->machine;
    if (!(m->trace.kinds & SIM_TRACE_INTERRUPT) || !trace_within(m, trace_linear(cpu, rip)))
        return;
    SimTraceRecord *r = trace_new(cpu, SIM_TRACE_INTERRUPT, rip);
    if (r) {
        r->code = vector;
        r->flags = flags;
        r->icount -= (flags & (SIM_TRACE_SOFTWARE | SIM_TRACE_INJECTED)) == SIM_TRACE_SOFTWARE;
    }
}

/* Transfers of control that are taken whatever follows them. */
static bool always_branches(const Insn *insn)
{
    u8 o = insn->opcode;
    if (insn->map == 0)
        return o == 0x9A || o == 0xC2 || o == 0xC3 || o == 0xCA || o == 0xCB || o == 0xCF || (o >= 0xE8 && o <= 0xEB)
            || (o == 0xFF && (insn->modrm >> 3 & 7) >= 2 && (insn->modrm >> 3 & 7) <= 5);
    return insn->map == 1 && (o == 0x05 || o == 0x07 || o == 0x34 || o == 0x35);
}

static bool repeats(const Insn *insn)
{
    u8 o = insn->opcode;
    return insn->map == 0 && insn->rep && ((o >= 0xA4 && o <= 0xA7) || (o >= 0xAA && o <= 0xAF) || (o >= 0x6C && o <= 0x6F));
}

/* The instruction that is about to run; one that goes on after a device has answered was shown when it began. */
static SimTraceRecord *trace_instruction(Cpu *cpu, const Insn *insn)
{
    Machine *m = cpu->machine;
    u64 rip = cpu->r[REG_RIP];
    if (!(m->trace.kinds & SIM_TRACE_INSTRUCTION) || cpu->mmio_have || !trace_within(m, trace_linear(cpu, rip)))
        return NULL;
    SimTraceRecord *r = trace_new(cpu, SIM_TRACE_INSTRUCTION, rip);
    if (r) {
        memcpy(r->bytes, insn->bytes, sizeof r->bytes);
        r->length = insn->len;
    }
    return r;
}

/* Where the CPU was before an instruction that may branch. */
typedef struct TraceFrom {
    u64 icount, rip, linear;
    u16 cs;
    u8 cpl, mode;
} TraceFrom;

static TraceFrom trace_from(Cpu *cpu)
{
    u64 rip = cpu->r[REG_RIP];
    return (TraceFrom){icount_now(cpu), rip, trace_linear(cpu, rip), cpu->seg[SEG_CS].selector, cpu->cpl, trace_mode(cpu)};
}

static void trace_branch(Cpu *cpu, const Insn *insn, const TraceFrom *from)
{
    Machine *m = cpu->machine;
    u64 rip = cpu->r[REG_RIP], linear = trace_linear(cpu, rip);
    if (!(m->trace.kinds & SIM_TRACE_BRANCH) || cpu->event_taken || repeats(insn))
        return;
    if (rip == ((from->rip + insn->len) & cpu->linmask) && !always_branches(insn))
        return;
    if (!trace_within(m, from->linear) && !trace_within(m, linear))
        return;
    SimTraceRecord *r = trace_new(cpu, SIM_TRACE_BRANCH, from->rip);
    if (!r)
        return;
    r->icount = from->icount;
    r->linear = from->linear;
    r->cs = from->cs;
    r->cpl = from->cpl;
    r->mode = from->mode;
    r->a = rip;
    r->b = linear;
    r->code = cpu->seg[SEG_CS].selector;
    memcpy(r->bytes, insn->bytes, sizeof r->bytes);
    r->length = insn->len;
}
