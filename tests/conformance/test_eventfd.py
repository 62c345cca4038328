"""ioeventfd: guest writes that signal a descriptor instead of exiting. irqfd: a descriptor that raises an interrupt."""

import os
import threading
from collections.abc import Iterator

import pytest

from pyhv.errors import ConfigError
from pyhv.hv.api import Hypervisor
from pyhv.hv.exits import MmioWrite, PioOut
from pyhv.irq import Msi

from . import apic
from .asm import assemble
from .bench import Bench

DEVICE = 0xC000_0000


@pytest.fixture
def event() -> Iterator[int]:
    """A fresh eventfd."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def notified(backend: Hypervisor, bench: Bench) -> Bench:
    """A bench on a backend with ioeventfd."""
    if not backend.capabilities.ioeventfd:
        pytest.skip("the backend has no ioeventfd")
    return bench


def signals(event: int) -> int:
    """How often the descriptor was signalled since the last look."""
    try:
        return os.eventfd_read(event)
    except BlockingIOError:
        return 0


def test_port_writes_of_the_right_size(notified: Bench, event: int) -> None:
    notified.vm.add_ioeventfd(event, 0x300, 2, pio=True)
    notified.load("mov dx, 0x300; out dx, ax; out dx, ax; out 0xe9, al; out dx, al; out dx, ax; out 0xe9, al")
    notified.output(1)
    assert signals(event) == 2
    assert notified.expect(PioOut).size == 1
    notified.output(1)
    assert signals(event) == 1


def test_memory_writes_with_a_value(notified: Bench, event: int) -> None:
    notified.vm.add_ioeventfd(event, DEVICE, 4, pio=False, datamatch=7)
    notified.load(f"mov dword ptr [{DEVICE}], 7; mov dword ptr [{DEVICE}], 8; out 0xe9, al")
    assert notified.expect(MmioWrite) == MmioWrite(DEVICE, b"\x08\0\0\0")
    notified.output(1)
    assert signals(event) == 1


def test_writes_of_any_size(notified: Bench, event: int) -> None:
    notified.vm.add_ioeventfd(event, DEVICE, 0, pio=False)
    notified.load(
        f"mov ebx, {DEVICE}; mov [rbx], al; mov [rbx], ax; mov [rbx], eax; mov [rbx], rax; out 0xe9, al", mode=64
    )
    notified.output(1)
    assert signals(event) == 4


def test_one_that_was_removed_exits_again(notified: Bench, event: int) -> None:
    notified.vm.add_ioeventfd(event, DEVICE, 4, pio=False)
    notified.load(f"mov dword ptr [{DEVICE}], 1; out 0xe9, al; mov dword ptr [{DEVICE}], 2")
    notified.output(1)
    notified.vm.remove_ioeventfd(event, DEVICE, 4, pio=False)
    assert notified.expect(MmioWrite).data == b"\x02\0\0\0"
    assert signals(event) == 1


def test_reads_exit_all_the_same(notified: Bench, event: int) -> None:
    from pyhv.hv.exits import MmioRead

    notified.vm.add_ioeventfd(event, DEVICE, 4, pio=False)
    notified.load(f"mov eax, [{DEVICE}]; out 0xe9, eax")
    notified.expect(MmioRead)
    notified.vcpu.complete_read(b"\x05\0\0\0")
    assert notified.output(1) == [5]
    assert signals(event) == 0


@pytest.mark.parametrize(("size", "match"), [(3, None), (16, None), (0, 1)])
def test_what_cannot_be_asked_for(notified: Bench, event: int, size: int, match: int | None) -> None:
    with pytest.raises(ConfigError):
        notified.vm.add_ioeventfd(event, DEVICE, size, pio=False, datamatch=match)


def _interrupted_by(bench: Bench, vector: int) -> None:
    bench.vm.memory.write(0x1800, assemble(apic.handler("handler", vector), bits=32, org=0x1800))
    bench.gate(vector, 0x1800)
    bench.load(apic.ENABLE + "mov al, 1; out 0xe9, al\n" + apic.WAIT)
    assert bench.output(1) == [1]


def test_a_signalled_descriptor_raises_its_message(backend: Hypervisor, bench: Bench, event: int) -> None:
    if not backend.capabilities.irqfd:
        pytest.skip("the backend has no irqfd")
    _interrupted_by(bench, 0x51)
    bench.vm.set_gsi_routes({30: Msi(apic.LAPIC, 0x51)})
    bench.vm.add_irqfd(event, 30)
    for _ in range(3):
        os.eventfd_write(event, 1)
        assert bench.output(1) == [0x51]
    bench.vm.set_gsi_routes({30: Msi(apic.LAPIC, 0x52)})
    bench.vm.remove_irqfd(event, 30)


def test_a_descriptor_signalled_while_the_guest_sleeps(backend: Hypervisor, bench: Bench, event: int) -> None:
    if not (backend.capabilities.irqfd and backend.capabilities.threads):
        pytest.skip("the backend has no irqfd, or no threads")
    _interrupted_by(bench, 0x53)
    bench.vm.set_gsi_routes({24: Msi(apic.LAPIC, 0x53)})
    bench.vm.add_irqfd(event, 24)
    timer = threading.Timer(0.03, os.eventfd_write, [event, 1])
    timer.start()
    assert bench.output(1) == [0x53]
    timer.join()
    bench.vm.remove_irqfd(event, 24)
