"""A guest of a few instructions on each backend: it moves the range, notifies by a doorbell, and waits for messages.

What a driver does before that is done by the model driver, in the machine's own memory and on its own bus.
"""

from pathlib import Path

import pytest
import tiny
from virtio_driver import Upper

import pyhv
from pyhv.hv.select import Selection
from pyhv.pci import registers as reg
from pyhv.testing.virtio import VirtioDriver
from pyhv.testing.virtio_pci import PciLink
from pyhv.virtio import pci

VECTOR = 0x41
NEW_HOME = 0xE800_0000
PROGRAM = f"""
    mov word ptr [{8 * VECTOR:#x} + 0x2000], offset handler
    mov word ptr [{8 * VECTOR:#x} + 0x2002], 0x8
    mov dword ptr [{8 * VECTOR:#x} + 0x2004], 0x8e00
    lidt [idt]
    mov dword ptr [0xfee000f0], 0x1ff
    mov dx, 0xcf8
    mov eax, {0x8000_0800 | reg.BAR_0:#x}
    out dx, eax
    mov dx, 0xcfc
    mov eax, {NEW_HOME:#x}
    out dx, eax
    sti
    mov word ptr [{NEW_HOME + pci.NOTIFY:#x}], 0
1:  pause
    jmp 1b
handler:
    {tiny.exit(0)}
    .balign 8
idt:
    .word 0x7ff
    .long 0x2000
"""


class MachineBench:
    """As much of a DeviceBench as the model driver uses, of a real machine."""

    def __init__(self, vm: pyhv.Vm) -> None:
        self.memory = vm.memory
        self.mmio_read, self.mmio_write = vm.pc.mmio.read, vm.pc.mmio.write


class Counting(Upper):
    handled = 0

    def handle(self, queue):
        self.handled += 1
        super().handle(queue)


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_doorbell_and_message(tmp_path: Path, backend: Selection, packed: bool) -> None:
    device = Counting()
    machine = pyhv.Machine(tiny.image(tmp_path, PROGRAM, 32), format="flat", memory="4M", devices=[device])
    with pyhv.Vm(machine, backend=backend) as vm:
        with vm.lock:
            link = PciLink(MachineBench(vm))
            link.set_vector(1, VECTOR)
            driver = VirtioDriver(MachineBench(vm), device, link)
            driver._free = 0x10_0000
            driver.start(packed=packed)
            buffer = driver.queues[0].add([b"abc"], [3])
        result = vm.run(timeout=30)
        result.check()
        with vm.lock:
            assert driver.queues[0].used() == [buffer] and buffer.data == b"ABC"
    assert device.handled == 1
    assert result.unclaimed == {}
    if backend.name == "kvm":
        assert "MmioWrite" not in result.exits
