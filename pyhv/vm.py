"""One running machine: what builds it, runs its vCPUs, ends it and reaps it."""

from __future__ import annotations

import time

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.pc import Pc
from pyhv.console import Console
from pyhv.errors import ConfigError, HostError, PyhvError, VmmError, VmTimeout
from pyhv.hv.config import VmConfig
from pyhv.hv.select import Selection, select
from pyhv.lifecycle import Lifecycle, VerdictControl
from pyhv.locks import RLock
from pyhv.machine import Machine
from pyhv.memory import MemoryBacking, ram_ranges
from pyhv.realtime import RealClock
from pyhv.result import Outcome
from pyhv.runner import VcpuLoop
from pyhv.units import check_timeout
from pyhv.verdict import console_error, make_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from threading import Thread, Timer
    from types import TracebackType
    from typing import IO

    from pyhv.attach import Attached
    from pyhv.clock import Clock
    from pyhv.device import Device, MsrRead, MsrWrite
    from pyhv.errors import GuestError
    from pyhv.hv import exits as x
    from pyhv.locks import Wakeup
    from pyhv.loop import EventLoop
    from pyhv.result import Result
    from pyhv.trace import TraceEvent, Tracer

STOP_TIMEOUT = 10.0
"""Seconds that a vCPU thread may take to leave the guest after a kick before that is reported as a VMM failure."""

PANIC_GRACE_NS = 500_000_000
"""Machine time that a kernel gets to finish its panic message."""

Backend = str | Selection


class Vm:
    """A machine built on a backend. Made by `Machine.start()` or `Vm(machine)`; a context manager that always reaps.

    Threads: public methods may be called from any thread, but for `exits()`, which runs the guest in the caller's.
    `statistics` fills `Result.statistics` also where collecting costs time (KVM; the simulator always counts).
    Raises ConfigError (the machine, its files), HostError (the backend).
    """

    def __init__(
        self, machine: Machine, *, backend: Backend = "auto", seed: int = 0, statistics: bool = False
    ) -> None:
        if not isinstance(machine, Machine):
            raise ConfigError(f"machine: {machine!r} is not a pyhv.Machine")
        if not isinstance(seed, int):
            raise ConfigError(f"seed: {seed!r} is not an integer")
        self.machine = machine
        self.backend = backend if isinstance(backend, Selection) else select(backend)
        self.seed = seed
        self.lock = RLock()
        self.statistics = statistics or self.backend.hypervisor.capabilities.deterministic
        self.msr_handlers: dict[int, tuple[MsrRead, MsrWrite]] = {}
        self.kicked: Wakeup | None = None
        self.life = Lifecycle(kick=self._kick_all, reset=self._do_reset, ended=self._ended)
        self.control = VerdictControl(self.life, machine.on_reset)
        self.running = self.life.running
        self._threads: list[Thread] = []
        self._closed = False
        self._result: Result | None = None
        self.loops: list[VcpuLoop] = []
        self._loop: EventLoop | None = None
        self._attached: Attached | None = None
        self._real_clock = RealClock(self.event_loop)
        self.console = Console(self._send, on_panic=self._console_panic, on_sink_error=self._sink_error)
        hypervisor = self.backend.hypervisor
        self.handle = hypervisor.create_vm(
            VmConfig(
                vcpus=machine.cpus,
                irqchip=machine.irqchip,
                cpu=machine.cpu,
                features=machine.features,
                seed=seed,
                lock=self.lock,
            )
        )
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        machine, handle = self.machine, self.handle
        backing = MemoryBacking(machine.hugepages)
        for address, size in ram_ranges(machine.memory):
            handle.add_memory(address, size, backing=backing)
        if machine.firmware is not None:
            from pyhv.boot import rom

            rom.install(handle, machine.firmware)
        self.memory = handle.memory
        self.clock: Clock = handle.clock or self._real_clock
        if machine.date is not None:
            from pyhv.machine import date_ns

            self.clock.set_wall(date_ns(machine.date))
        self.pc = Pc(
            machine,
            memory=self.memory,
            clock=self.clock,
            control=self.control,
            handle=handle,
            output=self.console.feed,
            kick=self._kick_boot_cpu,
            attach_devices=self._attach,
        )
        self.vcpus = [handle.create_vcpu(index) for index in range(machine.cpus)]
        self.loops = [VcpuLoop(self, vcpu) for vcpu in self.vcpus]
        if self.msr_handlers:
            handle.filter_msrs(self.msr_handlers)
        self._load()

    def _attach(self, pc: Pc) -> None:
        from pyhv.attach import Attached

        self._attached = Attached(self, pc)
        with self.lock:
            self._attached.attach()
        self.handle.pace(self.live)

    @property
    def live(self) -> bool:
        """Whether some device takes input from outside at times of its own."""
        return any(device.live for device in self.devices)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The machine's devices, alive, in the order of its description."""
        return () if self._attached is None else tuple(self._attached.devices)

    def _load(self) -> None:
        from pyhv import boot

        machine = self.machine
        directly = machine.unpack == "yes" or (
            machine.unpack == "auto" and self.backend.hypervisor.capabilities.deterministic
        )
        attached = self._attached
        self.boot = boot.load_machine(
            machine,
            self.memory,
            unpack=directly,
            or_packed=machine.unpack == "auto",
            aml=b"" if attached is None else b"".join(attached.aml),
            tables=() if attached is None else tuple(attached.tables),
            pci=self.pc.pci_pins,
        )
        if self.boot.offer is not None:
            self.pc.offer = self.boot.offer  # and the processor is as RESET left it
            return
        from pyhv.boot.bios import PROCESSOR_MSRS

        for vcpu in self.vcpus:
            vcpu.set_msrs(PROCESSOR_MSRS)
        self.vcpus[0].system = self.boot.system
        self.vcpus[0].general = self.boot.general
        if self.boot.format == "flat":
            self.pc.run_timer()

    def trace(
        self,
        what: Iterable[str] = ("exits",),
        *,
        address: tuple[int, int] | None = None,
        limit: int = 100_000,
        sink: Callable[[TraceEvent], None] | None = None,
    ) -> Tracer:
        """Record what the processors do, before the machine is started; see `pyhv.trace`.

        `what`: some of exits, exceptions, interrupts, branches, instructions (KVM: exits). Only events between the two
        linear addresses of `address`, both included, are taken; a branch from or to there. After `limit` events the others
        are only counted. Each goes to `sink`, on a vCPU's thread, or is kept in the Tracer's `events`.
        Raises ConfigError, CapabilityMissing.
        """
        from pyhv.trace import EVERYWHERE, Tracer

        if self.life.started or self._closed:
            raise ConfigError("vm: a trace begins before the machine is started")
        return Tracer(self, what, address=EVERYWHERE if address is None else address, limit=limit, sink=sink)

    # Running

    @property
    def outcome(self) -> Outcome | None:
        """What ended the run; None while it has not ended."""
        return self.life.outcome

    def start(self) -> Vm:
        """Let the vCPUs run; returns self."""
        if self.life.started or self._closed:
            raise ConfigError("vm: it was started already")
        self.life.begin()
        if self.backend.hypervisor.capabilities.threads:
            from pyhv.runner import start_threads

            self._threads = start_threads(self.loops, self.machine.name or "pyhv")
        else:
            from pyhv.turns import start_turns

            self._threads = start_turns(self)
        self.life.runners = len(self._threads)
        return self

    def run(self, timeout: float | None = None) -> Result:
        """Run to the end, or to `timeout` seconds (outcome TIMEOUT), and give the Result.

        A machine of one vCPU, or on a backend without threads, runs in the calling thread. Ctrl-C ends the run
        (STOPPED) and is raised again.
        """
        if self.life.started or self._closed:
            raise ConfigError("vm: it was started already")
        check_timeout(timeout)
        if len(self.loops) == 1 or not self.backend.hypervisor.capabilities.threads:
            return self._run_here(timeout)
        self.start()
        try:
            return self.wait(timeout)
        except VmTimeout:
            self._time_out(timeout)
            return self.wait()
        except KeyboardInterrupt as why:
            self.end(Outcome.STOPPED, str(why) or "interrupted from the keyboard")
            raise

    def _run_here(self, timeout: float | None) -> Result:
        self.life.begin()
        self.life.runners = 1
        timer = None if timeout is None else self._start_timer(timeout)
        try:
            if self.backend.hypervisor.capabilities.threads:
                self.loops[0].run_until_end()
            else:
                from pyhv.turns import take_turns

                take_turns(self)
        except KeyboardInterrupt as why:
            self.end(Outcome.STOPPED, str(why) or "interrupted from the keyboard")
            raise
        finally:
            if timer is not None:
                timer.cancel()
                timer.join()
        return self.result()

    def _start_timer(self, timeout: float) -> Timer:
        """A thread for the end of the time: the machine's loop would wait for the lock of a device that blocks."""
        from threading import Timer

        timer = Timer(timeout, self._time_out, (timeout,))
        timer.daemon = True
        timer.start()
        return timer

    def _time_out(self, timeout: float | None) -> None:
        self.end(Outcome.TIMEOUT, f"no end within {timeout:g} s")

    def event_loop(self) -> EventLoop:
        """The machine's one event loop; made when a timer, a descriptor or another thread first needs it."""
        with self.lock:
            if self._loop is None:
                from pyhv.loop import EventLoop

                self._loop = EventLoop(self.lock, on_error=self._loop_error, clock=self._real_clock)
                self._loop.hold(self._real_clock.paused)
            return self._loop

    def pause(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop all vCPUs between two instructions, the devices, and the machine's time. Raises VmTimeout."""
        self.life.pause(timeout)
        self._real_clock.pause()
        if self._loop is not None:
            self._loop.hold(True)

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._real_clock.paused:
            self._real_clock.resume()
        if self._loop is not None:
            self._loop.hold(False)
        self.life.resume()

    def reset(self) -> None:
        """Start the machine again from its image, as a reset button would, with its memory cleared."""
        self.life.request_reset()

    def _do_reset(self) -> None:
        try:
            with self.lock:
                for vcpu in self.vcpus:
                    vcpu.reset()
                self.handle.reset()
                kept = () if self._attached is None else self._attached.regions
                for region in self.memory.regions:
                    if not region.readonly and region not in kept:
                        region.discard()
                self.pc.reset()
                if self._attached is not None:
                    self._attached.reset()
                self._load()
        except PyhvError as error:
            self.fail(f"reset: {error}", error)

    def stop(self) -> None:
        """End the run now (outcome STOPPED, unless it ended before)."""
        self.end(Outcome.STOPPED, "stopped by the user")

    def wait(self, timeout: float | None = None) -> Result:
        """The Result, once the guest has ended. Raises VmTimeout when it has not after `timeout` seconds; it runs on."""
        if not self.life.started:
            raise ConfigError("vm: it was not started")
        check_timeout(timeout)
        if not self.life.wait(timeout):
            raise VmTimeout(f"the guest did not end within {timeout:g} s\n{self.console.tail()}")
        self._join()
        return self.result()

    def result(self) -> Result:
        """The verdict of a run that ended. Raises ConfigError before that."""
        if self.outcome is None:
            raise ConfigError("vm: the guest has not ended")
        if self._result is None:
            self._join()
            self._result = make_result(self, self.outcome)
        return self._result

    def exits(self, *, handle: bool = True) -> Iterator[x.Exit]:
        """Drive a machine of one vCPU exit by exit in this thread; each exit is yielded after the machine handled it.

        With `handle=False` the machine does nothing: the caller answers (`vm.vcpus[0].complete_read(...)`).
        The iteration ends when the guest has.
        """
        if self._threads:
            raise ConfigError("vm: exits() drives a machine that was not started")
        if len(self.loops) != 1:
            raise ConfigError(f"vm: exits() drives one vCPU, this machine has {len(self.loops)}")
        if not self.life.started:
            self.life.begin()
            if not self.backend.hypervisor.capabilities.threads:
                from pyhv.turns import prepare

                prepare(self)
        loop = self.loops[0]
        while self.outcome is None:
            event = loop.run_raw()
            if handle:
                loop.handle(event)
            yield event
        loop.take_dump()

    # Verdicts: MachineControl, and what the loops report

    def end(self, outcome: Outcome, detail: str = "", status: int | None = None) -> None:
        """Fix the verdict; the first one stands. Stops every vCPU."""
        self.life.end(outcome, detail, status)

    def fail(self, detail: str, error: BaseException | None = None) -> None:
        """The VMM cannot go on."""
        self.life.end(Outcome.ERROR, detail, None, error)

    def _ended(self) -> None:
        self.console.close(self.console_error())

    def vcpu_halted(self, loop: VcpuLoop) -> None:
        """A backend without local APICs halted: nothing can wake it."""
        self.fail(f"vCPU {loop.vcpu.index} halted with nothing to wake it")

    def debug_stop(self, loop: VcpuLoop, event: x.Debug) -> None:
        """A debug exit: whoever drives `exits()` gets it; nobody else asked for one."""
        if self._threads:
            self.fail(f"vCPU {loop.vcpu.index}: a debug exit that nobody asked for at {event.rip:#x}")

    def _console_panic(self, line: str) -> None:
        """Linux prints why it panicked after the line that gives it away: let it, for a moment of machine time."""
        self.life.panic = f"console: {line}"
        self.clock.call_at(self.clock.now_ns() + PANIC_GRACE_NS, lambda: self.control.panic("console", line))

    def _sink_error(self, error: BaseException) -> None:
        self.fail(f"console output cannot be written: {error}", error)

    def _loop_error(self, error: BaseException) -> None:
        self.fail(f"event loop: {type(error).__name__}: {error}", error)

    # Plumbing

    def _send(self, data: bytes) -> None:
        with self.lock:
            self.pc.serial.receive(data)
        if self.kicked is not None:
            self.kicked.set()

    def _kick_boot_cpu(self) -> None:
        self.vcpus[0].kick()
        if self.kicked is not None:
            self.kicked.set()

    def _kick_all(self) -> None:
        if self.kicked is not None:
            self.kicked.set()
        for loop in self.loops:
            loop.vcpu.kick()

    def _join(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT
        if not self._threads:
            return
        from threading import current_thread

        current = current_thread()
        for thread in self._threads:
            while thread is not current and thread.is_alive():
                thread.join(0.05)
                if thread.is_alive():
                    self._kick_all()
                    if time.monotonic() > deadline:
                        raise VmmError(f"{thread.name} did not leave the guest within {STOP_TIMEOUT:g} s")

    def console_error(self) -> GuestError | VmmError:
        """What `console.expect` raises when the guest has ended without printing what was expected."""
        return console_error(self)

    def close(self) -> None:
        """Stop and reap: threads joined, devices closed, memory unmapped. Idempotent.

        Raises HostError, after all that, where a device could not keep what the guest had written.
        """
        if self._closed:
            return
        if self.outcome is None:
            self.stop()
        try:
            if self.life.started:
                self.result()
        finally:
            self._closed = True
            failed = ""
            try:
                if self._attached is not None:
                    with self.lock:
                        failed = self._attached.close()
            finally:
                if self._loop is not None:
                    self._loop.close()
                for vcpu in getattr(self, "vcpus", ()):
                    vcpu.close()
                self.handle.close()
        if failed:
            raise HostError(f"devices could not be closed: {failed}")

    def __enter__(self) -> Vm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except HostError as error:
            if value is None:
                raise
            value.add_note(str(error))


def start(machine: Machine, *, backend: Backend = "auto", seed: int = 0, log: IO[bytes] | None = None) -> Vm:
    """Build and start a machine; `log` receives everything that the console prints."""
    vm = Vm(machine, backend=backend, seed=seed)
    try:
        if log is not None:
            vm.console.add_sink(log.write)
        return vm.start()
    except BaseException:
        vm.close()
        raise


def run(
    machine: Machine,
    *,
    timeout: float | None = None,
    backend: Backend = "auto",
    seed: int = 0,
    log: IO[bytes] | None = None,
) -> Result:
    """Run a machine to its end, or to `timeout` seconds (outcome TIMEOUT); never raises for what the guest does."""
    with Vm(machine, backend=backend, seed=seed) as vm:
        if log is not None:
            vm.console.add_sink(log.write)
        return vm.run(timeout)
