"""The commands of `pyhv` and their options."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.cli.options import Command, HelpWanted, Option, Positional, UsageError, choice, integer, seconds
from pyhv.hv.names import BACKENDS, REQUIREMENTS
from pyhv.machine import FORMATS, HUGEPAGES, IRQCHIPS, ON_RESET, UNPACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyhv.cli.options import Values

VERBOSE = Option("--verbose", "structured logs on stderr", short="-v", count=True)


def _debug_exit(text: str) -> int | None:
    return None if text == "none" else integer(text)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = TRACED if text == "all" else tuple(text.split(","))
    if not set(kinds) <= set(TRACED):
        raise ValueError(f"all, or some of {','.join(TRACED)}")
    return kinds


def _device(kind: str) -> Callable[[str], tuple[str, str]]:
    return lambda text: (kind, text)


def _any_device(text: str) -> tuple[str, str]:
    kind, _, fields = text.partition(",")
    return kind, fields


def _device_option(kind: str, help: str, metavar: str) -> Option:
    return Option(f"--{kind}", help, metavar, many=True, key="devices", convert=_device(kind))


ANY_DEVICE = Option(
    "--device",
    "one of the above, balloon, console or entropy: entropy,rate=1K",
    "KIND[,FIELD...]",
    many=True,
    key="devices",
    convert=_any_device,
)
DEVICES = (
    _device_option("disk", "a disk image: FILE,ro or path=FILE,format=qcow2", "FILE[,FIELD...]"),
    _device_option("net", "a network card: user,forward=tcp:2222:22 or tap,name=tap0", "MODE[,FIELD...]"),
    _device_option("share", "a host folder over virtio-fs: DIR,tag=work,writable", "DIR[,FIELD...]"),
    _device_option("vsock", "sockets between guest and host: SOCKET,cid=3", "PATH[,FIELD...]"),
    _device_option("pmem", "a file as persistent memory: FILE,readonly", "FILE[,FIELD...]"),
    _device_option("watchdog", "a watchdog: wdat,action=reset", "MODEL[,FIELD...]"),
    ANY_DEVICE,
)
TRACED = ("exits", "exceptions", "interrupts", "branches", "instructions")
TRANSPORTS = ("pci", "mmio")
MACHINE = (
    Option("--initrd", "initial RAM disk", "FILE"),
    Option("--cmdline", "kernel command line", "TEXT", alias="--append", default=""),
    Option("--module", "a boot module, with its arguments", "'FILE [ARGS]'", many=True, key="modules"),
    Option("--memory", "RAM, as in 512M (default: 256M)", "SIZE", short="-m"),
    Option("--cpus", "virtual CPUs (default: 1)", "N", default=1, convert=integer),
    Option("--format", f"how KERNEL is read: {', '.join(FORMATS)}", "NAME", default="auto", convert=choice(FORMATS)),
    Option("--load-address", "flat images: where they go (default: 0x7c00)", "ADDR", default=0x7C00, convert=integer),
    Option("--entry", "flat images: where they start (default: the load address)", "ADDR", convert=integer),
    Option("--backend", "what executes the guest: auto, kvm, sim", "NAME", default="auto", convert=choice(BACKENDS)),
    Option("--require", "fail where the host lacks it: kvm, amd-v", "WHAT", convert=choice(REQUIREMENTS), many=True),
    Option("--cpu", "CPUID template (default: host)", "MODEL", default="host"),
    Option("--feature", "add or mask a CPUID feature", "+NAME|-NAME", many=True, key="features"),
    Option("--irqchip", "where the PIC lives: split, kernel", "WHERE", default="split", convert=choice(IRQCHIPS)),
    Option("--hugepages", f"what backs RAM: {', '.join(HUGEPAGES)}", "KIND", default="none", convert=choice(HUGEPAGES)),
    Option("--debug-exit", "debug exit port, or none (default: 0xf4)", "PORT", default=0xF4, convert=_debug_exit),
    Option("--on-reset", "what a guest's reset does: exit, restart", "WHAT", default="exit", convert=choice(ON_RESET)),
    Option("--date", "what the clock shows at the start, UTC (default: host's; sim: 2026-01-01)", "ISO-8601"),
    Option(
        "--unpack",
        f"bzImage: unpack it on the host: {', '.join(UNPACK)}",
        "WHEN",
        default="auto",
        convert=choice(UNPACK),
    ),
    Option("--firmware", "start PC firmware, such as SeaBIOS, and let it boot KERNEL", "FILE"),
    *DEVICES,
    Option("--seed", "what a deterministic backend draws from", "N", default=0, convert=integer),
    Option("--timeout", "end the run, with status 124", "SECONDS", convert=seconds),
    Option("--json", "print the result as JSON on stdout, the console on stderr", flag=True),
    Option("--stats", "show the backend's counters on stderr (they are in --json as well)", flag=True),
    Option("--log", "also write the console to a file", "FILE"),
    Option("--quiet", "no verdict line on stderr", short="-q", flag=True),
    VERBOSE,
)
ROOT = Option("--root", "COMMAND's root (default: /); what it writes there is kept in memory", "DIR")
LINUX = (
    ROOT,
    Option("--root-writable", "let COMMAND write to its root", flag=True),
    Option("--modules", "the kernel's modules, as of /lib/modules/RELEASE", "DIR", key="module_tree"),
    Option("--transport", "what COMMAND's root and streams are on: pci, mmio", "NAME", convert=choice(TRANSPORTS)),
)
KERNEL = Positional("KERNEL", "bzImage, multiboot or PVH ELF, vmlinux, or a flat image")
RUN = Command(
    "run",
    "Boot a kernel, or run a command in one. Its console is stdout, its verdict the exit status: 0 passed, 1 failed,\n"
    "3 panic or triple fault, 124 timeout, 125 host or usage error. In a terminal, Ctrl-a x ends it and Ctrl-a h helps.\n"
    "With a COMMAND, a Linux kernel runs it: its streams are this command's, and so is its exit status (above 123: 123).",
    "pyhv.cli.run",
    (*MACHINE, *LINUX),
    (KERNEL,),
    Positional("COMMAND", "a program of the root, found by PATH; the machine has 512M unless told otherwise"),
)
TRACE = Command(
    "trace",
    "Boot a kernel and show what its processors do, a line an event.\n"
    "The trace is stdout and the console stderr; with --output the console is stdout. KVM shows exits only.",
    "pyhv.cli.trace",
    (
        Option(
            "--what",
            f"all, or some of {','.join(TRACED)} (default: exits)",
            "KINDS",
            default=("exits",),
            convert=_kinds,
        ),
        Option("--address", "only what happens there: a symbol, an address, or LOW-HIGH", "WHERE"),
        Option(
            "--limit", "show so many events, count the others (default: 100000)", "N", default=100_000, convert=integer
        ),
        Option("--output", "write the trace to a file", "FILE", short="-o"),
        Option("--symbols", "ELF file that names addresses (default: KERNEL)", "FILE"),
        *MACHINE,
    ),
    (KERNEL,),
)
DOCTOR = Command(
    "doctor",
    "What this host offers, why not, and the fix.",
    "pyhv.cli.doctor",
    (Option("--json", "print the findings as JSON", flag=True), VERBOSE),
)
COMMANDS = {command.name: command for command in (RUN, TRACE, DOCTOR)}


def parse(arguments: Sequence[str]) -> tuple[Command, Values]:
    """Read a command line. Raises UsageError, and HelpWanted for --help and --version."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        text = _overview()
        if arguments:
            raise HelpWanted(text)
        raise UsageError(f"a command is missing: {', '.join(COMMANDS)} (see pyhv --help)")
    if arguments[0] == "--version":
        from pyhv import __version__

        raise HelpWanted(f"pyhv {__version__}")
    command = COMMANDS.get(arguments[0])
    if command is None:
        raise UsageError(f"{arguments[0]!r} is not a command; there are {', '.join(COMMANDS)} (see pyhv --help)")
    return command, command.parse(arguments[1:])


def _overview() -> str:
    lines = ["usage: pyhv COMMAND ...", "", "A hypervisor in Python.", ""]
    lines += [f"  {c.name:<10} {c.summary.partition('.')[0]}." for c in COMMANDS.values()]
    return "\n".join([*lines, "", "pyhv COMMAND --help shows a command's options; pyhv --version the version."])


def as_option(message: str, arguments: Sequence[str]) -> str:
    """A library message about a field ("memory: ...") as one about the option that set it ("--memory: ...")."""
    field, colon, rest = message.partition(": ")
    if not colon or not field.isidentifier():
        return message
    if field == KERNEL.name.lower():
        return f"{KERNEL.name}: {rest}"
    for option in _options_of_fields().get(field, ()):
        if _given(option, arguments):
            return f"{option.name}: {rest}"
    if field == "share" and not _given(ANY_DEVICE, arguments) and _given(ROOT, arguments):
        return f"{ROOT.name}: {rest.removeprefix('path: ')}"
    if _given(ANY_DEVICE, arguments) and (field == "devices" or field in _device_kinds()):
        return f"{ANY_DEVICE.name}: {rest}" if field == "devices" else f"{ANY_DEVICE.name} {message}"
    return message


def _options_of_fields() -> dict[str, list[Option]]:
    """Options by the field that a library message names: Machine's, a device's kind, or a parameter of a command's."""
    out: dict[str, list[Option]] = {}
    for option in (*TRACE.options, *LINUX):
        key = option.name.lstrip("-") if option.key == "devices" else option.attribute
        out.setdefault({"module_tree": "modules", "root_writable": "writable"}.get(key, key), []).append(option)
    return out


def _given(option: Option, arguments: Sequence[str]) -> bool:
    """Whether a command line has an option, under any of its names."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    names = [name for name in (option.name, option.alias) if name]
    if any(word == name or word.startswith(f"{name}=") for word in words for name in names):
        return True
    return bool(option.short) and any(word.startswith(option.short) and word[:2] != "--" for word in words)


def _device_kinds() -> Iterable[str]:
    from pyhv.peripherals import KINDS

    return KINDS
