"""The open /dev/kvm: what it can do, asked once per process, and the VMs made from it."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, KvmError
from pyhv.hv.config import Capabilities
from pyhv.hv.kvm import host, state
from pyhv.hv.kvm.capabilities import Extensions
from pyhv.hv.kvm.native import ffi, lib, request, request_value, setup_kick_signal
from pyhv.hv.kvm.vm import KvmVm
from pyhv.memo import lazy
from pyhv.x86 import cpuid

if TYPE_CHECKING:
    from typing import Any

    from pyhv.hv.config import VmConfig
    from pyhv.x86.registers import CpuidEntry

REQUIRED = ("USER_MEMORY", "IMMEDIATE_EXIT", "IRQCHIP", "MP_STATE", "EXT_CPUID")
VM_TYPE_DEFAULT = 0
_E2BIG, _EINTR = 7, 4


class KvmHypervisor:
    """See `pyhv.hv.api.Hypervisor`. Raises KvmUnavailable, with the reason and the fix, where there is no usable KVM.

    Making one is cheap: everything about the host is asked when it is first needed and then kept.
    """

    name = "kvm"

    def __init__(self, device: str = host.DEVICE) -> None:
        self.device = device
        self.fd = host.open_device(device, lambda fd: int(lib.pyhv_ioctl_value(fd, lib.KVM_GET_API_VERSION, 0)))
        self.extensions = Extensions(self.fd)
        missing = [name for name in REQUIRED if not self.extensions[name]]
        if missing:
            self.close()
            raise CapabilityMissing(f"{device} lacks {', '.join(missing)}: a newer kernel is needed")
        self.kick_signal = setup_kick_signal()
        self._templates: dict[tuple[object, ...], Any] = {}

    @lazy
    def vcpu_map_size(self) -> int:
        """Bytes of a vCPU's shared mapping."""
        return request_value(self.fd, "KVM_GET_VCPU_MMAP_SIZE")

    @lazy
    def sync_regs(self) -> int:
        """The register groups that KVM_RUN can leave in the shared mapping, as a bit mask."""
        return self.extensions["SYNC_REGS"]

    @lazy
    def has_sregs2(self) -> bool:
        return bool(self.extensions["SREGS2"])

    @lazy
    def module(self) -> str:
        """The kernel module that implements KVM here."""
        return host.module_name()

    @lazy
    def capabilities(self) -> Capabilities:
        e = self.extensions
        split = ("split",) if e["SPLIT_IRQCHIP"] else ()
        return Capabilities(
            threads=True,
            deterministic=False,
            max_vcpus=e["MAX_VCPUS"] or e["NR_VCPUS"] or 4,
            irqchips=(*split, "kernel", "none"),
            readonly_memory=bool(e["READONLY_MEM"]),
            dirty_log=True,
            dirty_ring=bool(e["DIRTY_LOG_RING"] or e["DIRTY_LOG_RING_ACQ_REL"]),
            guest_memfd=bool(e["GUEST_MEMFD"]),
            irqfd=bool(e["IRQFD"]),
            ioeventfd=bool(e["IOEVENTFD"]),
            guest_debug=bool(e["SET_GUEST_DEBUG"]),
            msr_exits=bool(e["X86_USER_SPACE_MSR"] and e["X86_MSR_FILTER"]),
            extensions=e,
        )

    def _cpuid(self, name: str) -> list[CpuidEntry]:
        room = 128
        while True:
            table = ffi.new("struct kvm_cpuid2 *", {"nent": room, "entries": room})
            try:
                request(self.fd, name, table)
                return state.unpack_cpuid(table)
            except KvmError as error:
                if error.errno != _E2BIG or room > 4096:
                    raise
                room *= 2

    @lazy
    def supported_cpuid(self) -> list[CpuidEntry]:
        """What the host and KVM support, for all features at once."""
        return self._cpuid("KVM_GET_SUPPORTED_CPUID")

    @lazy
    def emulated_cpuid(self) -> list[CpuidEntry]:
        """Features that KVM emulates in software where the host lacks them."""
        return self._cpuid("KVM_GET_EMULATED_CPUID") if self.extensions["EXT_EMUL_CPUID"] else []

    def _msr_list(self, name: str) -> tuple[int, ...]:
        probe_list = ffi.new("struct kvm_msr_list *", {"indices": 0})
        lib.pyhv_ioctl(self.fd, getattr(lib, name), probe_list)  # E2BIG, with the count filled in
        count = probe_list.nmsrs
        msrs = ffi.new("struct kvm_msr_list *", {"nmsrs": count, "indices": count})
        request(self.fd, name, msrs)
        return tuple(msrs.indices[i] for i in range(msrs.nmsrs))

    @lazy
    def msr_indices(self) -> tuple[int, ...]:
        """The MSRs that hold guest state and are to be saved and restored."""
        return self._msr_list("KVM_GET_MSR_INDEX_LIST")

    @lazy
    def feature_msrs(self) -> dict[int, int]:
        """The MSRs that describe the host's features, with their values."""
        if not self.extensions["GET_MSR_FEATURES"]:
            return {}
        values: dict[int, int] = {}
        wanted = list(self._msr_list("KVM_GET_MSR_FEATURE_INDEX_LIST"))
        while wanted:
            msrs = state.pack_msrs(dict.fromkeys(wanted, 0))
            done = request(self.fd, "KVM_GET_MSRS", msrs)
            values.update({msrs.entries[i].index: msrs.entries[i].data for i in range(done)})
            wanted = wanted[done + 1 :]
        return values

    def cpuid_table(self, config: VmConfig, index: int) -> Any:
        """A vCPU's CPUID by the VM's template, as a `struct kvm_cpuid2`. Raises ConfigError, CapabilityMissing."""
        key = (config.cpu, config.features, config.vcpus, config.irqchip, index)
        table = self._templates.get(key)
        if table is None:
            irqchip = config.irqchip != "none"
            entries = cpuid.build(
                config.cpu,
                self.supported_cpuid,
                emulated=self.emulated_cpuid if config.cpu == "max" or config.features else (),
                features=config.features,
                apic_id=index,
                vcpus=config.vcpus,
                tsc_deadline=irqchip and bool(self.extensions["TSC_DEADLINE_TIMER"]),
                in_backend_apic=irqchip,
            )
            table = self._templates[key] = state.pack_cpuid(entries)
        return table

    def create_vm(self, config: VmConfig, *, vm_type: int = VM_TYPE_DEFAULT) -> KvmVm:
        """Make a VM. Raises ConfigError for a wrong configuration, HostError for what the host cannot do."""
        if config.irqchip not in self.capabilities.irqchips:
            if config.irqchip == "split":
                raise CapabilityMissing("irqchip split: this host's KVM has none")
            raise ConfigError(f"irqchip: {config.irqchip!r} is not one of {', '.join(self.capabilities.irqchips)}")
        if not 1 <= config.vcpus <= self.capabilities.max_vcpus:
            raise ConfigError(
                f"cpus: {config.vcpus} is not in 1 to {self.capabilities.max_vcpus}, what this host's KVM runs"
            )
        while True:
            fd = lib.pyhv_ioctl_value(self.fd, lib.KVM_CREATE_VM, vm_type)
            if fd != -_EINTR:
                break
        if fd < 0:
            raise KvmError("KVM_CREATE_VM", -fd)
        return KvmVm(self, fd, config, vm_type)

    def close(self) -> None:
        """Close the device; its VMs live on until they are closed themselves. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
