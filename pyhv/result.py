"""How a run ended, and what is known about it."""

from __future__ import annotations

from pyhv import errors
from pyhv._types import TYPE_CHECKING
from pyhv.enums import Enum
from pyhv.record import field, record

if TYPE_CHECKING:
    from typing import Any

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_CRASHED = 3
EXIT_TIMEOUT = 124
EXIT_ERROR = 125


class Outcome(Enum):
    """What ended a run; the value is what --json shows."""

    PASSED = "passed"
    """The guest reported status 0 through the debug exit."""
    FAILED = "failed"
    """The guest reported another status."""
    POWER_OFF = "power-off"
    RESET = "reset"
    PANIC = "panic"
    TRIPLE_FAULT = "triple-fault"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    """The user ended it: Ctrl-C, Ctrl-a x, Vm.stop()."""
    ERROR = "error"
    """The VMM could not go on; never the guest's verdict."""

    @property
    def ok(self) -> bool:
        """Whether this is a pass."""
        return self in _OK

    @property
    def exit_code(self) -> int:
        """The exit status of `pyhv run`."""
        return EXIT_PASSED if self in _OK else _CODES.get(self, EXIT_ERROR)


_OK = frozenset({Outcome.PASSED, Outcome.POWER_OFF, Outcome.RESET})
_CODES = {
    Outcome.FAILED: EXIT_FAILED,
    Outcome.PANIC: EXIT_CRASHED,
    Outcome.TRIPLE_FAULT: EXIT_CRASHED,
    Outcome.TIMEOUT: EXIT_TIMEOUT,
}
TAIL_LINES = 12


@record(frozen=True)
class Result:
    """A run's verdict and its measurements. Times are in seconds, counts are exact.

    - `guest_status`: the raw value of the debug exit, None where the guest ended otherwise.
    - `detail`: one line that says what ended the run.
    - `exits`: exits to the VMM by kind. `unclaimed`: accesses that no device answered, by address.
    - `instructions`: guest instructions where the backend counts them (the simulator), else None.
    - `avic`: whether AVIC accelerated interrupts, None where it is not known; `avic_reason` explains.
    - `registers`, `last_exits`: filled when the run ended badly.
    """

    outcome: Outcome
    backend: str
    backend_reason: str
    detail: str = ""
    guest_status: int | None = None
    console: str = ""
    exits: dict[str, int] = field(default_factory=dict)
    unclaimed: dict[str, int] = field(default_factory=dict)
    deterministic: bool = False
    instructions: int | None = None
    statistics: dict[str, Any] = field(default_factory=dict)
    wall_seconds: float = 0.0
    guest_seconds: float = 0.0
    avic: bool | None = None
    avic_reason: str = ""
    registers: str = ""
    last_exits: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the guest passed."""
        return self.outcome.ok

    @property
    def exit_code(self) -> int:
        """The exit status that `pyhv run` gives for this result."""
        return self.outcome.exit_code

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The console's last lines."""
        return "\n".join(self.console.splitlines()[-lines:])

    def summary(self) -> str:
        """The verdict in one line."""
        total = sum(self.exits.values())
        status = f" (status {self.guest_status})" if self.guest_status is not None else ""
        text = f"{self.outcome.value}{status} on {self.backend}, {total} exits, {self.wall_seconds * 1000:.1f} ms"
        if self.instructions is not None:
            text += f", {self.instructions} instructions"
        return text + (f": {self.detail}" if self.detail and not self.ok else "")

    def report(self) -> str:
        """Several lines for a failure: verdict, registers, last exits, the console's tail."""
        parts = [self.summary()]
        if self.registers:
            parts.append("registers:\n" + _indent(self.registers))
        if self.last_exits:
            parts.append("last exits:\n" + _indent("\n".join(self.last_exits)))
        parts.append("console (tail):\n" + _indent(self.tail() or "(nothing)"))
        return "\n".join(parts)

    def check(self) -> Result:
        """Return self if the guest passed; raise the matching typed error otherwise, with `report()` as its text."""
        if self.ok:
            return self
        kind = {
            Outcome.PANIC: errors.GuestPanic,
            Outcome.TRIPLE_FAULT: errors.TripleFault,
            Outcome.FAILED: errors.GuestFailed,
            Outcome.TIMEOUT: errors.VmTimeout,
            Outcome.STOPPED: errors.GuestFailed,
        }.get(self.outcome, errors.VmmError)
        raise kind(self.report(), self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "outcome": self.outcome.value,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "guest_status": self.guest_status,
            "detail": self.detail,
            "backend": self.backend,
            "backend_reason": self.backend_reason,
            "deterministic": self.deterministic,
            "instructions": self.instructions,
            "exits": self.exits,
            "unclaimed": self.unclaimed,
            "statistics": self.statistics,
            "wall_seconds": round(self.wall_seconds, 6),
            "guest_seconds": round(self.guest_seconds, 6),
            "avic": self.avic,
            "avic_reason": self.avic_reason,
            "registers": self.registers,
            "last_exits": list(self.last_exits),
            "console": self.console,
        }


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
