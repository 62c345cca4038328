/* What a PVH guest is started with (Xen, public/arch-x86/hvm/start_info.h), as far as the guests here use it. */
#pragma once
#include <stdint.h>

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list;
    uint64_t command_line;
};

static inline const char *command_line(const struct start_info *info)
{
    return (const char *)(uintptr_t)info->command_line;
}
