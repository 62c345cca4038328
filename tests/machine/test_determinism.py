"""The simulator: same machine, seed and input give the same events; and what these are can be chosen."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

import pyhv
from pyhv.hv.select import Selection, select
from pyhv.trace import TraceEvent

Guest = Callable[[str], Path]
DATA = 0x9000
ALL_BUT_INSTRUCTIONS = ("exits", "exceptions", "interrupts", "branches")


@pytest.fixture
def sim() -> Selection:
    try:
        return select("sim")
    except pyhv.HostError as error:
        pytest.skip(f"no simulator here: {error}")


def run(
    machine: pyhv.Machine, sim: Selection, *, seed: int = 0, typed: str = "", read: int = 0
) -> tuple[list[TraceEvent], pyhv.Result, bytes]:
    """The events of a run, its result, and the first bytes at DATA."""
    with pyhv.Vm(machine, backend=sim, seed=seed) as vm:
        tracer = vm.trace(ALL_BUT_INSTRUCTIONS, limit=1_000_000)
        if typed:
            vm.console.send(typed)
        result = vm.run(60)
        assert tracer.dropped == 0
        return tracer.events, result, vm.memory.read(DATA, read)


@pytest.mark.parametrize(("name", "cpus"), [("smp", 1), ("smp", 4), ("irq", 1), ("paging", 1)])
def test_the_same_run_twice(name: str, cpus: int, guest: Guest, sim: Selection) -> None:
    machine = pyhv.Machine(guest(name), cpus=cpus, memory="64M")
    (first, one, _), (second, two, _) = run(machine, sim), run(machine, sim)
    assert first == second and len(first) > 100
    for field in ("outcome", "instructions", "exits", "console", "statistics"):
        assert getattr(one, field) == getattr(two, field), field
    assert {e.vcpu for e in first} == set(range(cpus))


def test_input_that_waits_when_the_machine_starts(guest: Guest, sim: Selection) -> None:
    machine = pyhv.Machine(guest("echo"), memory="64M")
    runs = [run(machine, sim, typed=typed) for typed in ("one\nquit\n", "one\nquit\n", "two!\nquit\n")]
    (first, one, _), (second, two, _), (other, three, _) = runs
    assert first == second and one.instructions == two.instructions
    assert "echo: one" in one.console and one.console == two.console
    assert "echo: two!" in three.console and other != first


RANDOM = """
    xor ax, ax
    mov ds, ax
    mov di, 0x9000
    mov cx, 8
1:  rdrand eax
    mov [di], eax
    rdseed eax
    mov [di + 4], eax
    add di, 8
    loop 1b
""" + tiny.exit(0)


def test_the_seed_makes_random_numbers_and_nothing_else(tmp_path: Path, sim: Selection) -> None:
    machine = pyhv.Machine(tiny.image(tmp_path, RANDOM), format="flat", memory="2M")
    events, result, numbers = run(machine, sim, seed=1, read=64)
    again = run(machine, sim, seed=1, read=64)
    other_events, other_result, other_numbers = run(machine, sim, seed=2, read=64)
    assert (events, numbers, result.instructions) == (again[0], again[2], again[1].instructions)
    assert events == other_events and result.instructions == other_result.instructions
    words = {numbers[i : i + 4] for i in range(0, 64, 4)} | {other_numbers[i : i + 4] for i in range(0, 64, 4)}
    assert len(words) == 32


def test_the_seed_does_not_change_a_guest_without_random_numbers(guest: Guest, sim: Selection) -> None:
    machine = pyhv.Machine(guest("smp"), cpus=2, memory="64M")
    (first, one, _), (second, two, _) = run(machine, sim, seed=1), run(machine, sim, seed=99)
    assert first == second and one.statistics == two.statistics


CLOCK = (
    """
    xor ax, ax
    mov ds, ax
    mov di, 0x9000
    mov si, offset registers
    mov cx, 7
1:  lodsb
    out 0x70, al
    in al, 0x71
    mov [di], al
    inc di
    loop 1b
"""
    + tiny.exit(0)
    + "registers: .byte 0x32, 9, 8, 7, 4, 2, 0\n"
)
"""Century, year, month, day, hours, minutes, seconds."""


def clock(tmp_path: Path, backend: Selection, date: str | None) -> str:
    machine = pyhv.Machine(tiny.image(tmp_path, CLOCK), format="flat", memory="2M", date=date)
    with pyhv.Vm(machine, backend=backend) as vm:
        vm.run(30).check()
        return vm.memory.read(DATA, 7).hex()


@pytest.mark.parametrize(
    ("date", "shown"),
    [
        ("2031-12-30", "2031123000"),
        ("1999-02-28T13:14", "1999022813"),
        ("2024-02-29T01:30:00+02:00", "2024022823"),
        ("2024-02-29T22:30:05.25Z", "2024022922"),
    ],
)
def test_the_clock_shows_the_machines_date(date: str, shown: str, tmp_path: Path, backend: Selection) -> None:
    assert clock(tmp_path, backend, date)[:10] == shown


def test_without_a_date_simulations_begin_in_2026(tmp_path: Path, sim: Selection) -> None:
    assert clock(tmp_path, sim, None) == "20260101000000"


def test_the_clock_goes_on_at_a_reset(tmp_path: Path, sim: Selection) -> None:
    machine = pyhv.Machine(tiny.image(tmp_path, CLOCK), format="flat", memory="2M", date="2031-12-30")
    with pyhv.Vm(machine, backend=sim) as vm:
        before = vm.clock.wall_ns()
        vm.reset()
        assert vm.clock.wall_ns() == before
        vm.run(30).check()
        assert vm.memory.read(DATA, 4).hex() == "20311230"


SLEEP = (
    """
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov word ptr [0x20 * 4], offset tick
    mov word ptr [0x20 * 4 + 2], ax
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    xor al, al
    out 0x40, al
    out 0x40, al
    mov cx, 182
1:  sti
    hlt
    cli
    test cx, cx
    jnz 1b
"""
    + tiny.exit(0)
    + """
tick:
    push ax
    dec cx
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""
)
"""182 ticks of 65536 periods of 1193182 Hz are 9.996 seconds."""


def test_idle_time_is_skipped(tmp_path: Path, sim: Selection) -> None:
    machine = pyhv.Machine(tiny.image(tmp_path, SLEEP), format="flat", memory="2M")
    with pyhv.Vm(machine, backend=sim) as vm:
        tracer = vm.trace(("interrupts",))
        result = vm.run(60).check()
        assert 9_900_000_000 < vm.clock.now_ns() < 10_100_000_000
    assert [e.code for e in tracer.events] == [0x20] * 182
    assert result.instructions is not None and result.instructions < 5_000
