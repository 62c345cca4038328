/* I/O ports: permission, IN and OUT (APM vol. 2, 12.2.4; string forms are in exec_string.c). */
#include "access.h"
#include "block.h"

/* ---- I/O ports ---- */

static void io_check(Cpu *cpu, const Op *op, u16 port, unsigned size)
{
    if (!(cpu->cr0 & CR0_PE))
        return;
    if (!(cpu->rflags & FLAG_VM) && cpu->cpl <= (cpu->rflags & FLAG_IOPL) >> 12)
        return;
    const SimSegment *tr = &cpu->seg[SEG_TR];
    if (!(tr->attrib & 0x80) || !(tr->attrib & 8) || tr->limit < 0x67)
        RAISE_GP0(cpu, op);
    u32 map = (u32)mem_read_sys(cpu, op, tr->base + 0x66, 2), at = map + port / 8;
    if (at + 1 > tr->limit)
        RAISE_GP0(cpu, op);
    u32 bits = (u32)mem_read_sys(cpu, op, tr->base + at, 2) >> (port & 7);
    if (bits & ((1u << size) - 1))
        RAISE_GP0(cpu, op);
}

static u64 io_port_in(Cpu *cpu, const Op *op, u16 port, unsigned size, bool string, u64 count)
{
    u64 v = 0;
    if (mmio_replay(cpu, port, size, 2, &v))
        return v;
    mmio_record(cpu, op, port, size, 2, 0);
    cpu->access.string = string;
    cpu->access.count = (u32)count;
    leave_stop(cpu, op, SIM_STOP_PIO);
}

static void io_port_out(Cpu *cpu, const Op *op, u16 port, unsigned size, u64 value, bool string, u64 count)
{
    u64 v;
    if (mmio_replay(cpu, port, size, 3, &v))
        return;
    mmio_record(cpu, op, port, size, 3, value);
    cpu->access.string = string;
    cpu->access.count = (u32)count;
    leave_stop(cpu, op, SIM_STOP_PIO);
}

/* imm is the port, or -1 for DX */
HANDLER(op_in)
{
    u16 port = op->imm < 0 ? (u16)cpu->r[RDX] : (u16)op->imm;
    io_check(cpu, op, port, op->osize);
    io_intercept(cpu, op, port, op->osize, true, false, next_rip(cpu, op));
    reg_put(cpu, RAX, op->osize, io_port_in(cpu, op, port, op->osize, false, 1));
    return system_done(cpu, op);
}
HANDLER(op_out)
{
    u16 port = op->imm < 0 ? (u16)cpu->r[RDX] : (u16)op->imm;
    io_check(cpu, op, port, op->osize);
    io_intercept(cpu, op, port, op->osize, false, false, next_rip(cpu, op));
    io_port_out(cpu, op, port, op->osize, reg_get(cpu, RAX, op->osize), false, 1);
    return system_done(cpu, op);
}
HANDLER(op_rsm)
{
    INTERCEPT(0x73);
    RAISE_UD(cpu, op); /* no system management mode */
}
