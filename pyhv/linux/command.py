"""A machine that boots a Linux kernel to run one command, with a folder of the host as its root."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.linux.console import CommandConsole
from pyhv.linux.diagnosis import explain
from pyhv.linux.initramfs import initramfs, module_files
from pyhv.linux.job import PATH, USER_NETWORK, Job, Network
from pyhv.linux.needs import OVERLAY, modules_for
from pyhv.linux.release import kernel_release
from pyhv.linux.result import CommandResult
from pyhv.linux.trees import find_tree
from pyhv.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike
    from typing import IO, Any

    from pyhv.device import Device
    from pyhv.linux.modules import ModuleTree
    from pyhv.peripherals import Peripheral
    from pyhv.result import Result
    from pyhv.vm import Backend, Vm

CMDLINE = "console=ttyS0"
QUIET = "quiet"
"""Kernels still print what goes wrong; each line printed costs time at the serial port."""
MEMORY = "512M"
ROOT_TAG = "pyhv.root"
TRANSPORTS = ("pci", "mmio")


class Command:
    """A command in a kernel, prepared for one run: `machine` is what runs it, `result` tells how it ended.

        with Command("vmlinuz", ["uname", "-r"]) as command, pyhv.Vm(command.machine) as vm:
            result = command.result(vm.run(timeout=60))

    `pyhv.run_command` does that. Fields:

    - `kernel`: path of a bzImage or a vmlinux; `arguments`: the command and its arguments, found by PATH.
    - `root`: the folder that is its root; what it writes goes to memory, or with `writable` to the folder. None: no root but
      the initial RAM disk.
    - `modules`: the folder of the kernel's modules; found beside the kernel or in /lib/modules unless given.
    - `stdin`: bytes, or a descriptor. `stdout`, `stderr`: descriptors; without them what is printed is kept.
    - `environment`: variables, added to PATH, HOME, USER and TERM. `directory`: where it starts: this process's where the
      root has that, else "/".
    - `terminal`: the command has a terminal, whose descriptors are `stdin` and `stdout`: (columns, rows), and what makes of
      the typed bytes those that the guest gets.
    - `devices`: more devices, whose drivers are loaded; `transport`: of the root and the streams, "pci" or "mmio".
    - `quiet`: whether the kernel prints warnings only; `cmdline`: more parameters for it.
    - `fields`: others of Machine.

    Raises ConfigError, also for a module that the kernel lacks, and HostError.
    """

    def __init__(
        self,
        kernel: str | PathLike[str],
        arguments: Sequence[str],
        *,
        root: str | PathLike[str] | None = "/",
        writable: bool = False,
        modules: str | PathLike[str] | None = None,
        stdin: bytes | int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        hostname: str = "pyhv",
        terminal: tuple[tuple[int, int], Callable[[bytes], bytes]] | None = None,
        devices: Iterable[Device | Peripheral] = (),
        transport: str = "pci",
        quiet: bool = True,
        cmdline: str = "",
        memory: int | str = MEMORY,
        **fields: Any,
    ) -> None:
        if isinstance(arguments, str) or not all(isinstance(word, str) for word in arguments):
            raise ConfigError(f"command: {arguments!r} is not a list of texts")
        if transport not in TRANSPORTS:
            raise ConfigError(f"transport: {transport!r} is not one of {', '.join(TRANSPORTS)}")
        self.arguments = tuple(arguments)
        self._initrd = -1
        given = tuple(devices)
        path = os.fspath(kernel)
        self.release = kernel_release(path)
        self.tree, self.looked = find_tree(path, self.release, None if modules is None else os.fspath(modules))
        self.console = CommandConsole(
            stdin=stdin,
            output=stdout,
            errors=stderr,
            terminal=None if terminal is None else terminal[1],
            transport=transport,
        )
        folder = None if root is None else _folder(root)
        peripherals = [] if folder is None else [_share(folder, writable, transport)]
        names = modules_for([_Needs("console", transport), *peripherals, *given])
        files = self._modules(names if folder is None or writable else [*names, OVERLAY])
        job = Job(
            self.arguments,
            environment=_environment(folder, terminal is not None) | dict(environment or {}),
            directory=_directory(folder) if directory is None else directory,
            tag=None if folder is None else ROOT_TAG,
            writable=writable,
            hostname=hostname,
            modules=tuple(f"/{name}" for name, _ in files),
            module_tree=None if folder is None or self.tree is None else _inside(folder, self.tree, self.release),
            release=self.release,
            network=_network(given),
            stdin=stdin is not None,
            terminal=None if terminal is None else terminal[0],
        )
        parameters = [CMDLINE, *([QUIET] if quiet else []), *([cmdline] if cmdline else [])]
        self.machine = Machine(
            path,
            initrd=self._keep(initramfs(job, files)),
            cmdline=" ".join(parameters),
            memory=memory,
            devices=[*peripherals, self.console, *given],
            **fields,
        )
        if self.machine.on_reset != "exit":
            raise ConfigError("on_reset: a machine that runs a command ends at its reset")

    def _modules(self, names: Sequence[str]) -> list[tuple[str, bytes]]:
        """The modules to load; a kernel of which none were found may have everything built in."""
        return [] if self.tree is None else module_files(self.tree, self.tree.load_order(names))

    def _keep(self, data: bytes) -> str:
        """A path of bytes, for as long as this object is open; nothing stays behind, however this process ends."""
        self._initrd = os.memfd_create("pyhv-initramfs", os.MFD_CLOEXEC)
        view = memoryview(data)
        while view:
            view = view[os.write(self._initrd, view) :]
        return f"/proc/{os.getpid()}/fd/{self._initrd}"

    def result(self, machine: Result) -> CommandResult:
        """The command's verdict, once its machine has ended with this one."""
        report = self.console.report
        status = None if report is None else report.status
        signal = None if report is None else report.signal
        return CommandResult(
            command=self.arguments,
            machine=machine,
            status=status,
            signal=signal,
            error=explain(self, machine),
            stdout=bytes(self.console.output.captured),
            stderr=bytes(self.console.errors.captured),
        )

    def close(self) -> None:
        """Give back what was kept for the machine. Idempotent."""
        fd, self._initrd = self._initrd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def run_command(
    kernel: str | PathLike[str],
    arguments: Sequence[str],
    *,
    timeout: float | None = None,
    backend: Backend = "auto",
    seed: int = 0,
    log: IO[bytes] | None = None,
    prepare: Callable[[Vm], None] | None = None,
    **options: Any,
) -> CommandResult:
    """Run a command in a Linux kernel; never raises for what guest or command do.

    `options` are those of `pyhv.linux.Command`; `log` receives what the kernel prints; `prepare` sees the Vm before it runs.
    """
    from pyhv.vm import Vm

    with Command(kernel, arguments, **options) as command:
        with Vm(command.machine, backend=backend, seed=seed) as vm:
            if log is not None:
                vm.console.add_sink(log.write)
            if prepare is not None:
                prepare(vm)
            result = vm.run(timeout)
        return command.result(result)


class _Needs:
    """What a device of no description needs drivers for."""

    def __init__(self, kind: str, transport: str) -> None:
        self.kind = kind
        self.transport = transport


def _folder(root: str | PathLike[str]) -> str:
    path = os.path.abspath(os.fspath(root))
    if not os.path.isdir(path):
        raise ConfigError(f"root: {os.fspath(root)!r} is not a folder")
    return path


def _share(folder: str, writable: bool, transport: str) -> Peripheral:
    from pyhv.peripherals.share import Share

    return Share(folder, tag=ROOT_TAG, writable=writable, xattr="write" if writable else "read", transport=transport)


def _environment(folder: str | None, terminal: bool) -> dict[str, str]:
    """PATH is this process's own where the command sees the same files."""
    path = os.environ.get("PATH", "") if folder == "/" else ""
    term = os.environ.get("TERM", "") if terminal else ""
    return {"PATH": path or PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "TERM": term or "dumb"}


def _directory(folder: str | None) -> str:
    """This process's own directory as the guest sees it, where the root has it."""
    if folder is None:
        return "/"
    try:
        inside = _below(folder, os.getcwd())
    except OSError:
        return "/"
    return inside or "/"


def _below(folder: str, path: str) -> str | None:
    """A path of the host's as seen with a folder as the root; None where it is outside."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    if real == root:
        return "/"
    prefix = root.rstrip("/") + "/"
    return "/" + real[len(prefix) :] if real.startswith(prefix) else None


def _inside(folder: str, tree: ModuleTree, release: str) -> str | None:
    """Where the root has the modules, unless it has them where modprobe(8) looks."""
    where = _below(folder, tree.path)
    usual = os.path.realpath(os.path.join(folder, "lib/modules", release))
    return None if where is None or usual == os.path.realpath(tree.path) else where


def _network(devices: Iterable[object]) -> Network | None:
    """The addresses of eth0, by the first network card."""
    for device in devices:
        if getattr(device, "kind", "") == "net":
            mode, address = getattr(device, "mode", ""), getattr(device, "address", "")
            if mode == "user":
                return USER_NETWORK
            return _beside(address) if mode == "tap" and address else None
    return None


def _beside(address: str) -> Network | None:
    """The address after the host's own ("10.0.0.1/24") in its network, where there is one; the host is the gateway."""
    from ipaddress import IPv4Interface

    host = IPv4Interface(address)
    guest = host.ip + 1
    if guest not in host.network or guest == host.network.broadcast_address:
        return None
    return Network(str(guest), str(host.netmask), str(host.ip))
