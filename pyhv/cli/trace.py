"""`pyhv trace`: a run, and what its processors do as text, a line an event."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.boot.symbols import SymbolTable
from pyhv.cli.options import UsageError
from pyhv.cli.run import execute, machine_of
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.cli.options import Values
    from pyhv.trace import TraceEvent, Tracer
    from pyhv.vm import Vm

BUFFER = 8192
ADDRESS = "a symbol, an address, or a range of two as in 0x100000-0x100fff"


def command(options: Values) -> int:
    """Run, write the trace, and report; returns the exit status."""
    if options.json and options.output is None:
        raise UsageError("--json: standard output is the trace's; put that into a file with --output")
    if options.limit < 0:
        raise UsageError(f"--limit: {options.limit} is not a number of events")
    symbols = SymbolTable.open(options.symbols or options.kernel)
    address = None if options.address is None else address_range(options.address, symbols)
    with _Output(options.output, symbols) as output:

        def prepare(vm: Vm) -> None:
            output.follow(vm, vm.trace(options.what, address=address, limit=options.limit, sink=output.add))

        return execute(machine_of(options), options, prepare=prepare, console=2 if options.output is None else 1)


def address_range(text: str, symbols: SymbolTable) -> tuple[int, int]:
    """The first and the last address of `text`. Raises UsageError."""
    try:
        low, dash, high = text.partition("-")
        first = int(low, 0)
        last = int(high, 0) if dash else first
    except ValueError:
        found = symbols.extent(text)
        if found is None:
            raise UsageError(f"--address: {text!r} is not {ADDRESS} (of {len(symbols)} symbols)") from None
        return found
    if not 0 <= first <= last < 1 << 64:
        raise UsageError(f"--address: {text!r} is not {ADDRESS}")
    return first, last


class _Output:
    """Where the trace goes: a file, or stdout; when stdout's reader goes away, the run ends."""

    def __init__(self, path: str | None, symbols: SymbolTable) -> None:
        self._fd = 1
        self._symbols = symbols
        self._pieces: list[str] = []
        self._size = 0
        self._vm: Vm | None = None
        self._tracer: Tracer | None = None
        if path is not None:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ConfigError(f"--output: {path!r} cannot be written: {reason}") from None

    def follow(self, vm: Vm, tracer: Tracer) -> None:
        """What this is the trace of."""
        self._vm, self._tracer = vm, tracer

    def add(self, event: TraceEvent) -> None:
        """One event more."""
        line = event.text(self._symbols) + "\n"
        self._pieces.append(line)
        self._size += len(line)
        if self._size >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        data = memoryview("".join(self._pieces).encode(errors="replace"))
        self._pieces.clear()
        self._size = 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except BrokenPipeError:
            if self._vm is not None:
                self._vm.stop()
        except OSError as error:
            raise ConfigError(f"--output: the trace cannot be written: {error.strerror}") from None

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._tracer is not None:
                self._pieces.append(self._tracer.summary() + "\n")
                self._flush()
        finally:
            if self._fd != 1:
                os.close(self._fd)
