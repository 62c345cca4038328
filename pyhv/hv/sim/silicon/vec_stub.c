/* Host code for vector and x87 instructions: emitted once, kept for the machine's life. See vec.h for the idea.
 *
 * The calling convention is System V's. A stub uses only registers that its caller may lose, and leaves the host's
 * x87 unit empty, its control word and MXCSR as they were. Memory is never writable and executable at once. */
#include "vec.h"

#include <stdlib.h>

#define STUB_BUCKETS 512
#define STUB_CHUNK (64u * 1024)

typedef struct StubChunk {
    struct StubChunk *next;
    uint8_t *code;
    uint32_t used;
} StubChunk;

typedef struct StubUnit {
    VecStub *buckets[STUB_BUCKETS];
    StubChunk *chunks;
} StubUnit;

static StubUnit *stub_unit(Machine *m)
{
    if (m->vec_private == NULL)
        m->vec_private = calloc(1, sizeof(StubUnit));
    return m->vec_private;
}

static unsigned stub_bucket(uint64_t key)
{
    return (unsigned)((key * 0x9E3779B97F4A7C15ull) >> 32) % STUB_BUCKETS;
}

VecStub *vec_stub_find(Machine *m, uint64_t key)
{
    StubUnit *unit = stub_unit(m);
    if (unit == NULL)
        return NULL;
    VecStub *stub = unit->buckets[stub_bucket(key)];
    while (stub != NULL && stub->key != key)
        stub = stub->next;
    return stub;
}

void vec_machine_init(Machine *m) { m->vec_private = NULL; }

const Op *vec_no_stub(Cpu *cpu, const Op *op)
{
    leave_error(cpu, op, "the host gives no executable memory for vector instructions");
}

#if defined(__x86_64__)
#include <sys/mman.h>

VecStub *vec_stub_add(Machine *m, uint64_t key, const uint8_t *code, unsigned size, unsigned lean_size)
{
    StubUnit *unit = stub_unit(m);
    if (unit == NULL || size > STUB_MAX_CODE || lean_size > STUB_MAX_CODE)
        return NULL;
    StubChunk *chunk = unit->chunks;
    if (chunk == NULL || chunk->used + 2 * STUB_MAX_CODE > STUB_CHUNK) {
        chunk = calloc(1, sizeof(*chunk));
        if (chunk == NULL)
            return NULL;
        chunk->code = mmap(NULL, STUB_CHUNK, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk->code == MAP_FAILED) {
            free(chunk);
            return NULL;
        }
        chunk->next = unit->chunks;
        unit->chunks = chunk;
    }
    VecStub *stub = calloc(1, sizeof(*stub));
    if (stub == NULL || mprotect(chunk->code, STUB_CHUNK, PROT_READ | PROT_WRITE) != 0) {
        free(stub);
        return NULL;
    }
    uint8_t *at = chunk->code + chunk->used;
    memcpy(at, code, size);
    chunk->used += (size + 15) & ~15u;
    uint8_t *lean_at = chunk->code + chunk->used;
    memcpy(lean_at, code + STUB_MAX_CODE, lean_size);
    chunk->used += (lean_size + 15) & ~15u;
    if (mprotect(chunk->code, STUB_CHUNK, PROT_READ | PROT_EXEC) != 0) {
        free(stub);
        return NULL;
    }
    memcpy(&stub->run, &at, sizeof(at));
    if (lean_size)
        memcpy(&stub->lean, &lean_at, sizeof(lean_at));
    stub->key = key;
    unsigned bucket = stub_bucket(key);
    stub->next = unit->buckets[bucket];
    unit->buckets[bucket] = stub;
    return stub;
}

void vec_machine_free(Machine *m)
{
    StubUnit *unit = m->vec_private;
    if (unit == NULL)
        return;
    for (unsigned i = 0; i < STUB_BUCKETS; i++)
        while (unit->buckets[i] != NULL) {
            VecStub *stub = unit->buckets[i];
            unit->buckets[i] = stub->next;
            free(stub);
        }
    while (unit->chunks != NULL) {
        StubChunk *chunk = unit->chunks;
        unit->chunks = chunk->next;
        munmap(chunk->code, STUB_CHUNK);
        free(chunk);
    }
    free(unit);
    m->vec_private = NULL;
}

/* ---- emitter ---- */
typedef struct Emit {
    uint8_t code[2 * STUB_MAX_CODE]; /* the lean form in the second half */
    unsigned n;
} Emit;

static void emit(Emit *e, const char *bytes, unsigned count)
{
    memcpy(e->code + e->n, bytes, count);
    e->n += count;
}
#define EMIT(e, s) emit((e), (s), sizeof(s) - 1)

static void emit_byte(Emit *e, unsigned byte) { e->code[e->n++] = (uint8_t)byte; }

/* An instruction (all but ModRM in `s`) on register `reg` and the frame's field at `offset` from rDI. */
static void emit_frame(Emit *e, const char *s, unsigned count, unsigned reg, size_t offset)
{
    emit(e, s, count);
    emit_byte(e, 0x87 | reg << 3);
    uint32_t disp = (uint32_t)offset;
    memcpy(e->code + e->n, &disp, 4);
    e->n += 4;
}
#define ON_FRAME(e, s, reg, field) emit_frame((e), (s), sizeof(s) - 1, (reg), offsetof(VecFrame, field))

#define MOVUPS_LOAD "\x0F\x10"
#define MOVUPS_STORE "\x0F\x11"
#define VMOVUPS_LOAD "\xC5\xFC\x10" /* YMM */
#define VMOVUPS_STORE "\xC5\xFC\x11"
#define MOVQ_MM_LOAD "\x0F\x6F"
#define MOVQ_MM_STORE "\x0F\x7F"
#define MOV_LOAD "\x48\x8B"
#define MOV_STORE "\x48\x89"
#define LDMXCSR "\x0F\xAE" /* with reg 2; STMXCSR with 3 */

/* Host registers of a stub: the reg operand is XMM1 or MM1, the rm operand XMM2 or MM2, a general register RAX. */
static void emit_instruction(Emit *e, const Insn *insn, unsigned prefix, const VecInfo *info)
{
    static const char prefixes[] = {0, 0x66, (char)0xF3, (char)0xF2};
    if (prefix != PFX_NONE)
        emit_byte(e, (uint8_t)prefixes[prefix]);
    if ((info->flags & VF_REXW) && (insn->rex & 8))
        emit_byte(e, 0x48);
    emit_byte(e, 0x0F);
    if (insn->map == 2)
        emit_byte(e, 0x38);
    else if (insn->map == 3)
        emit_byte(e, 0x3A);
    unsigned reg = info->flags & VF_GROUP ? insn->modrm >> 3 & 7u : info->reg == OPND_G ? 0 : 1;
    if (insn->mod != 3) {
        char opcode = (char)insn->opcode;
        emit_frame(e, &opcode, 1, reg, offsetof(VecFrame, b));
    } else {
        emit_byte(e, insn->opcode);
        emit_byte(e, 0xC0 | reg << 3 | (info->rm == OPND_G ? 0 : 2));
    }
    if (insn->imm_size)
        emit_byte(e, (uint8_t)insn->imm);
}

/* `control`: under the guest's MXCSR. */
static void emit_sse(Emit *e, const Insn *insn, unsigned prefix, const VecInfo *info, bool control)
{
    const uint32_t f = info->flags;
    const bool mem = insn->mod != 3, rm_reg = !mem;
    if (control) {
        ON_FRAME(e, LDMXCSR, 3, host_mxcsr);
        ON_FRAME(e, LDMXCSR, 2, mxcsr);
    }
    if (f & VF_XMM0)
        ON_FRAME(e, MOVUPS_LOAD, 0, x0);
    if (info->reg == OPND_X)
        ON_FRAME(e, MOVUPS_LOAD, 1, a);
    else if (info->reg == OPND_M)
        ON_FRAME(e, MOVQ_MM_LOAD, 1, a);
    if (rm_reg && info->rm == OPND_X)
        ON_FRAME(e, MOVUPS_LOAD, 2, b);
    else if (rm_reg && info->rm == OPND_M)
        ON_FRAME(e, MOVQ_MM_LOAD, 2, b);
    if (rm_reg && info->rm == OPND_G)
        ON_FRAME(e, MOV_LOAD, 0, gpr);
    if (f & VF_STR_LENGTHS) {
        ON_FRAME(e, MOV_LOAD, 0, rax);
        ON_FRAME(e, MOV_LOAD, 2, rdx);
    }
    emit_instruction(e, insn, prefix, info);
    if (!(f & VF_NO_DEST)) {
        unsigned kind = f & VF_DEST_RM ? info->rm : info->reg;
        if (!(f & VF_DEST_RM) || rm_reg) {
            if (kind == OPND_G)
                ON_FRAME(e, MOV_STORE, 0, gpr);
            else if (kind == OPND_X && (f & VF_DEST_RM))
                ON_FRAME(e, MOVUPS_STORE, 2, b);
            else if (kind == OPND_X)
                ON_FRAME(e, MOVUPS_STORE, 1, a);
            else if (f & VF_DEST_RM)
                ON_FRAME(e, MOVQ_MM_STORE, 2, b);
            else
                ON_FRAME(e, MOVQ_MM_STORE, 1, a);
        }
    }
    if (f & VF_STR_INDEX)
        ON_FRAME(e, MOV_STORE, 1, rcx);
    if (f & VF_STR_MASK)
        ON_FRAME(e, MOVUPS_STORE, 0, x0);
    if (f & VF_EFLAGS) {
        EMIT(e, "\x9C");                      /* pushfq */
        ON_FRAME(e, "\x8F", 0, rflags);       /* pop */
    }
    if (control) {
        ON_FRAME(e, LDMXCSR, 3, mxcsr);
        ON_FRAME(e, LDMXCSR, 2, host_mxcsr);
    }
    if (info->reg == OPND_M || info->rm == OPND_M)
        EMIT(e, "\x0F\x77");                  /* emms */
    EMIT(e, "\xC3");
}

VecStub *vec_stub_sse(Machine *m, const Insn *insn, unsigned prefix, const VecInfo *info)
{
    bool mem = insn->mod != 3;
    bool rexw = (info->flags & VF_REXW) && (insn->rex & 8);
    unsigned digit = info->flags & VF_GROUP ? insn->modrm >> 3 & 7u : 0;
    unsigned imm = insn->imm_size ? (uint8_t)insn->imm : 0;
    uint64_t key = 1ull << 63 | (uint64_t)insn->map << 32 | prefix << 28 | (unsigned)mem << 27 | (unsigned)rexw << 26 |
                   digit << 16 | (unsigned)insn->opcode << 8 | imm;
    VecStub *stub = vec_stub_find(m, key);
    if (stub != NULL)
        return stub;

    Emit e = {.n = 0};
    emit_sse(&e, insn, prefix, info, info->flags & VF_FP);
    const unsigned size = e.n;
    e.n = STUB_MAX_CODE;
    if (info->flags & VF_FP)
        emit_sse(&e, insn, prefix, info, false);
    stub = vec_stub_add(m, key, e.code, size, e.n - STUB_MAX_CODE);
    if (stub != NULL) {
        stub->info = *info;
        stub->imm = (uint8_t)imm;
        if (rexw && stub->info.msize == 4)
            stub->info.msize = 8;
    }
    return stub;
}

/* Registers as for SSE, YMM wide; VEX.vvvv is YMM3, the register in an immediate YMM4. */
static void emit_vex(Emit *e, const Insn *insn, unsigned prefix, const VecInfo *info, bool wide, bool rexw,
                     bool control)
{
    static const uint8_t pp[4] = {[PFX_NONE] = 0, [PFX_66] = 1, [PFX_F3] = 2, [PFX_F2] = 3};
    const uint32_t f = info->flags;
    const bool mem = insn->mod != 3;
    const unsigned digit = insn->modrm >> 3 & 7u, imm = (uint8_t)insn->imm;
    if (control) {
        ON_FRAME(e, LDMXCSR, 3, host_mxcsr);
        ON_FRAME(e, LDMXCSR, 2, mxcsr);
    }
    if (info->reg == OPND_X)
        ON_FRAME(e, VMOVUPS_LOAD, 1, a);
    else if (info->reg == OPND_G)
        ON_FRAME(e, MOV_LOAD, 0, gpr);
    if (!mem && info->rm == OPND_X)
        ON_FRAME(e, VMOVUPS_LOAD, 2, b);
    else if (!mem && info->rm == OPND_G)
        ON_FRAME(e, MOV_LOAD, 0, gpr);
    if (f & VF_VVVV)
        ON_FRAME(e, VMOVUPS_LOAD, 3, v);
    if (f & VF_XMM0)
        ON_FRAME(e, VMOVUPS_LOAD, 4, x0);
    if (f & VF_STR_MASK)
        ON_FRAME(e, VMOVUPS_LOAD, 0, x0);
    if (f & VF_STR_LENGTHS) {
        ON_FRAME(e, MOV_LOAD, 0, rax);
        ON_FRAME(e, MOV_LOAD, 2, rdx);
    }
    emit_byte(e, 0xC4);
    emit_byte(e, 0xE0 | insn->map); /* R, X, B inverted */
    emit_byte(e, (unsigned)rexw << 7 | (f & VF_VVVV ? 12u : 15u) << 3 | (unsigned)wide << 2 | pp[prefix & 3]);
    const unsigned reg = f & VF_GROUP ? digit : info->reg == OPND_G ? 0 : 1;
    if (mem) {
        char opcode = (char)insn->opcode;
        emit_frame(e, &opcode, 1, reg, offsetof(VecFrame, b));
    } else {
        emit_byte(e, insn->opcode);
        emit_byte(e, 0xC0 | reg << 3 | (info->rm == OPND_G ? 0 : 2));
    }
    if (insn->imm_size)
        emit_byte(e, f & VF_XMM0 ? 4u << 4 | (imm & 15) : imm);
    if (f & VF_NO_DEST)
        ;
    else if (f & VF_DEST_VVVV)
        ON_FRAME(e, VMOVUPS_STORE, 3, v);
    else if (!(f & VF_DEST_RM) && info->reg == OPND_X)
        ON_FRAME(e, VMOVUPS_STORE, 1, a);
    else if ((f & VF_DEST_RM) && !mem && info->rm == OPND_X)
        ON_FRAME(e, VMOVUPS_STORE, 2, b);
    else if (!(f & VF_DEST_RM) || !mem)
        ON_FRAME(e, MOV_STORE, 0, gpr);
    if (f & VF_STR_INDEX)
        ON_FRAME(e, MOV_STORE, 1, rcx);
    if (f & VF_STR_MASK)
        ON_FRAME(e, VMOVUPS_STORE, 0, x0);
    if (f & VF_EFLAGS) {
        EMIT(e, "\x9C");
        ON_FRAME(e, "\x8F", 0, rflags);
    }
    if (control) {
        ON_FRAME(e, LDMXCSR, 3, mxcsr);
        ON_FRAME(e, LDMXCSR, 2, host_mxcsr);
    }
    EMIT(e, "\xC5\xF8\x77\xC3");            /* vzeroupper; ret */
}

VecStub *vec_stub_vex(Machine *m, const Insn *insn, unsigned prefix, const VecInfo *info, bool wide)
{
    const bool mem = insn->mod != 3;
    const bool rexw = (insn->rex & 8) && ((info->flags & (VF_ENCODE_W | VF_W1)) ||
                                          ((info->flags & VF_REXW) && insn->mode == 8));
    const unsigned digit = info->flags & VF_GROUP ? insn->modrm >> 3 & 7u : 0;
    const unsigned imm = insn->imm_size ? (uint8_t)insn->imm : 0;
    const uint64_t key = 3ull << 62 | (uint64_t)insn->map << 32 | prefix << 28 | (unsigned)mem << 27 |
                         (unsigned)rexw << 26 | (unsigned)wide << 25 | digit << 16 | (unsigned)insn->opcode << 8 | imm;
    VecStub *stub = vec_stub_find(m, key);
    if (stub != NULL)
        return stub;

    Emit e = {.n = 0};
    const uint32_t f = info->flags;
    emit_vex(&e, insn, prefix, info, wide, rexw, f & VF_FP);
    const unsigned size = e.n;
    e.n = STUB_MAX_CODE;
    if (f & VF_FP)
        emit_vex(&e, insn, prefix, info, wide, rexw, false);
    stub = vec_stub_add(m, key, e.code, size, e.n - STUB_MAX_CODE);
    if (stub != NULL) {
        stub->info = *info;
        stub->imm = (uint8_t)imm;
        stub->wide = wide;
        if (rexw && (f & VF_REXW) && stub->info.msize == 4)
            stub->info.msize = 8;
    }
    return stub;
}

/* rDI: the XSAVE image, rSI: X87Frame. */
VecStub *vec_stub_x87(Machine *m, uint8_t opcode, uint8_t modrm, bool reads_flags, bool writes_flags)
{
    uint64_t key = 1ull << 62 | (unsigned)opcode << 8 | modrm;
    VecStub *stub = vec_stub_find(m, key);
    if (stub != NULL)
        return stub;
    Emit e = {.n = 0};
    const uint8_t mxcsr = offsetof(X87Frame, host_mxcsr), fcw = offsetof(X87Frame, host_fcw);
    const uint8_t flags = offsetof(X87Frame, rflags);
    EMIT(&e, "\x0F\xAE\x5E"); emit_byte(&e, mxcsr);         /* stmxcsr [rsi+..] */
    EMIT(&e, "\xD9\x7E"); emit_byte(&e, fcw);               /* fnstcw [rsi+..] */
    EMIT(&e, "\x48\x0F\xAE\x0F");                           /* fxrstor64 [rdi] */
    if (reads_flags) {
        EMIT(&e, "\xFF\x76"); emit_byte(&e, flags);         /* push [rsi+..] */
        EMIT(&e, "\x9D");                                   /* popfq */
    }
    emit_byte(&e, opcode);
    emit_byte(&e, modrm >= 0xC0 ? modrm : (modrm & 0x38) | 6); /* memory operand: [rsi] */
    if (writes_flags) {
        EMIT(&e, "\x9C\x8F\x46"); emit_byte(&e, flags);     /* pushfq; pop [rsi+..] */
    }
    EMIT(&e, "\x48\x0F\xAE\x07");                           /* fxsave64 [rdi] */
    EMIT(&e, "\xDB\xE3");                                   /* fninit */
    EMIT(&e, "\xD9\x6E"); emit_byte(&e, fcw);               /* fldcw [rsi+..] */
    EMIT(&e, "\x0F\xAE\x56"); emit_byte(&e, mxcsr);         /* ldmxcsr [rsi+..] */
    EMIT(&e, "\xC3");
    return vec_stub_add(m, key, e.code, e.n, 0);
}

#else /* a host of another architecture has no unit to run them on */

VecStub *vec_stub_sse(Machine *m, const Insn *insn, unsigned prefix, const VecInfo *info) { return NULL; }

VecStub *vec_stub_vex(Machine *m, const Insn *insn, unsigned prefix, const VecInfo *info, bool wide)
{
    return NULL;
}

VecStub *vec_stub_x87(Machine *m, uint8_t opcode, uint8_t modrm, bool reads_flags, bool writes_flags)
{
    return NULL;
}

void vec_machine_free(Machine *m)
{
    free(m->vec_private);
    m->vec_private = NULL;
}
#endif
