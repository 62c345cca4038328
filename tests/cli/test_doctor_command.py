"""`pyhv doctor` as a user runs it."""

import json
import subprocess
import sys

from pyhv.cli.doctor import table
from pyhv.doctor import Finding, Report


def doctor(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pyhv", "doctor", *arguments], capture_output=True, text=True, timeout=120
    )


def test_table_and_json_agree():
    text, document = doctor(), doctor("--json")
    report = json.loads(document.stdout)
    assert text.returncode == document.returncode == (0 if report["ok"] else 125)
    assert text.stderr == document.stderr == ""
    for finding in report["findings"]:
        assert any(line.split("  ")[0] == finding["name"] for line in text.stdout.splitlines())
    assert text.stdout.rstrip().endswith(report["backend_reason"])


def test_a_fix_is_one_line_and_shown_once():
    fix = "sudo " + "x" * 150
    findings = tuple(Finding(name, "no", "words " * 30, fix) for name in ("first", "second"))
    text = table(Report(findings, None, "no reason"), columns=80)
    assert text.count(f"fix: {fix}\n") == 1
    assert "fix: as for first\n" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "fix:" not in line)
    assert text.endswith("No backend can run guests here: no reason\n")


def test_an_unknown_option_is_one_line():
    result = doctor("--banana")
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (125, "", 1)
