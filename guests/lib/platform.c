/* ACPI 6.4, 5.2.5 (RSDP) and 5.2.12 (MADT), with the MCFG; Intel MultiProcessor Specification 1.4, chapter 4. */
#include "platform.h"

#include <stddef.h>
#include <stdint.h>

enum {
    MADT_LOCAL_APIC = 0,
    MADT_OVERRIDE = 2,
    MADT_CPU_ENABLED = 1,

    MP_PROCESSOR = 0,
    MP_BUS = 1,
    MP_INTERRUPT = 3,
    MP_CPU_ENABLED = 1,
};

struct __attribute__((packed)) rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
};

struct __attribute__((packed)) table {
    uint32_t signature;
    uint32_t length;
    uint8_t revision, checksum;
    char oem[26];
};

struct __attribute__((packed)) madt {
    struct table header;
    uint32_t apic_address, flags;
    uint8_t entries[];
};

/* PCI Firmware Specification 3.0, 4.1.2: the first of the allocations */
struct __attribute__((packed)) mcfg {
    struct table header;
    uint64_t reserved, base;
    uint16_t segment;
    uint8_t first_bus, last_bus;
};

struct __attribute__((packed)) mp_pointer {
    uint32_t signature;
    uint32_t table;
    uint8_t length, revision, checksum, features[5];
};

struct __attribute__((packed)) mp_table {
    uint32_t signature;
    uint16_t length;
    uint8_t revision, checksum;
    char oem[20];
    uint32_t oem_table;
    uint16_t oem_length, count;
    uint32_t apic_address;
    uint16_t extended_length;
    uint8_t extended_checksum, reserved;
    uint8_t entries[];
};

#define SIGNATURE(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

static int sums_to_zero(const void *start, uint32_t length)
{
    uint8_t sum = 0;

    for (const uint8_t *p = start; length--; p++)
        sum += *p;
    return sum == 0;
}

/* Both tables' anchors stand on 16-byte boundaries. */
static const uint32_t *scan(uintptr_t from, uintptr_t to, uint32_t first, uint32_t second, uint32_t mask)
{
    for (; from < to; from += 16) {
        const uint32_t *p = (const uint32_t *)from;

        __asm__("" : "+r"(p)); /* low addresses are real here; keep GCC from reasoning about them */
        if (p[0] == first && (p[1] & mask) == (second & mask))
            return p;
    }
    return NULL;
}

static uintptr_t ebda(void)
{
    const uint16_t *segment = (const uint16_t *)0x40e;

    __asm__("" : "+r"(segment));
    uintptr_t address = (uintptr_t)*segment << 4;
    return address >= 0x80000 && address < 0xa0000 ? address : 0;
}

static const struct rsdp *find_rsdp(void)
{
    const uint32_t rsd = SIGNATURE('R', 'S', 'D', ' '), ptr = SIGNATURE('P', 'T', 'R', ' ');
    const void *p = NULL;

    if (ebda())
        p = scan(ebda(), ebda() + 1024, rsd, ptr, ~0u);
    if (!p)
        p = scan(0xe0000, 0x100000, rsd, ptr, ~0u);
    return p && sums_to_zero(p, 20) ? p : NULL;
}

static const struct table *acpi_table(uint32_t signature)
{
    const struct rsdp *rsdp = find_rsdp();

    if (!rsdp)
        return NULL;
    int wide = rsdp->revision >= 2 && rsdp->xsdt;
    unsigned width = wide ? 8 : 4;
    const struct table *root = (const struct table *)(wide ? (uintptr_t)rsdp->xsdt : rsdp->rsdt);
    const uint8_t *entry = (const uint8_t *)(root + 1), *end = (const uint8_t *)root + root->length;

    for (; entry + width <= end; entry += width) {
        const struct table *table = (const struct table *)(uintptr_t)*(const uint32_t *)entry;
        if (table->signature == signature && sums_to_zero(table, table->length))
            return table;
    }
    return NULL;
}

static const struct madt *find_madt(void)
{
    static const struct madt *madt;

    if (!madt)
        madt = (const struct madt *)acpi_table(SIGNATURE('A', 'P', 'I', 'C'));
    return madt;
}

/* The entry after `entry` of the given type, or the first one for NULL; NULL at the end. */
static const uint8_t *madt_next(const struct madt *madt, const uint8_t *entry, uint8_t type)
{
    const uint8_t *end = (const uint8_t *)madt + madt->header.length;

    for (entry = entry ? entry + entry[1] : madt->entries; entry + 2 <= end && entry[1] >= 2; entry += entry[1])
        if (entry[0] == type)
            return entry;
    return NULL;
}

static const struct mp_table *find_mp_table(void)
{
    const uint32_t mp = SIGNATURE('_', 'M', 'P', '_');
    const struct mp_pointer *p = NULL;

    if (ebda())
        p = (const void *)scan(ebda(), ebda() + 1024, mp, 0, 0);
    if (!p)
        p = (const void *)scan(0x9fc00, 0xa0000, mp, 0, 0);
    if (!p)
        p = (const void *)scan(0xe0000, 0x100000, mp, 0, 0);
    return p && sums_to_zero(p, 16) && p->table ? (const struct mp_table *)(uintptr_t)p->table : NULL;
}

static unsigned mp_cpus(const struct mp_table *mp, unsigned char *apic_ids, unsigned max)
{
    const uint8_t *entry = mp->entries;
    unsigned n = 0;

    for (unsigned i = 0; i < mp->count; i++) {
        if (entry[0] == MP_PROCESSOR && entry[3] & MP_CPU_ENABLED) {
            if (n < max)
                apic_ids[n] = entry[1];
            n++;
        }
        entry += entry[0] == MP_PROCESSOR ? 20 : 8;
    }
    return n;
}

unsigned platform_cpus(unsigned char *apic_ids, unsigned max)
{
    const struct madt *madt = find_madt();
    const struct mp_table *mp;
    unsigned n = 0;

    if (!madt)
        return (mp = find_mp_table()) ? mp_cpus(mp, apic_ids, max) : 0;
    for (const uint8_t *entry = NULL; (entry = madt_next(madt, entry, MADT_LOCAL_APIC));) {
        if (!(*(const uint32_t *)(entry + 4) & MADT_CPU_ENABLED))
            continue;
        if (n < max)
            apic_ids[n] = entry[3];
        n++;
    }
    return n;
}

/* MP interrupt entries: type, kind (0 vectored), flags (2 bytes), source bus and line, APIC, pin. */
static unsigned mp_irq_pin(const struct mp_table *mp, unsigned irq)
{
    const uint8_t *entry = mp->entries;
    int isa = -1;

    for (unsigned i = 0; i < mp->count; i++) {
        if (entry[0] == MP_BUS && entry[2] == 'I' && entry[3] == 'S' && entry[4] == 'A')
            isa = entry[1];
        if (entry[0] == MP_INTERRUPT && entry[1] == 0 && entry[4] == isa && entry[5] == irq)
            return entry[7];
        entry += entry[0] == MP_PROCESSOR ? 20 : 8;
    }
    return irq;
}

unsigned platform_irq_pin(unsigned irq)
{
    const struct madt *madt = find_madt();
    const struct mp_table *mp;

    if (!madt)
        return (mp = find_mp_table()) ? mp_irq_pin(mp, irq) : irq;
    for (const uint8_t *entry = NULL; (entry = madt_next(madt, entry, MADT_OVERRIDE));)
        if (entry[3] == irq)
            return *(const uint32_t *)(entry + 4);
    return irq;
}

uintptr_t platform_ecam(void)
{
    const struct mcfg *mcfg = (const struct mcfg *)acpi_table(SIGNATURE('M', 'C', 'F', 'G'));

    return mcfg && mcfg->header.length >= sizeof *mcfg && !mcfg->first_bus ? (uintptr_t)mcfg->base : 0;
}
