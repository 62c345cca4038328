/* CRC-32 (ISO 3309, reflected, polynomial 0x04c11db7), by table and bit by bit. */
#include "bench.h"
#include "guest.h"

enum { BYTES = 16384, BITWISE_BYTES = 1024 };
static const uint32_t POLYNOMIAL = 0xedb88320;

static uint32_t table[256];
static uint8_t data[BYTES];

static uint32_t one_byte(uint32_t crc)
{
    for (int bit = 0; bit < 8; bit++)
        crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
    return crc;
}

static uint32_t bitwise(const uint8_t *p, unsigned n)
{
    uint32_t crc = ~0u;

    while (n--)
        crc = one_byte(crc ^ *p++);
    return ~crc;
}

static uint32_t by_table(const uint8_t *p, unsigned n)
{
    uint32_t crc = ~0u;

    while (n--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return ~crc;
}

uint32_t bench_crc(uint32_t seed)
{
    for (unsigned i = 0; i < 256; i++)
        table[i] = one_byte(i);
    check(by_table((const uint8_t *)"123456789", 9) == 0xcbf43926);
    for (unsigned i = 0; i < BYTES; i++)
        data[i] = random_next(&seed);
    check(bitwise(data, BITWISE_BYTES) == by_table(data, BITWISE_BYTES));
    return by_table(data, BYTES);
}
