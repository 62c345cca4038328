"""`pyhv trace`: where the trace goes, what it shows, what is refused."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyhv.cli import main
from pyhv.errors import HostError
from pyhv.hv.select import select

Guest = Callable[[str], Path]
Trace = Callable[..., tuple[int, str, str]]
LINE = re.compile(r" *\d+ cpu\d [0-3]/(real|v86|16|32|compat|64) .*")


@pytest.fixture
def trace(capfd: pytest.CaptureFixture[str]) -> Trace:
    """Call `pyhv trace ... --backend sim` in this process: its status, stdout and stderr."""
    try:
        select("sim")
    except HostError as error:
        pytest.skip(f"no simulator here: {error}")

    def call(*words: object) -> tuple[int, str, str]:
        arguments = [str(word) for word in words]
        if "--backend" not in arguments:
            arguments += ["--backend", "sim"]
        status = main(["trace", *arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return call


def test_the_trace_is_stdout_and_the_console_stderr(trace: Trace, guest: Guest) -> None:
    status, out, err = trace(guest("hello"), "--what", "all")
    *lines, summary = out.splitlines()
    assert status == 0 and all(LINE.fullmatch(line) for line in lines)
    assert summary == f"# {len(lines)} events"
    assert "hello: ok" in err and "pyhv: passed" in err
    assert lines[0].split()[3:6] == ["00100010", "_start", "instruction"]


def test_exits_unless_told_otherwise(trace: Trace, guest: Guest) -> None:
    _, out, _ = trace(guest("hello"), "-q")
    assert {line.split()[5] for line in out.splitlines()[:-1]} == {"exit"}


def test_into_a_file(trace: Trace, guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    status, out, err = trace(guest("fail"), "--output", path, "--what", "exits,branches", "--limit", 7)
    assert status == 1 and "pyhv: failed (status 7)" in err
    assert "fail" in out and not any(LINE.fullmatch(line) for line in out.splitlines())
    lines = path.read_text().splitlines()
    assert len(lines) == 8 and re.fullmatch(r"# 7 events, \d+ more dropped", lines[-1])
    status, out, err = trace(guest("hello"), "-o", path, "--json")
    assert status == 0 and out.startswith('{"outcome": "passed"') and "hello: ok" in err


def test_at_a_symbol_and_in_a_range(trace: Trace, guest: Guest) -> None:
    _, out, _ = trace(guest("hello"), "--what", "instructions", "--address", "main")
    lines = out.splitlines()[:-1]
    assert lines and all(line.split()[4].startswith("main") for line in lines)
    first = int(lines[0].split()[3], 16)
    for where in (f"{first:#x}-{first:#x}", f"{first}"):
        _, out, _ = trace(guest("hello"), "--what", "instructions", "--address", where)
        assert out.splitlines()[:-1] == lines[:1]


def test_symbols_of_another_file(trace: Trace, guest: Guest) -> None:
    _, out, _ = trace(guest("hello16"), "--what", "instructions", "--limit", 3, "--symbols", guest("hello"))
    assert out.splitlines()[0].split()[3] == "0000:7c00"
    _, out, _ = trace(guest("hello"), "--limit", 3, "--symbols", guest("hello16"))
    assert "serial" not in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--what", "syscalls"], "--what: 'syscalls' is not all, or some of exits,"),
        (["--what", ""], "--what: ''"),
        (["--address", "nosuchsymbol"], "--address: 'nosuchsymbol' is not a symbol, an address, or a range"),
        (["--address", "2-1"], "--address: '2-1'"),
        (["--address", "0x10000000000000000"], "--address: '0x10000000000000000'"),
        (["--limit", "-1"], "--limit: -1"),
        (["--limit", "many"], "--limit: 'many' is not an integer"),
        (["--json"], "--json: standard output is the trace's"),
        (["--output", "/nowhere/trace"], "--output: '/nowhere/trace' cannot be written: No such file"),
        (["--symbols", "/nowhere/vmlinux"], "/nowhere/vmlinux"),
        (["--memory", "banana"], "--memory: 'banana'"),
    ],
)
def test_what_makes_no_sense(options: list[str], says: str, trace: Trace, guest: Guest) -> None:
    status, out, err = trace(guest("hello"), *options)
    assert (status, out) == (125, "")
    assert err.startswith(f"pyhv: {says}") or says in err
    assert err.count("\n") == 1


def test_what_kvm_cannot_show_is_one_line(trace: Trace, guest: Guest, kvm: object) -> None:
    status, out, err = trace(guest("hello"), "--backend", "kvm", "--what", "exits,branches")
    assert status == 125 and err.startswith("pyhv: --what: branches: on kvm only exits can be traced")
    status, out, _ = trace(guest("hello"), "--backend", "kvm")
    assert status == 0 and "exit PioOut(port=1016" in out


def test_a_reader_that_goes_away_ends_the_run(guest: Guest, trace: Trace) -> None:
    command = [sys.executable, "-m", "pyhv", "trace", str(guest("spin")), "--backend", "sim", "--what", "instructions"]
    command += ["--limit", "100000000", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 100)
        process.stdout.close()
        process.wait(60)
        assert process.stderr is not None and b"Traceback" not in process.stderr.read()
