/* Secure Virtual Machine (APM vol. 2 chapter 15): VMRUN, #VMEXIT, intercepts, VMLOAD and VMSAVE. */
#include "access.h"
#include "block.h"

/* VMCB offsets: control area, then the state save area. */
enum {
    VMCB_CR_READ = 0x000, VMCB_CR_WRITE = 0x002, VMCB_DR_READ = 0x004, VMCB_DR_WRITE = 0x006, VMCB_EXCEPTIONS = 0x008,
    VMCB_INTERCEPTS = 0x00C, VMCB_INTERCEPTS3 = 0x014, VMCB_IOPM = 0x040, VMCB_MSRPM = 0x048, VMCB_TSC_OFFSET = 0x050,
    VMCB_ASID = 0x058, VMCB_TLB_CTL = 0x05C, VMCB_INT_CTL = 0x060, VMCB_INT_VECTOR = 0x064, VMCB_INT_SHADOW = 0x068,
    VMCB_EXITCODE = 0x070, VMCB_EXITINFO1 = 0x078, VMCB_EXITINFO2 = 0x080, VMCB_EXITINTINFO = 0x088,
    VMCB_NESTED = 0x090, VMCB_AVIC_BAR = 0x098, VMCB_EVENTINJ = 0x0A8, VMCB_NCR3 = 0x0B0, VMCB_NRIP = 0x0C8,
    VMCB_INSN_LEN = 0x0D0, VMCB_INSN_BYTES = 0x0D1, VMCB_AVIC_BACKING = 0x0E0, VMCB_AVIC_LOGICAL = 0x0F0,
    VMCB_AVIC_PHYSICAL = 0x0F8,
    SAVE_ES = 0x400, SAVE_CS = 0x410, SAVE_SS = 0x420, SAVE_DS = 0x430, SAVE_FS = 0x440, SAVE_GS = 0x450,
    SAVE_GDTR = 0x460, SAVE_LDTR = 0x470, SAVE_IDTR = 0x480, SAVE_TR = 0x490, SAVE_CPL = 0x4CB, SAVE_EFER = 0x4D0,
    SAVE_CR4 = 0x548, SAVE_CR3 = 0x550, SAVE_CR0 = 0x558, SAVE_DR7 = 0x560, SAVE_DR6 = 0x568, SAVE_RFLAGS = 0x570,
    SAVE_RIP = 0x578, SAVE_RSP = 0x5D8, SAVE_RAX = 0x5F8, SAVE_STAR = 0x600, SAVE_LSTAR = 0x608, SAVE_CSTAR = 0x610,
    SAVE_SFMASK = 0x618, SAVE_KERNEL_GS = 0x620, SAVE_SYSENTER_CS = 0x628, SAVE_SYSENTER_ESP = 0x630,
    SAVE_SYSENTER_EIP = 0x638, SAVE_CR2 = 0x640, SAVE_PAT = 0x668,
};

/* int_ctl (offset 60h, with the vector at 64h in bits 39:32) */
#define INT_CTL_V_IRQ (1ull << 8)
#define INT_CTL_V_IGN_TPR (1ull << 20)
#define INT_CTL_V_INTR_MASKING (1ull << 24)

#define EXIT_INVALID UINT64_MAX

static u64 vmcb_get(const u8 *v, unsigned at, unsigned size) { return load_le(v + at, size); }
static void vmcb_put(u8 *v, unsigned at, unsigned size, u64 x) { store_le(v + at, size, x); }

static u8 *vmcb_ptr(Cpu *cpu, u64 pa)
{
    return pa & 0xFFF ? NULL : phys_ptr(cpu->machine, pa, 4096, true);
}

static SimSegment vmcb_segment(const u8 *v, unsigned at)
{
    SimSegment s;
    memcpy(&s, v + at, sizeof s);
    s.attrib &= 0xFFF;
    return s;
}

static void vmcb_put_segment(u8 *v, unsigned at, const SimSegment *s)
{
    memcpy(v + at, s, sizeof *s);
}

static void count_exit(Cpu *cpu, u64 code)
{
    SimStats *s = &cpu->stats;
    s->vmexits++;
    if (code < 160)
        s->exit_count[code]++;
    else if (code == 0x400)
        s->exit_npf++;
    else if (code == 0x401)
        s->exit_avic_ipi++;
    else if (code == 0x402)
        s->exit_avic_noaccel++;
    else if (code == EXIT_INVALID)
        s->exit_invalid++;
    else
        s->exit_other++;
}

static void load_host_state(Cpu *cpu)
{
    cpu->seg[SEG_ES] = cpu->svm.host.es;
    cpu->seg[SEG_CS] = cpu->svm.host.cs;
    cpu->seg[SEG_SS] = cpu->svm.host.ss;
    cpu->seg[SEG_DS] = cpu->svm.host.ds;
    cpu->gdtr = cpu->svm.host.gdtr;
    cpu->idtr = cpu->svm.host.idtr;
    cpu->efer = cpu->svm.host.efer;
    cpu->cr0 = cpu->svm.host.cr0 | CR0_PE;
    cpu->cr3 = cpu->svm.host.cr3;
    cpu->cr4 = cpu->svm.host.cr4;
    cpu->pat = cpu->svm.host.pat;
    memcpy(cpu->pdpte, cpu->svm.host.pdpte, sizeof cpu->pdpte);
    cpu_set_rflags(cpu, cpu->svm.host.rflags & ~(u64)FLAG_VM);
    cpu->r[REG_RIP] = cpu->svm.host.rip;
    cpu->r[RSP] = cpu->svm.host.rsp;
    cpu->r[RAX] = cpu->svm.host.rax;
    cpu->dr[7] = 0x400;
    cpu->cpl = 0;
    cpu->nested_paging = 0;
    tlb_select_asid(cpu, 0);
}

/* #VMEXIT. The instruction at hand was undone or completed already; leaves to the loop, or to the caller of the run
 * function when the host is not simulated code. */
static void vmexit(Cpu *cpu, u64 code, u64 info1, u64 info2)
{
    u8 *v = vmcb_ptr(cpu, cpu->svm.vmcb_pa);
    if (!v)
        leave_error(cpu, NULL, "the VMCB at %#llx is not in memory", (unsigned long long)cpu->svm.vmcb_pa);
    bool data_npf = code == 0x400 && cpu->access.valid;
    u64 rip = cpu->r[REG_RIP];
    trace_vmexit(cpu, code, info1, info2);
    if (!data_npf) {
        cpu->access.valid = 0;
        mmio_forget(cpu);
    }
    vmcb_put_segment(v, SAVE_ES, &cpu->seg[SEG_ES]);
    vmcb_put_segment(v, SAVE_CS, &cpu->seg[SEG_CS]);
    vmcb_put_segment(v, SAVE_SS, &cpu->seg[SEG_SS]);
    vmcb_put_segment(v, SAVE_DS, &cpu->seg[SEG_DS]);
    vmcb_put_segment(v, SAVE_GDTR, &cpu->gdtr);
    vmcb_put_segment(v, SAVE_IDTR, &cpu->idtr);
    vmcb_put(v, SAVE_CPL, 1, cpu->cpl);
    vmcb_put(v, SAVE_EFER, 8, cpu->efer);
    vmcb_put(v, SAVE_CR4, 8, cpu->cr4);
    vmcb_put(v, SAVE_CR3, 8, cpu->cr3);
    vmcb_put(v, SAVE_CR0, 8, cpu->cr0);
    vmcb_put(v, SAVE_CR2, 8, cpu->cr2);
    vmcb_put(v, SAVE_DR6, 8, cpu->dr[6]);
    vmcb_put(v, SAVE_DR7, 8, cpu->dr[7]);
    vmcb_put(v, SAVE_RFLAGS, 8, cpu_rflags(cpu));
    vmcb_put(v, SAVE_RIP, 8, rip);
    vmcb_put(v, SAVE_RSP, 8, cpu->r[RSP]);
    vmcb_put(v, SAVE_RAX, 8, cpu->r[RAX]);
    if (cpu->nested_paging)
        vmcb_put(v, SAVE_PAT, 8, cpu->pat);
    vmcb_put(v, VMCB_INT_CTL, 8, cpu->svm.int_ctl);
    vmcb_put(v, VMCB_INT_SHADOW, 8, cpu->shadow ? 1 : 0);
    vmcb_put(v, VMCB_EXITCODE, 8, code);
    vmcb_put(v, VMCB_EXITINFO1, 8, info1);
    vmcb_put(v, VMCB_EXITINFO2, 8, info2);
    vmcb_put(v, VMCB_EXITINTINFO, 8, cpu->svm.delivering ? cpu->svm.exitintinfo : 0);
    vmcb_put(v, VMCB_EVENTINJ, 8, vmcb_get(v, VMCB_EVENTINJ, 8) & ~0x80000000ull);
    vmcb_put(v, VMCB_NRIP, 8, cpu->svm.next_rip);
    v[VMCB_INSN_LEN] = 0;
    if ((code == 0x400 && !(info1 & PF_I)) || (code == 0x40 + EXC_PF && !(info1 & PF_I)))
        v[VMCB_INSN_LEN] = (u8)sim_fetch_bytes(cpu, v + VMCB_INSN_BYTES);
    code_written(cpu->machine, v, 4096);
    count_exit(cpu, code);
    cpu->svm.delivering = 0;
    cpu->svm.exitintinfo = 0;
    cpu->svm.next_rip = 0;
    cpu->svm.inject = 0;
    cpu->in_guest = 0;
    cpu->block = NULL;
    cpu->pending_dbg = 0;
    cpu->attention = 1;
    if (cpu->python_host)
        leave_stop(cpu, NULL, SIM_STOP_VMEXIT);
    cpu->shadow = 0;
    cpu->gif = 0;
    load_host_state(cpu);
    cpu_update_mode(cpu);
    longjmp(cpu->leave, LEAVE_VMEXIT);
}

/* `bit` counts in the intercept word from 60h (INTR); -1 when the caller has looked already. */
void svm_intercept(Cpu *cpu, const Op *op, int bit, uint64_t code, uint64_t info1, uint64_t info2)
{
    if (likely(!cpu->in_guest) || (bit >= 0 && !(cpu->svm.intercepts >> bit & 1)))
        return;
    u64 next = op ? next_rip(cpu, op) : 0;
    sync_op(cpu, op);
    cpu->svm.next_rip = next;
    vmexit(cpu, code, info1, info2);
}

static void svm_msr_intercept(Cpu *cpu, const Op *op, u32 index, bool write)
{
    if (!cpu->in_guest || !(cpu->svm.intercepts >> 28 & 1))
        return;
    if (cpu->vapic && (index == 0x1B || index == 0x6E0 || (index >= 0x800 && index < 0x900))) {
        cpu->stats.vapic_accesses++;
        return;
    }
    u64 bit;
    if (index < 0x2000)
        bit = index * 2ull;
    else if (index >= 0xC0000000 && index < 0xC0002000)
        bit = 0x800 * 8 + (index - 0xC0000000) * 2ull;
    else if (index >= 0xC0010000 && index < 0xC0012000)
        bit = 0x1000 * 8 + (index - 0xC0010000) * 2ull;
    else
        bit = UINT64_MAX;
    if (bit != UINT64_MAX) {
        const u8 *map = phys_ptr(cpu->machine, cpu->svm.msrpm + bit / 8, 1, false);
        if (map && !(*map >> ((bit & 7) + write) & 1))
            return;
    }
    svm_intercept(cpu, op, -1, 0x7C, write, 0);
}

static void io_intercept(Cpu *cpu, const Op *op, u16 port, unsigned size, bool in, bool string, u64 next)
{
    if (!cpu->in_guest || !(cpu->svm.intercepts >> 27 & 1))
        return;
    bool hit = false;
    for (unsigned i = 0; i < size; i++) {
        u32 p = port + i;
        const u8 *map = phys_ptr(cpu->machine, cpu->svm.iopm + p / 8, 1, false);
        hit = hit || !map || (*map >> (p & 7) & 1);
    }
    if (!hit)
        return;
    bool rep = op->flags & (OPF_REP | OPF_REPNE);
    u64 info = (u64)port << 16 | in | (string ? 4 : 0) | (string && rep ? 8 : 0) | (u64)size << 4
             | 0x80ull << (op->asize == 2 ? 0 : op->asize == 4 ? 1 : 2)
             | (string ? (u64)(in ? SEG_ES : op->seg) << 10 : 0);
    sync_op(cpu, op);
    cpu->svm.next_rip = next;
    vmexit(cpu, 0x7B, info, next);
}

/* ---- VMRUN ---- */

static bool legal_injection(u64 e)
{
    unsigned type = e >> 8 & 7, vector = e & 0xFF;
    if (!(e >> 31 & 1))
        return true;
    if (type != EVENT_INTR && type != EVENT_NMI && type != EVENT_EXCEPTION && type != EVENT_SOFT)
        return false;
    return type != EVENT_EXCEPTION || (vector < 32 && vector != 2);
}

static bool guest_state_valid(Cpu *cpu, const u8 *v)
{
    u64 cr0 = vmcb_get(v, SAVE_CR0, 8), cr3 = vmcb_get(v, SAVE_CR3, 8), cr4 = vmcb_get(v, SAVE_CR4, 8);
    u64 efer = vmcb_get(v, SAVE_EFER, 8), intercepts = vmcb_get(v, VMCB_INTERCEPTS, 8);
    u16 cs = (u16)vmcb_get(v, SAVE_CS + 2, 2);
    u64 phys = cpu->machine->phys_mask;
    if (!(efer & EFER_SVME) || (efer & ~(u64)EFER_KNOWN))
        return false;
    if ((cr0 >> 32) || ((cr0 & CR0_NW) && !(cr0 & CR0_CD)))
        return false;
    if ((cr4 >> 32) || (cr4 & ~cr4_allowed(cpu)))
        return false;
    if ((vmcb_get(v, SAVE_DR6, 8) >> 32) || (vmcb_get(v, SAVE_DR7, 8) >> 32))
        return false;
    if ((efer & EFER_LME) && (cr0 & CR0_PG)) {
        if (!(cr4 & CR4_PAE) || !(cr0 & CR0_PE))
            return false;
        if ((cs & 0x200) && (cs & 0x400))
            return false;
        if (cr3 & ~(phys | 0xFFF))
            return false;
    }
    if (!(intercepts >> 32 & 1) || !(u32)vmcb_get(v, VMCB_ASID, 4))
        return false;
    if (((vmcb_get(v, VMCB_IOPM, 8) & ~0xFFFull) & ~phys) || ((vmcb_get(v, VMCB_MSRPM, 8) & ~0xFFFull) & ~phys))
        return false;
    if (!legal_injection(vmcb_get(v, VMCB_EVENTINJ, 8)))
        return false;
    if ((v[VMCB_NESTED] & 1) && !valid_pat(vmcb_get(v, SAVE_PAT, 8)))
        return false;
    return true;
}

static void load_control(Cpu *cpu, const u8 *v)
{
    cpu->svm.cr_read = (u32)vmcb_get(v, VMCB_CR_READ, 2);
    cpu->svm.cr_write = (u32)vmcb_get(v, VMCB_CR_WRITE, 2);
    cpu->svm.dr_read = (u32)vmcb_get(v, VMCB_DR_READ, 2);
    cpu->svm.dr_write = (u32)vmcb_get(v, VMCB_DR_WRITE, 2);
    cpu->svm.exceptions = (u32)vmcb_get(v, VMCB_EXCEPTIONS, 4);
    cpu->svm.intercepts = vmcb_get(v, VMCB_INTERCEPTS, 8);
    cpu->svm.intercepts3 = (u32)vmcb_get(v, VMCB_INTERCEPTS3, 4);
    cpu->svm.iopm = vmcb_get(v, VMCB_IOPM, 8) & ~0xFFFull;
    cpu->svm.msrpm = vmcb_get(v, VMCB_MSRPM, 8) & ~0xFFFull;
    cpu->svm.tsc_offset = vmcb_get(v, VMCB_TSC_OFFSET, 8);
    cpu->svm.asid = (u32)vmcb_get(v, VMCB_ASID, 4);
    cpu->svm.int_ctl = vmcb_get(v, VMCB_INT_CTL, 8);
    cpu->svm.v_intr_masking = (cpu->svm.int_ctl & INT_CTL_V_INTR_MASKING) != 0;
    cpu->svm.ncr3 = vmcb_get(v, VMCB_NCR3, 8);
    cpu->svm.avic_bar = vmcb_get(v, VMCB_AVIC_BAR, 8);
    cpu->svm.avic_backing = vmcb_get(v, VMCB_AVIC_BACKING, 8);
    cpu->svm.avic_logical = vmcb_get(v, VMCB_AVIC_LOGICAL, 8);
    cpu->svm.avic_physical = vmcb_get(v, VMCB_AVIC_PHYSICAL, 8);
}

static void load_guest(Cpu *cpu, const u8 *v)
{
    cpu->seg[SEG_ES] = vmcb_segment(v, SAVE_ES);
    cpu->seg[SEG_CS] = vmcb_segment(v, SAVE_CS);
    cpu->seg[SEG_SS] = vmcb_segment(v, SAVE_SS);
    cpu->seg[SEG_DS] = vmcb_segment(v, SAVE_DS);
    cpu->gdtr = vmcb_segment(v, SAVE_GDTR);
    cpu->idtr = vmcb_segment(v, SAVE_IDTR);
    cpu->efer = vmcb_get(v, SAVE_EFER, 8);
    cpu->cr0 = vmcb_get(v, SAVE_CR0, 8);
    cpu->cr2 = vmcb_get(v, SAVE_CR2, 8);
    cpu->cr3 = vmcb_get(v, SAVE_CR3, 8);
    cpu->cr4 = vmcb_get(v, SAVE_CR4, 8);
    cpu->dr[6] = vmcb_get(v, SAVE_DR6, 8);
    cpu->dr[7] = vmcb_get(v, SAVE_DR7, 8);
    cpu->efer = (cpu->efer & ~(u64)EFER_LMA)
              | ((cpu->efer & EFER_LME) && (cpu->cr0 & CR0_PG) ? EFER_LMA : 0);
    cpu_set_rflags(cpu, vmcb_get(v, SAVE_RFLAGS, 8));
    cpu->r[REG_RIP] = vmcb_get(v, SAVE_RIP, 8);
    cpu->r[RSP] = vmcb_get(v, SAVE_RSP, 8);
    cpu->r[RAX] = vmcb_get(v, SAVE_RAX, 8);
    cpu->cpl = v[SAVE_CPL] & 3;
    if (!(cpu->cr0 & CR0_PE))
        cpu->cpl = 0;
    else if (cpu->rflags & FLAG_VM)
        cpu->cpl = 3;
    if (cpu->nested_paging)
        cpu->pat = vmcb_get(v, SAVE_PAT, 8);
    cpu->shadow = vmcb_get(v, VMCB_INT_SHADOW, 1) & 1;
}

/* Enters the guest of the VMCB at `pa`; RIP of the host is already behind VMRUN. */
static void vmrun_enter(Cpu *cpu, u64 pa)
{
    u8 *v = vmcb_ptr(cpu, pa);
    if (!v)
        leave_error(cpu, NULL, "VMRUN with a VMCB outside memory, at %#llx", (unsigned long long)pa);
    cpu->svm.host.es = cpu->seg[SEG_ES];
    cpu->svm.host.cs = cpu->seg[SEG_CS];
    cpu->svm.host.ss = cpu->seg[SEG_SS];
    cpu->svm.host.ds = cpu->seg[SEG_DS];
    cpu->svm.host.gdtr = cpu->gdtr;
    cpu->svm.host.idtr = cpu->idtr;
    cpu->svm.host.rflags = cpu_rflags(cpu);
    cpu->svm.host.rip = cpu->r[REG_RIP];
    cpu->svm.host.rsp = cpu->r[RSP];
    cpu->svm.host.rax = cpu->r[RAX];
    if (!cpu->python_host) {
        cpu->svm.host.efer = cpu->efer;
        cpu->svm.host.cr0 = cpu->cr0;
        cpu->svm.host.cr3 = cpu->cr3;
        cpu->svm.host.cr4 = cpu->cr4;
        cpu->svm.host.pat = cpu->pat;
        memcpy(cpu->svm.host.pdpte, cpu->pdpte, sizeof cpu->pdpte);
    }
    cpu->svm.host_if = (cpu->rflags & FLAG_IF) != 0;
    cpu->svm.hcr0 = cpu->svm.host.cr0;
    cpu->svm.hcr4 = cpu->svm.host.cr4;
    cpu->svm.hefer = cpu->svm.host.efer;
    cpu->svm.hpat = cpu->svm.host.pat;
    cpu->svm.vmcb_pa = pa;
    cpu->stats.vmruns++;
    if (!guest_state_valid(cpu, v)) {
        /* nothing was loaded: only the exit code is written */
        vmcb_put(v, VMCB_EXITCODE, 8, EXIT_INVALID);
        vmcb_put(v, VMCB_EXITINFO1, 8, 0);
        vmcb_put(v, VMCB_EXITINFO2, 8, 0);
        vmcb_put(v, VMCB_EXITINTINFO, 8, 0);
        code_written(cpu->machine, v, 4096);
        trace_vmexit(cpu, EXIT_INVALID, 0, 0);
        count_exit(cpu, EXIT_INVALID);
        cpu->access.valid = 0;
        if (cpu->python_host)
            leave_stop(cpu, NULL, SIM_STOP_VMEXIT);
        cpu->gif = 0;
        cpu->attention = 1;
        return;
    }
    load_control(cpu, v);
    cpu->nested_paging = v[VMCB_NESTED] & 1;
    unsigned tlb_ctl = v[VMCB_TLB_CTL];
    if (tlb_ctl == 1)
        tlb_flush_all(cpu);
    else if (tlb_ctl == 3 || tlb_ctl == 7)
        tlb_flush_asid(cpu, cpu->svm.asid, tlb_ctl == 3);
    if (cpu->slot_asid[cpu->slot] != cpu->svm.asid)
        tlb_select_asid(cpu, cpu->svm.asid);
    load_guest(cpu, v);
    cpu->in_guest = 1;
    cpu->gif = 1;
    cpu->mp_state = 0;
    cpu->block = NULL;
    cpu->pending_dbg = 0;
    cpu->attention = 1;
    u64 inject = vmcb_get(v, VMCB_EVENTINJ, 8);
    cpu->svm.inject = inject >> 31 & 1;
    cpu->svm.eventinj = inject;
    cpu->svm.inject_nrip = vmcb_get(v, VMCB_NRIP, 8);
    cpu->svm.delivering = 0;
    cpu->svm.next_rip = 0;
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !long_mode(cpu) && !cpu->nested_paging
        && !load_pdptes(cpu, cpu->cr3))
        vmexit(cpu, EXIT_INVALID, 0, 0);
    cpu_update_mode(cpu);
}

/* The event that VMRUN was asked to inject: no intercept looks at it. */
static void deliver_injection(Cpu *cpu)
{
    u64 e = cpu->svm.eventinj;
    unsigned type = e >> 8 & 7, vector = e & 0xFF;
    cpu->svm.inject = 0;
    cpu->stats.injections++;
    cpu->budget--;
    bool error = (e >> 11 & 1) && (cpu->cr0 & CR0_PE);
    u64 rip = cpu->r[REG_RIP];
    bool soft = type == EVENT_SOFT || (type == EVENT_EXCEPTION && (vector == EXC_BP || vector == EXC_OF));
    if (soft && cpu->svm.inject_nrip)
        rip = cpu->svm.inject_nrip;
    if (type == EVENT_EXCEPTION && !soft && vector != EXC_DB && vector != EXC_DF)
        cpu->rflags |= FLAG_RF;
    if (type == EVENT_NMI)
        vector = 2;
    if (type == EVENT_EXCEPTION)
        trace_exception(cpu, cpu->r[REG_RIP], vector, error, (u32)(e >> 32), vector == EXC_PF ? cpu->cr2 : 0,
                        SIM_TRACE_INJECTED);
    else
        trace_interrupt(cpu, cpu->r[REG_RIP], vector,
                        SIM_TRACE_INJECTED | (type == EVENT_NMI ? SIM_TRACE_NMI : type == EVENT_SOFT ? SIM_TRACE_SOFTWARE : 0));
    deliver_event(cpu, NULL, type, vector, soft, error, (u32)(e >> 32), rip);
}

static void need_svm(Cpu *cpu, const Op *op)
{
    if (!cpu_feature(cpu, FEAT_SVM) || !(cpu->efer & EFER_SVME) || real_or_v86(cpu))
        RAISE_UD(cpu, op);
    need_cpl0(cpu, op);
}

static u64 svm_address(Cpu *cpu, const Op *op)
{
    u64 pa = op->asize == 8 ? cpu->r[RAX] : (u32)cpu->r[RAX];
    if ((pa & 0xFFF) || (pa & ~cpu->machine->phys_mask) || !phys_ptr(cpu->machine, pa, 4096, true))
        RAISE_GP0(cpu, op);
    return pa;
}

HANDLER(op_vmrun)
{
    need_svm(cpu, op);
    u64 pa = svm_address(cpu, op);
    INTERCEPT(0x80);
    const Op *next = system_done(cpu, op);
    vmrun_enter(cpu, pa);
    return next;
}
HANDLER(op_vmmcall)
{
    if (!cpu_feature(cpu, FEAT_SVM) && !cpu->in_guest)
        RAISE_UD(cpu, op);
    INTERCEPT(0x81);
    RAISE_UD(cpu, op);
}

static void vmload(Cpu *cpu, const u8 *v)
{
    cpu->seg[SEG_FS] = vmcb_segment(v, SAVE_FS);
    cpu->seg[SEG_GS] = vmcb_segment(v, SAVE_GS);
    cpu->seg[SEG_LDTR] = vmcb_segment(v, SAVE_LDTR);
    cpu->seg[SEG_TR] = vmcb_segment(v, SAVE_TR);
    cpu->star = vmcb_get(v, SAVE_STAR, 8);
    cpu->lstar = vmcb_get(v, SAVE_LSTAR, 8);
    cpu->cstar = vmcb_get(v, SAVE_CSTAR, 8);
    cpu->sfmask = vmcb_get(v, SAVE_SFMASK, 8);
    cpu->kernel_gs_base = vmcb_get(v, SAVE_KERNEL_GS, 8);
    cpu->sysenter_cs = vmcb_get(v, SAVE_SYSENTER_CS, 8);
    cpu->sysenter_esp = vmcb_get(v, SAVE_SYSENTER_ESP, 8);
    cpu->sysenter_eip = vmcb_get(v, SAVE_SYSENTER_EIP, 8);
    cpu_update_mode(cpu);
}

static void vmsave(Cpu *cpu, u8 *v)
{
    vmcb_put_segment(v, SAVE_FS, &cpu->seg[SEG_FS]);
    vmcb_put_segment(v, SAVE_GS, &cpu->seg[SEG_GS]);
    vmcb_put_segment(v, SAVE_LDTR, &cpu->seg[SEG_LDTR]);
    vmcb_put_segment(v, SAVE_TR, &cpu->seg[SEG_TR]);
    vmcb_put(v, SAVE_STAR, 8, cpu->star);
    vmcb_put(v, SAVE_LSTAR, 8, cpu->lstar);
    vmcb_put(v, SAVE_CSTAR, 8, cpu->cstar);
    vmcb_put(v, SAVE_SFMASK, 8, cpu->sfmask);
    vmcb_put(v, SAVE_KERNEL_GS, 8, cpu->kernel_gs_base);
    vmcb_put(v, SAVE_SYSENTER_CS, 8, cpu->sysenter_cs);
    vmcb_put(v, SAVE_SYSENTER_ESP, 8, cpu->sysenter_esp);
    vmcb_put(v, SAVE_SYSENTER_EIP, 8, cpu->sysenter_eip);
    code_written(cpu->machine, v, 4096);
}

HANDLER(op_vmload)
{
    need_svm(cpu, op);
    u64 pa = svm_address(cpu, op);
    INTERCEPT(0x82);
    vmload(cpu, vmcb_ptr(cpu, pa));
    return system_done(cpu, op);
}
HANDLER(op_vmsave)
{
    need_svm(cpu, op);
    u64 pa = svm_address(cpu, op);
    INTERCEPT(0x83);
    vmsave(cpu, vmcb_ptr(cpu, pa));
    return system_done(cpu, op);
}
HANDLER(op_stgi)
{
    need_svm(cpu, op);
    INTERCEPT(0x84);
    cpu->gif = 1;
    cpu->attention = 1;
    return system_done(cpu, op);
}
HANDLER(op_clgi)
{
    need_svm(cpu, op);
    INTERCEPT(0x85);
    cpu->gif = 0;
    return system_done(cpu, op);
}
HANDLER(op_skinit)
{
    need_svm(cpu, op);
    INTERCEPT(0x86);
    RAISE_UD(cpu, op);
}
HANDLER(op_invlpga)
{
    need_svm(cpu, op);
    u64 lin = op->asize == 8 ? cpu->r[RAX] : (u32)cpu->r[RAX];
    svm_intercept(cpu, op, 0x7A - 0x60, 0x7A, lin, 0);
    tlb_invlpg_asid(cpu, lin, (u32)cpu->r[RCX]);
    return system_done(cpu, op);
}

void sim_vmload(SimCpu *cpu, uint64_t vmcb_pa)
{
    const u8 *v = vmcb_ptr(cpu, vmcb_pa);
    if (v)
        vmload(cpu, v);
}

void sim_vmsave(SimCpu *cpu, uint64_t vmcb_pa)
{
    u8 *v = vmcb_ptr(cpu, vmcb_pa);
    if (v)
        vmsave(cpu, v);
}
