"""The options of scripts/rig.py and what its exit status says."""

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

from amdv_rig.errors import RigLost, RigSetupError
from amdv_rig.initramfs import find_kernel
from amdv_rig.job import DEFAULT_CPU, DEFAULT_MODULES, Job
from amdv_rig.machine import RigResult, Sinks, run_in_rig
from amdv_rig.stdin import raw_terminal
from amdv_rig.streams import Sink, file_sink
from pyhv.linux.modules import module_name

PROJECT = Path(__file__).resolve().parent.parent.parent
KERNELS = PROJECT / "build/kernels"
CACHE = PROJECT / "build/rig"

EXIT_TIMEOUT = 250
EXIT_LOST = 251
EXIT_SETUP = 252

_EPILOG = f"""\
The exit status is the command's own (128 + N when signal N killed it), but for
  {EXIT_TIMEOUT}  the timeout ended the machine
  {EXIT_LOST}  the machine ended, or could not prepare the command, without its status
  {EXIT_SETUP}  nothing ran: a wrong option, or something is missing
  130  interrupted

Inside, the whole file system is the host's, read-only under a tmpfs: what the command writes is lost, except under
--artifacts. PYHV_RIG=1 is set, the project's .venv/bin leads PATH, and the project's directory is the current one.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_SETUP, f"rig: {message}\n")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"'{text}' (takes {low} to {high})")
        return int(text)

    return convert


def _memory(text: str) -> int:
    """MiB, from "1024", "1024M" or "2G"."""
    match = re.fullmatch(r"([0-9]{1,6})([MG]?)", text)
    size = int(match[1]) * (1024 if match[2] == "G" else 1) if match else 0
    if not 256 <= size <= 65536:
        raise argparse.ArgumentTypeError(f"'{text}' (takes 256M to 64G)")
    return size


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' (takes seconds, more than 0, at most 86400)")
    return value


def _module_parameter(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_]+=[^\s]*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' (takes MODULE.NAME=VALUE)")
    return module_name(match[1]), match[2]


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"'{text}' (takes NAME=VALUE, or NAME to pass this environment's on)")
    return name, value if separator else os.environ.get(name, "")


def _artifacts(text: str) -> Path:
    path = Path(text).resolve()
    if PROJECT.is_relative_to(path):
        raise argparse.ArgumentTypeError(f"'{text}' holds the project itself: give a directory of its own")
    if "," in str(path):
        raise argparse.ArgumentTypeError(f"'{text}': virtiofsd takes no path with a comma")
    return path


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rig.py",
        usage="rig.py [option ...] [--] COMMAND [ARGUMENT ...] | --shell | --selfcheck",
        description="Run a command on an emulated AMD machine with a real kvm_amd and nested paging.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")
    add("--shell", action="store_true", help="an interactive shell; Ctrl-a x ends the machine")
    add("--selfcheck", action="store_true", help="prove that /dev/kvm is kvm_amd's, with nested paging")
    add("--smp", type=_whole(1, 8), default=2, metavar="N", help="virtual CPUs (2)")
    add("--memory", type=_memory, default=1024, metavar="SIZE", help="the machine's memory, MiB or with M, G (1024M)")
    add("--timeout", type=_seconds, default=600.0, metavar="S", help="seconds for all, the boot included (600)")
    add("--hugepages", type=_whole(0, 16384), default=0, metavar="N", help="2 MiB hugepages to reserve")
    add("--artifacts", type=_artifacts, metavar="DIR", help="a directory that the command writes for real")
    add("--directory", type=Path, default=PROJECT, metavar="DIR", help="where the command starts (the project)")
    add("--env", type=_variable, action="append", default=[], metavar="NAME[=VALUE]", help="a variable; repeatable")
    add("--stdin", action="store_true", help="pass standard input on (else the command reads /dev/null)")
    add("--tty", action="store_true", help="give the command a terminal; implies --stdin")
    add("--module", action="append", default=[], metavar="NAME", help="a kernel module to load too; repeatable")
    add(
        "--module-param",
        type=_module_parameter,
        action="append",
        default=[],
        metavar="MODULE.NAME=VALUE",
        help="as in kvm_amd.nested=0; repeatable",
    )
    add("--append", action="append", default=[], metavar="TEXT", help="more kernel parameters; repeatable")
    add("--cpu", default=DEFAULT_CPU, metavar="MODEL", help="QEMU's -cpu (%(default)s)")
    add("--qemu-arg", action="append", default=[], metavar="ARG", help="one more QEMU argument; repeatable")
    add("--kernel", choices=("cloud", "generic"), default="cloud", help="which of build/kernels to boot (cloud)")
    add("--console", action="store_true", help="show the machine's own console on standard error")
    add("--console-log", type=Path, metavar="FILE", help="write the machine's own console to a file")
    add("-v", "--verbose", action="store_true", help="say on standard error how long the machine took")
    return parser


def job_from(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Job:
    """The job that the options describe; the parser's error for what makes no sense together."""
    command = list(options.command)
    if command[:1] == ["--"]:
        del command[0]
    modes = [bool(command), options.shell, options.selfcheck]
    if sum(modes) != 1:
        parser.error("give a COMMAND, or --shell, or --selfcheck" + (", not two of them" if sum(modes) > 1 else ""))
    if options.shell:
        command = ["/bin/sh", "-i"]
    if options.selfcheck:
        command = ["python3", str(Path(__file__).with_name("selfcheck.py"))]
    tty = options.tty or options.shell
    if options.hugepages * 2 > options.memory - 192:
        parser.error(
            f"--hugepages {options.hugepages}: {options.hugepages * 2} MiB do not fit beside the system in "
            f"--memory {options.memory}M"
        )
    if not options.directory.is_dir():
        parser.error(f"--directory: no directory '{options.directory}'")
    if options.artifacts is not None:
        options.artifacts.mkdir(parents=True, exist_ok=True)
    parameters: dict[str, list[str]] = {}
    for module, setting in options.module_param:
        parameters.setdefault(module, []).append(setting)
    return Job(
        command=tuple(command),
        directory=options.directory.resolve(),
        environment=_environment(options, tty),
        smp=options.smp,
        memory=options.memory,
        timeout=options.timeout,
        cpu=options.cpu,
        hugepages=options.hugepages,
        modules=(*DEFAULT_MODULES, *options.module),
        module_params=parameters,
        append=" ".join(options.append),
        qemu_arguments=tuple(options.qemu_arg),
        artifacts=options.artifacts,
        stdin=options.stdin or tty,
        tty=tty,
        merge_stderr=not tty and _same_file(1, 2),
    )


def _environment(options: argparse.Namespace, tty: bool) -> dict[str, str]:
    venv = PROJECT / ".venv"
    host = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL", "USER", "LOGNAME") if name in os.environ}
    if tty:
        host["TERM"] = os.environ.get("TERM", "linux")
    path = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {
        **host,
        "PATH": f"{venv / 'bin'}:{path}",
        "VIRTUAL_ENV": str(venv),
        "PYHV_RIG": "1",
        **({"PYHV_ARTIFACTS": str(options.artifacts)} if options.artifacts else {}),
        **dict(options.env),
    }


def _same_file(first: int, second: int) -> bool:
    try:
        return os.path.samestat(os.fstat(first), os.fstat(second))
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        job = job_from(options, parser)
        with ExitStack() as stack:
            sinks = Sinks(file_sink(1), file_sink(2), _console_sink(options, stack))
            kernel = find_kernel(KERNELS / options.kernel)
            if job.tty:
                stack.enter_context(raw_terminal())
            result = run_in_rig(job, kernel, CACHE, sinks)
    except (RigSetupError, OSError) as error:
        return _complain(str(error), EXIT_SETUP)
    except RigLost as error:
        return _complain("\n".join(filter(None, [str(error), error.details])), EXIT_LOST)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    return _verdict(result, job, options.verbose)


def _verdict(result: RigResult, job: Job, verbose: bool) -> int:
    if verbose and result.ready is not None:
        _say(f"command after {result.ready:.1f} s, end after {result.ended:.1f} s, status {result.status}")
    if result.status is None:
        stage = "before the command could start" if result.ready is None else "while the command ran"
        return _complain(f"timeout after {job.timeout:g} s, {stage}", EXIT_TIMEOUT)
    return result.status


def _console_sink(options: argparse.Namespace, stack: ExitStack) -> Sink | None:
    if options.console_log is not None:
        return file_sink(stack.enter_context(options.console_log.open("wb")).fileno())
    return file_sink(2) if options.console else None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(f"rig: {text}", file=sys.stderr, flush=True)


def _complain(text: str, status: int) -> int:
    _say(text)
    return status
