"""`pyhv doctor`: what this host offers, as a table or as JSON."""

from __future__ import annotations

import os
import sys

from pyhv._types import TYPE_CHECKING
from pyhv.cli import emit
from pyhv.doctor import examine
from pyhv.result import EXIT_ERROR, EXIT_PASSED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pyhv.doctor import Finding, Report

WIDTH = 110
"""Columns where the output is not a terminal."""


def command(options: argparse.Namespace) -> int:
    """Print the findings; 0 when a backend can run guests here, else the status of a host error."""
    report = examine()
    if options.json:
        import json

        text = json.dumps(report.to_dict(), indent=2) + "\n"
    else:
        text = table(report, _columns())
    emit(text)
    return EXIT_PASSED if report.ok else EXIT_ERROR


def table(report: Report, columns: int = WIDTH) -> str:
    """The findings for people: name, state, reason; what mends it on a line of its own, never broken, to be copied."""
    indent = max(len(finding.name) for finding in report.findings) + 2
    lines: list[str] = []
    fixes: dict[str, str] = {}
    for finding in report.findings:
        first = fixes.setdefault(finding.fix, finding.name)
        lines += _rows(finding, finding.fix if first == finding.name else f"as for {first}", indent, columns)
    lines.append("")
    if report.backend is None:
        lines.append(f"No backend can run guests here: {report.backend_reason}")
    else:
        lines.append(f"Guests run on {report.backend}: {report.backend_reason}")
    return "\n".join(lines) + "\n"


def _rows(finding: Finding, fix: str, indent: int, columns: int) -> Iterator[str]:
    from textwrap import wrap

    state = 9
    margin = " " * (indent + state)
    reason = wrap(finding.reason, max(columns - len(margin), 30)) or [""]
    yield f"{finding.name:<{indent}}{finding.state:<{state}}{reason[0]}".rstrip()
    for line in reason[1:]:
        yield margin + line
    if finding.fix:
        yield f"{margin}fix: {fix}"


def _columns() -> int:
    if not sys.stdout.isatty():
        return WIDTH
    try:
        return os.get_terminal_size().columns
    except OSError:
        return WIDTH
