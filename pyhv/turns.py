"""Backends without threads: one thread in which the vCPUs take turns, each for a quantum of the backend's choosing."""

from __future__ import annotations

from time import thread_time_ns

from pyhv._types import TYPE_CHECKING
from pyhv.errors import PyhvError
from pyhv.hv import exits as x
from pyhv.locks import Wakeup

if TYPE_CHECKING:
    from threading import Thread

    from pyhv.vm import Vm


def start_turns(vm: Vm) -> list[Thread]:
    """Start the one thread."""
    from threading import Thread

    thread = Thread(target=_guarded, args=(vm,), name=f"{vm.machine.name or 'pyhv'}-turns", daemon=True)
    thread.start()
    return [thread]


def _guarded(vm: Vm) -> None:
    try:
        take_turns(vm)
    except BaseException as error:
        vm.fail(f"{type(error).__name__}: {error}", error)


def prepare(vm: Vm) -> Wakeup:
    """Have whatever happens outside wake the thread that runs the vCPUs."""
    vm.kicked = kicked = Wakeup()
    vm.handle.on_call = kicked.set  # type: ignore[attr-defined]
    vm.handle.sleep_by(lambda seconds: _sleep(vm, kicked, seconds))  # type: ignore[attr-defined]
    return kicked


def take_turns(vm: Vm) -> None:
    """Run until the machine stops, in this thread; an error becomes the verdict. KeyboardInterrupt gets through."""
    kicked = prepare(vm)
    began = thread_time_ns()
    try:
        _loop(vm, kicked)
    except PyhvError as error:
        vm.fail(str(error), error)
    except Exception as error:
        vm.fail(f"{type(error).__name__}: {error}", error)
    finally:
        vm.loops[0].cpu_ns += thread_time_ns() - began
    for loop in vm.loops:
        loop.take_dump()


def _loop(vm: Vm, kicked: Wakeup) -> None:
    loops, running = vm.loops, vm.running
    while running():
        kicked.clear()
        halted = 0
        for loop in loops:
            while vm.outcome is None:
                exit = loop.run_raw()
                if type(exit) is x.Interrupted:
                    if loop.vcpu.turn_over or not running():  # type: ignore[attr-defined]
                        break
                    continue
                if type(exit) is x.Halt:
                    halted += 1
                    break
                loop.handle(exit)
        if halted == len(loops) and vm.outcome is None and not vm.handle.idle():
            kicked.wait()


def _sleep(vm: Vm, kicked: Wakeup, seconds: float) -> None:
    """Wait for the next event of the machine's own, or for one from outside."""
    kicked.clear()
    if vm.handle.inbox or not vm.running() or any(loop.vcpu.kicked for loop in vm.loops):  # type: ignore[attr-defined]
        return
    kicked.wait(seconds)
