"""A machine's life: started, waited for, paused, reset, stopped, closed; and what it says of itself."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

import pyhv
from pyhv.hv import exits as x
from pyhv.hv.select import Selection
from pyhv.x86 import msr

PATIENCE = 30.0

COUNT = "mov dword ptr [0x8000], 0\n1: inc dword ptr [0x8000]\n jmp 1b\n"
"""Counts in memory for ever."""
TRIPLE_FAULT = "lidt [9f]\n ud2\n9: .word 0, 0, 0\n"
RESETS = {
    "0xcf9": "mov dx, 0xcf9\n mov al, 6\n out dx, al\n",
    "keyboard controller": "mov al, 0xfe\n out 0x64, al\n",
    "port 0x92": "in al, 0x92\n or al, 1\n out 0x92, al\n",
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., pyhv.Machine]:
    """A machine of a few instructions."""

    def machine(source: str, bits: int = 16, **fields: Any) -> pyhv.Machine:
        image = tiny.image(tmp_path, source, bits)
        return pyhv.Machine(image, format="flat", **({"memory": "4M"} | fields))

    return machine


Make = Callable[..., pyhv.Machine]


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll, as what the guest does in memory sends no event."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def counter(vm: pyhv.Vm) -> int:
    return vm.memory.read_uint(0x8000, 4)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_modes(make: Make, backend: Selection, bits: int) -> None:
    result = pyhv.run(make(tiny.say("hi\n") + tiny.exit(5), bits), backend=backend, timeout=PATIENCE)
    assert (result.outcome, result.guest_status, result.console) == (pyhv.Outcome.FAILED, 5, "hi\n")


def test_the_timer_ticks_in_the_bios_data_area(make: Make, backend: Selection) -> None:
    """A program in real mode that sets nothing up: INT 8 counts and calls INT 0x1C, INT 0x1A tells."""
    source = f"""
        mov word ptr [0x1c * 4], offset user
        mov word ptr [0x1c * 4 + 2], cs
        sti
1:      hlt
        cmp dword ptr [0x46c], 2
        jb 1b
        cli
        xor eax, eax
        int 0x1a
        cmp dx, [0x46c]
        jne 2f
        cmp cx, 0
        jne 2f
        cmp dx, [calls]
        jne 2f
        mov ah, 0x55
        int 0x1a
        jnc 2f
        {tiny.exit(7)}
2:      {tiny.exit(8)}
user:   inc word ptr cs:[calls]
        iret
calls:  .word 0
"""
    result = pyhv.run(make(source), backend=backend, timeout=PATIENCE)
    assert result.guest_status == 7


def test_started_stopped_and_reaped(make: Make, backend: Selection) -> None:
    vm = make(COUNT).start(backend=backend)
    wait_until(lambda: counter(vm) > 10)
    assert vm.outcome is None
    with pytest.raises(pyhv.ConfigError, match="has not ended"):
        vm.result()
    with pytest.raises(pyhv.VmTimeout, match=r"did not end within 0\.05 s"):
        vm.wait(0.05)
    vm.stop()
    result = vm.wait(PATIENCE)
    assert (result.outcome, result.detail) == (pyhv.Outcome.STOPPED, "stopped by the user")
    assert result is vm.result()
    vm.stop()
    vm.close()
    vm.close()
    assert vm.result() is result


def test_misuse_is_told(make: Make, backend: Selection) -> None:
    with pyhv.Vm(make(COUNT), backend=backend) as vm:
        with pytest.raises(pyhv.ConfigError, match="not started"):
            vm.wait(1)
        vm.start()
        with pytest.raises(pyhv.ConfigError, match="started already"):
            vm.start()
        with pytest.raises(pyhv.ConfigError, match=r"exits\(\) drives a machine that was not started"):
            next(vm.exits())
    with pytest.raises(pyhv.ConfigError, match="started already"):
        vm.start()


def test_what_is_no_machine_and_no_seed(make: Make, backend: Selection) -> None:
    with pytest.raises(pyhv.ConfigError, match=r"^machine: 'kernel.elf' is not a pyhv\.Machine$"):
        pyhv.run("kernel.elf")  # type: ignore[arg-type]
    with pytest.raises(pyhv.ConfigError, match=r"^seed: '7' is not an integer$"):
        pyhv.Vm(make(tiny.exit(0)), backend=backend, seed="7")  # type: ignore[arg-type]


def test_never_started(make: Make, backend: Selection) -> None:
    with pyhv.Vm(make(COUNT), backend=backend) as vm:
        assert vm.boot.entry == tiny.ORG
        assert counter(vm) == 0
    assert vm.outcome is pyhv.Outcome.STOPPED


@pytest.mark.parametrize("cpus", [1, 3])
def test_memory_is_write_back_on_every_processor(make: Make, backend: Selection, cpus: int) -> None:
    """As firmware leaves it; with the MTRRs off Linux would do without PAT."""
    with pyhv.Vm(make(COUNT, cpus=cpus), backend=backend) as vm:
        vm.reset()
        assert [vcpu.get_msrs([msr.MTRR_DEF_TYPE]) for vcpu in vm.vcpus] == [{msr.MTRR_DEF_TYPE: 0x806}] * cpus


@pytest.mark.parametrize("cpus", [1, 3])
def test_pause_holds_still(make: Make, backend: Selection, cpus: int) -> None:
    with make(COUNT, cpus=cpus).start(backend=backend) as vm:
        wait_until(lambda: counter(vm) > 10)
        for _ in range(3):
            vm.pause()
            held = counter(vm)
            time.sleep(0.02)
            assert counter(vm) == held
            rip = vm.vcpus[0].general.rip
            assert tiny.ORG <= rip < tiny.ORG + 64
            vm.resume()
            wait_until(lambda held=held: counter(vm) > held)


@pytest.mark.parametrize("cpus", [1, 3])
def test_stop_while_paused(make: Make, backend: Selection, cpus: int) -> None:
    with make(COUNT, cpus=cpus).start(backend=backend) as vm:
        vm.pause()
        vm.stop()
        assert vm.wait(PATIENCE).outcome is pyhv.Outcome.STOPPED
        vm.resume()
        vm.pause()


@pytest.mark.parametrize("cpus", [1, 3])
def test_reset_from_outside(make: Make, backend: Selection, cpus: int) -> None:
    """The counter counts the starts at an address that the image sets only once per reset: memory is cleared."""
    with make("inc dword ptr [0x9000]\n" + COUNT, cpus=cpus).start(backend=backend) as vm:
        for _ in range(3):
            wait_until(lambda: counter(vm) > 10)
            vm.memory.write_uint(0x8000, 4, 0x4000_0000)
            vm.reset()
            wait_until(lambda: 10 < counter(vm) < 0x4000_0000)
            assert vm.memory.read_uint(0x9000, 4) == 1
        assert vm.outcome is None


@pytest.mark.parametrize("cpus", [1, 3])
def test_reset_while_paused_waits_for_resume(make: Make, backend: Selection, cpus: int) -> None:
    with make(COUNT, cpus=cpus).start(backend=backend) as vm:
        wait_until(lambda: counter(vm) > 10)
        vm.pause()
        vm.memory.write_uint(0x8000, 4, 0x4000_0000)
        vm.reset()
        vm.resume()
        wait_until(lambda: 10 < counter(vm) < 0x4000_0000)


@pytest.mark.parametrize("how", RESETS)
def test_a_guests_reset_ends_the_run(make: Make, backend: Selection, how: str) -> None:
    result = pyhv.run(make(tiny.say("x") + RESETS[how] + tiny.HALT), backend=backend, timeout=PATIENCE)
    assert result.outcome is pyhv.Outcome.RESET and result.ok and result.exit_code == 0
    assert result.detail and result.console == "x"


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("how", RESETS)
def test_a_guests_reset_starts_it_again(make: Make, backend: Selection, how: str, cpus: int) -> None:
    """CMOS survives a reset, memory does not: the guest counts its starts in CMOS byte 0x50 and ends at the third."""
    source = (
        "mov al, 0x50\n out 0x70, al\n in al, 0x71\n inc al\n mov bl, al\n out 0x71, al\n"
        "add al, 0x30\n mov dx, 0x3f8\n out dx, al\n"
        "cmp byte ptr [0x8000], 0\n jne 9f\n mov byte ptr [0x8000], 1\n"
        f"cmp bl, 3\n jae 2f\n{RESETS[how]}{tiny.HALT}"
        f"2: {tiny.exit(0)}"
        f"9: {tiny.exit(9)}"
    )
    result = pyhv.run(make(source, on_reset="restart", cpus=cpus), backend=backend, timeout=PATIENCE)
    assert result.outcome is pyhv.Outcome.PASSED, result.report()
    assert result.console == "123"


@pytest.mark.parametrize("irqchip", ["split", "kernel"])
def test_interrupt_controllers_are_new_after_a_reset(make: Make, backend: Selection, irqchip: str) -> None:
    """The first life programs the 8259 and the timer; the second one prints what it finds, like the first."""
    if irqchip == "kernel" and not backend.hypervisor.capabilities.threads:
        pytest.skip("the backend has no kernel")
    source = (
        "in al, 0x21\n mov dx, 0x3f8\n out dx, al\n mov al, 0xe2\n out 0x43, al\n in al, 0x40\n and al, 0x3f\n out dx, al\n"
        "mov al, 0x50\n out 0x70, al\n in al, 0x71\n cmp al, 1\n je 2f\n mov al, 1\n out 0x71, al\n"
        "mov al, 0x11\n out 0x20, al\n mov al, 0x60\n out 0x21, al\n mov al, 4\n out 0x21, al\n mov al, 1\n out 0x21, al\n"
        f"mov al, 0x41\n out 0x21, al\n mov al, 0x36\n out 0x43, al\n{RESETS['0xcf9']}{tiny.HALT}2: {tiny.exit(0)}"
    )
    with make(source, on_reset="restart", irqchip=irqchip).start(backend=backend) as vm:
        assert vm.wait(PATIENCE).check().outcome is pyhv.Outcome.PASSED
        found = vm.console.data
    assert len(found) == 4 and found[:2] == found[2:]


def test_a_triple_fault_is_no_reset(make: Make, backend: Selection) -> None:
    """Also where resets start the machine again: it would hide a crash."""
    result = pyhv.run(make(TRIPLE_FAULT, 32, on_reset="restart"), backend=backend, timeout=PATIENCE)
    assert result.outcome is pyhv.Outcome.TRIPLE_FAULT
    with pytest.raises(pyhv.TripleFault, match=r"(?s)triple-fault on .*rip 0+7c.*last exits:.*Shutdown.*console"):
        result.check()


@pytest.mark.parametrize("cpus", [1, 3])
def test_timeout(make: Make, backend: Selection, cpus: int) -> None:
    result = pyhv.run(make(tiny.say("on\n") + COUNT, cpus=cpus), backend=backend, timeout=0.3)
    assert (result.outcome, result.exit_code, result.console) == (pyhv.Outcome.TIMEOUT, 124, "on\n")
    with pytest.raises(pyhv.VmTimeout, match=r"no end within 0\.3 s") as caught:
        result.check()
    assert caught.value.result is result
    assert ("vCPU 2:" in result.registers) == (cpus == 3)


def test_the_first_verdict_stands(make: Make, backend: Selection) -> None:
    with make(COUNT).start(backend=backend) as vm:
        vm.end(pyhv.Outcome.PASSED, "first", 0)
        vm.end(pyhv.Outcome.FAILED, "second", 1)
        vm.stop()
        assert (vm.wait(PATIENCE).outcome, vm.result().detail) == (pyhv.Outcome.PASSED, "first")


def test_a_panic_on_the_console(make: Make, backend: Selection) -> None:
    """What Linux prints when it panics, whatever it does after that."""
    say = tiny.say("[    1.25] Kernel panic - not syncing: no init\n")
    result = pyhv.run(make(say + RESETS["0xcf9"] + tiny.HALT), backend=backend, timeout=PATIENCE)
    assert result.outcome is pyhv.Outcome.PANIC and "no init" in result.detail
    with pytest.raises(pyhv.GuestPanic, match="no init"):
        result.check()
    result = pyhv.run(
        make(say + tiny.say("---[ end Kernel panic ]---\n") + tiny.HALT), backend=backend, timeout=PATIENCE
    )
    assert result.outcome is pyhv.Outcome.PANIC and result.console.endswith("]---\n")
    result = pyhv.run(make(say + tiny.exit(0)), backend=backend, timeout=PATIENCE)
    assert result.outcome is pyhv.Outcome.PANIC and result.guest_status is None


def test_text_about_panics_is_none(make: Make, backend: Selection) -> None:
    say = tiny.say("echo: Kernel panic - not syncing is what Linux says\n")
    assert pyhv.run(make(say + tiny.exit(0)), backend=backend, timeout=PATIENCE).outcome is pyhv.Outcome.PASSED


# Exit by exit


def test_exits_one_by_one(make: Make, backend: Selection) -> None:
    with pyhv.Vm(make(tiny.say("ab") + tiny.exit(0)), backend=backend) as vm:
        seen = [event for event in vm.exits() if not isinstance(event, x.Interrupted)]
        assert seen == [x.PioOut(0x3F8, 1, 1, b"a"), x.PioOut(0x3F8, 1, 1, b"b"), x.PioOut(0xF4, 1, 1, b"\0")]
        assert vm.result().check().console == "ab"
        assert list(vm.exits()) == []


def test_exits_over_a_reset(make: Make, backend: Selection) -> None:
    source = (
        f"mov al, 0x50\n out 0x70, al\n in al, 0x71\n inc al\n out 0x71, al\n cmp al, 3\n jae 2f\n{RESETS['0xcf9']}2:"
    )
    with pyhv.Vm(make(source + tiny.exit(0), on_reset="restart"), backend=backend) as vm:
        ports = [event.port for event in vm.exits() if isinstance(event, x.PioOut)]
        assert ports == [0x70, 0x71, 0xCF9, 0x70, 0x71, 0xCF9, 0x70, 0x71, 0xF4]
        vm.result().check()


def test_exits_answered_by_the_caller(make: Make, backend: Selection) -> None:
    """Without the machine's devices: the caller is the bus."""
    source = "mov dx, 0x1234\n in ax, dx\n not ax\n out dx, ax\n 1: mov ebx, 0xd0000000\n" + tiny.HALT
    with pyhv.Vm(make(source), backend=backend) as vm:
        for event in vm.exits(handle=False):
            if isinstance(event, x.PioIn):
                assert (event.port, event.size, event.count) == (0x1234, 2, 1)
                vm.vcpus[0].complete_read(b"\x0f\xf0")
            elif isinstance(event, x.PioOut):
                assert (event.port, event.data) == (0x1234, b"\xf0\x0f")
                break
        vm.end(pyhv.Outcome.PASSED)
        assert vm.result().exits["PioIn"] == 1


def test_a_loop_over_exits_that_is_left(make: Make, backend: Selection) -> None:
    with pyhv.Vm(make(tiny.say("abc") + tiny.SPIN), backend=backend) as vm:
        for event in vm.exits():
            if isinstance(event, x.PioOut) and event.data == b"b":
                break
        assert vm.console.text == "ab"
    assert vm.outcome is pyhv.Outcome.STOPPED


def test_exits_wants_one_vcpu(make: Make, backend: Selection) -> None:
    with (
        pyhv.Vm(make(COUNT, cpus=2), backend=backend) as vm,
        pytest.raises(pyhv.ConfigError, match="this machine has 2"),
    ):
        next(vm.exits())


# The console


def test_expect_and_send(make: Make, backend: Selection) -> None:
    """A guest that polls the UART and echoes in capitals."""
    source = (
        tiny.say("login: ")
        + "1: mov dx, 0x3fd\n in al, dx\n test al, 1\n jz 1b\n mov dx, 0x3f8\n in al, dx\n"
        + "cmp al, '!'\n je 2f\n sub al, 32\n out dx, al\n jmp 1b\n 2:"
        + tiny.exit(0)
    )
    with make(source).start(backend=backend) as vm:
        vm.console.expect("login: $", timeout=PATIENCE)
        vm.console.send("root")
        assert vm.console.expect(r"R(O+)T", timeout=PATIENCE)[1] == "OO"
        with pytest.raises(pyhv.VmTimeout, match="no match for 'R'"):
            vm.console.expect("R", timeout=0.05)
        vm.console.send(b"!")
        assert vm.wait(PATIENCE).check().console == "login: ROOT"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (tiny.say("x\n") + tiny.exit(3), pyhv.GuestFailed),
        (tiny.say("x\n") + tiny.exit(0), pyhv.GuestFailed),
        (tiny.say("x\n") + TRIPLE_FAULT, pyhv.TripleFault),
        (tiny.say("x\n") + "mov dx, 0x505\n mov al, 1\n out dx, al\n" + tiny.HALT, pyhv.GuestPanic),
        (tiny.say("Kernel panic - not syncing: x\n") + tiny.SPIN, pyhv.GuestPanic),
    ],
    ids=["status 3", "status 0", "triple fault", "pvpanic", "Linux's panic"],
)
def test_expect_fails_when_the_guest_ends(make: Make, backend: Selection, source: str, error: type[Exception]) -> None:
    """At once, without a timeout."""
    with make(source, 32).start(backend=backend) as vm, pytest.raises(error, match="never"):
        vm.console.expect("never")


def test_the_log_gets_everything(make: Make, backend: Selection, tmp_path: Path) -> None:
    machine = make(tiny.say("logged\n") + tiny.exit(0))
    with open(tmp_path / "log", "wb", buffering=0) as log, pyhv.start(machine, backend=backend, log=log) as vm:
        vm.wait(PATIENCE)
    assert (tmp_path / "log").read_bytes() == b"logged\n"


def test_a_log_that_breaks_is_the_vmms_error(make: Make, backend: Selection, tmp_path: Path) -> None:
    log = open(tmp_path / "log", "wb")  # noqa: SIM115 - closed too early on purpose
    log.close()
    with pyhv.start(make(tiny.say("x") + tiny.SPIN), backend=backend, log=log) as vm:
        result = vm.wait(PATIENCE)
    assert result.outcome is pyhv.Outcome.ERROR and result.exit_code == 125
    assert "console output cannot be written: " in result.detail and "closed file" in result.detail


# Many at once


def test_many_machines_at_once(make: Make, backend: Selection) -> None:
    machines = [make(tiny.say(f"{n}\n") + tiny.exit(n)) for n in range(8)]
    results: dict[tuple[int, int], pyhv.Result] = {}

    def work(worker: int) -> None:
        for n, machine in enumerate(machines):
            results[worker, n] = pyhv.run(machine, backend=backend, timeout=PATIENCE)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 32
    for (_, n), result in results.items():
        assert (result.guest_status, result.console) == (n, f"{n}\n"), result.report()


def test_machines_alive_together(make: Make, backend: Selection) -> None:
    machine = make(COUNT, cpus=2)
    vms = [machine.start(backend=backend) for _ in range(6)]
    try:
        for vm in vms:
            wait_until(lambda vm=vm: counter(vm) > 5)
    finally:
        for vm in vms:
            vm.close()
    assert {vm.outcome for vm in vms} == {pyhv.Outcome.STOPPED}


def test_a_timeout_that_is_none(make: Callable[..., pyhv.Machine]) -> None:
    machine = make(COUNT)
    with pytest.raises(pyhv.ConfigError, match="timeout: 'soon'"):
        pyhv.run(machine, timeout="soon", backend="sim")  # type: ignore[arg-type]
    with machine.start(backend="sim") as vm:
        with pytest.raises(pyhv.ConfigError, match="timeout: inf"):
            vm.wait(float("inf"))
        with pytest.raises(pyhv.ConfigError, match="timeout: nan"):
            vm.console.expect("x", timeout=float("nan"))
