"""MSR filters: which registers' accesses go to user space (KVM_X86_SET_MSR_FILTER)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.hv.kvm.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MAX_RANGES = 16
MAX_MSRS = 0x600 * 8
"""In one range's bitmap."""
X2APIC = range(0x800, 0x900)


def group(indices: Iterable[int]) -> list[tuple[int, list[int]]]:
    """At most 16 (base, members) ranges that cover the indices. Raises ConfigError where they are too far apart."""
    wanted = sorted(set(indices))
    for index in wanted:
        if not 0 <= index < 1 << 32:
            raise ConfigError(f"MSR {index:#x}: indices are 32-bit numbers")
        if index in X2APIC:
            raise ConfigError(f"MSR {index:#x}: KVM does not filter the x2APIC's registers")
    groups: list[tuple[int, list[int]]] = []
    for index in wanted:
        if groups and index - groups[-1][0] < MAX_MSRS:
            groups[-1][1].append(index)
        else:
            groups.append((index, [index]))
    if len(groups) > MAX_RANGES:
        raise ConfigError(f"MSR filter: the indices lie in {len(groups)} separate ranges, {MAX_RANGES} are possible")
    return groups


def build_filter(indices: Iterable[int], *, read: bool, write: bool) -> tuple[Any, list[Any]]:
    """A `struct kvm_msr_filter` that denies these accesses, and what must stay alive while it is used."""
    flags = (lib.KVM_MSR_FILTER_READ if read else 0) | (lib.KVM_MSR_FILTER_WRITE if write else 0)
    table = ffi.new("struct kvm_msr_filter *", {"flags": lib.KVM_MSR_FILTER_DEFAULT_ALLOW})
    keep: list[Any] = []
    if not flags:
        return table, keep
    for slot, (base, members) in enumerate(group(indices)):
        count = members[-1] - base + 1
        bitmap = bytearray(b"\xff" * ((count + 7) // 8))
        for index in members:
            bitmap[(index - base) // 8] &= ~(1 << (index - base) % 8)
        memory = ffi.new("uint8_t[]", bytes(bitmap))
        keep.append(memory)
        entry = table.ranges[slot]
        entry.flags, entry.nmsrs, entry.base, entry.bitmap = flags, count, base, memory
    return table, keep
