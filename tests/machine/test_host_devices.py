"""What a machine gives to devices that deal with the host: events, doorbells, timers, random bytes; and how they end."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

import pyhv
from pyhv.hv.select import Selection

PATIENCE = 30.0
ADDRESS = 0xD000_0000
BOX = 0x9000
WAIT_FOR_BOX = f"1: pause\n cmp dword ptr [{BOX:#x}], 0\n je 1b\n mov al, [{BOX:#x}]\n out 0xf4, al\n{tiny.HALT}"
WAIT_FOR_IRQ_5 = f"""
    xor ax, ax
    mov ds, ax
    mov word ptr [0x34], offset handler
    mov [0x36], ax
    mov al, 0xdf
    out 0x21, al
    sti
    mov dx, 0x300
    out dx, al
1:  hlt
    jmp 1b
handler:
    xor al, al
    out 0xf4, al
    {tiny.HALT}
"""
"""IRQ 5 comes as vector 0x0d, as the BIOS leaves the 8259; the write to port 0x300 says that the guest is ready."""


class Ringer(pyhv.MmioDevice):
    """A doorbell that leaves the number of its rings in memory."""

    address = ADDRESS

    def __init__(self) -> None:
        self.rings = 0
        self.exits = 0
        self.bell: Any = None
        self.closed = 0

    def attach(self, platform: pyhv.Platform) -> None:
        super().attach(platform)
        self.bell = platform.doorbell(self.address, 4, self.ring)

    def ring(self) -> None:
        self.rings += 1
        self.platform.memory.write_uint(BOX, 4, self.rings)

    def write(self, offset: int, size: int, value: int) -> None:
        self.exits += 1
        self.ring()

    def close(self) -> None:
        self.closed += 1
        if self.bell is not None:
            self.bell.close()
            self.bell.close()


class Outside(pyhv.PioDevice):
    """Told from outside, by a pipe, and says so with IRQ 5, which it drops when the machine ends."""

    port = 0x300
    length = 1
    live = True

    def __init__(self, *, answers: bool = True) -> None:
        self.reader, self.writer = os.pipe()
        self.answers = answers
        self.taken = b""

    def attach(self, platform: pyhv.Platform) -> None:
        super().attach(platform)
        self.line = platform.line(5)
        platform.events.add_reader(self.reader, self.readable)

    def readable(self) -> None:
        self.taken += os.read(self.reader, 1)
        if self.taken.endswith(b"!"):
            self.line.set(True)

    def write(self, offset: int, size: int, value: int) -> None:
        if self.answers:
            threading.Timer(0.02, os.write, (self.writer, b"abc!")).start()

    def close(self) -> None:
        self.platform.events.remove_reader(self.reader)
        os.close(self.reader)
        os.close(self.writer)


Run = Callable[..., pyhv.Result]


@pytest.fixture
def run(tmp_path: Path, backend: Selection) -> Run:
    """Run a few instructions with devices."""

    def call(source: str, *devices: pyhv.Device, bits: int = 32, seed: int = 0, **fields: Any) -> pyhv.Result:
        image = tiny.image(tmp_path, source, bits)
        machine = pyhv.Machine(image, format="flat", memory="4M", devices=devices, **fields)
        return pyhv.run(machine, backend=backend, timeout=PATIENCE, seed=seed)

    return call


def test_a_doorbell_rings_without_an_exit_where_the_backend_can(run: Run, backend: Selection) -> None:
    device = Ringer()
    result = run(f"mov dword ptr [{ADDRESS:#x}], 5\n{WAIT_FOR_BOX}", device)
    assert (result.guest_status, device.rings) == (1, 1)
    silent = backend.hypervisor.capabilities.ioeventfd
    assert (device.exits, device.bell is None) == ((0, False) if silent else (1, True))
    assert result.exits.get("MmioWrite", 0) == device.exits


def test_writes_of_another_width_arrive_at_the_bus(run: Run) -> None:
    device = Ringer()
    run(f"mov byte ptr [{ADDRESS:#x}], 5\n{WAIT_FOR_BOX}", device)
    assert device.exits == 1


def test_a_halted_guest_is_woken_from_outside(run: Run) -> None:
    device = Outside()
    result = run(WAIT_FOR_IRQ_5, device, bits=16).check()
    assert device.taken == b"abc!"
    assert not result.deterministic


def test_a_guest_that_is_driven_exit_by_exit_is_woken_from_outside(tmp_path: Path, backend: Selection) -> None:
    image = tiny.image(tmp_path, WAIT_FOR_IRQ_5, 16)
    with pyhv.Vm(pyhv.Machine(image, format="flat", memory="4M", devices=[Outside()]), backend=backend) as vm:
        for _ in vm.exits():
            pass
        vm.result().check()


@pytest.mark.parametrize("cpus", [1, 2])
def test_other_processors_do_not_matter(run: Run, cpus: int) -> None:
    device = Outside()
    run(WAIT_FOR_IRQ_5, device, bits=16, cpus=cpus).check()


def test_devices_stand_still_while_the_machine_is_paused(tmp_path: Path, backend: Selection) -> None:
    image = tiny.image(tmp_path, WAIT_FOR_IRQ_5, 16)
    device = Outside(answers=False)
    with pyhv.start(pyhv.Machine(image, format="flat", memory="4M", devices=[device]), backend=backend) as vm:
        vm.pause()
        os.write(device.writer, b"abc!")
        time.sleep(0.05)
        assert device.taken == b""
        vm.resume()
        vm.wait(PATIENCE).check()
    assert device.taken == b"abc!"


def test_a_timeout_ends_a_guest_that_waits_for_outside(tmp_path: Path, backend: Selection) -> None:
    image = tiny.image(tmp_path, WAIT_FOR_IRQ_5, 16)
    machine = pyhv.Machine(image, format="flat", memory="4M", devices=[Outside(answers=False)])
    assert pyhv.run(machine, backend=backend, timeout=0.2).outcome is pyhv.Outcome.TIMEOUT


class Alarm(pyhv.PioDevice):
    """IRQ 5 a while after the guest asked for it."""

    port = 0x300
    length = 1

    def __init__(self, ns: int, *, live: bool) -> None:
        self.ns = ns
        self.live = live

    def write(self, offset: int, size: int, value: int) -> None:
        line = self.platform.line(5)
        clock = self.platform.clock
        clock.call_at(clock.now_ns() + self.ns, lambda: line.set(True))


def test_idle_time_is_real_with_a_live_device(run: Run) -> None:
    began = time.monotonic()
    run(WAIT_FOR_IRQ_5, Alarm(150_000_000, live=True), bits=16).check()
    assert time.monotonic() - began >= 0.15


def test_idle_time_is_skipped_without_one(run: Run, backend: Selection) -> None:
    if not backend.hypervisor.capabilities.deterministic:
        pytest.skip("the backend's time is real")
    result = run(WAIT_FOR_IRQ_5, Alarm(3_600_000_000_000, live=False), bits=16).check()
    assert result.deterministic


class Late(pyhv.PioDevice):
    """Told from outside, it asks for a time that is over, and keeps the times at which it was told things."""

    port = 0x300
    length = 1
    live = True

    def __init__(self, ago: int = 0, *, after: float = 0.05) -> None:
        self.ago = ago
        self.after = after
        self.times: list[int] = []

    def write(self, offset: int, size: int, value: int) -> None:
        self.times.append(self.platform.clock.now_ns())
        threading.Timer(self.after, self.platform.events.call_soon, (self.told,)).start()

    def told(self) -> None:
        line, clock = self.platform.line(5), self.platform.clock
        self.times.append(clock.now_ns())
        clock.call_at(self.times[-1] - self.ago, lambda: line.set(True))


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("ago", [1, 1_000_000_000, 1 << 60])
def test_a_time_that_is_over_has_come(run: Run, ago: int, cpus: int) -> None:
    run(WAIT_FOR_IRQ_5, Late(ago), bits=16, cpus=cpus).check()


@pytest.mark.parametrize("cpus", [1, 2])
def test_idle_time_is_real_also_without_an_end(run: Run, cpus: int) -> None:
    """The timer of the board ticks once, after 55 ms; nothing else is due."""
    device = Late(after=0.4)
    run(WAIT_FOR_IRQ_5, device, bits=16, cpus=cpus).check()
    asked, told = device.times
    assert told - asked >= 100_000_000


class Dice(pyhv.PioDevice):
    port = 0x300
    length = 1

    def attach(self, platform: pyhv.Platform) -> None:
        super().attach(platform)
        self.drawn = platform.entropy(16)


def test_random_bytes_follow_the_seed_where_all_else_does(run: Run, backend: Selection) -> None:
    draws = []
    for seed in (1, 1, 2):
        device = Dice()
        run(tiny.exit(0), device, seed=seed).check()
        draws.append(device.drawn)
    assert {len(draw) for draw in draws} == {16}
    assert draws[1] != draws[2]
    assert (draws[0] == draws[1]) == backend.hypervisor.capabilities.deterministic


class Chatter(pyhv.PioDevice):
    """Calls itself again and again."""

    port = 0x300
    length = 1

    def __init__(self) -> None:
        self.calls = 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.platform.events.call_soon(self.again)

    def again(self) -> None:
        self.calls += 1
        self.platform.events.call_soon(self.again)


def test_calls_without_end_do_not_stop_the_guest(run: Run) -> None:
    device = Chatter()
    run(f"mov dx, 0x300\n out dx, al\n mov ecx, 2000\n1: in al, 0x80\n loop 1b\n{tiny.exit(0)}", device).check()
    assert device.calls > 0


def test_a_doorbell_where_one_is_already_is_none(run: Run) -> None:
    first, second = Ringer(), Ringer()

    class Both(pyhv.Device):
        def attach(self, platform: pyhv.Platform) -> None:
            first.attach(platform)
            second.bell = platform.doorbell(ADDRESS, 4, second.ring)

        def close(self) -> None:
            first.close()

    run(f"mov dword ptr [{ADDRESS:#x}], 5\n{WAIT_FOR_BOX}", Both())
    assert second.bell is None
    assert (first.rings, second.rings) == (1, 0)


class Broken(pyhv.Device):
    def attach(self, platform: pyhv.Platform) -> None:
        raise pyhv.ConfigError("broken: cannot be attached")


class Failing(Ringer):
    def close(self) -> None:
        super().close()
        raise OSError(5, "the host failed")


def test_what_a_device_could_not_keep_is_an_error_of_the_host(tmp_path: Path, backend: Selection) -> None:
    first, second = Failing(), Ringer()
    second.address = ADDRESS + 0x1000
    machine = pyhv.Machine(
        tiny.image(tmp_path, tiny.exit(0), 32), format="flat", memory="4M", devices=[first, second]
    )
    with pytest.raises(pyhv.HostError, match=r"Failing: .*the host failed"):
        pyhv.run(machine, backend=backend, timeout=PATIENCE)
    assert (first.closed, second.closed) == (1, 1)
    first.closed = 0
    with pytest.raises(ZeroDivisionError), pyhv.Vm(machine, backend=backend):
        raise ZeroDivisionError
    assert first.closed == 1


class Mistaken(Ringer):
    def close(self) -> None:
        super().close()
        raise ValueError("a mistake")


def test_a_mistake_of_a_device_at_its_end_keeps_nobody_else(tmp_path: Path, backend: Selection) -> None:
    first, second = Mistaken(), Ringer()
    second.address = ADDRESS + 0x1000
    machine = pyhv.Machine(
        tiny.image(tmp_path, tiny.exit(0), 32), format="flat", memory="4M", devices=[first, second]
    )
    vm = pyhv.Vm(machine, backend=backend)
    with pytest.raises(ValueError, match="a mistake"):
        vm.close()
    assert (first.closed, second.closed, vm.memory.regions) == (1, 1, ())
    vm.close()


def test_devices_are_closed_once_also_after_errors(run: Run) -> None:
    first, second = Ringer(), Ringer()
    second.address = ADDRESS + 0x1000
    run(tiny.exit(0), first, second).check()
    assert (first.closed, second.closed) == (1, 1)
    third = Ringer()
    with pytest.raises(pyhv.ConfigError, match="broken"):
        run(tiny.exit(0), third, Broken())
    assert third.closed == 1
