"""Why there is no status of a command: one line, from the report of the guest's init, its console, and the machine's end."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.linux.needs import config_of
from pyhv.result import Outcome

if TYPE_CHECKING:
    from pyhv.linux.command import Command
    from pyhv.linux.console import Report
    from pyhv.result import Result

INIT = "pyhv-init: "
"""What begins a line of the guest's init on the console."""
BUILTIN = {
    "proc": "CONFIG_PROC_FS",
    "sysfs": "CONFIG_SYSFS",
    "devtmpfs": "CONFIG_DEVTMPFS",
    "tmpfs": "CONFIG_TMPFS",
}
"""File systems that no module brings."""
LOADING = "cannot load the module "
ENDED = (Outcome.POWER_OFF, Outcome.RESET, Outcome.PASSED, Outcome.FAILED)


def explain(command: Command, machine: Result) -> str:
    """One line, empty where the command ended with a status or by a signal, and the machine in order."""
    from pyhv.linux.console import parse_report

    report = command.console.report
    failure = "" if report is None else _failure(command, report)
    if report is None:
        said = [line.partition(INIT)[2] for line in machine.console.splitlines() if INIT in line]
        printed = parse_report(said[-1].strip()) if said else None
        failure = "" if printed is None else _failure(command, printed)
    if failure and (machine.outcome in ENDED or machine.outcome is Outcome.TIMEOUT):
        return failure
    if machine.outcome in (Outcome.POWER_OFF, Outcome.RESET):
        if report is not None:
            return ""
        how = "powered off" if machine.outcome is Outcome.POWER_OFF else "reset"
        return f"the guest {how} {_stage(command)}, without a word about its end"
    if machine.outcome is Outcome.TIMEOUT:
        return f"timeout: {machine.detail}, {_stage(command)}"
    if machine.outcome in (Outcome.PASSED, Outcome.FAILED):
        return f"the guest ended by {machine.detail} {_stage(command)}, without a word about its end"
    what = {Outcome.PANIC: "the kernel panicked", Outcome.TRIPLE_FAULT: "triple fault"}.get(machine.outcome)
    detail = f"{what}: {machine.detail}" if what else machine.detail or machine.outcome.value
    return f"{detail} ({_stage(command)})"


def _stage(command: Command) -> str:
    if command.console.report is not None:
        return "after the command had ended"
    return "while the command ran" if command.console.started else "before the command was started"


def _failure(command: Command, report: Report) -> str:
    """What the guest's init could not do."""
    if report.missing:
        if report.missing in BUILTIN:
            return f"the kernel {command.release} has no {report.missing}: it needs {BUILTIN[report.missing]}=y"
        option = config_of(report.missing)
        needs = f" ({option})" if option else ""
        return f"the kernel {command.release} has no {report.missing}{needs}: {_modules(command)}"
    text, _, number = report.error.rpartition(": errno ")
    if text and number.isdigit():
        return f"the guest's init: {text}: {os.strerror(int(number))}{_mismatch(command, text, int(number))}"
    return f"the guest's init: {report.error}" if report.error else ""


def _mismatch(command: Command, text: str, error: int) -> str:
    """What is known of a module that the kernel does not take."""
    tree = command.tree
    path = None if tree is None else tree.find(text)
    if tree is None or path is None or error != errno.ENOEXEC or not text.startswith(LOADING):
        return ""
    built_for = tree.info(path).version_magic.partition(" ")[0]
    if built_for == command.release:
        return ""
    return f"; it is for the kernel {built_for}, and this one is {command.release}: --modules names the folder of its own"


def _modules(command: Command) -> str:
    if command.tree is not None:
        return f"the modules in {command.tree.path} were loaded; --modules names another folder"
    return f"its modules are neither built in nor in {', '.join(command.looked)}; --modules names their folder"
