/* Random guests for a sanitizer build of the silicon: every mode, bare and under VMRUN, with random code, tables and
 * state, and random answers from devices. What the guests do is their affair; the machine must neither touch memory
 * that is not its own nor run past its budget. A guest that is traced runs op by op, and must end as one that is not.
 * Prints a digest of how each ended.
 *
 *     fuzz_silicon SEED ROUNDS
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

#define RAM_SIZE (4u << 20)
#define VMCB_PA 0x3F0000u
#define NESTED_PA 0x3E0000u
#define IOPM_PA 0x3D0000u
#define MSRPM_PA 0x3C0000u
#define BUDGET 3000

static uint64_t seed;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t below(uint64_t n) { return rnd() % n; }
static int chance(unsigned percent) { return below(100) < percent; }

/* Numbers that find edges: small, near powers of two, near the ends of memory and of the address space. */
static uint64_t odd_number(void)
{
    switch (below(8)) {
    case 0: return below(16);
    case 1: return 0 - below(16);
    case 2: return (1ull << below(64)) - below(3);
    case 3: return RAM_SIZE - below(32);
    case 4: return below(RAM_SIZE);
    case 5: return below(RAM_SIZE) & ~0xFFFull;
    case 6: return 0x7FFFFFFFF000ull + below(0x2000);
    default: return rnd();
    }
}

/* Instructions worth meeting more often than random bytes would make them. */
static const char *const TEMPLATES[] = {
    "\x0f\x01", "\x0f\x00", "\x0f\x22", "\x0f\x20", "\x0f\x23", "\x0f\x21", "\x0f\x30", "\x0f\x32", "\x0f\xa2",
    "\x0f\xae", "\x0f\xc7", "\xf3\xa4", "\xf3\x48\xa5", "\xf3\xaa", "\xf2\xae", "\xf3\xa6", "\xf3\x6c", "\xf3\x6e",
    "\xcd", "\xcf", "\x48\xcf", "\xcb", "\xca", "\x9a", "\xea", "\xff", "\x8e", "\x8c", "\x0f\x05", "\x0f\x07",
    "\x0f\x34", "\x0f\x35", "\x9c", "\x9d", "\xfa", "\xfb", "\xf4", "\xc8", "\xc9", "\x60", "\x61", "\x62", "\x63",
    "\xe8", "\xe9", "\xeb", "\x74", "\xe2", "\xc2", "\xc3", "\x0f\xa3", "\x0f\xab", "\x0f\x38", "\x0f\x3a", "\x66\x0f",
    "\xf3\x0f", "\xf2\x0f", "\xd9", "\xdb", "\xdd", "\xdf", "\xc4\xe2", "\xc4\xe3", "\xc5\xf8", "\x0f\x01\xd8",
    "\x0f\x01\xda", "\x0f\x01\xdb", "\x0f\x01\xdc", "\x0f\x01\xf8", "\x0f\x01\xdf", "\x66\x0f\x38\x82", "\xf0\x0f\xc7",
    "\xf0\x0f\xb1", "\x0f\xc7\xf0", "\xec", "\xee", "\xe4", "\xe6", "\x17", "\x0f\xb2", "\xc5", "\x87", "\x8f", "\xd7",
};

static void fill_code(uint8_t *ram, uint32_t at, uint32_t size)
{
    uint32_t end = at + size;
    while (at < end) {
        if (chance(60)) {
            const char *t = TEMPLATES[below(sizeof TEMPLATES / sizeof *TEMPLATES)];
            for (; *t && at < end; t++)
                ram[at++] = (uint8_t)*t;
            if (at < end)
                ram[at++] = (uint8_t)rnd();
        } else {
            ram[at++] = (uint8_t)rnd();
        }
    }
}

static void put64(uint8_t *ram, uint32_t at, uint64_t v) { memcpy(ram + at, &v, 8); }

/* Descriptors of all types, mostly sane; 16 to a table. */
static void fill_descriptors(uint8_t *ram, uint32_t at, unsigned count, int gates)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t d = rnd();
        if (chance(70)) {
            uint64_t type = gates ? (chance(80) ? 0x8E : 0x80 | below(32)) : chance(50) ? 0x9B : chance(50) ? 0x93 : 0x80 | below(32);
            d = gates ? (below(0x4000)) | (uint64_t)(below(16) * 8) << 16 | type << 40
                      : 0x00CF00000000FFFFull | type << 40 | (chance(50) ? 1ull << 53 : 0);
            if (chance(20))
                d |= 3ull << 45;
            if (!gates && chance(30))
                d ^= 1ull << 54;
        }
        put64(ram, at + i * 8, d);
    }
}

/* A four-level (or legacy) tree in one to eight pages that point at each other. */
static void fill_tables(uint8_t *ram, uint32_t at, unsigned pages)
{
    for (unsigned p = 0; p < pages; p++)
        for (unsigned i = 0; i < 512; i++) {
            uint64_t e = chance(60) ? (at + below(pages) * 0x1000) | 7 : (below(RAM_SIZE) & ~0xFFFull) | 0x67;
            if (chance(10))
                e |= 0x80;
            if (chance(5))
                e = rnd();
            if (chance(3))
                e &= ~1ull;
            if (chance(5))
                e ^= below(8);
            put64(ram, at + p * 0x1000 + i * 8, e);
        }
}

static SimSegment segment(unsigned kind)
{
    SimSegment s = {.selector = (uint16_t)(below(16) * 8 | (chance(30) ? below(4) : 0)), .limit = 0xFFFFFFFF};
    static const uint16_t attributes[] = {0xC9B, 0xA9B, 0x09B, 0x49B, 0xC93, 0x093, 0xC97, 0x091};
    s.attrib = attributes[kind == 1 ? below(4) : 4 + below(4)];
    if (chance(10))
        s.attrib = (uint16_t)(rnd() & 0xFFF);
    if (chance(30))
        s.limit = (uint32_t)odd_number();
    if (chance(30))
        s.base = (uint32_t)odd_number();
    return s;
}

static void random_state(SimState *s, uint8_t *ram)
{
    for (int i = 0; i < 16; i++)
        s->gpr[i] = odd_number();
    s->gpr[4] = 0x8000 + below(0x1000);
    s->rip = 0x1000 + below(0x800);
    s->rflags = (rnd() & 0x3F7FD7) | 2;
    s->es = segment(0);
    s->cs = segment(1);
    s->ss = segment(0);
    s->ds = segment(0);
    s->fs = segment(0);
    s->gs = segment(0);
    s->gdtr = (SimSegment){.base = chance(90) ? 0x10000 : odd_number(), .limit = chance(90) ? 127 : (uint32_t)below(0x10000)};
    s->idtr = (SimSegment){.base = chance(90) ? 0x11000 : odd_number(), .limit = chance(90) ? 0xFFF : (uint32_t)below(0x10000)};
    s->ldtr = (SimSegment){.attrib = chance(50) ? 0x82 : 0, .base = 0x12000, .limit = 127};
    s->tr = (SimSegment){.attrib = chance(80) ? 0x8B : (uint16_t)(rnd() & 0xFFF), .base = chance(90) ? 0x13000 : odd_number(), .limit = 0x67};
    s->cr0 = 0x10 | (rnd() & 0x5002F) | 1;
    s->cr4 = rnd() & 0x3F06FF;
    s->efer = rnd() & 0x1801;
    s->cr3 = 0x20000 | (chance(5) ? rnd() & 0xFFF : 0);
    s->cpl = s->cs.attrib >> 5 & 3;
    switch (below(5)) {
    case 0: /* real */
        s->cr0 &= ~1ull;
        s->cpl = 0;
        s->cs.attrib = 0x9B;
        s->rflags &= ~0x20000ull;
        break;
    case 1: /* protected, no paging */ s->rflags &= ~0x20000ull; break;
    case 2: /* protected, paging */
        s->cr0 |= 0x80000000;
        if (s->rflags & 0x20000)
            s->cpl = 3;
        break;
    case 3: /* compatibility */
    default:
        s->cr0 |= 0x80000000;
        s->cr4 |= 0x20;
        s->efer |= 0x500;
        s->rflags &= ~0x20000ull;
        if (chance(70))
            s->cs = (SimSegment){.selector = 8, .attrib = (uint16_t)(0xA9B | s->cpl << 5), .limit = 0xFFFFFFFF};
    }
    s->xcr0 = 7;
    s->star = rnd();
    s->lstar = 0x1000 + below(0x1000);
    s->cstar = 0x1000 + below(0x1000);
    s->sfmask = rnd() & 0x3F7FD5;
    s->sysenter_cs = below(64);
    s->sysenter_esp = 0x8000;
    s->sysenter_eip = 0x1000 + below(0x1000);
    s->pat = 0x0007040600070406ull;
    s->apic_base = 0xFEE00900;
    if (chance(10)) {
        s->dr[7] = rnd() & 0xFFFF03FF;
        s->dr[0] = 0x1000 + below(0x1000);
        s->dr[1] = 0x8000 + below(0x1000);
    }
    fill_code(ram, 0x1000, 0x1000);
    fill_code(ram, 0x2000, 0x200);
    fill_descriptors(ram, 0x10000, 32, 0);
    fill_descriptors(ram, 0x11000, 512, 1);
    fill_descriptors(ram, 0x12000, 16, 0);
    for (unsigned i = 0; i < 0x70; i++)
        ram[0x13000 + i] = (uint8_t)rnd();
    put64(ram, 0x13004, 0x9000);
    fill_tables(ram, 0x20000, 1 + (unsigned)below(8));
    if (chance(50)) /* a table whose low entries map themselves, so that code runs */
        for (unsigned i = 0; i < 512; i++) {
            put64(ram, 0x20000 + i * 8, 0x21007);
            put64(ram, 0x21000 + i * 8, 0x22007);
            put64(ram, 0x22000 + i * 8, 0x23007);
            put64(ram, 0x23000 + i * 8, (uint64_t)i << 12 | 0x67);
        }
}

static void build_vmcb(uint8_t *ram, const SimState *s)
{
    uint8_t *v = ram + VMCB_PA;
    memset(v, 0, 4096);
#define PUT(at, type, value) do { type x_ = (type)(value); memcpy(v + (at), &x_, sizeof x_); } while (0)
    PUT(0x00, uint64_t, rnd() & rnd());
    PUT(0x08, uint32_t, rnd() & rnd());
    PUT(0x0C, uint64_t, (rnd() & rnd()) | 1ull << 32 | (chance(90) ? 1u << 31 : 0));
    PUT(0x40, uint64_t, chance(95) ? IOPM_PA : odd_number());
    PUT(0x48, uint64_t, chance(95) ? MSRPM_PA : odd_number());
    PUT(0x58, uint32_t, chance(97) ? 1 + below(5) : 0);
    PUT(0x5C, uint8_t, chance(70) ? 0 : below(8));
    PUT(0x60, uint64_t, rnd() & 0xFF011F010Full);
    PUT(0x68, uint8_t, chance(10));
    PUT(0x90, uint8_t, chance(80));
    PUT(0xA8, uint64_t, chance(20) ? (rnd() & 0xFFFFFFFF00000FFFull) | 0x80000000u : 0);
    PUT(0xB0, uint64_t, chance(95) ? NESTED_PA : odd_number());
    memcpy(v + 0x400, &s->es, 16);
    memcpy(v + 0x410, &s->cs, 16);
    memcpy(v + 0x420, &s->ss, 16);
    memcpy(v + 0x430, &s->ds, 16);
    memcpy(v + 0x440, &s->fs, 16);
    memcpy(v + 0x450, &s->gs, 16);
    memcpy(v + 0x460, &s->gdtr, 16);
    memcpy(v + 0x470, &s->ldtr, 16);
    memcpy(v + 0x480, &s->idtr, 16);
    memcpy(v + 0x490, &s->tr, 16);
    PUT(0x4CB, uint8_t, s->cpl);
    PUT(0x4D0, uint64_t, s->efer | 0x1000);
    PUT(0x548, uint64_t, s->cr4);
    PUT(0x550, uint64_t, s->cr3);
    PUT(0x558, uint64_t, s->cr0);
    PUT(0x560, uint64_t, 0x400);
    PUT(0x568, uint64_t, 0xFFFF0FF0);
    PUT(0x570, uint64_t, s->rflags);
    PUT(0x578, uint64_t, s->rip);
    PUT(0x5D8, uint64_t, s->gpr[4]);
    PUT(0x5F8, uint64_t, s->gpr[0]);
    PUT(0x668, uint64_t, 0x0007040600070406ull);
    uint8_t *n = ram + NESTED_PA;
    for (unsigned i = 0; i < 512; i++) {
        put64(n, i * 8, (NESTED_PA + 0x1000) | 7);
        put64(n, 0x1000 + i * 8, (NESTED_PA + 0x2000) | 7);
        put64(n, 0x2000 + i * 8, chance(50) ? (NESTED_PA + 0x3000) | 7 : ((uint64_t)below(2) << 21) | 0x87);
        put64(n, 0x3000 + i * 8, chance(95) ? (uint64_t)i << 12 | 7 : chance(50) ? rnd() : (uint64_t)i << 12 | 5);
    }
#undef PUT
}

/* Runs one CPU until its budget is used up or it stops for good, answering what it asks. */
static void drive(SimMachine *m, SimCpu *cpu, int guest)
{
    uint64_t start = sim_icount(cpu);
    uint64_t lost;
    uint8_t buffer[64] = {0};
    for (unsigned turns = 0; turns < 300 && sim_icount(cpu) - start < BUDGET; turns++) {
        uint64_t before = sim_icount(cpu), budget = 1 + below(500);
        int why = guest && !(turns && chance(50)) ? sim_vmrun(cpu, VMCB_PA, budget) : sim_run(cpu, budget);
        sim_trace_take(m, &lost);
        if (lost) {
            fprintf(stderr, "%llu events did not fit\n", (unsigned long long)lost);
            abort();
        }
        if (sim_icount(cpu) - before > budget + 8) {
            fprintf(stderr, "ran %llu of %llu instructions\n", (unsigned long long)(sim_icount(cpu) - before), (unsigned long long)budget);
            abort();
        }
        guest = why == SIM_STOP_VMEXIT || (guest && chance(50));
        switch (why) {
        case SIM_STOP_MMIO:
        case SIM_STOP_PIO:
            if (sim_access(cpu)->string && chance(30))
                sim_string_io(cpu, buffer, 8, chance(50));
            else if (chance(95))
                sim_access_done(cpu, rnd());
            break;
        case SIM_STOP_VMEXIT:
            if (sim_access(cpu)->valid && chance(80))
                sim_access_done(cpu, rnd());
            if (chance(20))
                return;
            break;
        case SIM_STOP_HALT:
            if (chance(50))
                return;
            sim_nmi(cpu);
            break;
        case SIM_STOP_EXTINT: sim_extint_vector(cpu, (uint32_t)below(256)); break;
        case SIM_STOP_EOI: sim_eoi_vector(cpu); break;
        case SIM_STOP_INIT: {
            uint32_t vector;
            if (!sim_take_init(cpu, &vector))
                sim_set_mp_state(cpu, 0);
            break;
        }
        case SIM_STOP_SHUTDOWN: return;
        case SIM_STOP_ERROR: return;
        default: break;
        }
        if (chance(5))
            sim_lapic_mmio_write(cpu, (uint32_t)below(0x400) & ~15u, 4, (uint32_t)rnd());
    }
}

static uint64_t digest(uint64_t hash, const void *data, size_t size) /* whole 64-bit words */
{
    const uint64_t *p = data;
    for (size_t i = 0; i < size / 8; i++)
        hash = ((hash ^ p[i]) * 0x9E3779B97F4A7C15ull) ^ hash >> 29;
    return hash;
}

/* One machine, from its seed to a digest of how it ended; `kinds` of events are traced into exactly `capacity` records. */
static uint64_t run_machine(uint64_t round, uint32_t kinds, uint32_t capacity)
{
    uint64_t hash = 0xCBF29CE484222325ull;
    seed = round * 0x9E3779B97F4A7C15ull | 1;
    for (int i = 0; i < 8; i++)
        rnd();
    uint8_t *ram = malloc(RAM_SIZE);
    SimTraceRecord *records = malloc(capacity * sizeof *records);
    if (!ram || !records)
        exit(2);
    for (uint32_t i = 0; i < RAM_SIZE; i += 4096)
        memset(ram + i, (int)below(256), 4096);
    SimMachine *m = sim_machine_new(ram, RAM_SIZE, 1 + (uint32_t)below(2), round);
    if (!m)
        exit(2);
    sim_trace(m, kinds, 0, UINT64_MAX, records, capacity);
    SimCpu *cpu = sim_machine_cpu(m, 0);
    if (chance(30))
        sim_vapic_enable(cpu, 1);
    for (int k = 0; k < 4; k++) {
        SimState s;
        sim_get_state(cpu, &s);
        if (s.in_guest)
            sim_force_vmexit(cpu);
        sim_get_state(cpu, &s);
        random_state(&s, ram);
        int guest = chance(50);
        s.mp_state = 0;
        sim_set_state(cpu, &s);
        build_vmcb(ram, &s);
        sim_host_wrote(m, 0, RAM_SIZE);
        sim_vmload(cpu, VMCB_PA);
        drive(m, cpu, guest);
        sim_get_state(cpu, &s);
        hash = digest(hash, &s, sizeof s);
        hash = digest(hash, sim_xsave_area(cpu), 4096);
        hash = digest(hash, &seed, sizeof seed);
    }
    hash = digest(hash, ram, RAM_SIZE);
    sim_machine_free(m);
    free(records);
    free(ram);
    return hash;
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, rounds = argc > 2 ? strtoull(argv[2], NULL, 0) : 100;
    for (uint64_t round = first; round < first + rounds; round++) {
        uint64_t plain = run_machine(round, 0, 1), traced = run_machine(round, 31, 1u << 16);
        if (plain != traced) {
            fprintf(stderr, "round %llu ends otherwise when it is traced\n", (unsigned long long)round);
            abort();
        }
        printf("%llu %016llx\n", (unsigned long long)round, (unsigned long long)plain);
        run_machine(round, 1 + (uint32_t)below(31), 300); /* a buffer that is full soon */
    }
    return 0;
}
