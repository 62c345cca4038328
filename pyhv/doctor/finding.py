"""What an examination says."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.record import as_dict, record

if TYPE_CHECKING:
    from typing import Any

YES, NO, UNKNOWN = STATES = ("yes", "no", "unknown")


@record(frozen=True)
class Finding:
    """One feature of the host.

    `state` is one of STATES; `fix` is the command or the step that turns it to yes, "" where none would.
    """

    name: str
    state: str
    reason: str
    fix: str = ""


@record(frozen=True)
class Report:
    """All findings, and the backend that `auto` takes (None where none runs guests) with its reason."""

    findings: tuple[Finding, ...]
    backend: str | None
    backend_reason: str

    @property
    def ok(self) -> bool:
        """Whether guests can run here."""
        return self.backend is not None

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "ok": self.ok,
            "backend": self.backend,
            "backend_reason": self.backend_reason,
            "findings": [as_dict(finding) for finding in self.findings],
        }
