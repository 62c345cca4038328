"""The standard streams of `pyhv`: closed, full, or gone. Never a traceback, never a verdict that was not one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Guest = Callable[[str], Path]
PATIENCE = 30.0


def pyhv(*words: object, close: tuple[int, ...] = (), **streams: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command with some of its streams closed."""

    def prepare() -> None:
        for number in close:
            os.close(number)

    return subprocess.run(
        [sys.executable, "-m", "pyhv", *map(str, words)],
        timeout=PATIENCE,
        check=False,
        preexec_fn=prepare,
        **({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams),  # type: ignore[call-overload]
    )


def sound(done: subprocess.CompletedProcess[bytes]) -> None:
    assert b"Traceback" not in (done.stderr or b"") and b"Exception" not in (done.stderr or b""), done.stderr


@pytest.fixture
def hello(guest: Guest, kvm: object) -> list[object]:
    return ["run", guest("hello"), "--backend", "kvm"]


def test_stdin_closed(hello: list[object]) -> None:
    done = pyhv(*hello, close=(0,))
    sound(done)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, b"hello: ok")


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_stdout_closed(hello: list[object], extra: list[str]) -> None:
    """Its number must not become that of a file that the run opens, and get the console."""
    done = pyhv(*hello, *extra, close=(1,))
    sound(done)
    assert done.returncode == 125
    assert b"cannot be written" in done.stderr


def test_stdout_closed_and_a_log(hello: list[object], tmp_path: Path) -> None:
    done = pyhv(*hello, "--log", tmp_path / "log", close=(1,))
    sound(done)
    assert done.returncode == 125
    assert (tmp_path / "log").read_bytes() in (b"", b"h"), "once, as a log, at most"


def test_stderr_closed(hello: list[object]) -> None:
    done = pyhv(*hello, close=(2,))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, b"hello: ok")
    assert pyhv("run", "/nowhere/k", "--backend", "kvm", close=(2,)).returncode == 125
    assert pyhv("run", close=(2,)).returncode == 125


def test_all_closed(hello: list[object]) -> None:
    assert pyhv(*hello, close=(0, 1, 2)).returncode == 125


@pytest.mark.parametrize("words", [[], ["--json"], ["--log", "/dev/full"]], ids=str)
def test_a_full_disk(hello: list[object], words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = pyhv(*hello, *words, **({} if "--log" in words else {"stdout": full}))
    sound(done)
    assert done.returncode == 125
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["--version"], ["doctor"], ["doctor", "--json"]], ids=str
)
def test_a_full_disk_elsewhere(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = pyhv(*words, stdout=full)
    sound(done)
    assert done.returncode == 125
    assert done.stderr == b"pyhv: standard output cannot be written: No space left on device\n"


def test_a_full_disk_for_the_verdict(hello: list[object]) -> None:
    with open("/dev/full", "wb") as full:
        done = pyhv(*hello, stderr=full)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, b"hello: ok")


@pytest.mark.parametrize("words", [["--help"], ["doctor"]], ids=str)
def test_a_reader_that_is_gone(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = pyhv(*words, stdout=write)
    os.close(write)
    sound(done)
    assert (done.returncode, done.stderr) == (0, b"")


def test_names_that_are_not_utf_8(guest: Guest, kvm: object, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/k\xff.elf")
    done = pyhv("run", odd, "--backend", "kvm")
    sound(done)
    assert done.returncode == 125 and done.stderr.count(b"\n") == 1 and b"No such file" in done.stderr
    Path(odd).write_bytes(guest("bench").read_bytes())
    done = pyhv("run", odd, "--backend", "kvm", "--json", "--cmdline", os.fsdecode(b"scale=0 \xff"))
    sound(done)
    assert json.loads(done.stdout)["ok"], done.stderr
