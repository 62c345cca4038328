"""Nothing stays behind: descriptors, threads and mappings are as before, however a machine ended."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

import pyhv
from pyhv.hv.select import Selection

RUNS = 50
FEWER = 20
PATIENCE = 30.0


class Footprint:
    """What this process holds. Mappings by what is mapped: anonymous memory grows and shrinks with the allocator."""

    def __init__(self) -> None:
        gc.collect()
        self.fds = sorted(_target(fd) for fd in os.listdir("/proc/self/fd"))
        self.threads = sorted(t.name for t in threading.enumerate())
        self.tasks = len(os.listdir("/proc/self/task"))
        with open("/proc/self/maps") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
        named = [fields[5].strip() for fields in lines if len(fields) == 6 and not fields[5].startswith("[")]
        self.mappings = sorted(name for name in named if not name.removesuffix(" (deleted)").endswith((".so", ".pyc")))
        self.mapped = sum(1 for fields in lines if len(fields) < 6)

    def __eq__(self, other: object) -> bool:
        """Equal but for a few anonymous mappings (fewer than one for each two runs)."""
        return (
            isinstance(other, Footprint)
            and (self.fds, self.threads, self.mappings) == (other.fds, other.threads, other.mappings)
            and abs(self.mapped - other.mapped) < FEWER // 2
        )

    def __repr__(self) -> str:
        return f"{self.fds} {self.threads} {self.mappings} {self.mapped} anonymous"


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").split(":[")[0]
    except OSError:
        return ""


class Raises(pyhv.PioDevice):
    port = 0x800

    def write(self, offset: int, size: int, value: int) -> None:
        raise RuntimeError("from a device")


class RaisesWhenAttached(pyhv.Device):
    def attach(self, platform: pyhv.Platform) -> None:
        platform.line(3).set(True)
        raise RuntimeError("from attach")


@pytest.fixture
def reaped() -> Callable[..., None]:
    """Do something once, so that all is imported, then many times; nothing may have grown."""

    def check(action: Callable[[], object], runs: int = FEWER) -> None:
        action()
        before = Footprint()
        for _ in range(runs):
            action()
        deadline = time.monotonic() + PATIENCE
        while (after := Footprint()) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert after == before

    return check


Reaped = Callable[..., None]


@pytest.mark.parametrize("cpus", [1, 2])
def test_runs(reaped: Reaped, tmp_path: Path, backend: Selection, cpus: int) -> None:
    source = "mov al, 0x34\n out 0x43, al\n mov al, 9\n out 0x40, al\n out 0x40, al\n" + tiny.exit(0)
    machine = pyhv.Machine(tiny.image(tmp_path, source), format="flat", memory="4M", cpus=cpus)
    reaped(lambda: pyhv.run(machine, backend=backend, timeout=PATIENCE).check(), RUNS)


def test_timeouts_and_stops(reaped: Reaped, tmp_path: Path, backend: Selection) -> None:
    machine = pyhv.Machine(tiny.image(tmp_path, tiny.SPIN), format="flat", memory="4M", cpus=2)

    def action() -> None:
        assert pyhv.run(machine, backend=backend, timeout=0.002).outcome is pyhv.Outcome.TIMEOUT
        with machine.start(backend=backend) as vm:
            vm.pause()
            vm.reset()

    reaped(action)


@pytest.mark.parametrize("cpus", [1, 2])
def test_resets_without_end(reaped: Reaped, tmp_path: Path, backend: Selection, cpus: int) -> None:
    image = tiny.image(tmp_path, "mov dx, 0xcf9\n mov al, 6\n out dx, al\n" + tiny.SPIN)
    machine = pyhv.Machine(image, format="flat", memory="4M", cpus=cpus, on_reset="restart")
    reaped(lambda: pyhv.run(machine, backend=backend, timeout=0.03))


def test_exceptions_in_the_block(reaped: Reaped, tmp_path: Path, backend: Selection) -> None:
    machine = pyhv.Machine(tiny.image(tmp_path, tiny.SPIN), format="flat", memory="4M")

    def action() -> None:
        with pytest.raises(ZeroDivisionError), machine.start(backend=backend) as vm:
            vm.outcome.value / 0 if vm.outcome else 1 / 0

    reaped(action)


def test_devices_that_raise(reaped: Reaped, tmp_path: Path, backend: Selection) -> None:
    image = tiny.image(tmp_path, "mov dx, 0x800\n out dx, al\n" + tiny.SPIN)

    def action() -> None:
        machine = pyhv.Machine(image, format="flat", memory="4M", devices=[Raises()])
        assert pyhv.run(machine, backend=backend, timeout=PATIENCE).outcome is pyhv.Outcome.ERROR
        with pytest.raises(RuntimeError, match="from attach"):
            pyhv.run(machine.replace(devices=[RaisesWhenAttached()]), backend=backend)

    reaped(action)


def test_machines_that_cannot_be_built(reaped: Reaped, tmp_path: Path, backend: Selection) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    bad = [
        pyhv.Machine(tmp_path / "missing"),
        pyhv.Machine(empty),
        pyhv.Machine(tiny.image(tmp_path, tiny.SPIN), format="flat", load_address=0x7FFF_0000),
        pyhv.Machine(tiny.image(tmp_path, tiny.SPIN), format="flat", features=["+nosuchthing"]),
    ]

    def action() -> None:
        for machine in bad:
            with pytest.raises(pyhv.ConfigError):
                pyhv.run(machine, backend=backend)

    reaped(action)


def test_machines_never_started_and_loops_left(reaped: Reaped, tmp_path: Path, backend: Selection) -> None:
    machine = pyhv.Machine(tiny.image(tmp_path, tiny.say("ab") + tiny.SPIN), format="flat", memory="4M")

    def action() -> None:
        with pyhv.Vm(machine, backend=backend):
            pass
        with pyhv.Vm(machine, backend=backend) as vm:
            next(vm.exits())

    reaped(action)


INTERRUPTED = """
import os, signal, sys, threading, time
import pyhv

machine = pyhv.Machine(sys.argv[1], format="flat", memory="4M", cpus=int(sys.argv[3]))
how, backend = sys.argv[2], sys.argv[4]

def press():
    sys.stdout.write("ready\\n")
    sys.stdout.flush()

fds = len(os.listdir("/proc/self/fd"))
try:
    if how == "run":
        press()
        pyhv.run(machine, backend=backend)
    elif how == "wait":
        with machine.start(backend=backend) as vm:
            press()
            vm.wait()
    elif how == "expect":
        with machine.start(backend=backend) as vm:
            press()
            vm.console.expect("never")
    elif how == "exits":
        with pyhv.Vm(machine, backend=backend) as vm:
            press()
            for _ in vm.exits():
                pass
except KeyboardInterrupt:
    from pyhv.hv import select
    select._chosen[backend].hypervisor.close()
    left = len(os.listdir("/proc/self/fd")) - fds
    print(f"interrupted, {threading.active_count()} thread, {left} descriptors more")
"""


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("how", ["run", "wait", "expect", "exits"])
def test_ctrl_c(tmp_path: Path, backend: Selection, how: str, cpus: int) -> None:
    """KeyboardInterrupt comes out of whatever blocks, after the machine was reaped."""
    if how == "exits" and cpus > 1:
        cpus = 1
    image = tiny.image(tmp_path, tiny.SPIN)
    words = [sys.executable, "-c", INTERRUPTED, str(image), how, str(cpus), backend.name]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
        assert process.stdout.read() == "interrupted, 1 thread, 0 descriptors more\n"
    assert process.returncode == 0
