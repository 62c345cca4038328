"""`pyhv run KERNEL -- COMMAND`: a Linux kernel runs a command, whose streams and status are this process's own."""

from __future__ import annotations

import os
import stat

from pyhv._types import TYPE_CHECKING
from pyhv.cli import EXIT_INTERRUPTED, emit
from pyhv.cli.options import UsageError
from pyhv.cli.run import machine_fields, open_log, tell, tell_statistics
from pyhv.cli.terminal import Escapes, RawMode, is_foreground
from pyhv.errors import HostError
from pyhv.hv.select import select
from pyhv.linux import Command
from pyhv.linux.result import HIGHEST_STATUS
from pyhv.log import event
from pyhv.result import Outcome
from pyhv.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.cli.options import Values
    from pyhv.linux import CommandResult

IN_VAIN = {
    "initrd": "--initrd: a machine that runs a command has one of its own",
    "modules": "--module: a Linux kernel takes none; --modules names the folder of its own",
    "firmware": "--firmware: a machine that runs a command starts its kernel directly",
}
WIDTH, HEIGHT = 80, 24


def run(options: Values) -> int:
    """Run and report; returns the exit status."""
    if not options.command:
        raise UsageError("a command is missing after -- (see pyhv run --help)")
    for name, reason in IN_VAIN.items():
        if getattr(options, name):
            raise UsageError(reason)
    selection = select(options.backend, options.require)
    event("backend", backend=selection.name, reason=selection.reason)
    session = _Session(options)
    log = open_log(options.log)
    try:
        with session.command as command:
            with Vm(command.machine, backend=selection, seed=options.seed, statistics=options.stats) as vm:
                if log is not None:
                    vm.console.add_sink(log.write)
                if options.verbose:
                    vm.console.add_sink(_show)
                event("loaded", release=command.release, modules=command.tree and command.tree.path)
                interrupted = session.drive(vm)
                machine = vm.result()
            result = command.result(machine)
    finally:
        if log is not None:
            log.close()
    event("ended", outcome=machine.outcome.value, exits=machine.exits, unclaimed=machine.unclaimed)
    _report(result, options, machine.outcome is not Outcome.STOPPED and not isinstance(vm.life.error, HostError))
    return EXIT_INTERRUPTED if interrupted else result.exit_code


class _Session:
    """The command, and what of this process its streams are."""

    def __init__(self, options: Values) -> None:
        self._options = options
        self._interactive = not options.json and is_foreground(0) and os.isatty(1)
        self._vm: Vm | None = None
        fields = machine_fields(options)
        for name in ("initrd", "modules", "memory"):
            del fields[name]
        if options.memory is not None:
            fields["memory"] = options.memory
        if options.transport:
            fields["transport"] = options.transport
        self.command = Command(
            options.kernel,
            options.command,
            root="/" if options.root is None else options.root,
            writable=options.root_writable,
            modules=options.module_tree,
            stdin=_stdin(),
            stdout=None if options.json else 1,
            stderr=None if options.json else 2,
            terminal=(_size(), Escapes(self._stop, b"\r\n").filter) if self._interactive else None,
            quiet=not options.verbose,
            **fields,
        )

    def drive(self, vm: Vm) -> bool:
        """Run to the end; whether Ctrl-C ended it. A terminal is raw meanwhile, and its Ctrl-C the command's."""
        self._vm = vm
        raw = RawMode(0, cooked_output=False) if self._interactive else None
        resized = _Resized(self._resize) if self._interactive else None
        try:
            vm.run(self._options.timeout)
        except KeyboardInterrupt:
            return True
        finally:
            if resized is not None:
                resized.close()
            if raw is not None:
                raw.restore()
        return False

    def _stop(self) -> None:
        if self._vm is not None:
            self._vm.stop()

    def _resize(self) -> None:
        """Tell the guest; from a signal's handler, which may have come at any point of this thread."""
        columns, rows = _size()
        console = self.command.console
        console.platform.events.call_soon(lambda: console.resize(columns, rows))


class _Resized:
    """Calls back when the terminal's size has changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        import signal

        self._before = signal.signal(signal.SIGWINCH, lambda number, frame: changed())

    def close(self) -> None:
        import signal

        signal.signal(signal.SIGWINCH, self._before)


def _stdin() -> bytes | int:
    """Standard input; one that will never give anything is known to be at its end."""
    try:
        status = os.fstat(0)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
            return b""
        return b"" if os.isatty(0) and not is_foreground(0) else 0
    except OSError:
        return b""


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return WIDTH, HEIGHT
    return size.columns, size.lines


def _show(data: bytes) -> None:
    """The kernel's console on stderr; it is no part of the command's output, and may be lost."""
    try:
        os.write(2, data)
    except OSError:
        return


def _report(result: CommandResult, options: Values, explained: bool) -> None:
    """Say what the command's own status does not; `explained`: whether the kernel's console can tell why it has none."""
    if options.json:
        import json

        emit(json.dumps(result.to_dict()) + "\n")
    if options.stats and not options.json:
        tell_statistics(result.machine)
    if options.quiet:
        return
    lines = []
    if result.error:
        lines.append(f"pyhv: {result.error}")
        if not options.verbose and explained:
            console = result.machine.tail().splitlines()
            lines.append("pyhv: the kernel's last lines:" if console else "pyhv: the kernel said nothing; -v has it say more")
            lines += [f"  {line}" for line in console]
    elif result.signal is not None or (result.status or 0) > HIGHEST_STATUS or options.verbose:
        lines.append(f"pyhv: {result.summary()}")
    if options.verbose:
        lines.append(f"pyhv: backend {result.machine.backend}: {result.machine.backend_reason}")
    if lines:
        tell("\n".join(lines) + "\n")
