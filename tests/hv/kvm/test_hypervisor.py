"""The open device: capabilities, CPUID and MSRs of the host, and VMs that leave nothing behind."""

import gc
import os
from pathlib import Path

import pytest

from pyhv.errors import CapabilityMissing, ConfigError, HostError
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import InternalError, Interrupted, PioOut
from pyhv.hv.kvm import self_test
from pyhv.hv.kvm.capabilities import NUMBERS, Extensions
from pyhv.hv.kvm.hypervisor import KvmHypervisor
from pyhv.hv.kvm.vcpu import KvmVcpu
from pyhv.x86 import msr

from .conftest import OUT_LOOP, Machine, Maker


def test_every_capability_has_a_value_by_name(kvm: KvmHypervisor) -> None:
    values = dict(kvm.extensions)
    assert values.keys() == NUMBERS.keys() and len(set(NUMBERS.values())) == len(NUMBERS)
    assert values["USER_MEMORY"] == 1 and all(value >= 0 for value in values.values())
    with pytest.raises(KeyError):
        kvm.extensions["NO_SUCH_THING"]


def test_a_capability_of_nothing_is_absent() -> None:
    with open("/dev/null") as null:
        assert Extensions(null.fileno())["IRQCHIP"] == 0


def test_the_self_test_passes(kvm: KvmHypervisor) -> None:
    self_test()


def test_the_self_test_of_something_else_fails(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        self_test(str(tmp_path / "kvm"))


def test_a_named_capability_set(kvm: KvmHypervisor) -> None:
    capabilities = kvm.capabilities
    assert capabilities.threads and not capabilities.deterministic
    assert capabilities.max_vcpus >= 1 and "none" in capabilities.irqchips


def test_msr_lists(kvm: KvmHypervisor) -> None:
    assert {msr.TSC, msr.STAR, msr.LSTAR} <= set(kvm.msr_indices)
    assert len(set(kvm.msr_indices)) == len(kvm.msr_indices)
    assert all(value >= 0 for value in kvm.feature_msrs.values())


def test_supported_and_emulated_cpuid(kvm: KvmHypervisor) -> None:
    functions = {entry.function for entry in kvm.supported_cpuid}
    assert {0, 1, 0x8000_0000, 0x8000_0001, 0x4000_0000} <= functions
    assert len(kvm.emulated_cpuid) < len(kvm.supported_cpuid)


@pytest.mark.parametrize(
    "config", [VmConfig(vcpus=0), VmConfig(vcpus=100_000), VmConfig(irqchip="8259"), VmConfig(cpu="i486")]
)
def test_configurations_that_make_no_sense(kvm: KvmHypervisor, config: VmConfig) -> None:
    with pytest.raises(ConfigError):
        vm = kvm.create_vm(config)
        try:
            vm.create_vcpu(0)
        finally:
            vm.close()


def test_vcpus_that_are_not_of_the_vm(machine: Maker) -> None:
    made = machine(vcpus=2)
    for index in (0, 2, -1):
        with pytest.raises(ConfigError):
            made.vm.create_vcpu(index)


def _descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }


def _guest_mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum("memfd:pyhv" in line or "kvm-vcpu" in line for line in maps)


def test_vms_leave_no_descriptor_and_no_mapping(kvm: KvmHypervisor) -> None:
    gc.collect()
    before, mapped = len(os.listdir("/proc/self/fd")), _guest_mappings()
    for _ in range(5):
        made = Machine(kvm, VmConfig(vcpus=2, dirty_ring=4096), OUT_LOOP)
        made.vm.create_vcpu(1)
        assert isinstance(made.run(), PioOut)
        made.vm.statistics()
        made.vm.set_dirty_logging(made.ram, True)
        assert len(os.listdir("/proc/self/fd")) > before
        made.vm.close()
        made.vm.close()
    assert (len(os.listdir("/proc/self/fd")), _guest_mappings()) == (before, mapped)


def test_a_vm_whose_making_fails_leaves_nothing(kvm: KvmHypervisor) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError):
        kvm.create_vm(VmConfig(dirty_ring=3))
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_that_is_still_looked_at_outlives_its_vm_and_then_goes(machine: Maker) -> None:
    made = machine()
    mapped = _guest_mappings()
    view = made.vm.memory.view(0x1000, 16)[0]
    made.vm.close()
    assert bytes(view[:4]) == OUT_LOOP
    del view
    assert _guest_mappings() < mapped


def test_a_vm_outlives_its_hypervisor() -> None:
    hypervisor = KvmHypervisor()
    made = Machine(hypervisor, VmConfig(), OUT_LOOP)
    hypervisor.close()
    hypervisor.close()
    assert isinstance(made.run(), PioOut)
    made.vm.close()


def test_an_instruction_that_kvm_cannot_emulate_is_an_error_with_registers(machine: Maker) -> None:
    made = machine(bytes.fromhex("d9060000 f4"))  # fld dword ptr [0], with DS where no memory is
    system = made.vcpu.system
    system.ds.base = 0xC000_0000
    made.vcpu.system = system
    exit = made.run()
    assert isinstance(exit, InternalError), exit
    assert exit.name == "KVM_EXIT_INTERNAL_ERROR" and "0000000000001000" in exit.registers
    assert exit.instruction.startswith(bytes.fromhex("d9060000"))


def test_statistics_have_names(machine: Maker) -> None:
    made = machine()
    for _ in range(3):
        made.run()
    counters = made.vm.statistics()
    assert counters["vcpu.exits"] >= 3
    assert any(not name.startswith("vcpu.") for name in counters)
    assert made.vcpu.statistics()["exits"] >= 3


def test_a_capability_that_kvm_refuses_is_told_by_name(machine: Maker) -> None:
    with pytest.raises(CapabilityMissing, match="NOP_IO_DELAY"):
        machine().vm.enable_capability("NOP_IO_DELAY")


def test_signals_do_not_fail_the_self_test(kvm: KvmHypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    run, left = KvmVcpu.run, [Interrupted()] * 5
    monkeypatch.setattr(KvmVcpu, "run", lambda vcpu: left.pop() if left else run(vcpu))
    self_test()
    assert not left
