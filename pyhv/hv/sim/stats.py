"""The silicon's counters by name."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.sim import vmcb
from pyhv.hv.sim.native import ffi, lib
from pyhv.memo import memo

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MAX_ASIDS = 64
EXCEPTION_NAMES = {
    0: "DE", 1: "DB", 2: "NMI", 3: "BP", 4: "OF", 5: "BR", 6: "UD", 7: "NM", 8: "DF", 10: "TS", 11: "NP", 12: "SS",
    13: "GP", 14: "PF", 16: "MF", 17: "AC", 18: "MC", 19: "XF",
}  # fmt: skip


@memo()
def _scalars() -> tuple[str, ...]:
    return tuple(name for name, field in ffi.typeof("SimStats").fields if field.type.kind == "primitive")


def take(cpus: Iterable[Any]) -> list[tuple[Any, Any, int]]:
    """What `summed` needs of each CPU, as it stands now."""
    taken = []
    for cpu in cpus:
        stats, asids = ffi.new("SimStats *"), ffi.new("SimTlbAsidStats[]", MAX_ASIDS)
        lib.sim_stats(cpu, stats)
        taken.append((stats, asids, lib.sim_stats_asids(cpu, asids, MAX_ASIDS)))
    return taken


def summed(taken: Iterable[tuple[Any, Any, int]]) -> dict[str, int]:
    """Sums over the CPUs.

    Plain counters have the names of `SimStats` (silicon/api.h); exits are `exit.NAME` by the manual's names, exceptions
    `exception.PF`, and the TLB's hits and misses `tlb.asid1.hits` and the like. Exits and exceptions that did not happen
    are left out.
    """
    out: dict[str, int] = {}

    def add(name: str, value: int) -> None:
        out[name] = out.get(name, 0) + value

    for stats, asids, count_of_asids in taken:
        for name in _scalars():
            add(name, getattr(stats, name))
        for code, count in enumerate(stats.exit_count):
            if count:
                add(f"exit.{vmcb.exit_name(code)}", count)
        for vector, count in enumerate(stats.exceptions):
            if count:
                add(f"exception.{EXCEPTION_NAMES.get(vector, vector)}", count)
        for i in range(count_of_asids):
            add(f"tlb.asid{asids[i].asid}.hits", asids[i].hits)
            add(f"tlb.asid{asids[i].asid}.misses", asids[i].misses)
    return out
