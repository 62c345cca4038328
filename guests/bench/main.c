/*
 * A branchy integer benchmark, to compare processors and their simulators by. It does a fixed amount of work and
 * prints what it computed, never how long that took: whoever runs it has the clock.
 *
 * The amount is SCALE rounds (make SCALE=n), or what "scale=n" on the command line says.
 */
#include "bench.h"
#include "guest.h"
#include "startinfo.h"

#ifndef SCALE
#define SCALE 100
#endif

static const struct {
    const char *name;
    uint32_t (*run)(uint32_t seed);
} parts[] = {
    {"sieve", bench_sieve}, {"sort", bench_sort}, {"crc", bench_crc}, {"matrix", bench_matrix},
    {"states", bench_states}, {"hash", bench_hash}, {"calls", bench_calls},
};


static unsigned scale(const struct start_info *info)
{
    const char *s = command_line(info);
    unsigned n = 0;

    for (; s && *s; s++) {
        if (__builtin_memcmp(s, "scale=", 6))
            continue;
        for (s += 6; *s >= '0' && *s <= '9'; s++)
            n = n * 10 + (*s - '0');
        return n;
    }
    return SCALE;
}

int main(const struct start_info *info)
{
    unsigned rounds = scale(info);

    print("bench: %u rounds\n", rounds);
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        uint32_t sum = 0;

        for (unsigned round = 1; round <= rounds; round++)
            sum = sum * 31 + parts[i].run(round);
        print("%s: %x\n", parts[i].name, sum);
    }
    print("bench: ok\n");
    return 0;
}
