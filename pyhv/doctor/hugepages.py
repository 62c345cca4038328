"""Huge pages for guest memory (Documentation/admin-guide/mm/hugetlbpage.rst and transhuge.rst)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.doctor.finding import NO, UNKNOWN, YES, Finding

if TYPE_CHECKING:
    from pyhv.doctor.host import Host

_KIB = {"2M": 2048, "1G": 1 << 20}
_WANTED = {"2M": 128, "1G": 1}
"""Pages that the fix reserves: what a machine of the default size needs."""
_THP = "/sys/kernel/mm/transparent_hugepage"


def reserved(host: Host, size: str) -> Finding:
    """Whether hugetlb pages of a size ("2M" or "1G") are free to take."""
    name = f"hugepages {size}"
    pool = f"/sys/kernel/mm/hugepages/hugepages-{_KIB[size]}kB"
    if not host.exists(pool):
        if size == "1G" and host.flags and "pdpe1gb" not in host.flags:
            return Finding(name, NO, "the CPU has no 1 GiB pages (CPUID 8000_0001 EDX[26])")
        return Finding(name, NO, f"the kernel has none: there is no {pool}")
    total, free = host.number(f"{pool}/nr_hugepages"), host.number(f"{pool}/free_hugepages")
    if total is None or free is None:
        return Finding(name, UNKNOWN, f"{pool} cannot be read")
    free = max(0, free - (host.number(f"{pool}/resv_hugepages") or 0))
    if free:
        return Finding(name, YES, f"{free} of {total} reserved pages are free")
    reason = f"all {total} reserved pages are taken" if total else "supported, but none is reserved"
    return Finding(name, NO, reason, host.write(total + _WANTED[size], f"{pool}/nr_hugepages"))


def transparent(host: Host) -> Finding:
    """Whether the kernel backs guest memory with huge pages by itself."""
    name = "hugepages transparent"
    shared, anonymous = host.selected(f"{_THP}/shmem_enabled"), host.selected(f"{_THP}/enabled")
    if shared in ("always", "within_size", "advise", "force"):
        return Finding(name, YES, f"for memory in files (shmem_enabled is {shared})")
    if anonymous in ("always", "madvise"):
        return Finding(name, YES, f"for anonymous memory (enabled is {anonymous})")
    if shared is None and anonymous is None:
        return Finding(name, NO, f"the kernel has none: there is no {_THP}")
    return Finding(name, NO, f"switched off (enabled is {anonymous})", host.write("madvise", f"{_THP}/enabled"))
