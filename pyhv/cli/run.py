"""`pyhv run`: one machine, its console, its verdict."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.cli import emit
from pyhv.cli.options import UsageError
from pyhv.cli.terminal import Terminal
from pyhv.errors import ConfigError
from pyhv.hv.select import select
from pyhv.log import event
from pyhv.machine import Machine
from pyhv.result import Outcome
from pyhv.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

    from pyhv.cli.options import Values
    from pyhv.peripherals import Peripheral
    from pyhv.result import Result


MEMORY = "256M"
LINUX_ONLY = ("root", "root_writable", "module_tree", "transport")


def command(options: Values) -> int:
    """Run and report; returns the exit status."""
    if options.command is not None:
        from pyhv.cli.linux import run

        return run(options)
    for name in LINUX_ONLY:
        if getattr(options, name):
            option = {"module_tree": "modules"}.get(name, name.replace("_", "-"))
            raise UsageError(f"--{option}: it is for a command: pyhv run KERNEL -- COMMAND [ARG...]")
    return execute(machine_of(options), options)


def machine_of(options: Values) -> Machine:
    """The machine that the options describe. Raises ConfigError."""
    return Machine(options.kernel, **machine_fields(options))


def machine_fields(options: Values) -> dict[str, Any]:
    """Machine's fields, but for the kernel."""
    return {
        "initrd": options.initrd,
        "cmdline": options.cmdline,
        "modules": options.modules,
        "memory": MEMORY if options.memory is None else options.memory,
        "cpus": options.cpus,
        "format": options.format,
        "load_address": options.load_address,
        "entry": options.entry,
        "cpu": options.cpu,
        "features": options.features,
        "irqchip": options.irqchip,
        "hugepages": options.hugepages,
        "debug_exit": options.debug_exit,
        "on_reset": options.on_reset,
        "date": options.date,
        "unpack": options.unpack,
        "firmware": options.firmware,
        "devices": _devices(options.devices),
    }


def _devices(described: list[tuple[str, str]]) -> list[Peripheral]:
    if not described:
        return []
    from pyhv.peripherals import parse

    return [parse(kind, text) for kind, text in described]


def execute(machine: Machine, options: Values, *, prepare: Callable[[Vm], None] | None = None, console: int = 1) -> int:
    """Run with the console on a descriptor and report; `prepare` sees the machine before it runs."""
    selection = select(options.backend, options.require)
    event("backend", backend=selection.name, reason=selection.reason)
    log = open_log(options.log)
    output = 2 if options.json else console
    try:
        with Vm(machine, backend=selection, seed=options.seed, statistics=options.stats) as vm:
            if log is not None:
                vm.console.add_sink(log.write)
            if prepare is not None:
                prepare(vm)
            event("loaded", format=vm.boot.format, entry=hex(vm.boot.entry), image=[hex(a) for a in vm.boot.image])
            interrupted = _drive(vm, output, options.timeout)
            result = vm.result()
    finally:
        if log is not None:
            log.close()
    event("ended", outcome=result.outcome.value, exits=result.exits, unclaimed=result.unclaimed)
    _report(result, options, isinstance(vm.life.error, OSError))
    return 130 if interrupted else result.exit_code


def _drive(vm: Vm, output: int, timeout: float | None) -> bool:
    """Run with this process's terminal attached; whether Ctrl-C ended it."""
    with Terminal(vm, output):
        try:
            vm.run(timeout)
        except KeyboardInterrupt:
            return True
    return False


def open_log(path: str | None) -> IO[bytes] | None:
    """The file that --log names. Raises ConfigError."""
    if path is None:
        return None
    try:
        return open(path, "wb", buffering=0)
    except OSError as error:
        raise ConfigError(f"--log: {path!r} cannot be written: {error.strerror}") from None


def _report(result: Result, options: Values, host_failed: bool) -> None:
    """Tell the result; where it is the host's own output that failed, the guest's registers explain nothing."""
    if options.json:
        import json

        emit(json.dumps(result.to_dict()) + "\n")
    if options.stats and not options.json:
        tell_statistics(result)
    if options.quiet:
        return
    lines = [f"pyhv: {result.summary()}"]
    if result.outcome in (Outcome.ERROR, Outcome.TRIPLE_FAULT, Outcome.PANIC) and not host_failed:
        if result.registers:
            lines.append(result.registers)
        lines += [f"  exit: {text}" for text in result.last_exits]
    if options.verbose:
        lines.append(f"pyhv: backend {result.backend}: {result.backend_reason}")
    tell("\n".join(lines) + "\n")


def tell_statistics(result: Result) -> None:
    """The backend's counters, on stderr."""
    width = max(map(len, result.statistics), default=0)
    tell("".join(f"{name:<{width}} {value:>16}\n" for name, value in result.statistics.items() if value))


def tell(text: str) -> None:
    """Print on stderr, if it can be; the verdict is the status."""
    try:
        os.write(2, text.encode(errors="replace"))
    except OSError:
        return
