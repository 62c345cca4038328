"""The console device of a machine that runs one command: a control port, and the command's streams or its terminal.

Lines on the control port. From the guest: "started"; at the end "exit STATUS OUTPUT ERRORS" or "signal NUMBER OUTPUT ERRORS"
(bytes that were printed), "error TEXT" or "missing NAME". From the host: "size ROWS COLUMNS", "eof BYTES", "closed output" or
"closed errors", and "done" once it has everything.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.linux.job import CONTROL, ERRORS, INPUT, OUTPUT, TERMINAL
from pyhv.linux.streams import Inlet, InputPort, Outlet
from pyhv.record import record
from pyhv.virtio.console import VirtioConsole
from pyhv.virtio.console_port import VirtioPort

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.device import Platform

POWER_OFF_NS = 60_000_000_000
"""Machine time that a guest gets to power off after its report."""
LINE_LIMIT = 8192


@record(frozen=True)
class Report:
    """How a command ended, in the words of the guest's init: a status, a signal, or why there was no command."""

    status: int | None = None
    signal: int | None = None
    output: int = 0
    errors: int = 0
    error: str = ""
    missing: str = ""


def parse_report(line: str) -> Report | None:
    """The report that a line is; None where it is none."""
    kind, _, rest = line.partition(" ")
    if kind in ("exit", "signal"):
        numbers = [int(word) for word in rest.split(" ") if word.isascii() and word.isdigit() and len(word) < 19]
        if len(numbers) != 3 or numbers[0] > 255:
            return None
        value, output, errors = numbers
        return Report(value if kind == "exit" else None, value if kind == "signal" else None, output, errors)
    if kind == "error" and rest:
        return Report(error=rest)
    if kind == "missing" and rest:
        return Report(missing=rest)
    return None


class CommandConsole(VirtioConsole):
    """`stdin`: bytes, a descriptor, or None for none; `output` and `errors`: descriptors, None to keep what was printed.

    With `terminal` the command has a terminal in place of the three: `stdin` and `output` are its descriptors, and `terminal`
    gets what was typed and gives what is for the guest.
    """

    name = "command"

    def __init__(
        self,
        *,
        stdin: bytes | int | None = None,
        output: int | None = None,
        errors: int | None = None,
        terminal: Callable[[bytes], bytes] | None = None,
        transport: str = "pci",
    ) -> None:
        self.started = False
        self._attached = False
        self.report: Report | None = None
        self._line = bytearray()
        self._done = False
        self._unsent = bytearray()
        self.control = VirtioPort(CONTROL, output=self._hear, on_room=self._send_more)
        self.output = Outlet(
            OUTPUT if terminal is None else TERMINAL,
            title="standard output",
            sink=output,
            settled=self._settle,
            broken=lambda: self.say("closed output"),
        )
        self.errors = Outlet(
            ERRORS,
            title="standard error",
            sink=errors,
            settled=self._settle,
            broken=lambda: self.say("closed errors"),
        )
        self._inlet: Inlet | None = None
        ports: list[VirtioPort] = [self.control, self.output.port]
        if terminal is not None:
            self.output.port.filter = terminal
            if stdin is not None:
                self._inlet = Inlet(self.output.port, stdin)
        else:
            ports.append(self.errors.port)
            if stdin is not None:
                port = InputPort(INPUT, at_end=lambda size: self.say(f"eof {size}"))
                self._inlet = Inlet(port, stdin)
                ports.append(port)
        super().__init__(ports, transport=transport)
        self.live = isinstance(stdin, int)

    def attach(self, platform: Platform) -> None:
        if self._attached:
            raise ConfigError("command: it was run already; each run takes one of its own")
        self._attached = True
        super().attach(platform)
        self.output.start(platform.events)
        self.errors.start(platform.events)
        if self._inlet is not None:
            self._inlet.start(platform.events)

    def reset(self) -> None:
        """What the command has read and printed cannot be undone. Raises ConfigError."""
        raise ConfigError("a machine that runs a command cannot be started again")

    def close(self) -> None:
        super().close()
        if self._inlet is not None:
            self._inlet.close()
        self.output.close()
        self.errors.close()

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size. To be called as a port's methods."""
        self.say(f"size {rows} {columns}")

    def say(self, line: str) -> None:
        """Send a line to the guest's init, which reads them all."""
        self._unsent += line.encode() + b"\n"
        self._send_more()

    def _send_more(self) -> None:
        taken = self.control.input(bytes(self._unsent))
        del self._unsent[:taken]

    def _hear(self, data: bytes) -> None:
        self._line += data
        while (end := self._line.find(b"\n")) >= 0:
            line = bytes(self._line[:end]).decode("utf-8", "replace")
            del self._line[: end + 1]
            self._obey(line)
        del self._line[LINE_LIMIT:]

    def _obey(self, line: str) -> None:
        if line == "started":
            self.started = True
        elif self.report is None:
            self.report = parse_report(line)
            self._settle()

    def _settle(self) -> None:
        """Let the guest go once all that it reported to have printed is where it belongs."""
        report = self.report
        if report is None or self._done:
            return
        if self.output.complete(report.output) and self.errors.complete(report.errors):
            self._done = True
            self.say("done")
            clock = self.platform.clock
            clock.call_at(clock.now_ns() + POWER_OFF_NS, self._still_on)

    def _still_on(self) -> None:
        self.platform.control.panic("power off", f"the guest is still on {POWER_OFF_NS // 10**9} s after its command ended")
