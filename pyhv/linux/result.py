"""How a command in a guest ended, and how the machine around it did."""

from __future__ import annotations

from pyhv import errors
from pyhv._types import TYPE_CHECKING
from pyhv.record import record
from pyhv.result import EXIT_ERROR, EXIT_PASSED, TAIL_LINES, Outcome

if TYPE_CHECKING:
    from typing import Any

    from pyhv.result import Result

HIGHEST_STATUS = 123
"""A command's exit statuses above it, and its death by a signal, are this one: those above mean something else."""


@record(frozen=True)
class CommandResult:
    """A command's verdict.

    - `status`: its exit status, or None; `signal`: what killed it, or None. With neither, `error` says in one line why.
    - `stdout`, `stderr`: what it printed, where that was kept.
    - `machine`: the Result of the machine; its console is the kernel's.
    """

    command: tuple[str, ...]
    machine: Result
    status: int | None = None
    signal: int | None = None
    error: str = ""
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the command ended with status 0, and the machine as it should."""
        return self.status == 0 and not self.error

    @property
    def exit_code(self) -> int:
        """The exit status of `pyhv run`."""
        if self.error:
            code = self.machine.exit_code
            failed = self.machine.outcome in (Outcome.PANIC, Outcome.TRIPLE_FAULT, Outcome.TIMEOUT)
            return code if failed else EXIT_ERROR
        if self.status is None:
            return HIGHEST_STATUS
        return min(self.status, HIGHEST_STATUS) if self.status else EXIT_PASSED

    def summary(self) -> str:
        """The verdict in one line."""
        return self.error or f"{ending(self.status, self.signal)} ({self.machine.summary()})"

    def check(self) -> CommandResult:
        """Return self if the command passed; otherwise raise the matching typed error, with all that explains it.

        GuestFailed for a status other than 0 or a signal; the errors of `Result.check` where the machine ended badly.
        """
        if self.ok:
            return self
        if not self.error:
            raise errors.GuestFailed(self.report(), self.machine)
        kind = {
            Outcome.PANIC: errors.GuestPanic,
            Outcome.TRIPLE_FAULT: errors.TripleFault,
            Outcome.TIMEOUT: errors.VmTimeout,
            Outcome.STOPPED: errors.GuestFailed,
        }.get(self.machine.outcome, errors.VmmError)
        raise kind(self.report(), self.machine)

    def report(self) -> str:
        """Several lines for a failure: the verdict, what the command printed last, the kernel's last lines."""
        console = self.machine.tail() or "(nothing)"
        parts = [f"{' '.join(self.command)}: {self.summary()}"]
        for name, text in (("stdout", _text(self.stdout)), ("stderr", _text(self.stderr)), ("console", console)):
            lines = text.splitlines()[-TAIL_LINES:]
            if lines:
                parts.append(f"{name} (tail):\n" + "\n".join(f"  {line}" for line in lines))
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the machine's result, with the command's verdict in it."""
        return self.machine.to_dict() | {
            "ok": self.ok,
            "exit_code": self.exit_code,
            "command": {
                "arguments": list(self.command),
                "status": self.status,
                "signal": self.signal,
                "error": self.error,
                "stdout": _text(self.stdout),
                "stderr": _text(self.stderr),
            },
        }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def ending(status: int | None, number: int | None) -> str:
    """An exit status or a signal, in words."""
    if status is not None:
        return f"exit status {status}"
    import signal

    try:
        name = signal.Signals(number or 0).name
    except ValueError:
        name = "a signal"
    return f"killed by {name} ({number})"
