/* The x87 environment in memory: FLDENV, FNSTENV, FRSTOR, FNSAVE (APM vol. 2, figures 11-7 to 11-10). */
#include "vec.h"

enum { ENV_SHORT = 14, ENV_LONG = 28 };

static unsigned x87_env_size(const Op *op) { return op->osize == 2 ? ENV_SHORT : ENV_LONG; }

static bool x87_real_format(const Cpu *cpu) { return !(cpu->cr0 & CR0_PE) || (cpu->rflags & FLAG_VM); }

static uint16_t x87_full_tags(const Cpu *cpu)
{
    unsigned tags = 0, top = x87_top(cpu);
    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *st = cpu->fpu.area + AREA_ST + 16 * ((physical - top) & 7);
        uint64_t mantissa;
        uint16_t exponent;
        memcpy(&mantissa, st, 8);
        memcpy(&exponent, st + 8, 2);
        exponent &= 0x7FFF;
        unsigned tag;
        if (!(cpu->fpu.area[AREA_FTW] >> physical & 1))
            tag = 3;
        else if (exponent == 0 && mantissa == 0)
            tag = 1;
        else if (exponent == 0 || exponent == 0x7FFF || !(mantissa >> 63))
            tag = 2;
        else
            tag = 0;
        tags |= tag << 2 * physical;
    }
    return (uint16_t)tags;
}

static void x87_put_env(Cpu *cpu, const Op *op, uint8_t *env)
{
    x87_update_es(cpu);
    const uint16_t fcw = area16(cpu, AREA_FCW), fsw = area16(cpu, AREA_FSW), tags = x87_full_tags(cpu);
    const uint16_t fop = area16(cpu, AREA_FOP) & 0x7FF;
    const uint32_t fip = area32(cpu, AREA_FIP), fdp = area32(cpu, AREA_FDP);
    const uint16_t fcs = area16(cpu, AREA_FCS), fds = area16(cpu, AREA_FDS);
    const bool real = x87_real_format(cpu);
    const uint32_t code = fip + (real ? (uint32_t)fcs << 4 : 0), data = fdp + (real ? (uint32_t)fds << 4 : 0);
    if (op->osize == 2) {
        uint16_t w[7] = {fcw, fsw, tags, (uint16_t)code, fcs, (uint16_t)data, fds};
        if (real) {
            w[4] = (uint16_t)((code >> 4 & 0xF000) | fop);
            w[6] = (uint16_t)(data >> 4 & 0xF000);
        }
        memcpy(env, w, ENV_SHORT);
        return;
    }
    uint32_t d[7] = {0xFFFF0000u | fcw, 0xFFFF0000u | fsw, 0xFFFF0000u | tags, code, (uint32_t)fop << 16 | fcs, data,
                     0xFFFF0000u | fds};
    if (real) {
        d[3] = 0xFFFF0000u | (code & 0xFFFF);
        d[4] = (code >> 4 & 0x0FFFF000) | fop;
        d[5] = 0xFFFF0000u | (data & 0xFFFF);
        d[6] = data >> 4 & 0x0FFFF000;
    }
    memcpy(env, d, ENV_LONG);
}

static void x87_get_env(Cpu *cpu, const Op *op, const uint8_t *env)
{
    uint32_t d[7];
    if (op->osize == 2) {
        uint16_t w[7];
        memcpy(w, env, ENV_SHORT);
        for (unsigned i = 0; i < 7; i++)
            d[i] = w[i];
    } else {
        memcpy(d, env, ENV_LONG);
    }
    uint32_t fip = d[3], fdp = d[5];
    uint16_t fop = 0, fcs = (uint16_t)d[4], fds = (uint16_t)d[6];
    if (x87_real_format(cpu)) {
        const uint32_t high = op->osize == 2 ? 0xF000 : 0x0FFFF000;
        fip = (d[3] & 0xFFFF) | (d[4] & high) << 4;
        fdp = (d[5] & 0xFFFF) | (d[6] & high) << 4;
        fop = d[4] & 0x7FF;
        fcs = fds = 0;
    } else if (op->osize != 2) {
        fop = d[4] >> 16 & 0x7FF;
    }
    x87_set_top(cpu, d[1] >> 11 & 7);
    area_set16(cpu, AREA_FCW, (d[0] & FCW_WRITABLE) | FCW_ALWAYS);
    area_set16(cpu, AREA_FSW, (uint16_t)d[1]);
    uint8_t abridged = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((d[2] >> 2 * i & 3) != 3)
            abridged |= (uint8_t)(1u << i);
    cpu->fpu.area[AREA_FTW] = abridged;
    area_set16(cpu, AREA_FOP, fop);
    area_set64(cpu, AREA_FIP, fip);
    area_set64(cpu, AREA_FDP, fdp);
    area_set16(cpu, AREA_FCS, fcs);
    area_set16(cpu, AREA_FDS, fds);
    x87_update_es(cpu);
}

const Op *x87_fnstenv(Cpu *cpu, const Op *op)
{
    uint8_t env[ENV_LONG];
    x87_available(cpu, op);
    x87_put_env(cpu, op, env);
    const unsigned size = x87_env_size(op);
    mem_write(cpu, op, op_linear(cpu, op, size, ACC_WRITE), env, size);
    area_set16(cpu, AREA_FCW, area16(cpu, AREA_FCW) | FSW_EXCEPTIONS);
    x87_update_es(cpu);
    NEXT;
}

const Op *x87_fldenv(Cpu *cpu, const Op *op)
{
    uint8_t env[ENV_LONG];
    x87_ready(cpu, op);
    const unsigned size = x87_env_size(op);
    mem_read(cpu, op, op_linear(cpu, op, size, ACC_READ), env, size);
    x87_get_env(cpu, op, env);
    NEXT;
}

const Op *x87_fnsave(Cpu *cpu, const Op *op)
{
    uint8_t image[ENV_LONG + 80];
    x87_available(cpu, op);
    x87_put_env(cpu, op, image);
    const unsigned size = x87_env_size(op);
    for (unsigned i = 0; i < 8; i++)
        memcpy(image + size + 10 * i, cpu->fpu.area + AREA_ST + 16 * i, 10);
    mem_write(cpu, op, op_linear(cpu, op, size + 80, ACC_WRITE), image, size + 80);
    x87_init_state(cpu);
    NEXT;
}

const Op *x87_frstor(Cpu *cpu, const Op *op)
{
    uint8_t image[ENV_LONG + 80];
    x87_ready(cpu, op);
    const unsigned size = x87_env_size(op);
    mem_read(cpu, op, op_linear(cpu, op, size + 80, ACC_READ), image, size + 80);
    x87_get_env(cpu, op, image);
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->fpu.area + AREA_ST + 16 * i, image + size + 10 * i, 10);
    NEXT;
}
