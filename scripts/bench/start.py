"""Rows about starting: the whole process against QEMU's, importing the package, and peak memory."""

import functools
import shutil
import subprocess
from collections.abc import Iterator

from bench.measure import PYHV, PYTHON, NotMeasured, Row, guest, interleaved, milliseconds, output_number, wall

PLAIN_CPU = "host"
NESTED_CPU = "host,-arch-capabilities,-cx16,-xsave"
"""Some nested hosts show QEMU 7.2 features that they then refuse."""


def qemu_command(kernel: str, accel: str, cpu: str, memory: str = "256") -> list[str]:
    """QEMU's fastest machine, with what the guest needs and nothing else; it exits with 1 for guest status 0."""
    return [
        *("qemu-system-x86_64", "-M", "microvm", "-accel", accel, "-cpu", cpu, "-m", memory, "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
    ]


def working_qemu(kernel: str, accel: str) -> list[str]:
    """QEMU's command line for this host. Raises NotMeasured when there is none that works."""
    if shutil.which("qemu-system-x86_64") is None:
        raise NotMeasured("there is no qemu-system-x86_64 (make deps)")
    for cpu in (PLAIN_CPU, NESTED_CPU) if accel == "kvm" else ("max", "qemu64"):
        command = qemu_command(kernel, accel, cpu)
        try:
            wall(command, (1,))
            return command
        except NotMeasured as error:
            failure = error
    raise failure


def whole_process(rounds: int) -> Iterator[Row]:
    """`pyhv run` from exec to exit, against QEMU's microvm on the same accelerator."""
    kernel = str(guest("hello.elf"))
    for backend, accel, at_most in (("kvm", "kvm", 0.6), ("sim", "tcg", None)):
        name = f"whole process, hello, {backend} / QEMU microvm {accel}"
        try:
            qemu = working_qemu(kernel, accel)
            pyhv = [PYHV, "run", kernel, "--backend", backend]
            wall(pyhv)
            ours, theirs = interleaved(
                [functools.partial(wall, pyhv), functools.partial(wall, qemu, (1,))], rounds
            )
        except NotMeasured as error:
            yield Row(name, "", "", None, at_most=at_most, note=str(error))
            continue
        yield Row(name, milliseconds(ours), milliseconds(theirs), ours / theirs, at_most=at_most)


IMPORT = "import time; t = time.perf_counter(); import pyhv; {more}; print(time.perf_counter() - t)"


def imports(rounds: int) -> Iterator[Row]:
    """`import pyhv`, and every public name with all that stands behind it."""
    lazy = [PYTHON, "-c", IMPORT.format(more="pass")]
    everything = [PYTHON, "-c", IMPORT.format(more="[getattr(pyhv, name) for name in pyhv.__all__]")]
    first, second = interleaved(
        [functools.partial(output_number, lazy), functools.partial(output_number, everything)], rounds
    )
    yield Row("import pyhv", milliseconds(first), "", first * 1e3, at_most=50, unit="ms")
    yield Row("import pyhv and all its names", milliseconds(second), "", second * 1e3, at_most=50, unit="ms")


MEMORY = """
import os, sys, pyhv
peak = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM:"))
with pyhv.Vm(pyhv.Machine(sys.argv[1], memory="64M"), backend="kvm") as vm:
    vm.run().check()
    touched = 0
    inside = False
    ranges = [(r.host_address, r.host_address + r.size) for r in vm.memory.regions]
    for line in open("/proc/self/smaps"):
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            low, high = (int(part, 16) for part in head.split("-"))
            inside = any(low < end and start < high for start, end in ranges)
        elif inside and head == "Rss:":
            touched += int(line.split()[1])
    print((peak() - touched) / 1024)
"""


def memory(rounds: int) -> Iterator[Row]:
    """The most memory that a process with one tiny 64 MiB guest ever has, less the guest's pages that were touched."""
    name = "peak memory beyond the guest's, 64 MiB guest"
    try:
        command = [PYTHON, "-c", MEMORY, guest("hello.elf")]
        (beyond,) = interleaved([functools.partial(output_number, command)], min(rounds, 5))
    except (NotMeasured, subprocess.SubprocessError) as error:
        yield Row(name, "", "", None, at_most=40, unit="MiB", note=str(error))
        return
    yield Row(name, f"{beyond:.1f} MiB", "", beyond, at_most=40, unit="MiB")
