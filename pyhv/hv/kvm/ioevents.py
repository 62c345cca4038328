"""Guest writes without an exit: ioeventfds, and coalesced I/O, which queues them until the next exit."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.hv.exits import MmioWrite, PioOut
from pyhv.hv.kvm.native import ffi, lib, request

if TYPE_CHECKING:
    from typing import Any

    from pyhv.hv.kvm.vm import KvmVm

_PAGE = 4096
_RING_ENTRY = 24
_RING_SIZE = (_PAGE - 8) // _RING_ENTRY


class IoEvents:
    """A part of KvmVm."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm

    def add(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        """Signal the eventfd on matching writes; size 0 matches every size and takes no datamatch."""
        self._request(fd, address, size, pio, datamatch, 0)

    def remove(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        """The counterpart of `add`, with the same arguments."""
        self._request(fd, address, size, pio, datamatch, lib.KVM_IOEVENTFD_FLAG_DEASSIGN)

    def _request(self, fd: int, address: int, size: int, pio: bool, datamatch: int | None, flags: int) -> None:
        extensions = self._vm.hypervisor.extensions
        if size not in (0, 1, 2, 4, 8) or (pio and size == 8):
            raise ConfigError(f"ioeventfd: size {size} is not one of 0, 1, 2, 4" + ("" if pio else ", 8"))
        if size == 0 and datamatch is not None:
            raise ConfigError("ioeventfd: one of any size cannot match data")
        if not extensions["IOEVENTFD"]:
            raise CapabilityMissing("this host's KVM has no ioeventfd")
        if size == 0 and not (extensions["IOEVENTFD_ANY_LENGTH"] or extensions["IOEVENTFD_NO_LENGTH"]):
            raise CapabilityMissing("this host's KVM has no ioeventfd of any length")
        if pio:
            flags |= lib.KVM_IOEVENTFD_FLAG_PIO
        if datamatch is not None:
            flags |= lib.KVM_IOEVENTFD_FLAG_DATAMATCH
        fields = {"datamatch": datamatch or 0, "addr": address, "len": size, "fd": fd, "flags": flags}
        request(self._vm.fd, "KVM_IOEVENTFD", ffi.new("struct kvm_ioeventfd *", fields))

    def add_coalesced(self, address: int, size: int, *, pio: bool = False) -> None:
        """Queue writes to the range instead of exiting; `drain_coalesced` after each exit hands them out.

        For registers whose writes may wait for the next exit of any kind.
        """
        name = "COALESCED_PIO" if pio else "COALESCED_MMIO"
        if not self._vm.hypervisor.extensions[name]:
            raise CapabilityMissing(f"this host's KVM lacks KVM_CAP_{name}")
        request(self._vm.fd, "KVM_REGISTER_COALESCED_MMIO", _zone(address, size, pio))

    def remove_coalesced(self, address: int, size: int, *, pio: bool = False) -> None:
        """The counterpart of `add_coalesced`; a zone must lie inside the range to go."""
        request(self._vm.fd, "KVM_UNREGISTER_COALESCED_MMIO", _zone(address, size, pio))

    def drain_coalesced(self) -> list[PioOut | MmioWrite]:
        """The queued writes of all vCPUs, oldest first; they came before the exit that is being handled."""
        vcpus = self._vm.vcpus
        offset = self._vm.hypervisor.extensions["COALESCED_MMIO"] * _PAGE
        if not vcpus or not offset:
            return []
        pages = next(iter(vcpus.values())).pages  # the VM has one ring; every vCPU's mapping shows it
        ring = ffi.cast("struct kvm_coalesced_mmio_ring *", ffi.from_buffer(pages) + offset)
        writes: list[PioOut | MmioWrite] = []
        while ring.first != ring.last and len(writes) < _RING_SIZE:
            entry = ring.coalesced_mmio[ring.first % _RING_SIZE]
            data = bytes(ffi.buffer(entry.data))[: min(entry.len, 8)]
            if entry.pio:
                writes.append(PioOut(entry.phys_addr, entry.len, 1, data))
            else:
                writes.append(MmioWrite(entry.phys_addr, data))
            ring.first = (ring.first + 1) % _RING_SIZE
        return writes


def _zone(address: int, size: int, pio: bool) -> Any:
    return ffi.new("struct kvm_coalesced_mmio_zone *", {"addr": address, "size": size, "pio": pio})
