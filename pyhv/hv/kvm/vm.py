"""One VM of KVM."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, KvmError
from pyhv.hv.kvm.interrupts import Interrupts
from pyhv.hv.kvm.native import ffi, lib, request, request_value
from pyhv.hv.kvm.slots import Slots
from pyhv.hv.kvm.vcpu import KvmVcpu
from pyhv.memo import lazy
from pyhv.memory import GuestMemory, MemoryBacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyhv.clock import Clock
    from pyhv.hv.config import VmConfig
    from pyhv.hv.kvm.clock import KvmClock
    from pyhv.hv.kvm.hypervisor import KvmHypervisor
    from pyhv.hv.kvm.ioevents import IoEvents
    from pyhv.hv.kvm.stats import Statistics
    from pyhv.irq import Msi
    from pyhv.memory import MemoryRegion

TSS_ADDRESS = 0xFEFF_D000
IDENTITY_MAP_ADDRESS = 0xFEFF_C000
EXIT_HYPERCALL_MAP_GPA_RANGE = 1 << 12


class KvmVm:
    """See `pyhv.hv.api.VmHandle`. What goes beyond the seam hangs on its parts:

    - `slots`: memory slots, guest_memfd, dirty tracking;
    - `interrupts`: the irqchip, routes, irqfds with resampling;
    - `ioevents`: ioeventfds and coalesced I/O;
    - `kvm_clock`: the guest's paravirtual clock.
    """

    def __init__(self, hypervisor: KvmHypervisor, fd: int, config: VmConfig, vm_type: int) -> None:
        self.hypervisor = hypervisor
        self.fd = fd
        self.config = config
        self.vm_type = vm_type
        self.clock: Clock | None = None
        self.memory = GuestMemory()
        self.vcpus: dict[int, KvmVcpu] = {}
        self.exception_payload = False
        self.triple_fault_event = False
        self._statistics: Statistics | None = None
        self._xsave_size = 0
        self.slots = Slots(self)
        self.interrupts = Interrupts(self)
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        if self.hypervisor.module != "kvm_amd":
            # VT-x without unrestricted guest runs real mode with these pages; they must lie outside guest memory.
            request(self.fd, "KVM_SET_IDENTITY_MAP_ADDR", ffi.new("uint64_t *", IDENTITY_MAP_ADDRESS))
            request_value(self.fd, "KVM_SET_TSS_ADDR", TSS_ADDRESS)
        self.interrupts.create_irqchip()
        if self.config.dirty_ring:
            self.slots.enable_dirty_ring(self.config.dirty_ring)

    @lazy
    def ioevents(self) -> IoEvents:
        from pyhv.hv.kvm.ioevents import IoEvents

        return IoEvents(self)

    @lazy
    def kvm_clock(self) -> KvmClock:
        from pyhv.hv.kvm.clock import KvmClock

        return KvmClock(self)

    def enable_capability(self, name: str, *arguments: int) -> None:
        """KVM_ENABLE_CAP on the VM. Raises CapabilityMissing where KVM refuses."""
        from pyhv.hv.kvm.capabilities import NUMBERS

        cap = ffi.new("struct kvm_enable_cap *", {"cap": NUMBERS[name], "args": list(arguments)})
        try:
            request(self.fd, "KVM_ENABLE_CAP", cap)
        except KvmError as error:
            raise CapabilityMissing(f"KVM does not take KVM_CAP_{name} here ({error})") from None

    def check_extension(self, name: str) -> int:
        """A capability's value for this VM, which may differ from the host's."""
        from pyhv.hv.kvm.capabilities import NUMBERS

        return max(0, int(lib.pyhv_ioctl_value(self.fd, lib.KVM_CHECK_EXTENSION, NUMBERS[name])))

    @property
    def xsave_size(self) -> int:
        """Bytes of an XSAVE area."""
        if not self._xsave_size:
            self._xsave_size = max(4096, self.check_extension("XSAVE2"))
        return self._xsave_size

    @property
    def has_xsave2(self) -> bool:
        return bool(self.hypervisor.extensions["XSAVE2"])

    def add_memory(
        self,
        address: int,
        size: int,
        *,
        readonly: bool = False,
        backing: MemoryBacking | None = None,
        name: str = "ram",
    ) -> MemoryRegion:
        return self.slots.add(address, size, readonly=readonly, backing=backing or MemoryBacking(), name=name)

    def remove_memory(self, region: MemoryRegion) -> None:
        self.slots.remove(region)

    def create_vcpu(self, index: int) -> KvmVcpu:
        if index in self.vcpus or not 0 <= index < self.config.vcpus:
            raise ConfigError(f"vCPU {index} exists already or is not below {self.config.vcpus}")
        vcpu = KvmVcpu(self, index)
        self.vcpus[index] = vcpu
        vcpu.set_raw_cpuid(self.hypervisor.cpuid_table(self.config, index))
        self.slots.attach_vcpu(vcpu)
        return vcpu

    def signal_msi(self, message: Msi) -> None:
        self.interrupts.signal_msi(message)

    def reset(self) -> None:
        self.interrupts.reset()

    def set_irq_line(self, gsi: int, level: bool) -> None:
        self.interrupts.set_line(gsi, level)

    def set_gsi_routes(self, routes: Mapping[int, Msi]) -> None:
        self.interrupts.set_routes(routes)

    def add_irqfd(self, fd: int, gsi: int) -> None:
        self.interrupts.add_irqfd(fd, gsi)

    def remove_irqfd(self, fd: int, gsi: int) -> None:
        self.interrupts.remove_irqfd(fd, gsi)

    def add_ioeventfd(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        self.ioevents.add(fd, address, size, pio=pio, datamatch=datamatch)

    def remove_ioeventfd(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        self.ioevents.remove(fd, address, size, pio=pio, datamatch=datamatch)

    def set_dirty_logging(self, region: MemoryRegion, enabled: bool) -> None:
        self.slots.set_dirty_logging(region, enabled)

    def dirty_pages(self, region: MemoryRegion, *, clear: bool = True) -> list[int]:
        return self.slots.dirty_pages(region, clear=clear)

    def filter_msrs(self, indices: Iterable[int], *, read: bool = True, write: bool = True) -> None:
        if not self.hypervisor.capabilities.msr_exits:
            raise CapabilityMissing("this host's KVM cannot hand MSRs to user space")
        from pyhv.hv.kvm.msr_filter import build_filter

        table, keep = build_filter(indices, read=read, write=write)
        self.enable_capability("X86_USER_SPACE_MSR", lib.KVM_MSR_EXIT_REASON_FILTER)
        request(self.fd, "KVM_X86_SET_MSR_FILTER", table)
        del keep

    def enable_hypercall_exits(self) -> None:
        """Hand KVM_HC_MAP_GPA_RANGE, which announces conversions between private and shared memory, to user space."""
        self.enable_capability("EXIT_HYPERCALL", EXIT_HYPERCALL_MAP_GPA_RANGE)

    def enable_exception_payloads(self) -> None:
        """Keep DR6 and CR2 of pending exceptions apart from the registers, as nested guests need it."""
        self.enable_capability("EXCEPTION_PAYLOAD", 1)
        self.exception_payload = True

    def enable_triple_fault_event(self) -> None:
        """Make pending triple faults part of the vCPU's events."""
        self.enable_capability("X86_TRIPLE_FAULT_EVENT", 1)
        self.triple_fault_event = True

    def statistics(self) -> dict[str, int]:
        """KVM's counters: the VM's by their names, the vCPUs' summed up as "vcpu." and their names."""
        if self._statistics is None:
            from pyhv.hv.kvm.stats import Statistics

            self._statistics = Statistics(self.fd)
        counters = self._statistics.read()
        for vcpu in self.vcpus.values():
            for name, value in vcpu.statistics().items():
                key = f"vcpu.{name}"
                counters[key] = counters.get(key, 0) + value
        return counters

    def instructions(self) -> int | None:
        return None

    def pace(self, real: bool) -> None:
        """Time is real here."""

    def idle(self) -> bool:
        """Halted vCPUs wait inside the kernel: there is never anything to skip."""
        return False

    def avic(self) -> tuple[bool | None, str]:
        return self.interrupts.avic()

    def close(self) -> None:
        """Close vCPUs, the VM and its memory; idempotent."""
        vcpus, self.vcpus = dict(self.vcpus), {}
        for vcpu in vcpus.values():
            vcpu.close()
        if self._statistics is not None:
            self._statistics.close()
            self._statistics = None
        self.slots.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            lib.pyhv_close(fd)
        for region in self.memory.regions:
            self.memory.remove(region)
            region.close()
