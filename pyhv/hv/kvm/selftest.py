"""Does this KVM run code? A few instructions in a throw-away VM."""

from __future__ import annotations

from pyhv.errors import KvmUnavailable
from pyhv.hv.config import VmConfig
from pyhv.hv.exits import InternalError, Interrupted, PioOut
from pyhv.hv.kvm.hypervisor import KvmHypervisor
from pyhv.x86.registers import GeneralRegisters

_PORT = 0x80
_INTERRUPTIONS = 1000
"""Signals that may come in between: they say nothing about KVM."""
_CODE = bytes.fromhex("b83412 0d0100 e680 f4")
"""mov ax, 0x1234; or ax, 1; out 0x80, al; hlt"""


def self_test(device: str = "/dev/kvm") -> None:
    """Raises KvmUnavailable, or another HostError, with the reason when this host's KVM cannot be used."""
    hypervisor = KvmHypervisor(device)
    try:
        vm = hypervisor.create_vm(VmConfig(irqchip="none"))
        try:
            vm.add_memory(0, 4096, name="self-test").buffer[: len(_CODE)] = _CODE
            vcpu = vm.create_vcpu(0)
            system = vcpu.system
            system.cs.base = system.cs.selector = 0
            vcpu.system = system
            vcpu.general = GeneralRegisters(rip=0)
            exit = vcpu.run()
            for _ in range(_INTERRUPTIONS):
                if not isinstance(exit, Interrupted):
                    break
                exit = vcpu.run()
            if not (isinstance(exit, PioOut) and exit.port == _PORT and exit.data == b"\x35"):
                detail = f"{exit.name}: {exit.detail}" if isinstance(exit, InternalError) else type(exit).__name__
                raise KvmUnavailable(f"{device} opens, but its self-test failed: {detail}")
        finally:
            vm.close()
    finally:
        hypervisor.close()
