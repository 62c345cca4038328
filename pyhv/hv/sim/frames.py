"""The simulated host's physical memory: one sparse mapping, out of which frames and guest memory are given.

The low part holds what the host kernel itself needs (VMCBs, nested page tables, permission maps), one 4 KiB frame at a
time; the rest is for guest memory, contiguous and congruent to its guest physical address, so that nested tables can use
large pages. Nothing takes memory before it is touched.
"""

from __future__ import annotations

from pyhv._builtin import partial
from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, HostError
from pyhv.memory import PAGE_SIZE, MemoryRegion
from pyhv.memory.backing import _host, check_range, map_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.memory import MemoryBacking

WINDOW = 64 << 30
"""Bytes of host physical address space."""
KERNEL = 1 << 30
"""Where guest memory begins."""
PAGE_2M, PAGE_1G = 1 << 21, 1 << 30


class HostMemory:
    """Frames and regions. `view` is all of it, `pointer` its address in this process.

    `on_discard` hears of memory (address, size) that is about to become zeros.
    """

    def __init__(self, on_discard: Callable[[int, int], None] | None = None) -> None:
        self._on_discard = on_discard
        try:
            self.view, self.pointer = map_file(-1, WINDOW)
        except OSError as error:
            raise HostError(f"the simulated machine: {WINDOW >> 30} GiB of address space: {error.strerror}") from None
        self._next_frame = PAGE_SIZE
        self._free_frames: list[int] = []
        self._regions: dict[int, int] = {}

    def frame(self) -> int:
        """The physical address of a zeroed frame. Raises HostError when there are no more."""
        if self._free_frames:
            pa = self._free_frames.pop()
            self.view[pa : pa + PAGE_SIZE] = bytes(PAGE_SIZE)
            return pa
        return self.frames(1)

    def frames(self, count: int) -> int:
        """The physical address of `count` zeroed frames in a row."""
        pa = self._next_frame
        if pa + count * PAGE_SIZE > KERNEL:
            raise HostError("the simulated host kernel is out of memory")
        self._next_frame = pa + count * PAGE_SIZE
        return pa

    def free_frame(self, pa: int) -> None:
        """Give one frame back."""
        self._free_frames.append(pa)

    def page(self, pa: int) -> memoryview:
        """A frame's bytes."""
        return self.view[pa : pa + PAGE_SIZE]

    def allocate(self, address: int, size: int, backing: MemoryBacking, *, name: str, readonly: bool) -> MemoryRegion:
        """Zeroed memory for the guest physical range. Raises ConfigError, CapabilityMissing or HostError."""
        check_range(address, size, name)
        if backing.guest_memfd:
            raise CapabilityMissing("guest_memfd: the simulated machine has none")
        if backing.hugepages not in ("none", "transparent"):
            raise CapabilityMissing(
                f"hugepages: {backing.hugepages} cannot back the simulated machine; it takes none and transparent"
            )
        pa = self._place(address, size)
        self._regions[pa] = size
        ffi, lib = _host()
        if backing.hugepages == "transparent":
            lib.pyhv_memory_advise_huge(ffi.cast("void *", self.pointer + pa), size)
        return MemoryRegion(
            address,
            self.view[pa : pa + size],
            name=name,
            readonly=readonly,
            host_address=self.pointer + pa,
            release=partial(self._release, pa, size),
            discard=partial(self._discard, pa),
        )

    def physical(self, region: MemoryRegion) -> int:
        """Where a region of this memory lies."""
        return region.host_address - self.pointer

    def _place(self, address: int, size: int) -> int:
        align = PAGE_1G if size >= PAGE_1G else PAGE_2M if size >= PAGE_2M else PAGE_SIZE
        phase = address % align
        at = KERNEL
        for start in sorted(self._regions):
            candidate = at + (phase - at) % align
            if candidate + size <= start:
                return candidate
            at = start + self._regions[start]
        candidate = at + (phase - at) % align
        if candidate + size > WINDOW:
            raise HostError(
                f"memory: {size >> 20} MiB more do not fit the simulated host's {(WINDOW - KERNEL) >> 30} GiB"
            )
        return candidate

    def _discard(self, pa: int, offset: int, size: int) -> bool:
        ffi, lib = _host()
        if self._on_discard is not None:
            self._on_discard(pa + offset, size)
        return int(lib.pyhv_memory_discard(-1, ffi.cast("void *", self.pointer + pa + offset), 0, size)) == 0

    def _release(self, pa: int, size: int) -> None:
        self._regions.pop(pa, None)
        if self.view:
            self._discard(pa, 0, size)

    def close(self) -> None:
        """Drop the mapping; it goes with the last view of it."""
        self.view = memoryview(b"")
