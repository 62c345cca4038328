/* The public interface (api.h): machines, CPU state, device answers. */
#include <stdlib.h>

#include "access.h"
#include "block.h"
#include "decode.h"

/* ---- machine ---- */

static void reset_segments(Cpu *cpu)
{
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[i] = (SimSegment){.attrib = 0x93, .limit = 0xFFFF};
    cpu->seg[SEG_CS] = (SimSegment){.selector = 0xF000, .attrib = 0x9B, .limit = 0xFFFF, .base = 0xFFFF0000};
    cpu->seg[SEG_LDTR] = (SimSegment){.attrib = 0x82, .limit = 0xFFFF};
    cpu->seg[SEG_TR] = (SimSegment){.attrib = 0x8B, .limit = 0xFFFF};
    cpu->gdtr = cpu->idtr = (SimSegment){.limit = 0xFFFF};
}

void sim_reset(SimCpu *cpu, int init)
{
    memset(cpu->r, 0, sizeof cpu->r);
    cpu->r[REG_2G] = 1ull << 31;
    cpu->r[REG_RIP] = 0xFFF0;
    cpu->r[RDX] = cpuid_reg(cpuid_find(cpu->machine, 1, 0), 0);
    cpu_set_rflags(cpu, 2);
    reset_segments(cpu);
    cpu->cr0 = init ? (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET : CR0_CD | CR0_NW | CR0_ET;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
    memset(cpu->dr, 0, sizeof cpu->dr);
    cpu->dr[6] = 0xFFFF0FF0;
    cpu->dr[7] = 0x400;
    cpu->cpl = 0;
    cpu->shadow = 0;
    cpu->nmi_masked = cpu->nmi_pending = 0;
    cpu->pending_dbg = 0;
    cpu->gif = 1;
    cpu->in_guest = cpu->nested_paging = 0;
    cpu->svm.delivering = cpu->svm.inject = 0;
    cpu->mp_state = cpu->index == 0 && (!init || !cpu->vapic) ? 0 : 1;
    if (init && cpu->index == 0)
        cpu->mp_state = cpu->lapic.base & 0x100 ? 0 : 1;
    if (!init) {
        cpu->pat = 0x0007040600070406ull;
        cpu->mtrr_def = 0;
        cpu->tsc_adjust = 0;
        memset(cpu->msr_misc, 0, sizeof cpu->msr_misc);
        cpu->msr_misc[1] = 1 << 24; /* HWCR.TscFreqSel: the TSC counts at the frequency of P0 */
        cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = 0;
        cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
        cpu->msr_misc[3] = 0;
    }
    mmio_forget(cpu);
    vec_reset(cpu, init);
    lapic_reset(cpu, init);
    tlb_flush_all(cpu);
    if (cpu->slot_asid[cpu->slot] != 0)
        tlb_select_asid(cpu, 0);
    cpu_update_mode(cpu);
    cpu->attention = 1;
}

static bool cpu_init(Machine *m, u32 index)
{
    Cpu *cpu = NULL;
    if (posix_memalign((void **)&cpu, 64, sizeof *cpu))
        return false;
    memset(cpu, 0, sizeof *cpu);
    m->cpus[index] = cpu;
    cpu->machine = m;
    cpu->index = index;
    cpu->jumps = calloc(JUMP_SIZE, sizeof *cpu->jumps);
    if (!cpu->jumps || !tlb_init(cpu))
        return false;
    cpu->jump_generation = 1;
    cpu->rng[0] = m->seed * 0x9E3779B97F4A7C15ull + index + 1;
    cpu->rng[1] = m->seed ^ 0xD1B54A32D192ED03ull * (index + 1);
    cpu->svm.host.cr0 = CR0_PG | CR0_PE | CR0_WP | CR0_ET | CR0_NE;
    cpu->svm.host.cr4 = CR4_PAE | CR4_PSE | CR4_PGE;
    cpu->svm.host.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SVME | EFER_SCE;
    cpu->lapic.id = index;
    tlb_select_asid(cpu, 0);
    return true;
}

SimMachine *sim_machine_new(uint8_t *ram, uint64_t ram_size, uint32_t ncpus, uint64_t seed)
{
    if (!ncpus || ncpus > 256 || (ram_size & 0xFFF))
        return NULL;
    Machine *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->ram = ram;
    m->ram_size = ram_size;
    m->ncpus = 0;
    m->tsc_hz = 1000000000;
    m->tsc_per_instr = 40;
    m->apic_hz = 1000000000;
    m->seed = seed;
    m->features = ~0ull & ~(1ull << FEAT_AVX | 1ull << FEAT_AVX2);
    m->phys_mask = (1ull << 40) - 1;
    m->has_1g = true;
    m->map[0].size = ram_size;
    m->maps = 1;
    if (!arena_init(m)) {
        sim_machine_free(m);
        return NULL;
    }
    for (u32 i = 0; i < ncpus; i++) {
        bool ok = cpu_init(m, i);
        if (m->cpus[i])
            m->ncpus++;
        if (!ok) {
            sim_machine_free(m);
            return NULL;
        }
    }
    vec_machine_init(m);
    for (u32 i = 0; i < ncpus; i++)
        sim_reset(m->cpus[i], 0);
    return m;
}

void sim_machine_free(SimMachine *m)
{
    if (!m)
        return;
    if (m->ncpus)
        vec_machine_free(m);
    for (u32 i = 0; i < m->ncpus; i++) {
        free(m->cpus[i]->jumps);
        free(m->cpus[i]->arch_tlb);
        free(m->cpus[i]->tlb_slots);
        free(m->cpus[i]);
    }
    arena_free(m);
    free(m);
}

SimCpu *sim_machine_cpu(SimMachine *m, uint32_t index) { return machine_cpu(m, index); }

int sim_map_ram(SimMachine *m, uint64_t pa, uint64_t size, uint64_t offset, uint32_t flags)
{
    if ((pa | size | offset) & 0xFFF || offset > m->ram_size || size > m->ram_size - offset || pa + size < pa)
        return -1;
    if (!m->mapped_explicitly) {
        m->mapped_explicitly = true;
        m->maps = 0;
    }
    if (m->maps == 16)
        return -1;
    m->map[m->maps].pa = pa;
    m->map[m->maps].size = size;
    m->map[m->maps].offset = offset;
    m->map[m->maps].flags = flags;
    m->maps++;
    for (u32 i = 0; i < m->ncpus; i++)
        tlb_flush_all(m->cpus[i]);
    return 0;
}

void sim_set_time(SimMachine *m, uint64_t tsc_hz, uint64_t tsc_per_instr, uint64_t apic_hz)
{
    m->tsc_hz = tsc_hz ? tsc_hz : 1;
    m->tsc_per_instr = tsc_per_instr ? tsc_per_instr : 1;
    m->apic_hz = apic_hz ? apic_hz : 1;
}

Cpu *machine_cpu(Machine *m, uint32_t index) { return index < m->ncpus ? m->cpus[index] : NULL; }
uint32_t machine_ncpus(const Machine *m) { return m->ncpus; }
Machine *cpu_machine(Cpu *cpu) { return cpu->machine; }
Lapic *cpu_lapic(Cpu *cpu) { return &cpu->lapic; }
const Lapic *cpu_lapic_const(const Cpu *cpu) { return &cpu->lapic; }
uint64_t machine_tsc_hz(const Machine *m) { return m->tsc_hz; }
uint64_t machine_apic_hz(const Machine *m) { return m->apic_hz; }

/* ---- state ---- */

uint64_t *sim_gpr(SimCpu *cpu) { return cpu->r; }
uint8_t *sim_xsave_area(SimCpu *cpu) { return cpu->fpu.area; }

void sim_get_state(SimCpu *cpu, SimState *s)
{
    memset(s, 0, sizeof *s);
    memcpy(s->gpr, cpu->r, sizeof s->gpr);
    s->rip = cpu->r[REG_RIP];
    s->rflags = cpu_rflags(cpu);
    s->es = cpu->seg[SEG_ES];
    s->cs = cpu->seg[SEG_CS];
    s->ss = cpu->seg[SEG_SS];
    s->ds = cpu->seg[SEG_DS];
    s->fs = cpu->seg[SEG_FS];
    s->gs = cpu->seg[SEG_GS];
    s->gdtr = cpu->gdtr;
    s->idtr = cpu->idtr;
    s->ldtr = cpu->seg[SEG_LDTR];
    s->tr = cpu->seg[SEG_TR];
    s->cr0 = cpu->cr0;
    s->cr2 = cpu->cr2;
    s->cr3 = cpu->cr3;
    s->cr4 = cpu->cr4;
    s->cr8 = get_cr8(cpu);
    s->xcr0 = cpu->xcr0;
    s->efer = cpu->efer;
    memcpy(s->dr, cpu->dr, sizeof s->dr);
    s->apic_base = cpu->lapic.base;
    s->pat = cpu->pat;
    s->star = cpu->star;
    s->lstar = cpu->lstar;
    s->cstar = cpu->cstar;
    s->sfmask = cpu->sfmask;
    s->kernel_gs_base = cpu->kernel_gs_base;
    s->sysenter_cs = cpu->sysenter_cs;
    s->sysenter_esp = cpu->sysenter_esp;
    s->sysenter_eip = cpu->sysenter_eip;
    s->tsc = cpu_guest_tsc(cpu);
    s->tsc_aux = cpu->tsc_aux;
    s->icount = cpu->icount;
    s->cpl = cpu->cpl;
    s->mp_state = cpu->mp_state;
    s->shadow = cpu->shadow;
    s->nmi_masked = cpu->nmi_masked;
    s->nmi_pending = cpu->nmi_pending || cpu->lapic.nmi;
    s->in_guest = cpu->in_guest;
    s->gif = cpu->gif;
}

int sim_set_state(SimCpu *cpu, const SimState *s)
{
    if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
        return -1;
    memcpy(cpu->r, s->gpr, sizeof s->gpr);
    cpu->r[REG_RIP] = s->rip;
    cpu_set_rflags(cpu, s->rflags);
    cpu->seg[SEG_ES] = s->es;
    cpu->seg[SEG_CS] = s->cs;
    cpu->seg[SEG_SS] = s->ss;
    cpu->seg[SEG_DS] = s->ds;
    cpu->seg[SEG_FS] = s->fs;
    cpu->seg[SEG_GS] = s->gs;
    cpu->gdtr = s->gdtr;
    cpu->idtr = s->idtr;
    cpu->seg[SEG_LDTR] = s->ldtr;
    cpu->seg[SEG_TR] = s->tr;
    cpu->cr0 = s->cr0 | CR0_ET;
    cpu->cr2 = s->cr2;
    cpu->cr3 = s->cr3;
    cpu->cr4 = s->cr4;
    cpu->xcr0 = s->xcr0 | 1;
    cpu->efer = (s->efer & ~(u64)EFER_LMA) | ((s->efer & EFER_LME) && (s->cr0 & CR0_PG) ? EFER_LMA : 0);
    memcpy(cpu->dr, s->dr, sizeof cpu->dr);
    cpu->lapic.base = s->apic_base;
    cpu->pat = s->pat;
    cpu->star = s->star;
    cpu->lstar = s->lstar;
    cpu->cstar = s->cstar;
    cpu->sfmask = s->sfmask;
    cpu->kernel_gs_base = s->kernel_gs_base;
    cpu->sysenter_cs = s->sysenter_cs;
    cpu->sysenter_esp = s->sysenter_esp;
    cpu->sysenter_eip = s->sysenter_eip;
    cpu->tsc_offset += s->tsc - cpu_guest_tsc(cpu);
    cpu->tsc_aux = s->tsc_aux;
    cpu->cpl = s->cpl & 3;
    cpu->mp_state = s->mp_state;
    cpu->shadow = s->shadow;
    cpu->nmi_masked = s->nmi_masked;
    cpu->nmi_pending = s->nmi_pending;
    lapic_set_tpr(cpu, (u8)(s->cr8 << 4));
    if (!cpu->in_guest)
        cpu->gif = s->gif;
    cpu->block = NULL;
    tlb_flush_all(cpu);
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LMA))
        load_pdptes(cpu, cpu->cr3);
    cpu_update_mode(cpu);
    cpu->attention = 1;
    return 0;
}

/* An exception inside a host call: the call fails instead. */
int sim_rdmsr(SimCpu *cpu, uint32_t index, uint64_t *value)
{
    return msr_read(cpu, index, value) ? 0 : -1;
}

int sim_wrmsr(SimCpu *cpu, uint32_t index, uint64_t value)
{
    int r = msr_write(cpu, index, value) ? 0 : -1;
    cpu_update_mode(cpu);
    return r;
}

uint64_t sim_tsc(SimCpu *cpu) { return cpu_tsc_now(cpu); }
uint64_t sim_icount(SimCpu *cpu) { return icount_now(cpu); }

void sim_idle_to(SimCpu *cpu, uint64_t tsc)
{
    u64 now = cpu_tsc_now(cpu);
    if (tsc > now)
        cpu->ticks += tsc - now;
    cpu->attention = 1;
    if (lapic_deadline(cpu) <= cpu_tsc_now(cpu))
        lapic_tick(cpu);
}

void sim_stats(SimCpu *cpu, SimStats *out)
{
    *out = cpu->stats;
    out->instructions = icount_now(cpu);
}

uint32_t sim_stats_asids(SimCpu *cpu, SimTlbAsidStats *out, uint32_t max)
{
    u32 n = cpu->arch_tlb->stat_count < max ? cpu->arch_tlb->stat_count : max;
    memcpy(out, cpu->arch_tlb->stats, n * sizeof *out);
    return n;
}

/* ---- running ---- */

int sim_vmrun(SimCpu *cpu, uint64_t vmcb_pa, uint64_t budget)
{
    cpu->python_host = 1;
    cpu->start_pending = 1;
    cpu->start_vmrun = vmcb_pa;
    return run(cpu, budget);
}

int sim_run(SimCpu *cpu, uint64_t budget)
{
    if (!cpu->in_guest)
        cpu->python_host = 0;
    return run(cpu, budget);
}

int sim_force_vmexit(SimCpu *cpu)
{
    if (!cpu->in_guest)
        return 0;
    cpu->block = NULL;
    if (setjmp(cpu->leave) == 0)
        vmexit(cpu, 0x60, 0, 0);
    return 1;
}

void sim_stop_request(SimCpu *cpu) { cpu->stop_request = 1; }

void sim_tlb_flush(SimCpu *cpu, uint32_t asid)
{
    if (asid == UINT32_MAX)
        tlb_flush_all(cpu);
    else
        tlb_flush_asid(cpu, asid, true);
}

void sim_tlb_flush_gpa(SimMachine *m, uint64_t gpa, uint64_t size)
{
    (void)gpa;
    (void)size;
    for (u32 i = 0; i < m->ncpus; i++)
        for (unsigned s = 0; s < TLB_SLOTS; s++)
            if (m->cpus[i]->slot_asid[s] != 0)
                tlb_flush_slot(m->cpus[i], s, true);
}

const SimAccess *sim_access(SimCpu *cpu) { return &cpu->access; }

void sim_access_done(SimCpu *cpu, uint64_t data)
{
    if (!cpu->access.valid || cpu->mmio_have >= MMIO_LOG_MAX)
        return;
    cpu->mmio_log[cpu->mmio_have++] = (MmioLogEntry){
        .addr = cpu->access.addr, .data = cpu->access.write ? cpu->access.data : data & size_mask(cpu->access.size),
        .size = (u8)cpu->access.size, .write = (u8)(cpu->access.write | cpu->access_port << 1)};
    cpu->access.valid = 0;
}

const char *sim_error(SimCpu *cpu) { return cpu->error; }

/* ---- guest-virtual memory for the host ---- */

static int virt_copy(Cpu *cpu, u64 linear, u8 *buffer, u64 size, bool write)
{
    while (size) {
        u64 gpa, pa, n = 0x1000 - (linear & 0xFFF);
        if (n > size)
            n = size;
        if (sim_translate(cpu, linear, &gpa, &pa) < 0)
            return -1;
        u8 *p = phys_ptr(cpu->machine, pa, n, write);
        if (!p)
            return -1;
        if (write) {
            memcpy(p, buffer, n);
            code_written(cpu->machine, p, n);
        } else {
            memcpy(buffer, p, n);
        }
        buffer += n;
        linear += n;
        size -= n;
    }
    return 0;
}

int sim_virt_read(SimCpu *cpu, uint64_t linear, uint8_t *out, uint64_t size)
{
    return virt_copy(cpu, linear, out, size, false);
}

int sim_virt_write(SimCpu *cpu, uint64_t linear, const uint8_t *in, uint64_t size)
{
    return virt_copy(cpu, linear, (u8 *)(uintptr_t)in, size, true);
}

uint32_t sim_fetch_bytes(SimCpu *cpu, uint8_t *out)
{
    u64 rip = cpu->r[REG_RIP], linear = cpu->code_size == 8 ? rip : (u32)(rip + cpu->seg[SEG_CS].base);
    unsigned first = 0x1000 - (linear & 0xFFF);
    if (first >= 15)
        return virt_copy(cpu, linear, out, 15, false) ? 0 : 15;
    if (virt_copy(cpu, linear, out, first, false))
        return 0;
    return virt_copy(cpu, linear + first, out + first, 15 - first, false) ? first : 15;
}

/* ---- string port I/O ---- */

/* The host's VMCB learns how far the instruction got, and the fault that stopped its first item. */
static void string_io_done(Cpu *cpu, int how, u32 done)
{
    u8 *v = vmcb_ptr(cpu, cpu->svm.vmcb_pa);
    if (!v)
        return;
    vmcb_put(v, SAVE_RIP, 8, cpu->r[REG_RIP]);
    if (how != LEAVE_EXCEPTION || done)
        return;
    if (cpu->exc.vector == EXC_PF)
        vmcb_put(v, SAVE_CR2, 8, cpu->exc.cr2);
    vmcb_put(v, VMCB_EVENTINJ, 8, cpu->exc.vector | EVENT_EXCEPTION << 8 | 1u << 31
             | (cpu->exc.has_error ? 1u << 11 | (u64)cpu->exc.error << 32 : 0));
}

uint32_t sim_string_io(SimCpu *cpu, uint8_t *buffer, uint32_t count, int write_to_guest)
{
    volatile uint32_t done = 0;
    Insn insn;
    Op op;
    u8 bytes[16];
    u32 have = sim_fetch_bytes(cpu, bytes);
    if (!have || insn_parse(&insn, bytes, have, cpu->mode) <= 0 || insn.map || insn.vex || (insn.opcode & 0xFC) != 0x6C)
        return 0;
    u8 was_in_guest = cpu->in_guest;
    op_decode(cpu, &insn, &op, cpu->mode & MODE_BLOCK_MASK, 0);
    cpu->block = NULL;
    cpu->stepping = 0;
    volatile int how = setjmp(cpu->leave);
    if (how == 0) {
        bool rep = insn.rep;
        unsigned size = op.osize;
        while (done < count) {
            u64 left = rep ? reg_get(cpu, RCX, op.asize) : 1, v = 0;
            if (!left)
                break;
            u8 *p = buffer + (size_t)done * size;
            if (write_to_guest) {
                u64 lin = str_linear(cpu, &op, SEG_ES, reg_get(cpu, RDI, op.asize), size, ACC_WRITE);
                memcpy(&v, p, size);
                store(cpu, &op, lin, size, v);
                str_add(cpu, RDI, op.asize, str_step(cpu, size));
            } else {
                v = load(cpu, &op, str_linear(cpu, &op, op.seg, reg_get(cpu, RSI, op.asize), size, ACC_READ), size);
                memcpy(p, &v, size);
                str_add(cpu, RSI, op.asize, str_step(cpu, size));
            }
            done = done + 1;
            if (rep)
                reg_put(cpu, RCX, op.asize, left - 1);
            if (!rep) {
                cpu->r[REG_RIP] = next_rip(cpu, &op);
                break;
            }
            if (left == 1)
                cpu->r[REG_RIP] = next_rip(cpu, &op);
        }
    }
    cpu->in_guest = was_in_guest;
    if (cpu->python_host && !cpu->in_guest)
        string_io_done(cpu, how, done);
    return done;
}

/* ---- host debugging ---- */

void sim_debug_step(SimCpu *cpu, int on) { cpu->debug.step = on != 0; }

int sim_debug_breakpoint(SimCpu *cpu, uint64_t linear, int on)
{
    for (u32 i = 0; i < cpu->debug.count; i++)
        if (cpu->debug.linear[i] == linear) {
            if (!on) {
                cpu->debug.linear[i] = cpu->debug.linear[--cpu->debug.count];
                cpu->machine->breakpoints--;
                code_flush(cpu->machine);
            }
            return 0;
        }
    if (!on)
        return 0;
    if (cpu->debug.count == 64)
        return -1;
    cpu->debug.linear[cpu->debug.count++] = linear;
    cpu->machine->breakpoints++;
    code_flush(cpu->machine);
    return 0;
}

int sim_decode_format(const uint8_t *bytes, uint32_t size, uint32_t bits, SimFormat *out)
{
    Insn i;
    int len = insn_parse(&i, bytes, size > 15 ? 15 : size, bits == 64 ? MODE_64 : bits == 32 ? MODE_32 : MODE_16);
    if (len > 0)
        *out = (SimFormat){.osize = i.osize, .asize = i.asize, .seg = i.seg, .memory = i.has_modrm && i.mod != 3,
                           .base = i.base, .index = i.index, .scale = i.scale, .imm_size = i.imm_size,
                           .disp = i.disp, .imm = i.imm};
    return len;
}

/* ---- local APIC ---- */

void sim_vapic_enable(SimCpu *cpu, int on)
{
    cpu->vapic = on != 0;
    tlb_flush_all(cpu);
}
void sim_nmi(SimCpu *cpu)
{
    cpu->nmi_pending = 1;
    cpu->attention = 1;
}
void sim_set_mp_state(SimCpu *cpu, uint32_t state) { cpu->mp_state = (u8)state; }
void sim_extint_vector(SimCpu *cpu, uint32_t vector)
{
    cpu->extint_have = 1;
    cpu->extint_vector = (u8)vector;
    cpu->attention = 1;
}
int sim_extint_wanted(SimCpu *cpu)
{
    return cpu->lapic.extint && (cpu->rflags & FLAG_IF) && !cpu->shadow;
}
int sim_take_init(SimCpu *cpu, uint32_t *vector)
{
    if (cpu->lapic.init) {
        cpu->lapic.init = 0;
        return 1;
    }
    if (cpu->lapic.sipi) {
        cpu->lapic.sipi = 0;
        *vector = cpu->lapic.sipi_vector;
        return 2;
    }
    return 0;
}
