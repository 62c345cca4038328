"""The local APIC's timer (APM vol. 2, 16.4.1) and the time stamp counter."""

import pytest

from . import apic
from .asm import assemble
from .bench import Bench

HANDLER = 0x1800
LVT_TIMER = apic.LAPIC + 0x320
INITIAL_COUNT = apic.LAPIC + 0x380
CURRENT_COUNT = apic.LAPIC + 0x390
DIVIDE = apic.LAPIC + 0x3E0


def _handler(bench: Bench) -> None:
    bench.vm.memory.write(HANDLER, assemble(apic.handler("handler", 0x77), bits=32, org=HANDLER))
    bench.gate(0x30, HANDLER)


def _timer(mode: int, count: int) -> str:
    return (
        f"mov dword ptr [{DIVIDE}], 0xB; mov dword ptr [{LVT_TIMER}], {mode << 17 | 0x30}; "
        f"mov dword ptr [{INITIAL_COUNT}], {count}\n"
    )


def test_one_shot(bench: Bench) -> None:
    _handler(bench)
    bench.load(apic.ENABLE + _timer(0, 100_000) + f"sti; hlt; mov eax, [{CURRENT_COUNT}]; out 0xe9, eax")
    assert bench.output(2) == [0x77, 0]


def test_periodic(bench: Bench) -> None:
    _handler(bench)
    bench.load(apic.ENABLE + _timer(1, 200_000) + apic.WAIT)
    assert bench.output(10) == [0x77] * 10


def test_a_masked_timer_counts_but_does_not_interrupt(bench: Bench) -> None:
    _handler(bench)
    masked = _timer(1, 0xFFFFFFFF).replace(str(1 << 17 | 0x30), str(1 << 17 | 1 << 16 | 0x30))
    bench.load(
        apic.ENABLE
        + masked
        + f"mov ebx, [{CURRENT_COUNT}]; mov ecx, 2000; spin: dec ecx; jnz spin; sub ebx, [{CURRENT_COUNT}]\n"
        + "mov eax, ebx; out 0xe9, eax"
    )
    assert 0 < bench.output(1)[0] < 0xF000_0000


def test_tsc_deadline(bench: Bench) -> None:
    leaf = next(entry for entry in bench.vcpu.get_cpuid() if entry.function == 1)
    if not leaf.ecx >> 24 & 1:
        pytest.skip("the CPU shows no TSC-deadline timer")
    _handler(bench)
    bench.load(
        apic.ENABLE
        + f"mov dword ptr [{LVT_TIMER}], {2 << 17 | 0x30}; rdtsc; add eax, 1000000; adc edx, 0; mov ecx, 0x6E0; wrmsr\n"
        + apic.WAIT
    )
    assert bench.output(1) == [0x77]


def test_the_tsc_rises(bench: Bench) -> None:
    bench.load(
        "rdtsc; mov ebx, eax; mov ecx, edx; rdtsc; sub eax, ebx; sbb edx, ecx; out 0xe9, eax; mov eax, edx; out 0xe9, eax"
    )
    low, high = bench.output(2)
    assert high == 0 and low > 0
