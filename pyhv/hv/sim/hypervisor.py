"""The simulator as a backend."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.hv.api import Capabilities
from pyhv.hv.sim import cpuid
from pyhv.hv.sim.native import ffi
from pyhv.hv.sim.vm import SimVm
from pyhv.memo import lazy
from pyhv.x86.cpuid import build

if TYPE_CHECKING:
    from typing import Any

    from pyhv.hv.api import VmConfig
    from pyhv.x86.registers import CpuidEntry

MAX_VCPUS = 255
MAX_CPUID_ENTRIES = 128
IRQCHIPS = ("split", "none")
SVM_FEATURE = "+svm"
"""The guest has the processor to itself, without an outer VMRUN, and can be a hypervisor."""


class SimHypervisor:
    """See `pyhv.hv.api.Hypervisor`. Raises SimUnavailable where the silicon was not built."""

    name = "sim"

    def __init__(self) -> None:
        self._guest_cpuid: dict[tuple[object, ...], list[CpuidEntry]] = {}
        self._host_cpuid: dict[tuple[object, ...], tuple[Any, int]] = {}

    @lazy
    def capabilities(self) -> Capabilities:
        return Capabilities(
            threads=False,
            deterministic=True,
            max_vcpus=MAX_VCPUS,
            irqchips=IRQCHIPS,
            readonly_memory=True,
            dirty_log=True,
            dirty_ring=False,
            guest_memfd=False,
            irqfd=False,
            ioeventfd=False,
            guest_debug=True,
            msr_exits=True,
            extensions={"SVM": 1, "NPT": 1, "AVIC": 0, "SEV": 0},
        )

    def guest_cpuid(self, config: VmConfig, index: int) -> list[CpuidEntry]:
        """A vCPU's CPUID by the VM's template. Raises ConfigError, CapabilityMissing."""
        key = (config.cpu, config.features, config.vcpus, config.irqchip, index)
        entries = self._guest_cpuid.get(key)
        if entries is None:
            apic = config.irqchip != "none"
            entries = self._guest_cpuid[key] = build(
                config.cpu,
                cpuid.supported(),
                emulated=cpuid.optional() if config.cpu == "max" or config.features else (),
                features=tuple(name for name in config.features if name != SVM_FEATURE),
                apic_id=index,
                vcpus=config.vcpus,
                tsc_deadline=apic,
                in_backend_apic=apic,
            )
            if SVM_FEATURE in config.features:
                entries = self._guest_cpuid[key] = cpuid.with_svm(entries)
        return entries

    def host_cpuid(self, config: VmConfig) -> tuple[Any, int]:
        """What the simulated processors themselves show their host, as an array of SimCpuidEntry and its length."""
        key = (config.cpu, config.features, config.vcpus, config.irqchip)
        table = self._host_cpuid.get(key)
        if table is None:
            entries = cpuid.with_svm(self.guest_cpuid(config, 0))
            if len(entries) > MAX_CPUID_ENTRIES:
                raise ConfigError(f"cpuid: {len(entries)} entries, the silicon has room for {MAX_CPUID_ENTRIES}")
            array = ffi.new(
                "SimCpuidEntry[]",
                [
                    {
                        "function": e.function,
                        "index": e.index or 0,
                        "flags": e.index is not None,
                        "eax": e.eax,
                        "ebx": e.ebx,
                        "ecx": e.ecx,
                        "edx": e.edx,
                    }
                    for e in entries
                ],
            )
            table = self._host_cpuid[key] = (array, len(entries))
        return table

    def create_vm(self, config: VmConfig) -> SimVm:
        """Make a VM. Raises ConfigError for a wrong configuration, HostError for what this machine cannot do."""
        if config.irqchip == "kernel":
            raise CapabilityMissing("irqchip: kernel: the simulated machine has split and none")
        if config.irqchip not in IRQCHIPS:
            raise ConfigError(f"irqchip: {config.irqchip!r} is not one of {', '.join(IRQCHIPS)}")
        if not 1 <= config.vcpus <= MAX_VCPUS:
            raise ConfigError(f"cpus: {config.vcpus} is not in 1 to {MAX_VCPUS}, what the simulated machine has")
        if config.dirty_ring:
            raise CapabilityMissing("dirty ring: the simulated machine has a dirty log instead")
        if SVM_FEATURE in config.features and config.irqchip != "split":
            raise CapabilityMissing(f"irqchip {config.irqchip}: with +svm the simulated machine has split alone")
        return SimVm(self, config)

    def close(self) -> None:
        """Nothing is held; its VMs live on until they are closed themselves."""
