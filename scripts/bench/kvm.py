"""Rows about VMs inside one process, on KVM: whole lives, and single exits."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path

import pyhv
from bench import images
from bench.measure import BUILD, NotMeasured, Row, compiled, interleaved, microseconds, output_number, rate

LIVES = 100
EXITS = 50_000


class Port(pyhv.PioDevice):
    """A device in Python that does next to nothing."""

    port = images.PORT
    length = 1
    last = 0

    def read(self, offset: int, size: int) -> int:
        return self.last

    def write(self, offset: int, size: int, value: int) -> None:
        self.last = value


class Page(pyhv.MmioDevice):
    """The same at an address."""

    address = images.MMIO
    length = 0x1000
    last = 0

    def read(self, offset: int, size: int) -> int:
        return self.last

    def write(self, offset: int, size: int, value: int) -> None:
        self.last = value


def lives_a_second(image: Path, backend: str, count: int) -> float:
    """Create, run and destroy `count` VMs, each with all the devices of a machine."""
    machine = pyhv.Machine(image, memory="2M")
    began = time.perf_counter()
    for _ in range(count):
        pyhv.run(machine, backend=backend).check()
    return count / (time.perf_counter() - began)


def lives(rounds: int) -> Iterator[Row]:
    """VMs a second against the bare system calls."""
    name = "tiny VMs in one process, kvm / bare ioctl loop in C"
    image, code = images.write(BUILD, "end", images.end_code())
    try:
        peer = [compiled("vms"), code, str(LIVES)]
        output_number(peer)
        lives_a_second(image, "kvm", 10)
        ours, theirs = interleaved(
            [functools.partial(lives_a_second, image, "kvm", LIVES), functools.partial(output_number, peer)], rounds
        )
    except (NotMeasured, pyhv.HostError) as error:
        yield Row(name, "", "", None, at_least=0.6, note=str(error))
        return
    yield Row(name, rate(ours), rate(theirs), ours / theirs, at_least=0.6)


def _seconds_an_exit(image: Path) -> float:
    machine = pyhv.Machine(image, memory="2M", devices=[Port(), Page()])
    with pyhv.Vm(machine, backend="kvm") as vm:
        began = time.perf_counter()
        result = vm.run().check()
        took = time.perf_counter() - began
    return took / sum(result.exits.values())


def exits(rounds: int) -> Iterator[Row]:
    """One exit to a device in Python, against a loop in C that does nothing for it."""
    for access in images.ACCESSES:
        name = f"{access} to a Python device / loop in C that does nothing"
        image, code = images.write(BUILD, access.replace(" ", "-").lower(), images.loop_code(access, EXITS))
        try:
            peer = [compiled("exits"), code]
            ours, theirs = interleaved(
                [functools.partial(_seconds_an_exit, image), functools.partial(output_number, peer)], rounds
            )
        except (NotMeasured, pyhv.HostError) as error:
            yield Row(name, "", "", None, at_most=2, note=str(error))
            continue
        yield Row(name, microseconds(ours), microseconds(theirs), ours / theirs, at_most=2)
