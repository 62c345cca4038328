"""Results: what counts as a pass, the typed error behind every other end, and plain values for JSON."""

import json

import pytest

import pyhv
from pyhv.record import field_names, replace
from pyhv.result import Outcome, Result

EXIT_CODES = {
    Outcome.PASSED: 0,
    Outcome.POWER_OFF: 0,
    Outcome.RESET: 0,
    Outcome.FAILED: 1,
    Outcome.PANIC: 3,
    Outcome.TRIPLE_FAULT: 3,
    Outcome.TIMEOUT: 124,
    Outcome.STOPPED: 125,
    Outcome.ERROR: 125,
}
ERRORS = {
    Outcome.FAILED: pyhv.GuestFailed,
    Outcome.PANIC: pyhv.GuestPanic,
    Outcome.TRIPLE_FAULT: pyhv.TripleFault,
    Outcome.TIMEOUT: pyhv.VmTimeout,
    Outcome.STOPPED: pyhv.GuestFailed,
    Outcome.ERROR: pyhv.VmmError,
}


def result(outcome: Outcome) -> Result:
    return Result(
        outcome=outcome,
        backend="kvm",
        backend_reason="asked for",
        detail="what ended it",
        guest_status=7 if outcome is Outcome.FAILED else None,
        console="".join(f"line {n}\n" for n in range(40)),
        exits={"PioOut": 3, "Shutdown": 1},
        wall_seconds=0.25,
        registers="rip 0000000000007c00",
        last_exits=("PioOut(port=1016)", "Shutdown()"),
    )


@pytest.mark.parametrize("outcome", list(Outcome), ids=str)
def test_exit_codes(outcome: Outcome) -> None:
    assert result(outcome).exit_code == EXIT_CODES[outcome]
    assert result(outcome).ok == (EXIT_CODES[outcome] == 0)


@pytest.mark.parametrize("outcome", list(Outcome), ids=str)
def test_check(outcome: Outcome) -> None:
    made = result(outcome)
    if made.ok:
        assert made.check() is made
        return
    with pytest.raises(pyhv.PyhvError) as caught:
        made.check()
    assert type(caught.value) is ERRORS[outcome]
    assert caught.value.result is made  # type: ignore[attr-defined]
    text = str(caught.value)
    for part in ("what ended it", "rip 0000000000007c00", "Shutdown()", "line 39", "line 28"):
        assert part in text
    assert "line 27\n" not in text


def test_the_summary_is_one_line() -> None:
    assert result(Outcome.FAILED).summary() == "failed (status 7) on kvm, 4 exits, 250.0 ms: what ended it"
    assert result(Outcome.POWER_OFF).summary() == "power-off on kvm, 4 exits, 250.0 ms"
    assert (
        replace(result(Outcome.PASSED), instructions=12).summary()
        == "passed on kvm, 4 exits, 250.0 ms, 12 instructions"
    )


def test_a_report_without_anything() -> None:
    assert Result(Outcome.ERROR, "sim", "why").report() == "error on sim, 0 exits, 0.0 ms\nconsole (tail):\n  (nothing)"


@pytest.mark.parametrize("outcome", list(Outcome), ids=str)
def test_plain_values(outcome: Outcome) -> None:
    made = result(outcome)
    plain = json.loads(json.dumps(made.to_dict()))
    assert set(plain) == {*field_names(made), "ok", "exit_code"}
    assert plain["outcome"] == outcome.value
    assert plain["last_exits"] == list(made.last_exits)
    assert plain["console"] == made.console


def test_tail() -> None:
    made = result(Outcome.FAILED)
    assert made.tail(2) == "line 38\nline 39"
    assert len(made.tail().splitlines()) == 12


def test_it_is_a_value() -> None:
    assert result(Outcome.PANIC) == result(Outcome.PANIC) != result(Outcome.ERROR)
    with pytest.raises(AttributeError):
        result(Outcome.PANIC).console = ""
