"""Every guest of guests/, on every backend: its verdict and what it prints, as its README says."""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest_table import CASES, DEVICE_CASES, OTHER_DEVICES, GuestCase

import pyhv
from pyhv.hv.select import Selection, select

TIMEOUT = 60.0

Guest = Callable[[str], Path]


_ran: dict[tuple[str, str], pyhv.Result] = {}


def once(case: GuestCase, image: Path, backend: Selection) -> pyhv.Result:
    """The guest's run on this backend, made by the first test that wants it."""
    key = (str(case), backend.name)
    if key not in _ran:
        _ran[key] = run(case, image, backend)
    return _ran[key]


def run(case: GuestCase, image: Path, backend: Selection, **fields: Any) -> pyhv.Result:
    with tempfile.TemporaryDirectory() as directory:
        devices = case.devices(Path(directory))
        machine = pyhv.Machine(
            image, cpus=case.cpus, memory="64M", cmdline=case.cmdline, devices=devices, **fields
        )
        result = finish(case, machine, backend)
        if result.outcome is case.outcome:
            case.verify(Path(directory))
        return result


def finish(case: GuestCase, machine: pyhv.Machine, backend: Selection) -> pyhv.Result:
    with machine.start(backend=backend) as vm:
        if case.typed:
            vm.console.expect(case.ready, timeout=TIMEOUT)
            vm.console.send(case.typed)
        try:
            return vm.wait(case.timeout or case.patience)
        except pyhv.VmTimeout:
            vm.end(pyhv.Outcome.TIMEOUT, "time is up")
            return vm.wait()


@pytest.mark.parametrize("case", CASES + DEVICE_CASES, ids=str)
def test_guest(case: GuestCase, guest: Guest, backend: Selection) -> None:
    result = once(case, guest(case.name), backend)
    assert (result.outcome, result.guest_status) == (case.outcome, case.status), result.report()
    assert case.matches(result.console.splitlines()), result.report()
    assert result.backend == backend.name


@pytest.mark.parametrize("case", [case for case in CASES + DEVICE_CASES if not case.timeout], ids=str)
def test_both_backends_print_the_same(case: GuestCase, guest: Guest) -> None:
    both = []
    for name in ("kvm", "sim"):
        try:
            both.append(select(name))
        except pyhv.HostError as error:
            pytest.skip(f"no {name} here: {error}")
    image = guest(case.name)
    ran = [once(case, image, backend) for backend in both]
    assert ran[0].console == ran[1].console
    assert [(r.outcome, r.guest_status) for r in ran] == [(case.outcome, case.status)] * 2


def test_piped_input_is_lossless(guest: Guest, backend: Selection) -> None:
    """Lines longer than the FIFO, many of them, typed at once: the line discipline of the UART holds them back."""
    lines = [f"{n:03} " + "x" * (n % 100) for n in range(60)]
    with pyhv.Machine(guest("echo"), memory="64M").start(backend=backend) as vm:
        vm.console.expect("echo ready\n", timeout=TIMEOUT)
        vm.console.send("".join(f"{line}\n" for line in [*lines, "quit"]))
        result = vm.wait(TIMEOUT).check()
    assert result.console.splitlines() == ["echo ready", *(f"echo: {line}" for line in lines), "echo: ok"]


def test_guests_beside_each_other(guest: Guest, backend: Selection) -> None:
    """Different guests at once in one process do not meet."""
    cases = [case for case in CASES if case.name in ("hello", "fail", "mmio", "triple", "dirty", "hello64")]
    results: dict[str, pyhv.Result] = {}

    def one(case: GuestCase) -> None:
        results[case.name] = run(case, guest(case.name), backend)

    threads = [threading.Thread(target=one, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for case in cases:
        result = results[case.name]
        assert (result.outcome, result.guest_status) == (case.outcome, case.status), result.report()
        assert case.matches(result.console.splitlines()), result.report()


@pytest.mark.parametrize(
    "case",
    [c for c in CASES + DEVICE_CASES if str(c) in ("echo", "irq", "mmio", "smp-4-cpus", "virtio-mmio", "virtio-pci")],
    ids=str,
)
def test_controllers_in_the_kernel(case: GuestCase, guest: Guest, kvm: Selection) -> None:
    """irqchip="kernel": the same PC, with KVM's own PIC, PIT and I/O APIC."""
    result = run(case, guest(case.name), kvm, irqchip="kernel")
    assert (result.outcome, result.guest_status) == (case.outcome, case.status), result.report()
    assert case.matches(result.console.splitlines()), result.report()


@pytest.mark.parametrize(
    "case",
    [c for c in CASES + DEVICE_CASES if not c.typed and not c.timeout and c.name not in ("bench", "virtio-hostile")],
    ids=str,
)
def test_the_simulator_repeats_itself(case: GuestCase, guest: Guest, sim: Selection) -> None:
    first, second = (run(case, guest(case.name), sim) for _ in range(2))
    assert first.deterministic and first.instructions
    for name in ("instructions", "exits", "console", "unclaimed", "statistics", "registers", "last_exits"):
        assert getattr(first, name) == getattr(second, name), name


@pytest.mark.parametrize("case", OTHER_DEVICES, ids=str)
def test_the_hostile_driver_on_other_devices(case: GuestCase, guest: Guest, sim: Selection) -> None:
    result = run(case, guest(case.name), sim)
    assert (result.outcome, result.guest_status) == (case.outcome, case.status), result.report()
    assert case.matches(result.console.splitlines()), result.report()


def test_the_simulated_pc_has_no_peculiarities(guest: Guest, sim: Selection) -> None:
    result = pyhv.run(pyhv.Machine(guest("irq"), cmdline="notes"), backend=sim, timeout=60).check()
    assert "note:" not in result.console
