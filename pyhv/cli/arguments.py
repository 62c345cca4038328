"""The command line: options, and messages that name the option, what it got and what it takes."""

from __future__ import annotations

import argparse

from pyhv._types import TYPE_CHECKING
from pyhv.hv.select import BACKENDS, REQUIREMENTS
from pyhv.machine import FORMATS, HUGEPAGES, IRQCHIPS, ON_RESET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


class UsageError(Exception):
    """A command line that cannot be read; the text is one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def _integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer, as in 4 or 0x7c00") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _debug_exit(text: str) -> int | None:
    return None if text == "none" else _integer(text)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line; the result's `function` runs the subcommand. Raises UsageError; exits for --help."""
    from pyhv import __version__

    parser = _Parser(prog="pyhv", description="A hypervisor in Python.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pyhv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_doctor(commands)
    return parser.parse_args(arguments)


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        help="boot a kernel and give its verdict",
        description="Boot a kernel. Its console is stdout; the exit status is its verdict.",
        allow_abbrev=False,
    )
    add = run.add_argument
    add("kernel", metavar="KERNEL", help="bzImage, multiboot or PVH ELF, vmlinux, or a flat image")
    add("--initrd", metavar="FILE", help="initial RAM disk")
    add("--cmdline", "--append", metavar="TEXT", default="", help="kernel command line")
    add("--module", metavar="FILE [ARGS]", action="append", default=[], dest="modules", help="boot module; repeatable")
    add("--memory", "-m", metavar="SIZE", default="256M", help="RAM, as in 512M (default: 256M)")
    add("--cpus", metavar="N", type=_integer, default=1, help="virtual CPUs (default: 1)")
    add("--format", choices=FORMATS, default="auto", help="force how KERNEL is read")
    add("--load-address", metavar="ADDR", type=_integer, default=0x7C00, help="flat images: where they go")
    add("--entry", metavar="ADDR", type=_integer, help="flat images: where they start (default: the load address)")
    add("--backend", choices=BACKENDS, default="auto", help="what executes the guest (default: auto)")
    add("--require", choices=REQUIREMENTS, action="append", default=[], help="fail where the host lacks it")
    add("--cpu", metavar="MODEL", default="host", help="CPUID template (default: host)")
    add("--feature", metavar="+NAME|-NAME", action="append", default=[], dest="features", help="change CPUID; repeatable")
    add("--irqchip", choices=IRQCHIPS, default="split", help="where PIC, PIT and I/O APIC live (default: split)")
    add("--hugepages", choices=HUGEPAGES, default="none", help="back RAM with huge pages")
    add("--debug-exit", metavar="PORT", type=_debug_exit, default=0xF4, help="debug exit port, or none (default: 0xf4)")
    add("--on-reset", choices=ON_RESET, default="exit", help="what a guest's reset does (default: exit)")
    add("--seed", metavar="N", type=_integer, default=0, help="what a deterministic backend draws from")
    add("--timeout", metavar="SECONDS", type=_seconds, help="end the run, with status 124")
    add("--json", action="store_true", help="print the result as JSON on stdout, the console on stderr")
    add("--log", metavar="FILE", help="also write the console to a file")
    add("--quiet", "-q", action="store_true", help="no verdict line on stderr")
    add("--verbose", "-v", action="count", default=0, help="structured logs on stderr")
    run.set_defaults(function=_run)


def _run(options: argparse.Namespace) -> int:
    from pyhv.cli.run import command

    return command(options)


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = commands.add_parser("doctor", help="what this host offers, why not, and the fix", allow_abbrev=False)
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument("--verbose", "-v", action="count", default=0, help="structured logs on stderr")
    doctor.set_defaults(function=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from pyhv.cli.doctor import command

    return command(options)





def as_option(message: str, arguments: Sequence[str]) -> str:
    """A library message about a field ("memory: ...") as one about the option that set it ("--memory: ...")."""
    field, colon, rest = message.partition(": ")
    if not colon or not field.isidentifier():
        return message
    option = "--" + {"features": "feature", "modules": "module"}.get(field, field.replace("_", "-"))
    used = any(a == option or a.startswith(option + "=") for a in arguments)
    return f"{option}: {rest}" if used else message



