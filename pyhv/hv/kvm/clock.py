"""kvm-clock, the guest's paravirtual clock (Documentation/virt/kvm/x86/msr.rst)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.kvm.native import ffi, lib, request
from pyhv.record import record

if TYPE_CHECKING:
    from pyhv.hv.kvm.vm import KvmVm


@record(frozen=True)
class ClockData:
    """A reading. `clock_ns` is the guest's clock; `realtime_ns` (since the Unix epoch) and `host_tsc`, where known, are
    of the same instant; `tsc_stable` says that all vCPUs see one clock.
    """

    clock_ns: int
    tsc_stable: bool = False
    realtime_ns: int | None = None
    host_tsc: int | None = None


class KvmClock:
    """A part of KvmVm."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm

    def read(self) -> ClockData:
        """The guest's clock now."""
        data = ffi.new("struct kvm_clock_data *")
        request(self._vm.fd, "KVM_GET_CLOCK", data)
        return ClockData(
            data.clock,
            bool(data.flags & lib.KVM_CLOCK_TSC_STABLE),
            data.realtime if data.flags & lib.KVM_CLOCK_REALTIME else None,
            data.host_tsc if data.flags & lib.KVM_CLOCK_HOST_TSC else None,
        )

    def set(self, data: ClockData) -> None:
        """Set the guest's clock; with `realtime_ns`, moved on by the wall time that passed since the reading."""
        raw = ffi.new("struct kvm_clock_data *", {"clock": data.clock_ns})
        if data.realtime_ns is not None and self._vm.hypervisor.extensions["ADJUST_CLOCK"] & lib.KVM_CLOCK_REALTIME:
            raw.flags = lib.KVM_CLOCK_REALTIME
            raw.realtime = data.realtime_ns
        request(self._vm.fd, "KVM_SET_CLOCK", raw)
