/* FXSAVE, FXRSTOR, the XSAVE family and XCR0 (APM vol. 2 section 11.5, vol. 4; SDM vol. 1 chapter 13). */
#include "vec.h"

/* Extended components: bit in XCR0, place and size in the standard format. */
static const struct { uint32_t offset, size; } xsave_component[3] = {{0, 160}, {160, 256}, {AREA_YMM, 256}};
#define XSAVE_COMPONENTS 3
#define XSAVE_HEADER_SIZE 64
#define XSAVE_COMPACT (1ull << 63)

/* Components that the guest's CPUID names and the silicon has. */
static uint64_t xsave_supported(const Cpu *cpu)
{
    uint64_t mask = XCR0_X87 | XCR0_SSE;
    if (vec_host_has(ISA_AVX) && vec_guest_has(cpu, ISA_AVX))
        mask |= XCR0_AVX;
    return mask;
}

uint32_t xsave_size(uint64_t mask, bool compacted)
{
    uint32_t size = AREA_HEADER + XSAVE_HEADER_SIZE;
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++)
        if (mask >> i & 1)
            size = compacted ? size + xsave_component[i].size : xsave_component[i].offset + xsave_component[i].size;
    return size;
}

bool xsetbv(Cpu *cpu, uint32_t index, uint64_t value)
{
    if (index != 0 || (value & ~xsave_supported(cpu)) || !(value & XCR0_X87))
        return false;
    if ((value & XCR0_AVX) && !(value & XCR0_SSE))
        return false;
    cpu->xcr0 = value;
    return true;
}

void vec_reset(Cpu *cpu, bool init)
{
    if (init) /* INIT leaves x87, SSE and XCR0 alone */
        return;
    memset(cpu->fpu.area, 0, sizeof(cpu->fpu.area));
    area_set16(cpu, AREA_FCW, 0x40); /* RESET: not yet what FNINIT makes of it */
    cpu->fpu.area[AREA_FTW] = 0xFF;  /* all tags "zero" */
    area_set32(cpu, AREA_MXCSR, MXCSR_INIT);
    area_set32(cpu, AREA_MXCSR_MASK, vec_mxcsr_mask(cpu));
    cpu->xcr0 = XCR0_X87;
}

/* ---- images of the legacy area ---- */
/* Bytes 0-23 and 32-159. AMD keeps the error pointers out of the image unless an exception is pending. */
static void xsave_put_x87(Cpu *cpu, const Op *op, uint8_t *image)
{
    x87_update_es(cpu);
    memset(image, 0, AREA_MXCSR);
    memcpy(image, cpu->fpu.area, 4);
    image[AREA_FTW] = cpu->fpu.area[AREA_FTW];
    if (x87_pending(cpu)) {
        uint64_t fip = area64(cpu, AREA_FIP), fdp = area64(cpu, AREA_FDP);
        uint16_t fop = area16(cpu, AREA_FOP) & 0x7FF;
        if (!(op->flags & OPF_REXW)) {
            fip = (uint32_t)fip | (uint64_t)area16(cpu, AREA_FCS) << 32;
            fdp = (uint32_t)fdp | (uint64_t)area16(cpu, AREA_FDS) << 32;
        }
        memcpy(image + AREA_FOP, &fop, 2);
        memcpy(image + AREA_FIP, &fip, 8);
        memcpy(image + AREA_FDP, &fdp, 8);
    }
    for (unsigned i = 0; i < 8; i++) {
        memcpy(image + AREA_ST + 16 * i, cpu->fpu.area + AREA_ST + 16 * i, 10);
        memset(image + AREA_ST + 16 * i + 10, 0, 6);
    }
}

static void xsave_get_x87(Cpu *cpu, const Op *op, const uint8_t *image)
{
    uint16_t fcw, fsw, fop;
    uint64_t fip, fdp;
    memcpy(&fcw, image + AREA_FCW, 2);
    memcpy(&fsw, image + AREA_FSW, 2);
    memcpy(&fop, image + AREA_FOP, 2);
    memcpy(&fip, image + AREA_FIP, 8);
    memcpy(&fdp, image + AREA_FDP, 8);
    uint16_t fcs = 0, fds = 0;
    if (!(op->flags & OPF_REXW)) {
        fcs = (uint16_t)(fip >> 32);
        fds = (uint16_t)(fdp >> 32);
        fip = (uint32_t)fip;
        fdp = (uint32_t)fdp;
    }
    area_set16(cpu, AREA_FCW, (fcw & FCW_WRITABLE) | FCW_ALWAYS);
    area_set16(cpu, AREA_FSW, fsw);
    cpu->fpu.area[AREA_FTW] = image[AREA_FTW];
    area_set16(cpu, AREA_FOP, fop & 0x7FF);
    area_set64(cpu, AREA_FIP, fip);
    area_set64(cpu, AREA_FDP, fdp);
    area_set16(cpu, AREA_FCS, fcs);
    area_set16(cpu, AREA_FDS, fds);
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->fpu.area + AREA_ST + 16 * i, image + AREA_ST + 16 * i, 10);
    x87_update_es(cpu);
}

static void xsave_clear_x87(Cpu *cpu)
{
    x87_init_state(cpu);
    memset(cpu->fpu.area + AREA_ST, 0, 128);
}

static unsigned xsave_xmm_bytes(const Cpu *cpu) { return cpu->code_size == 8 ? 256 : 128; }

static uint32_t xsave_image_mxcsr(Cpu *cpu, const Op *op, const uint8_t *image)
{
    uint32_t mxcsr;
    memcpy(&mxcsr, image + AREA_MXCSR, 4);
    if ((mxcsr & ~0xFFFFu) && (mxcsr & ~vec_mxcsr_mask(cpu)))
        RAISE_GP0(cpu, op);
    return mxcsr;
}

static void xsave_put_mxcsr(Cpu *cpu, uint8_t *image)
{
    uint32_t mask = vec_mxcsr_mask(cpu);
    memcpy(image + AREA_MXCSR, cpu->fpu.area + AREA_MXCSR, 4);
    memcpy(image + AREA_MXCSR_MASK, &mask, 4);
}

/* ---- FXSAVE, FXRSTOR ---- */
static void xsave_fx_ready(Cpu *cpu, const Op *op)
{
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        raise_exception(cpu, op, EXC_NM);
}

static uint64_t xsave_linear(Cpu *cpu, const Op *op, unsigned size, unsigned alignment, int acc)
{
    uint64_t linear = op_linear(cpu, op, size, acc);
    if (linear & (alignment - 1))
        RAISE_GP0(cpu, op);
    return linear;
}

/* Fast FXSAVE: 64-bit CPL 0 code leaves the XMM registers out. */
static bool xsave_fast(const Cpu *cpu)
{
    return (cpu->efer & EFER_FFXSR) && cpu->code_size == 8 && cpu->cpl == 0;
}

/* Bytes of an FXSAVE image that are used. XMM registers and MXCSR need no CR4.OSFXSR here: AMD saves them always. */
static unsigned xsave_fx_size(const Cpu *cpu)
{
    return AREA_XMM + (xsave_fast(cpu) ? 0 : xsave_xmm_bytes(cpu));
}

static const Op *xsave_op_fxsave(Cpu *cpu, const Op *op)
{
    xsave_fx_ready(cpu, op);
    uint64_t linear = xsave_linear(cpu, op, 512, 16, ACC_WRITE);
    uint8_t image[AREA_LEGACY_END];
    xsave_put_x87(cpu, op, image);
    xsave_put_mxcsr(cpu, image);
    memcpy(image + AREA_XMM, cpu->fpu.area + AREA_XMM, 256);
    mem_write(cpu, op, linear, image, xsave_fx_size(cpu));
    NEXT;
}

static const Op *xsave_op_fxrstor(Cpu *cpu, const Op *op)
{
    xsave_fx_ready(cpu, op);
    uint64_t linear = xsave_linear(cpu, op, 512, 16, ACC_READ);
    uint8_t image[AREA_LEGACY_END];
    const unsigned size = xsave_fx_size(cpu);
    mem_read(cpu, op, linear, image, size);
    uint32_t mxcsr = xsave_image_mxcsr(cpu, op, image);
    xsave_get_x87(cpu, op, image);
    area_set32(cpu, AREA_MXCSR, mxcsr);
    memcpy(cpu->fpu.area + AREA_XMM, image + AREA_XMM, size - AREA_XMM);
    NEXT;
}

/* ---- XSAVE and its variants ---- */
static bool xsave_all_zero(const uint8_t *p, unsigned size)
{
    return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

uint64_t xsave_in_use(const Cpu *cpu)
{
    const uint8_t *area = cpu->fpu.area;
    static const uint8_t initial[AREA_MXCSR] = {FCW_INIT & 255, FCW_INIT >> 8};
    uint64_t mask = 0;
    if (memcmp(area, initial, AREA_MXCSR) != 0 || !xsave_all_zero(area + AREA_ST, 128))
        mask |= XCR0_X87;
    if (!xsave_all_zero(area + AREA_XMM, 256) || area32(cpu, AREA_MXCSR) != MXCSR_INIT)
        mask |= XCR0_SSE;
    if (!xsave_all_zero(area + AREA_YMM, 256))
        mask |= XCR0_AVX;
    return mask & cpu->xcr0;
}

static uint64_t xsave_requested(const Cpu *cpu)
{
    return ((cpu->r[RDX] << 32) | (uint32_t)cpu->r[RAX]) & cpu->xcr0;
}

static void xsave_ready(Cpu *cpu, const Op *op)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        RAISE_UD(cpu, op);
    if (cpu->cr0 & CR0_TS)
        raise_exception(cpu, op, EXC_NM);
}

static void xsave_ready_supervisor(Cpu *cpu, const Op *op)
{
    xsave_ready(cpu, op);
    if (cpu->cpl != 0)
        RAISE_GP0(cpu, op);
}

/* `optimise`: components in their initial state are not written; `compact`: XSAVEC, XSAVES. */
static void xsave_store(Cpu *cpu, const Op *op, bool optimise, bool compact)
{
    const uint64_t requested = xsave_requested(cpu), in_use = xsave_in_use(cpu) & requested;
    const uint64_t written = optimise ? in_use : requested;
    const uint32_t size = xsave_size(compact ? requested : written, compact);
    const uint64_t linear = xsave_linear(cpu, op, size, 64, ACC_WRITE);
    uint64_t header[2] = {in_use, requested | XSAVE_COMPACT};
    mem_probe(cpu, op, linear, size, ACC_WRITE);
    if (!compact) {
        uint64_t old;
        mem_read(cpu, op, linear + AREA_HEADER, &old, 8);
        header[0] |= old & ~requested;
    }
    uint8_t image[AREA_LEGACY_END];
    if (written & XCR0_X87) {
        xsave_put_x87(cpu, op, image);
        mem_write(cpu, op, linear, image, AREA_MXCSR);
        mem_write(cpu, op, linear + AREA_ST, image + AREA_ST, 128);
    }
    if ((compact ? written : requested) & (compact ? XCR0_SSE : XCR0_SSE | XCR0_AVX)) {
        xsave_put_mxcsr(cpu, image);
        mem_write(cpu, op, linear + AREA_MXCSR, image + AREA_MXCSR, 8);
    }
    if (written & XCR0_SSE)
        mem_write(cpu, op, linear + AREA_XMM, cpu->fpu.area + AREA_XMM, xsave_xmm_bytes(cpu));
    if (written & XCR0_AVX)
        mem_write(cpu, op, linear + AREA_YMM, cpu->fpu.area + AREA_YMM, xsave_xmm_bytes(cpu));
    mem_write(cpu, op, linear + AREA_HEADER, header, compact ? 16 : 8);
}

static const Op *xsave_op_xsave(Cpu *cpu, const Op *op)
{
    xsave_ready(cpu, op);
    xsave_store(cpu, op, false, false);
    NEXT;
}

static const Op *xsave_op_xsaveopt(Cpu *cpu, const Op *op)
{
    xsave_ready(cpu, op);
    xsave_store(cpu, op, true, false);
    NEXT;
}

static const Op *xsave_op_xsavec(Cpu *cpu, const Op *op)
{
    xsave_ready(cpu, op);
    xsave_store(cpu, op, true, true);
    NEXT;
}

static const Op *xsave_op_xsaves(Cpu *cpu, const Op *op) /* there are no supervisor components */
{
    xsave_ready_supervisor(cpu, op);
    xsave_store(cpu, op, true, true);
    NEXT;
}

static void xsave_load(Cpu *cpu, const Op *op, bool supervisor)
{
    const uint64_t requested = xsave_requested(cpu);
    uint64_t linear = xsave_linear(cpu, op, AREA_HEADER + XSAVE_HEADER_SIZE, 64, ACC_READ);
    uint8_t image[AREA_HEADER + XSAVE_HEADER_SIZE];
    uint64_t header[8];
    mem_read(cpu, op, linear, image, sizeof(image));
    memcpy(header, image + AREA_HEADER, sizeof(header));
    const bool compact = header[1] & XSAVE_COMPACT;
    uint64_t reserved = header[2];
    if (compact) {
        for (unsigned i = 3; i < 8; i++)
            reserved |= header[i];
        if (!vec_guest_has(cpu, ISA_XSAVEC) || (header[0] & ~header[1]) ||
            (header[1] & ~XSAVE_COMPACT & ~cpu->xcr0))
            RAISE_GP0(cpu, op);
    } else if (supervisor || header[1] || (header[0] & ~cpu->xcr0)) {
        RAISE_GP0(cpu, op);
    }
    if (reserved)
        RAISE_GP0(cpu, op);
    const uint64_t loaded = requested & header[0];
    uint32_t mxcsr = area32(cpu, AREA_MXCSR);
    if (compact) {
        if (requested & XCR0_SSE)
            mxcsr = header[0] & XCR0_SSE ? xsave_image_mxcsr(cpu, op, image) : MXCSR_INIT;
    } else if (requested & (XCR0_SSE | XCR0_AVX)) {
        mxcsr = xsave_image_mxcsr(cpu, op, image);
    }
    const unsigned xmm = xsave_xmm_bytes(cpu);
    uint8_t ymm[256] = {0};
    if (loaded & XCR0_AVX) /* in both formats the first of the extended components */
        mem_read(cpu, op, linear + AREA_YMM, ymm, xmm);

    area_set32(cpu, AREA_MXCSR, mxcsr);
    if (loaded & XCR0_X87)
        xsave_get_x87(cpu, op, image);
    else if (requested & XCR0_X87)
        xsave_clear_x87(cpu);
    if (loaded & XCR0_SSE)
        memcpy(cpu->fpu.area + AREA_XMM, image + AREA_XMM, xmm);
    else if (requested & XCR0_SSE)
        memset(cpu->fpu.area + AREA_XMM, 0, xmm);
    if (requested & XCR0_AVX)
        memcpy(cpu->fpu.area + AREA_YMM, ymm, xmm);
}

static const Op *xsave_op_xrstor(Cpu *cpu, const Op *op)
{
    xsave_ready(cpu, op);
    xsave_load(cpu, op, false);
    NEXT;
}

static const Op *xsave_op_xrstors(Cpu *cpu, const Op *op)
{
    xsave_ready_supervisor(cpu, op);
    xsave_load(cpu, op, true);
    NEXT;
}

/* 0F AE /0 /1 /4 /5 /6 and 0F C7 /3 /4 /5, memory forms. */
bool xsave_decode(Cpu *cpu, const Insn *insn, Op *op)
{
    const unsigned digit = insn->modrm >> 3 & 7;
    OpFn *fn = NULL;
    unsigned isa = ISA_XSAVE;
    if (!insn->has_modrm || insn->mod == 3 || insn->has66 || insn->rep || insn->lock)
        return false;
    if (insn->opcode == 0xAE)
        switch (digit) {
        case 0: fn = xsave_op_fxsave; isa = ISA_FXSR; break;
        case 1: fn = xsave_op_fxrstor; isa = ISA_FXSR; break;
        case 4: fn = xsave_op_xsave; break;
        case 5: fn = xsave_op_xrstor; break;
        case 6: fn = xsave_op_xsaveopt; isa = ISA_XSAVEOPT; break;
        default: return false;
        }
    else
        switch (digit) {
        case 3: fn = xsave_op_xrstors; isa = ISA_XSAVES; break;
        case 4: fn = xsave_op_xsavec; isa = ISA_XSAVEC; break;
        case 5: fn = xsave_op_xsaves; isa = ISA_XSAVES; break;
        default: return false;
        }
    if (!vec_guest_has(cpu, isa))
        return false;
    op->fn = fn;
    return true;
}
