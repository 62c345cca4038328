"""The guest's init as the first process of a PID namespace of this machine, its ports being socket pairs."""

import fcntl
import os
import select
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from pyhv.linux.job import CONTROL, ERRORS, INPUT, OUTPUT, TERMINAL, Job

PATIENCE = 30.0
JOB = 3
"""The descriptor that init reads its job from, where it is open."""


class NativeInit:
    """A started init. Ports are file numbers ("#N") in its job; `read` and `send` are what the host's side does."""

    def __init__(self, init: Path, job: Job, extra: tuple[tuple[str, str], ...] = ()) -> None:
        names = {CONTROL: "control", INPUT: "input", OUTPUT: "output", ERRORS: "errors", TERMINAL: "terminal"}
        data = job.encode()
        self.ports: dict[str, socket.socket] = {}
        theirs: list[int] = []
        for name, short in names.items():
            entry = f"={name}\0".encode()
            if entry in data:
                ours, other = socket.socketpair()
                theirs.append(fcntl.fcntl(other.fileno(), fcntl.F_DUPFD_CLOEXEC, JOB + 1))
                os.set_blocking(theirs[-1], False)
                other.close()
                data = data.replace(entry, f"=#{theirs[-1]}\0".encode())
                self.ports[short] = ours
        data += b"".join(f"{name}={value}".encode() + b"\0" for name, value in extra)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            number = file.fileno()
            words = ["unshare", "--mount", "--pid", "--fork", "--uts", "--net", "--kill-child", str(init)]
            self.process = subprocess.Popen(
                words,
                pass_fds=[JOB, *theirs],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=lambda: os.dup2(number, JOB),
            )
        for end in theirs:
            os.close(end)
        self.received = {name: bytearray() for name in self.ports}
        self._ended: set[str] = set()

    def pump(self, seconds: float = 0.1, only: tuple[str, ...] = ()) -> None:
        """Take what the ports, or some of them, have."""
        wanted = {port: name for name, port in self.ports.items() if name not in self._ended and name in (only or self.ports)}
        for port in select.select(list(wanted), [], [], seconds)[0] if wanted else ():
            try:
                data = port.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            self.received[wanted[port]] += data
            if not data:
                self._ended.add(wanted[port])

    def wait_for(self, name: str, text: bytes, only: tuple[str, ...] = (), seconds: float = PATIENCE) -> None:
        """Wait until a port received this."""
        deadline = time.monotonic() + seconds
        while text not in self.received[name]:
            assert time.monotonic() < deadline and len(self._ended) < len(self.ports), (self.received, self.errors())
            self.pump(only=only)

    def send(self, name: str, data: bytes) -> None:
        self.ports[name].sendall(data)

    def finish(self) -> str:
        """The report's line; lets init go and waits for its end, which is a power-off."""
        deadline = time.monotonic() + PATIENCE
        while not (lines := self.reports()):
            assert time.monotonic() < deadline and len(self._ended) < len(self.ports), (self.received, self.errors())
            self.pump()
        self.pump(0)
        self.send("control", b"done\n")
        self.process.wait(PATIENCE)
        return lines[0]

    def reports(self) -> list[str]:
        lines = self.received["control"].decode().split("\n")[:-1]
        return [line for line in lines if line != "started"]

    def errors(self) -> str:
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)
        return (self.process.stderr.read() or b"").decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        for port in self.ports.values():
            port.close()
