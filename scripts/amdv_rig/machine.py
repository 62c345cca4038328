"""One run of the rig: starts the machine, moves its streams, and turns its end into a result."""

import os
import secrets
import selectors
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from amdv_rig.errors import RigLost
from amdv_rig.initramfs import RigKernel, fixed_part, module_paths, run_part
from amdv_rig.job import Job
from amdv_rig.processes import find_programs, qemu_command, reap, spawn, start_virtiofsd
from amdv_rig.stdin import forward_stdin
from amdv_rig.streams import LineStream, MarkedStream, Sink, Tail

_READ_SIZE = 1 << 16
_DETAIL_LINES = 50
# Said in every run: of a CPU model that is newer than the emulation, and of a machine that was ended.
_HARMLESS = (b"TCG doesn't support requested feature", b"fv_remove_watch", b"Unexpected poll revents")


@dataclass(frozen=True, slots=True)
class RigResult:
    """status: the command's own, as a shell gives it (128 + signal); None when the timeout ended the machine.

    Times are seconds since QEMU's start: until the command could start (None: it never could), and until the end.
    """

    status: int | None
    ready: float | None
    ended: float


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where the machine's streams go; console is the kernel's own, None for nowhere."""

    stdout: Sink
    stderr: Sink
    console: Sink | None = None


class StatusPort:
    """What the rig's init reports, a line each: "ready UPTIME", "exit STATUS UPTIME", "fail REASON"."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ready: float | None = None
        self.status: int | None = None
        self.failure: str | None = None

    def line(self, line: str) -> None:
        match line.split():
            case ["ready", _]:
                self.ready = self.age()
            case ["exit", status, _] if status.isdecimal():
                self.status = int(status)
            case ["fail", *words]:
                self.failure = " ".join(words)
            case _:
                self.failure = f"unknown report {line!r}"

    def age(self) -> float:
        return time.monotonic() - self.started


class _Session:
    """The processes and sockets of one machine; all are released with the ExitStack that it was made with."""

    def __init__(self, job: Job, kernel: RigKernel, cache: Path, sinks: Sinks, stack: ExitStack) -> None:
        self.job = job
        self.stack = stack
        self.marker = b"\0rig-end " + secrets.token_hex(16).encode() + b"\0"
        self.selector = stack.enter_context(selectors.DefaultSelector())
        self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyhv-rig-", dir=_scratch_parent())))
        self.log = stack.enter_context((self.scratch / "helpers.log").open("w+b"))
        self.console = Tail(sink=sinks.console)
        self.report = StatusPort()
        self.outputs: list[MarkedStream] = []

        paths = module_paths(kernel, job)
        initrd = self.scratch / "initrd"
        initrd.write_bytes(fixed_part(kernel, paths, cache).read_bytes() + run_part(kernel, paths, job, self.marker))
        shares = {"host0": self._share("host0", Path("/"), "always")}
        if job.artifacts is not None:
            shares["artifacts"] = self._share("artifacts", job.artifacts, "auto")

        ours: dict[str, socket.socket] = {}
        theirs: dict[str, socket.socket] = {}
        feeds: dict[str, Sink] = {"console": self.console.feed, "status": LineStream(self.report.line).feed}
        if job.tty:
            feeds["tty"] = self._output(sinks.stdout)
        else:
            feeds["stdout"] = self._output(sinks.stdout)
            feeds["stderr"] = self._output(sinks.stderr)
        if job.stdin and not job.tty:
            feeds["stdin"] = lambda _: None
        for name, feed in feeds.items():
            ours[name], theirs[name] = socket.socketpair()
            stack.enter_context(ours[name])
            stack.enter_context(theirs[name])
            self.selector.register(ours[name], selectors.EVENT_READ, feed)
        ports = {name: port.fileno() for name, port in theirs.items()}
        command = qemu_command(job, kernel.image.resolve(), initrd, ports, shares)
        self.qemu = self._child(spawn(command, list(theirs.values()), self.log))
        for port in theirs.values():
            port.close()
        if job.stdin:
            forward_stdin(ours["tty" if job.tty else "stdin"], escape=job.tty)

    def _child(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        self.stack.callback(reap, process)
        return process

    def _share(self, tag: str, source: Path, cache: str) -> str:
        """Starts a virtiofsd for source; the path of its socket, which can be connected to at once."""
        path = str(self.scratch / f"{tag}.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen(1)
            self._child(start_virtiofsd(source, cache, listener, self.log))
        return path

    def _output(self, sink: Sink) -> Sink:
        stream = MarkedStream(self.marker, sink)
        self.outputs.append(stream)
        return stream.feed

    def run(self) -> None:
        """Moves the streams until the command's end is complete, init gave up, QEMU is gone, or time is up."""
        while not self.complete() and self.report.failure is None and self.selector.get_map():
            left = self.job.timeout - self.report.age()
            if left <= 0:
                return
            for key, _ in self.selector.select(left):
                self._receive(key)

    def _receive(self, key: selectors.SelectorKey) -> None:
        assert isinstance(key.fileobj, socket.socket)
        try:
            data = key.fileobj.recv(_READ_SIZE)
        except ConnectionResetError:
            data = b""
        if data:
            key.data(data)
        else:
            self.selector.unregister(key.fileobj)

    def complete(self) -> bool:
        return self.report.status is not None and all(stream.ended for stream in self.outputs)

    def result(self) -> RigResult:
        """The verdict: never a status that did not arrive whole."""
        ended = self.report.age()
        if self.complete():
            return RigResult(self.report.status, self.report.ready, ended)
        for stream in self.outputs:
            stream.close()
        if self.report.failure is not None:
            raise RigLost(f"the rig could not run the command: {self.report.failure}", self.details())
        if ended >= self.job.timeout:
            return RigResult(None, self.report.ready, ended)
        try:
            status: int | str = self.qemu.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = "none yet"
        stage = "while the command ran" if self.report.ready is not None else "before the command could start"
        raise RigLost(f"the machine ended {stage} (QEMU's exit status: {status})", self.details())

    def details(self) -> str:
        """The last lines of the kernel's console and of what QEMU and virtiofsd said."""
        self.log.flush()
        self.log.seek(0)
        helpers = Tail()
        helpers.feed(b"".join(line for line in self.log if not any(words in line for words in _HARMLESS)))
        parts = {"console": self.console.lines(_DETAIL_LINES), "QEMU and virtiofsd": helpers.lines(_DETAIL_LINES)}
        return "\n".join(f"--- {name}, last lines:\n{text}" for name, text in parts.items() if text)


def _scratch_parent() -> str:
    """A directory whose sockets' paths fit into the 108 bytes of unix(7)."""
    parent = tempfile.gettempdir()
    return parent if len(os.fsencode(parent)) < 60 else "/tmp"


def run_in_rig(job: Job, kernel: RigKernel, cache: Path, sinks: Sinks) -> RigResult:
    """Runs the job's command on an emulated AMD machine and waits for its end.

    kernel: what the machine boots. cache: a directory for the part of the initramfs that runs share.
    Raises RigSetupError when it cannot start and RigLost when the command's status was lost. QEMU and virtiofsd are
    ended and waited for in every case, Ctrl-C included.
    """
    find_programs()
    with ExitStack() as stack:
        session = _Session(job, kernel, cache, sinks, stack)
        session.run()
        return session.result()
