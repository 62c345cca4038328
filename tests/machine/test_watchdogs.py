"""Watchdogs in whole machines: a guest that hangs is ended or reset by its own choice of a watchdog."""

import pytest
import tiny

import pyhv
from pyhv.chipset.wdat import CONTROL, COUNTDOWN, CURRENT, STATUS, WATCHDOG_PORT
from pyhv.peripherals.watchdog import Watchdog

PATIENCE = 60.0


def out(register: int, value: int) -> str:
    return f"mov dx, {WATCHDOG_PORT + register}\n mov eax, {value}\n out dx, eax\n"


ARM = out(COUNTDOWN, 1) + out(CONTROL, 1)
HANG = "jmp .\n"


@pytest.fixture
def run(tmp_path, backend):
    def run(source: str, action: str, **fields) -> pyhv.Result:
        image = tiny.image(tmp_path, source, 32)
        machine = pyhv.Machine(image, format="flat", memory="4M", devices=[Watchdog(action=action)], **fields)
        return pyhv.run(machine, backend=backend, timeout=PATIENCE)

    return run


@pytest.mark.parametrize("hang", [HANG, "9: hlt\n jmp 9b\n"], ids=["busy", "halted"])
def test_a_guest_that_hangs_fails(run, hang):
    result = run(ARM + hang, "panic")
    assert result.outcome is pyhv.Outcome.PANIC
    assert result.detail == "watchdog: wdat: the guest gave no sign of life in time"
    assert not result.outcome.ok


@pytest.mark.parametrize(("action", "outcome"), [("reset", "RESET"), ("poweroff", "POWER_OFF")])
def test_other_actions_end_the_machine_as_the_guest_would(run, action, outcome):
    result = run(ARM + HANG, action)
    assert (result.outcome.name, result.detail) == (outcome, "watchdog")


def test_after_a_reset_the_guest_knows_why(run):
    status = f"mov dx, {WATCHDOG_PORT + STATUS}\n in eax, dx\n test eax, eax\n"
    second = f"1: {out(STATUS, 1)} {status} jnz 2f\n {tiny.exit(0)} 2: {tiny.exit(1)}"
    result = run(f"{status} jnz 1f\n {ARM} {HANG} {second}", "reset", on_reset="restart")
    assert result.outcome is pyhv.Outcome.PASSED


def test_signs_of_life_keep_it_away(run):
    """The guest reloads it three times, each time that some of its 20 seconds have gone, and ends by itself."""
    pause = "2: mov ebp, 100000\n 4: dec ebp\n jnz 4b\n"
    wait = f"{pause} mov dx, {WATCHDOG_PORT + CURRENT}\n in eax, dx\n cmp eax, 198\n ja 2b\n out dx, eax\n"
    source = out(COUNTDOWN, 200) + out(CONTROL, 1) + f"mov ecx, 3\n 3: {wait} dec ecx\n jnz 3b\n" + tiny.exit(0)
    assert run(source, "panic").outcome is pyhv.Outcome.PASSED
