"""Host memory for a guest: a sparse in-memory file; huge pages on request."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, HostError
from pyhv.memo import memo
from pyhv.memory.layout import PAGE_SIZE
from pyhv.memory.region import MemoryRegion
from pyhv.record import record

if TYPE_CHECKING:
    from typing import Any

HUGEPAGES = ("none", "transparent", "2M", "1G")
HUGE_SHIFTS = {"2M": 21, "1G": 30}
THP_SIZE = 1 << 21
_THP = "/sys/kernel/mm/transparent_hugepage"


@record(frozen=True)
class MemoryBacking:
    """How guest memory is backed.

    `hugepages` is one of HUGEPAGES. `guest_memfd` asks a KVM host for memory that belongs to the VM itself and not to a
    file of this process. `file` is the descriptor of a file whose bytes the memory is; the region gets a duplicate of it.
    Where memory cannot be a file's, its region has no `fd`, and the bytes are zeros.
    """

    hugepages: str = "none"
    guest_memfd: bool = False
    file: int = -1

    def __post_init__(self) -> None:
        if self.hugepages not in HUGEPAGES:
            raise ConfigError(f"hugepages: {self.hugepages!r} is not one of {', '.join(HUGEPAGES)}")
        if self.guest_memfd and self.hugepages != "none":
            raise ConfigError("hugepages: guest_memfd memory takes none")
        if self.file >= 0 and (self.guest_memfd or self.hugepages != "none"):
            raise ConfigError("hugepages: memory that is a file's takes none")


@memo(1)
def _host() -> tuple[Any, Any]:
    try:
        from pyhv.memory._host import ffi, lib  # type: ignore[import-not-found]
    except ImportError as error:
        raise HostError(f"pyhv.memory._host is not built ({error}); mend it with: pip install -e .") from error
    return ffi, lib


def _selected(setting: str) -> str:
    """The choice in brackets of a sysfs setting such as "always [madvise] never"."""
    try:
        with open(setting) as file:
            text = file.read()
    except OSError:
        return "never"
    return text.partition("[")[2].partition("]")[0] or "never"


def transparent_kind() -> str:
    """What transparent huge pages can back here: "file" (an in-memory file), "anonymous", or "" for nothing."""
    if _selected(f"{_THP}/shmem_enabled") in ("always", "within_size", "advise", "force"):
        return "file"
    return "anonymous" if _selected(f"{_THP}/enabled") in ("always", "madvise") else ""


def _number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _huge_failure(hugepages: str, size: int, code: int) -> CapabilityMissing:
    page = 1 << HUGE_SHIFTS[hugepages]
    pool = f"/sys/kernel/mm/hugepages/hugepages-{page >> 10}kB"
    needed = size // page
    if not os.path.isdir(pool):
        return CapabilityMissing(f"hugepages: this host has no {hugepages} pages (no {pool})")
    total = _number(f"{pool}/nr_hugepages")
    free = max(0, _number(f"{pool}/free_hugepages") - _number(f"{pool}/resv_hugepages"))
    knob = "/proc/sys/vm/nr_hugepages" if hugepages == "2M" else f"{pool}/nr_hugepages"
    return CapabilityMissing(
        f"hugepages: {needed} pages of {hugepages} are needed, {free} are free ({os.strerror(code)}); reserve "
        f"them with: echo {total - free + needed} > {knob}"
    )


def check_range(address: int, size: int, name: str) -> None:
    """Raises ConfigError unless [address, address + size) can be guest memory: whole pages, below 2^52."""
    if size <= 0 or size % PAGE_SIZE or address < 0 or address % PAGE_SIZE or address + size > 1 << 52:
        raise ConfigError(
            f"memory region {name} at {address:#x} of {size:#x} bytes: both must be multiples of {PAGE_SIZE}, the size "
            "above 0, the end at most 2^52"
        )


def map_file(fd: int, size: int, *, phase: int = 0, reserve: bool = False) -> tuple[memoryview, int]:
    """Map `size` bytes of `fd` (-1: anonymous), congruent to `phase` modulo 2 MiB; the view and its host address.

    The mapping lives as long as the view or anything cut from it, and goes when the last of them is dropped: memory
    that someone still looks at is never unmapped under him. Raises OSError.
    """
    ffi, lib = _host()
    error = ffi.new("int *")
    pointer = lib.pyhv_memory_map(fd, size, 0, THP_SIZE, phase % THP_SIZE, reserve, error)
    if pointer == ffi.NULL:
        raise OSError(error[0], os.strerror(error[0]))
    address = int(ffi.cast("uintptr_t", pointer))
    owned = ffi.gc(pointer, lambda mapped: lib.pyhv_memory_unmap(mapped, size))
    return memoryview(ffi.buffer(owned, size)), address


def allocate(
    address: int, size: int, backing: MemoryBacking, *, name: str = "ram", readonly: bool = False
) -> MemoryRegion:
    """Fresh zeroed host memory for [address, address + size).

    Pages take host memory only once they are touched (hugetlb pages are reserved, not taken). The host address is
    congruent to `address` modulo 2 MiB, so that nested page tables can use large pages wherever the host's do. Raises
    ConfigError, CapabilityMissing (huge pages that the host cannot give: says how to reserve them) or HostError.
    """
    check_range(address, size, name)
    shift = HUGE_SHIFTS.get(backing.hugepages, 0)
    if shift and (size | address) & ((1 << shift) - 1):
        raise ConfigError(
            f"hugepages: {name} at {address:#x} of {size:#x} bytes is not made of whole {backing.hugepages} pages"
        )
    kind = transparent_kind() if backing.hugepages == "transparent" else "file"
    if not kind:
        raise CapabilityMissing(
            f"hugepages: transparent ones are off on this host; allow them with: echo madvise > {_THP}/enabled"
        )
    ffi, lib = _host()
    fd = -1
    if backing.file >= 0:
        fd = os.dup(backing.file)
    elif kind == "file":
        fd = lib.pyhv_memory_file(f"pyhv-{name}".encode()[:200], size, shift)
        if fd < 0:
            if shift:
                raise _huge_failure(backing.hugepages, size, -fd)
            raise HostError(f"memory: {size >> 20} MiB for {name}: {os.strerror(-fd)}")
    try:
        buffer, host = map_file(fd, size, phase=address, reserve=bool(shift))
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        if shift:
            raise _huge_failure(backing.hugepages, size, error.errno or errno.ENOMEM) from None
        raise HostError(f"memory: {size >> 20} MiB for {name}: {error.strerror}") from None
    if backing.hugepages == "transparent":
        lib.pyhv_memory_advise_huge(ffi.cast("void *", host), size)
    release = (lambda: os.close(fd)) if fd >= 0 else None
    return MemoryRegion(
        address,
        buffer,
        name=name,
        readonly=readonly,
        host_address=host,
        fd=fd,
        page_size=1 << shift if shift else PAGE_SIZE,
        release=release,
        discard=None if backing.file >= 0 else lambda offset, size: discard(fd, host, offset, size),
    )


def discard(fd: int, host_address: int, offset: int, size: int) -> bool:
    """Give whole pages of a mapping back to the host, so that they read as zeros; whether the host took them."""
    ffi, lib = _host()
    return bool(lib.pyhv_memory_discard(fd, ffi.cast("void *", host_address + offset), offset, size) == 0)
