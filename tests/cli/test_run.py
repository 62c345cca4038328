"""`pyhv run`: exit status, what is on stdout, what is on stderr."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny

from pyhv.cli import main

Guest = Callable[[str], Path]


@dataclass
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout as the one JSON object that it must be."""
        assert self.out.count("\n") == 1, self.out
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


Pyhv = Callable[..., Ran]


@pytest.fixture
def pyhv_run(capfd: pytest.CaptureFixture[str], kvm: object) -> Pyhv:
    """Call `pyhv run ...` in this process, on KVM unless the arguments say otherwise."""

    def call(*words: object) -> Ran:
        arguments = [str(word) for word in words]
        if "--backend" not in arguments:
            arguments += ["--backend", "kvm"]
        status = main(["run", *arguments])
        out, err = capfd.readouterr()
        return Ran(status, out, err)

    return call


def refused(ran: Ran, *words: str) -> None:
    """A user's mistake: status 125, nothing on stdout, one line on stderr that says these words."""
    assert ran.status == 125, ran
    assert ran.out == ""
    assert ran.err.startswith("pyhv: ") and ran.err.endswith("\n") and ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err, ran.err


@pytest.mark.parametrize(
    ("name", "status", "outcome", "says"),
    [
        ("hello", 0, "passed (status 0)", "hello from a pyhv guest (multiboot, 32-bit)\nhello: ok\n"),
        ("hello16", 0, "passed (status 0)", "hello from a pyhv guest (flat, 16-bit real mode)\nhello16: ok\n"),
        ("hello64", 0, "passed (status 0)", "hello from a pyhv guest (PVH, 64-bit long mode)\nhello64: ok\n"),
        ("fail", 1, "failed (status 7)", "fail: this guest ends with status 7\n"),
        ("triple", 3, "triple-fault", "triple: about to triple fault\n"),
        ("panic", 3, "panic", "panic: telling the host\n"),
    ],
)
def test_verdicts(pyhv_run: Pyhv, guest: Guest, name: str, status: int, outcome: str, says: str) -> None:
    ran = pyhv_run(guest(name))
    assert (ran.status, ran.out) == (status, says), ran
    assert ran.err.startswith(f"pyhv: {outcome} on kvm, ")
    if status in (0, 1):
        assert ran.err.count("\n") == 1
    else:
        assert "rip 0000" in ran.err and "  exit: PioOut(" in ran.err


def test_timeout(pyhv_run: Pyhv, guest: Guest) -> None:
    ran = pyhv_run(guest("spin"), "--timeout", "0.5")
    assert (ran.status, ran.out) == (124, "spinning\n"), ran
    assert "timeout on kvm" in ran.err and "no end within 0.5 s" in ran.err


def test_quiet(pyhv_run: Pyhv, guest: Guest) -> None:
    ran = pyhv_run(guest("hello"), "--quiet")
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [("hello", 0, 0), ("fail", 1, 7), ("triple", 3, None), ("panic", 3, None)],
)
def test_json_is_all_of_stdout(pyhv_run: Pyhv, guest: Guest, name: str, code: int, status: int | None) -> None:
    ran = pyhv_run(guest(name), "--json")
    document = ran.json
    assert ran.status == code == document["exit_code"]
    assert document["guest_status"] == status
    assert document["ok"] == (code == 0)
    assert document["backend"] == "kvm" and document["backend_reason"] == "asked for"
    assert document["exits"]["PioOut"] >= len(document["console"]) > 10
    assert document["deterministic"] is False and document["instructions"] is None
    assert document["wall_seconds"] > 0 and document["guest_seconds"] > 0
    assert document["avic"] in (True, False, None) and document["avic_reason"]
    assert ran.err.startswith(document["console"])
    assert bool(document["registers"]) == bool(document["last_exits"]) == (code == 3)


def test_json_quiet_leaves_the_console_on_stderr(pyhv_run: Pyhv, guest: Guest) -> None:
    ran = pyhv_run(guest("hello"), "--json", "-q")
    assert ran.err == ran.json["console"]


@pytest.mark.parametrize("value", [0, 1, 7, 0x55, 255])
def test_any_status_but_0_is_a_failure(pyhv_run: Pyhv, tmp_path: Path, value: int) -> None:
    ran = pyhv_run(tiny.image(tmp_path, tiny.exit(value)), "--json", "--format", "flat")
    assert ran.status == (1 if value else 0)
    assert ran.json["guest_status"] == value


def test_bytes_that_are_not_text_go_through(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, kvm: object
) -> None:
    source = (
        "mov dx, 0x3f8\n" + "".join(f"mov al, {b}\n out dx, al\n" for b in (0xFF, 0xC3, 0x28, 0, 10)) + tiny.exit(0)
    )
    assert main(["run", str(tiny.image(tmp_path, source)), "--format=flat", "--backend=kvm", "-q"]) == 0
    assert capfdbinary.readouterr().out == b"\xff\xc3\x28\x00\n"


def test_log_is_a_copy_of_the_console(pyhv_run: Pyhv, guest: Guest, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("older and longer than what the guest prints: it must be gone" * 9)
    ran = pyhv_run(guest("hello"), "--log", log)
    assert log.read_text() == ran.out


@pytest.mark.parametrize("where", ["none/console.log", "."])
def test_a_log_that_cannot_be_written(pyhv_run: Pyhv, guest: Guest, tmp_path: Path, where: str) -> None:
    refused(pyhv_run(guest("hello"), "--log", tmp_path / where), "--log: ", "cannot be written")


def test_the_kernels_command_line_and_modules(pyhv_run: Pyhv, guest: Guest) -> None:
    ran = pyhv_run(guest("bench"), "--cmdline", "scale=0")
    assert ran.status == 0 and ran.out.startswith("bench: 0 rounds\n"), ran


# Mistakes


def test_files_that_are_no_kernels(pyhv_run: Pyhv, tmp_path: Path) -> None:
    text, empty = tmp_path / "text", tmp_path / "empty"
    text.write_text("not a kernel\n" * 100)
    empty.touch()
    refused(pyhv_run(tmp_path / "missing"), str(tmp_path / "missing"), "No such file")
    refused(pyhv_run(text), str(text))
    refused(pyhv_run(empty), str(empty))
    refused(pyhv_run(tmp_path), str(tmp_path))
    refused(pyhv_run("/dev/null"), "/dev/null")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--memory", "banana"], ["--memory", "'banana'", "256M"]),
        (["--memory", "4K"], ["--memory", "'4K'", "1M"]),
        (["-m", ""], ["memory", "''"]),
        (["--memory=0x100"], ["--memory", "'0x100'"]),
        (["--cpus", "0"], ["--cpus", "0", "1 to 255"]),
        (["--cpus", "10000"], ["--cpus", "10000", "1 to 255"]),
        (["--cpus", "two"], ["--cpus", "'two'", "integer"]),
        (["--timeout", "never"], ["--timeout", "'never'", "seconds"]),
        (["--timeout", "0"], ["--timeout", "'0'"]),
        (["--timeout", "nan"], ["--timeout", "'nan'"]),
        (["--backend", "xen"], ["--backend", "'xen'", "auto, kvm, sim"]),
        (["--require", "sev"], ["--require", "'sev'", "kvm, amd-v"]),
        (["--format", "exe"], ["--format", "'exe'", "multiboot"]),
        (["--hugepages", "4M"], ["--hugepages", "'4M'", "2M"]),
        (["--irqchip", "none"], ["--irqchip", "'none'", "split"]),
        (["--debug-exit", "0x10000"], ["--debug-exit", "65536"]),
        (["--debug-exit", "f4"], ["--debug-exit", "'f4'"]),
        (["--debug-exit", "0x3f8"], ["--debug-exit: 0x3f8 takes 4 ports, but 0x3f8 belongs to the serial"]),
        (["--debug-exit", "0x60"], ["--debug-exit: 0x60 takes 4 ports, but 0x61 belongs to the "]),
        (["--on-reset", "sleep"], ["--on-reset", "'sleep'"]),
        (["--feature", "avx"], ["--feature", "'avx'"]),
        (["--feature", "+nosuchfeature"], ["--feature", "nosuchfeature"]),
        (["--cpu", "z80"], ["--cpu", "z80"]),
        (["--initrd", "/nowhere/rd"], ["/nowhere/rd", "No such file"]),
        (["--module", "/nowhere/mod args"], ["/nowhere/mod", "No such file"]),
        (["--load-address", "-1"], ["--load-address", "-1"]),
        (["--bananas"], ["'--bananas'", "pyhv run --help"]),
        (["-z"], ["'-z'"]),
        (["--json=yes"], ["--json", "no value"]),
        (["--memory"], ["--memory", "SIZE"]),
        (["second"], ["'second'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_make_no_sense(pyhv_run: Pyhv, guest: Guest, options: list[str], says: list[str]) -> None:
    front = [] if "--backend" in options else ["--backend", "kvm"]
    refused(pyhv_run(*front, guest("hello"), *options), *says)


def test_too_large_for_memory(pyhv_run: Pyhv, guest: Guest, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    with open(initrd, "wb") as file:
        file.truncate(64 << 20)
    refused(pyhv_run(guest("hello"), "--initrd", initrd, "-m", "32M"), str(initrd))
    refused(pyhv_run(guest("hello64"), "--initrd", initrd, "-m", "32M"), str(initrd))
    big = tmp_path / "big"
    with open(big, "wb") as file:
        file.write(guest("hello16").read_bytes())
        file.truncate(8 << 20)
    refused(pyhv_run(big, "--format", "flat", "-m", "4M"), str(big))
    refused(pyhv_run(guest("hello"), "-m", "1M"), str(guest("hello")))


def test_what_the_host_lacks(pyhv_run: Pyhv, guest: Guest) -> None:
    from pyhv.hv import kvm

    ran = pyhv_run(guest("hello"), "--require", "amd-v")
    if kvm.probe().hardware == "SVM":
        assert ran.status == 0
    else:
        refused(ran, "amd-v", kvm.probe().module)


def test_without_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        ([], "a command is missing"),
        (["fly"], "'fly' is not a command"),
        (["run"], "KERNEL is missing"),
    ):
        status = main(arguments)
        out, err = capfd.readouterr()
        refused(Ran(status, out, err), says)


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    from pyhv import __version__
    from pyhv.cli.arguments import RUN

    assert main(["--help"]) == 0
    assert "run" in capfd.readouterr().out
    assert main(["run", "--help"]) == 0
    out = capfd.readouterr().out
    for option in RUN.options:
        assert option.name in out
    assert main(["--version"]) == 0
    assert capfd.readouterr() == (f"pyhv {__version__}\n", "")


def test_nothing_stays_open(pyhv_run: Pyhv, guest: Guest) -> None:
    pyhv_run(guest("hello"))
    before = sorted(os.listdir("/proc/self/fd"))
    pyhv_run(guest("hello"))
    pyhv_run(guest("hello"), "--initrd", "/nowhere")
    pyhv_run(guest("spin"), "--timeout", "0.1")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_bug_of_ours_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], guest: Guest
) -> None:
    def broken(options: object) -> int:
        raise IndexError("nobody expected this")

    monkeypatch.setattr("pyhv.cli.run.command", broken)
    assert main(["run", str(guest("hello"))]) == 125
    said = capfd.readouterr().err
    assert "Traceback" in said and said.endswith("a bug in pyhv: IndexError: nobody expected this\n")
