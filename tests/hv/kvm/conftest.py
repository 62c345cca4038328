"""A real KVM for the tests of its backend; without one they are skipped, with the reason."""

from collections.abc import Iterator

import pytest

from pyhv.errors import HostError
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import Exit, Interrupted
from pyhv.hv.kvm.hypervisor import KvmHypervisor
from pyhv.hv.kvm.vcpu import KvmVcpu
from pyhv.hv.kvm.vm import KvmVm
from pyhv.x86.registers import GeneralRegisters

SPIN = bytes.fromhex("ebfe")
OUT_LOOP = bytes.fromhex("e6e9 ebfc")
"""again: out 0xe9, al; jmp again"""


@pytest.fixture(scope="session")
def kvm() -> Iterator[KvmHypervisor]:
    """The host's KVM."""
    try:
        hypervisor = KvmHypervisor()
    except HostError as error:
        pytest.skip(str(error))
    keeper = hypervisor.create_vm(VmConfig())  # see tests/conformance/conftest.py
    yield hypervisor
    keeper.close()
    hypervisor.close()


class Machine:
    """A VM with 2 MiB, and real-mode code at 0x1000."""

    def __init__(self, kvm: KvmHypervisor, config: VmConfig, code: bytes) -> None:
        self.vm: KvmVm = kvm.create_vm(config)
        self.ram = self.vm.add_memory(0, 0x20_0000)
        self.ram.buffer[0x1000 : 0x1000 + len(code)] = code
        self.vcpu: KvmVcpu = self.vm.create_vcpu(0)
        self.start(self.vcpu)

    def start(self, vcpu: KvmVcpu, at: int = 0x1000) -> None:
        """Point a vCPU at real-mode code."""
        system = vcpu.system
        system.cs.base = system.cs.selector = 0
        vcpu.system = system
        vcpu.general = GeneralRegisters(rip=at, rsp=0x8000)

    def run(self) -> Exit:
        """The next exit other than Interrupted."""
        while isinstance(exit := self.vcpu.run(), Interrupted):
            pass
        return exit


@pytest.fixture
def machine(kvm: KvmHypervisor) -> Iterator["Maker"]:
    """Make machines: `machine(code, irqchip=...)`; all are closed after the test."""
    maker = Maker(kvm)
    yield maker
    for made in maker.made:
        made.vm.close()


class Maker:
    """Calls make machines."""

    def __init__(self, kvm: KvmHypervisor) -> None:
        self.kvm = kvm
        self.made: list[Machine] = []

    def __call__(self, code: bytes = OUT_LOOP, **config: object) -> Machine:
        machine = Machine(self.kvm, VmConfig(**config), code)  # type: ignore[arg-type]
        self.made.append(machine)
        return machine
