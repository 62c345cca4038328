/* What a PVH guest is started with (Xen, public/arch-x86/hvm/start_info.h), as far as the guests here use it. */
#pragma once
#include <stdint.h>

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list;
    uint64_t command_line;
};

/* The number behind "name=" on a command line, in decimal; `otherwise` when it is not there. */
static inline unsigned command_number(const char *text, const char *name, unsigned otherwise)
{
    for (; text && *text; text++) {
        unsigned n = 0, v = 0;

        while (name[n] && text[n] == name[n])
            n++;
        if (name[n] || text[n] != '=')
            continue;
        for (text += n + 1; *text >= '0' && *text <= '9'; text++)
            v = v * 10 + (*text - '0');
        return v;
    }
    return otherwise;
}

static inline const char *command_line(const struct start_info *info)
{
    return (const char *)(uintptr_t)info->command_line;
}
