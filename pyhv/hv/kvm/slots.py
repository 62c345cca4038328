"""Memory slots: what of the guest's physical addresses is memory, and which pages were written."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, HostError, KvmError
from pyhv.hv.kvm.native import ffi, lib, request, request_value
from pyhv.locks import allocate_lock
from pyhv.memory import PAGE_SIZE, MemoryRegion, allocate
from pyhv.memory.backing import check_range, discard, map_file

if TYPE_CHECKING:
    from typing import Any

    from pyhv.hv.kvm.vcpu import KvmVcpu
    from pyhv.hv.kvm.vm import KvmVm
    from pyhv.memory import MemoryBacking

_HARVEST = 4096
_DIRTY_ENTRY = 16
PRIVATE = lib.KVM_MEMORY_ATTRIBUTE_PRIVATE


class Slots:
    """A part of KvmVm. Dirty tracking is either by bitmaps or, when the VM asks for it, by rings on the vCPUs."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm
        self._free: list[int] = []
        self._next = 0
        self._flags: dict[int, int] = {}
        self._memfds: dict[int, int] = {}
        self._dirty: dict[int, bytearray] = {}
        self._by_slot: dict[int, MemoryRegion] = {}
        self._lock = allocate_lock()
        self._observing = False
        self._manual_protect: bool | None = None
        self._ring_entries = 0
        self._rings: list[_Ring] = []

    def add(self, address: int, size: int, *, readonly: bool, backing: MemoryBacking, name: str) -> MemoryRegion:
        """Back a range with fresh zeroed memory. Raises ConfigError, CapabilityMissing or HostError."""
        if readonly and not self._vm.hypervisor.capabilities.readonly_memory:
            raise CapabilityMissing("this host's KVM has no read-only memory slots")
        memfd = self._guest_memfd(address, size, backing, name) if backing.guest_memfd else None
        region = memfd or allocate(address, size, backing, name=name, readonly=readonly)
        region.readonly = readonly
        try:
            self._vm.memory.add(region)
        except ConfigError:
            region.close()
            raise
        try:
            self._insert(region)
        except HostError:
            self._vm.memory.remove(region)
            region.close()
            raise
        return region

    def _insert(self, region: MemoryRegion) -> None:
        slot = self._free.pop() if self._free else self._next
        flags = lib.KVM_MEM_READONLY if region.readonly else 0
        if region.guest_memfd:
            flags |= lib.KVM_MEM_GUEST_MEMFD
            self._memfds[slot] = region.fd
        try:
            self._program(slot, flags, region, region.size)
        except KvmError:
            self._memfds.pop(slot, None)
            if slot != self._next:
                self._free.append(slot)
            raise
        if slot == self._next:
            self._next += 1
        region.slot = slot
        self._flags[slot] = flags
        self._by_slot[slot] = region

    def _program(self, slot: int, flags: int, region: MemoryRegion, size: int) -> None:
        fields: dict[str, int] = {
            "slot": slot,
            "flags": flags,
            "guest_phys_addr": region.address,
            "memory_size": size,
            "userspace_addr": region.host_address,
        }
        if slot in self._memfds:
            fields |= {"guest_memfd": self._memfds[slot], "guest_memfd_offset": 0}
            argument = ffi.new("struct kvm_userspace_memory_region2 *", fields)
            request(self._vm.fd, "KVM_SET_USER_MEMORY_REGION2", argument)
        else:
            request(self._vm.fd, "KVM_SET_USER_MEMORY_REGION", ffi.new("struct kvm_userspace_memory_region *", fields))

    def remove(self, region: MemoryRegion) -> None:
        """Take a region out of the guest and give its memory back."""
        slot = region.slot
        if self._by_slot.get(slot) is not region:
            raise ConfigError(f"memory region {region.name} at {region.address:#x} is not of this VM")
        self._program(slot, 0 if slot not in self._memfds else lib.KVM_MEM_GUEST_MEMFD, region, 0)
        self._vm.memory.remove(region)
        for table in (self._by_slot, self._flags, self._memfds, self._dirty):
            table.pop(slot, None)
        self._free.append(slot)
        region.slot = -1
        region.close()

    def _guest_memfd(self, address: int, size: int, backing: MemoryBacking, name: str) -> MemoryRegion:
        """A region whose pages belong to the VM. Raises CapabilityMissing where KVM cannot map them for the VMM too."""
        extensions = self._vm.hypervisor.extensions
        check_range(address, size, name)
        wanted = lib.GUEST_MEMFD_FLAG_MMAP | lib.GUEST_MEMFD_FLAG_INIT_SHARED
        if not extensions["GUEST_MEMFD"] or not extensions["USER_MEMORY2"]:
            raise CapabilityMissing("guest_memfd: this host's KVM has none (Linux 6.8 brought it)")
        if self._vm.check_extension("GUEST_MEMFD_FLAGS") & wanted != wanted:
            raise CapabilityMissing("guest_memfd: this host's KVM cannot map it for the VMM (Linux 6.18 brought that)")
        fd = self.create_guest_memfd(size, wanted)
        try:
            buffer, host = map_file(fd, size, phase=address)
        except OSError as error:
            os.close(fd)
            raise HostError(f"guest_memfd: mapping {size >> 20} MiB: {error.strerror}") from None
        return MemoryRegion(
            address,
            buffer,
            name=name,
            host_address=host,
            fd=fd,
            guest_memfd=True,
            release=lambda: os.close(fd),
            discard=lambda offset, size: discard(fd, host, offset, size),
        )

    def create_guest_memfd(self, size: int, flags: int = 0) -> int:
        """KVM_CREATE_GUEST_MEMFD; the descriptor."""
        return request(
            self._vm.fd,
            "KVM_CREATE_GUEST_MEMFD",
            ffi.new("struct kvm_create_guest_memfd *", {"size": size, "flags": flags}),
        )

    def set_attributes(self, address: int, size: int, attributes: int) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES: `PRIVATE` or 0 (shared) for a range."""
        fields = {"address": address, "size": size, "attributes": attributes}
        request(self._vm.fd, "KVM_SET_MEMORY_ATTRIBUTES", ffi.new("struct kvm_memory_attributes *", fields))

    def set_dirty_logging(self, region: MemoryRegion, enabled: bool) -> None:
        """Start or stop remembering which pages of a region are written, by the guest or by the VMM."""
        slot = region.slot
        if self._by_slot.get(slot) is not region:
            raise ConfigError(f"memory region {region.name} at {region.address:#x} is not of this VM")
        if enabled == (slot in self._dirty):
            return
        if enabled and self._manual_protect is None and not self._ring_entries:
            self._manual_protect = bool(self._vm.hypervisor.extensions["MANUAL_DIRTY_LOG_PROTECT2"])
            if self._manual_protect:
                self._vm.enable_capability("MANUAL_DIRTY_LOG_PROTECT2", lib.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
        flags = self._flags[slot] & ~lib.KVM_MEM_LOG_DIRTY_PAGES | (lib.KVM_MEM_LOG_DIRTY_PAGES if enabled else 0)
        self._program(slot, flags, region, region.size)
        self._flags[slot] = flags
        if not enabled:
            del self._dirty[slot]
            return
        # KVM's bitmaps are made of 64-bit words.
        self._dirty[slot] = bytearray((region.size // PAGE_SIZE + 63) // 64 * 8)
        if not self._observing:
            self._observing = True
            self._vm.memory.observe_writes(self._vmm_write)

    def _vmm_write(self, address: int, length: int) -> None:
        end = address + length
        while address < end:
            region = self._vm.memory.find(address)
            if region is None:
                return
            stop = min(end, region.end)
            bitmap = self._dirty.get(region.slot)
            if bitmap is not None:
                first, last = (address - region.address) // PAGE_SIZE, (stop - 1 - region.address) // PAGE_SIZE
                with self._lock:
                    for page in range(first, last + 1):
                        bitmap[page >> 3] |= 1 << (page & 7)
            address = stop

    def dirty_pages(self, region: MemoryRegion, *, clear: bool = True) -> list[int]:
        """Page addresses written since the last call that cleared; with rings, vCPUs must stand still or be kicked."""
        slot = region.slot
        bitmap = self._dirty.get(slot)
        if bitmap is None or self._by_slot.get(slot) is not region:
            raise ConfigError(f"memory region {region.name} at {region.address:#x} is not dirty-logged")
        with self._lock:
            if self._ring_entries:
                self._harvest()
            else:
                self._collect(slot, region, bitmap)
            pages = [region.address + page * PAGE_SIZE for page in _set_bits(bitmap)]
            if clear:
                bitmap[:] = bytes(len(bitmap))
        return pages

    def _collect(self, slot: int, region: MemoryRegion, bitmap: bytearray) -> None:
        raw = ffi.new("uint8_t[]", len(bitmap))
        request(
            self._vm.fd, "KVM_GET_DIRTY_LOG", ffi.new("struct kvm_dirty_log *", {"slot": slot, "dirty_bitmap": raw})
        )
        new = int.from_bytes(ffi.buffer(raw), "little")
        if not new:
            return
        if self._manual_protect:
            fields = {"slot": slot, "num_pages": region.size // PAGE_SIZE, "dirty_bitmap": raw}
            request(self._vm.fd, "KVM_CLEAR_DIRTY_LOG", ffi.new("struct kvm_clear_dirty_log *", fields))
        bitmap[:] = (int.from_bytes(bitmap, "little") | new).to_bytes(len(bitmap), "little")

    def enable_dirty_ring(self, entries: int) -> None:
        """Track by rings of this many entries, a power of two; before the first vCPU."""
        extensions = self._vm.hypervisor.extensions
        name = next((n for n in ("DIRTY_LOG_RING_ACQ_REL", "DIRTY_LOG_RING") if extensions[n]), None)
        if name is None:
            raise CapabilityMissing("this host's KVM has no dirty rings")
        most = extensions[name] // _DIRTY_ENTRY
        if entries & (entries - 1) or not PAGE_SIZE // _DIRTY_ENTRY <= entries <= most:
            raise ConfigError(
                f"dirty ring: {entries} entries are not a power of two from {PAGE_SIZE // _DIRTY_ENTRY} to {most}"
            )
        self._vm.enable_capability(name, entries * _DIRTY_ENTRY)
        self._ring_entries = entries

    def attach_vcpu(self, vcpu: KvmVcpu) -> None:
        """Map a new vCPU's dirty ring, where there are rings."""
        if self._ring_entries:
            self._rings.append(_Ring(vcpu.fd, self._ring_entries))

    def _harvest(self) -> None:
        reset = False
        for ring in self._rings:
            for slot, page in ring.harvest():
                reset = True
                bitmap = self._dirty.get(slot)
                if bitmap is not None and page >> 3 < len(bitmap):
                    bitmap[page >> 3] |= 1 << (page & 7)
        if reset:
            request_value(self._vm.fd, "KVM_RESET_DIRTY_RINGS")

    def harvest_rings(self) -> None:
        """Empty the rings into what `dirty_pages` will report; the answer to a DirtyRingFull exit."""
        with self._lock:
            self._harvest()

    def close(self) -> None:
        """Unmap the rings; the regions belong to the VM."""
        rings, self._rings = self._rings, []
        for ring in rings:
            ring.close()


class _Ring:
    """One vCPU's ring of dirtied pages."""

    def __init__(self, fd: int, entries: int) -> None:
        self._entries = entries
        self._index = ffi.new("uint32_t *")
        error = ffi.new("int *")
        self._pages = lib.pyhv_map(fd, entries * _DIRTY_ENTRY, lib.KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE, error)
        if self._pages == ffi.NULL:
            raise KvmError("mmap of a dirty ring", error[0])
        self._ring = ffi.cast("struct kvm_dirty_gfn *", self._pages)
        self._out: Any = ffi.new("uint64_t[]", 2 * _HARVEST)

    def harvest(self) -> list[tuple[int, int]]:
        """(slot, page) of every entry that is dirty now."""
        found: list[tuple[int, int]] = []
        while True:
            count = lib.pyhv_harvest(self._ring, self._entries, self._index, self._out, _HARVEST)
            values = ffi.unpack(self._out, 2 * count)
            found += zip(values[::2], values[1::2], strict=True)
            if count < _HARVEST:
                return found

    def close(self) -> None:
        lib.pyhv_unmap(self._pages, self._entries * _DIRTY_ENTRY)


def _set_bits(bitmap: bytearray) -> list[int]:
    out = []
    for index, word in enumerate(memoryview(bitmap).cast("Q")):
        while word:
            low = word & -word
            out.append(index * 64 + low.bit_length() - 1)
            word ^= low
    return out
