"""The full in-kernel irqchip: lines, the PIT without re-injection, state of the controllers, resampling irqfds."""

import os

import pytest
from conformance.asm import assemble

from pyhv.errors import ConfigError
from pyhv.hv.exits import PioOut
from pyhv.irq import Msi

from .conftest import Machine, Maker

PIC = """
    mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al
    mov al, {mask}; out 0x21, al
"""
HANDLER = "mov al, 0x{value:x}; out 0xe9, al; mov al, 0x20; out 0x20, al; iret"


def _machine(machine: Maker, mask: int, rest: str) -> Machine:
    made = machine(assemble(PIC.format(mask=mask) + rest, bits=16, org=0x1000), irqchip="kernel")
    for line in (0, 4):
        at = 0x1800 + line * 0x20
        code = assemble(HANDLER.format(value=0xA0 + line), bits=16, org=at)
        made.ram.buffer[at : at + len(code)] = code
        made.vm.memory.write_uint((0x20 + line) * 4, 4, at)
    return made


def _out(made: Machine) -> int:
    exit = made.run()
    assert isinstance(exit, PioOut) and exit.port == 0xE9, exit
    return exit.data[0]


def test_a_line_through_the_8259(machine: Maker) -> None:
    made = _machine(machine, 0xEF, "sti; mov al, 1; out 0xe9, al; wait: hlt; jmp wait")
    assert _out(made) == 1
    for _ in range(2):
        made.vm.set_irq_line(4, True)
        made.vm.set_irq_line(4, False)
        assert _out(made) == 0xA4


def test_the_pit_ticks(machine: Maker) -> None:
    pit = "mov al, 0x34; out 0x43, al; mov al, 0; out 0x40, al; mov al, 8; out 0x40, al; sti; wait: hlt; jmp wait"
    made = _machine(machine, 0xFE, pit)
    assert [_out(made) for _ in range(5)] == [0xA0] * 5
    state = made.vm.interrupts.get_pit()
    made.vm.interrupts.set_pit(state)
    assert _out(made) == 0xA0


def test_port_61_gates_and_shows_channel_2(machine: Maker) -> None:
    """How kernels measure the processor's speed: the output is low until the count has run out."""
    count = """
        mov al, 1; out 0x61, al
        mov al, 0xb0; out 0x43, al
        mov al, 0xff; out 0x42, al; out 0x42, al
        in al, 0x61; and al, 0x21; out 0xe9, al
        mov al, 0xb0; out 0x43, al
        mov al, 1; out 0x42, al; mov al, 0; out 0x42, al
    wait: in al, 0x61; test al, 0x20; jz wait
        in al, 0x61; and al, 0x21; out 0xe9, al
    """
    made = _machine(machine, 0xFF, count)
    assert (_out(made), _out(made)) == (0x01, 0x21)


def test_controllers_state(machine: Maker) -> None:
    made = _machine(machine, 0xEF, "mov al, 1; out 0xe9, al")
    _out(made)
    master = made.vm.interrupts.get_chip(0)
    assert master[2] == 0xEF and master[5] == 0x20  # the mask and the vector base
    made.vm.interrupts.set_chip(0, master[:2] + b"\x55" + master[3:])
    assert made.vm.interrupts.get_chip(0)[2] == 0x55
    with pytest.raises(ConfigError):
        made.vm.interrupts.set_pit(b"")


def test_message_routes_come_on_top_of_the_pins(machine: Maker) -> None:
    made = _machine(machine, 0xEF, "sti; mov al, 1; out 0xe9, al; wait: hlt; jmp wait")
    assert _out(made) == 1
    made.vm.set_gsi_routes({40: Msi(0xFEE0_0000, 0x50)})
    made.vm.set_irq_line(4, True)
    assert _out(made) == 0xA4


def test_a_resampling_irqfd_holds_its_line_until_the_eoi(machine: Maker) -> None:
    made = _machine(machine, 0xEF, "sti; mov al, 1; out 0xe9, al; wait: hlt; jmp wait")
    elcr = made.vm.interrupts.get_chip(0)
    made.vm.interrupts.set_chip(0, elcr[:14] + b"\x10" + elcr[15:])  # IRQ 4 by level
    trigger, resample = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
    try:
        made.vm.interrupts.add_irqfd(trigger, 4, resample=resample)
        assert _out(made) == 1
        os.eventfd_write(trigger, 1)
        assert _out(made) == 0xA4
        made.vm.set_irq_line(4, False)
        while True:  # the EOI comes while the guest runs on
            made.vcpu.run()
            try:
                assert os.eventfd_read(resample) >= 1
                break
            except BlockingIOError:
                continue
        made.vm.remove_irqfd(trigger, 4)
    finally:
        os.close(trigger)
        os.close(resample)


def test_lines_belong_to_the_full_irqchip(machine: Maker) -> None:
    with pytest.raises(ConfigError, match="kernel"):
        machine().vm.set_irq_line(4, True)


@pytest.mark.parametrize("gsi", [-1, 4096])
def test_routes_out_of_range(machine: Maker, gsi: int) -> None:
    with pytest.raises(ConfigError):
        machine().vm.set_gsi_routes({gsi: Msi(0xFEE0_0000, 0x50)})


def test_avic_is_explained(machine: Maker) -> None:
    on, reason = machine().vm.avic()
    assert on in (True, False, None) and reason
    off, reason = machine(irqchip="none").vm.avic()
    assert off is not True and reason
