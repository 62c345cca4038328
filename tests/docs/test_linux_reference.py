"""What the page on commands says of arguments, results and modules is what the code has."""

import inspect

from documents import ROOT, table

from pyhv.linux import Command, CommandResult, run_command
from pyhv.linux.needs import KINDS, TRANSPORTS, WATCHDOGS
from pyhv.record import field_names

PAGE = ROOT / "docs" / "reference" / "linux.md"


def test_arguments():
    rows = {row[0]: row[1] for row in table(PAGE, "assert (result.status, result.stdout) == (0, b\"2\\n\")\n```\n")}
    parameters = dict(inspect.signature(Command.__init__).parameters)
    del parameters["self"], parameters["fields"]
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        default = parameter.default
        assert rows[name] == "required" if default is inspect.Parameter.empty else eval(rows[name], {}) == default, name
    assert set(inspect.signature(run_command).parameters) >= {"timeout", "backend", "seed", "log", "prepare"}


def test_results():
    rows = table(PAGE, "`Command` is open; it is for one run.\n")
    assert [row[0] for row in rows] == list(field_names(CommandResult))


def test_modules():
    rows = {row[0].removeprefix("transport ").strip("`"): row[1] for row in table(PAGE, "and nothing else:\n")}
    expected = dict(TRANSPORTS)
    expected |= {kind: ", ".join(modules) for kind, modules in KINDS.items()}
    assert rows == expected | {"watchdog": " or ".join(WATCHDOGS.values())}
