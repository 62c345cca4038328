"""Cancellation: a kick ends the current or the next run, from any thread, and none is lost."""

import threading
import time

import pytest

from pyhv.hv.api import Hypervisor
from pyhv.hv.exits import Interrupted, PioOut

from .bench import PATIENCE, Bench
from .conftest import Maker


def test_a_kick_before_the_run(bench: Bench) -> None:
    bench.load("again: jmp again")
    bench.vcpu.kick()
    assert isinstance(bench.vcpu.run(), Interrupted)


def test_a_kick_does_not_outlive_its_interruption(bench: Bench) -> None:
    bench.load("again: out 0xe9, al; jmp again")
    bench.vcpu.kick()
    bench.vcpu.kick()
    assert isinstance(bench.vcpu.run(), Interrupted)
    assert isinstance(bench.run(), PioOut)


def test_a_kick_from_another_thread_ends_a_spinning_guest(bench: Bench, backend: Hypervisor) -> None:
    bench.load("again: jmp again")
    timer = threading.Timer(0.05, bench.vcpu.kick)
    timer.start()
    deadline = time.monotonic() + PATIENCE
    while timer.is_alive() or not backend.capabilities.threads:
        assert isinstance(bench.vcpu.run(), Interrupted)
        assert time.monotonic() < deadline
        if not timer.is_alive():
            break
    timer.join()


def test_a_kick_of_a_vcpu_on_another_thread_and_from_the_main_one(bench: Bench) -> None:
    bench.load("again: jmp again")
    ended = threading.Event()
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            assert isinstance(bench.vcpu.run(), Interrupted)
        ended.set()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    time.sleep(0.02)
    stop.set()
    bench.vcpu.kick()
    assert ended.wait(PATIENCE)
    thread.join()


def test_a_waiting_application_processor_can_be_kicked(make: Maker, backend: Hypervisor) -> None:
    if not backend.capabilities.threads:
        pytest.skip("the backend has no threads")
    bench = make(vcpus=2)
    bench.add_vcpu()
    other = bench.add_vcpu()
    timer = threading.Timer(0.05, other.kick)
    timer.start()
    assert isinstance(other.run(), Interrupted)
    timer.join()


def test_an_answer_given_before_a_kick_is_not_lost(bench: Bench) -> None:
    from pyhv.hv.exits import PioIn

    bench.load("xor eax, eax; in al, 0x10; out 0xe9, al; jmp .")
    bench.expect(PioIn)
    bench.vcpu.complete_read(b"\x42")
    bench.vcpu.kick()
    assert isinstance(bench.vcpu.run(), Interrupted)
    assert bench.output(1) == [0x42]


def test_no_kick_of_thousands_is_lost(bench: Bench, backend: Hypervisor) -> None:
    """Each kick waits until the runner has seen an interruption: a lost one would end in the patience running out."""
    if not backend.capabilities.threads:
        pytest.skip("the backend has no threads")
    bench.load("again: out 0xe9, al; mov ecx, 20; spin: dec ecx; jnz spin; jmp again")
    vcpu, rounds = bench.vcpu, 2000
    seen, stop = threading.Semaphore(0), threading.Event()

    def loop() -> None:
        while not stop.is_set():
            if isinstance(vcpu.run(), Interrupted):
                seen.release()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    lost = 0
    for _ in range(rounds):
        vcpu.kick()
        if not seen.acquire(timeout=PATIENCE):
            lost += 1
            break
    stop.set()
    vcpu.kick()
    thread.join(PATIENCE)
    assert not thread.is_alive() and lost == 0


def test_a_kick_after_close_is_harmless(make: Maker) -> None:
    bench = make()
    vcpu = bench.vcpu
    bench.vm.close()
    vcpu.kick()
    bench.vm.close()
