"""Signals: Ctrl-C gets through wherever a vCPU runs, and other threads' runs are not disturbed by it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pyhv.hv.exits import Interrupted

from .conftest import SPIN, Maker

CHILD = """
    import signal, sys, threading
    from pyhv.hv.config import VmConfig
    from pyhv.hv.kvm.hypervisor import KvmHypervisor
    from pyhv.x86.registers import GeneralRegisters

    vm = KvmHypervisor().create_vm(VmConfig())
    vm.add_memory(0, 0x10000).buffer[0x1000:0x1002] = bytes.fromhex("ebfe")
    vcpu = vm.create_vcpu(0)
    system = vcpu.system
    system.cs.base = system.cs.selector = 0
    vcpu.system, vcpu.general = system, GeneralRegisters(rip=0x1000)
    print("ready", flush=True)
    try:
        while True:
            vcpu.run()
    except KeyboardInterrupt:
        vm.close()
        print("interrupted", flush=True)
        sys.exit(42)
"""


@pytest.mark.usefixtures("kvm")
def test_ctrl_c_ends_a_run_on_the_main_thread() -> None:
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=20)
        assert output == "interrupted\n" and child.returncode == 42
    finally:
        child.kill()
        child.wait()


def test_a_signal_that_comes_between_the_interpreter_and_the_kernel_is_not_lost(machine: Maker) -> None:
    """A handler runs between any two runs; no run may go on for good after a signal came, whenever it came."""
    made = machine(SPIN)
    hits = 0

    def on_signal(number: int, frame: object) -> None:
        nonlocal hits
        hits += 1

    before = signal.signal(signal.SIGUSR1, on_signal)
    stop = threading.Event()

    def bother() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not stop.wait(0.002):
            signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=bother)
    thread.start()
    try:
        while hits < 100:
            assert isinstance(made.vcpu.run(), Interrupted)
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_run_on_the_main_thread_comes_back_by_itself(machine: Maker) -> None:
    made = machine(SPIN)
    for _ in range(3):
        assert isinstance(made.vcpu.run(), Interrupted)


def test_a_run_on_another_thread_goes_on_until_it_is_kicked(machine: Maker) -> None:
    made = machine(SPIN)
    returned = threading.Event()

    def loop() -> None:
        assert isinstance(made.vcpu.run(), Interrupted)
        returned.set()

    thread = threading.Thread(target=loop)
    thread.start()
    os.kill(os.getpid(), signal.SIGCHLD)
    assert not returned.wait(0.3)
    made.vcpu.kick()
    assert returned.wait(20)
    thread.join()


def test_closing_a_vm_that_another_thread_runs_ends_the_run(machine: Maker) -> None:
    made = machine(SPIN)
    started = threading.Event()
    outcome: list[object] = []

    def loop() -> None:
        started.set()
        outcome.append(made.vcpu.run())

    thread = threading.Thread(target=loop)
    thread.start()
    started.wait(20)
    time.sleep(0.02)
    made.vm.close()
    thread.join(20)
    assert not thread.is_alive() and isinstance(outcome[0], Interrupted)
