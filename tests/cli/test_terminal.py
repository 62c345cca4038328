"""`pyhv run` as a process: pipes, signals, and a terminal of its own."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny

Guest = Callable[[str], Path]
PATIENCE = 30.0


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pyhv", "run", *map(str, words), "--backend", "kvm"]


class Process:
    """A started `pyhv run`, ended with the test."""

    def __init__(self, words: list[str], **streams: object) -> None:
        self.popen = subprocess.Popen(words, **streams)  # type: ignore[call-overload]

    def read_until(self, fd: int, wanted: bytes) -> bytes:
        """Read until this was printed."""
        data = b""
        deadline = time.monotonic() + PATIENCE
        while wanted not in data:
            left = deadline - time.monotonic()
            ready = select.select([fd], [], [], max(left, 0))[0]
            assert ready, f"no {wanted!r} in {data!r}"
            try:
                more = os.read(fd, 4096)
            except OSError:
                more = b""
            assert more, f"the end, and no {wanted!r} in {data!r}"
            data += more
        return data

    def status(self) -> int:
        return self.popen.wait(PATIENCE)


Start = Callable[..., Process]


@pytest.fixture
def start(kvm: object) -> Iterator[Start]:
    processes: list[Process] = []

    def run(*words: object, **streams: object) -> Process:
        process = Process(command(*words), **streams)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.popen.kill()
        for stream in (process.popen.stdin, process.popen.stdout, process.popen.stderr):
            if stream is not None:
                stream.close()
        process.popen.wait()


def test_piped_input(start: Start, guest: Guest) -> None:
    done = subprocess.run(
        command(guest("echo"), "--json"),
        input="one\ntwo\x01x\nquit\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert document["console"] == "echo ready\necho: one\necho: two\x01x\necho: ok\n"


def test_input_from_a_file_and_from_nowhere(start: Start, guest: Guest, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    typed.write_text("from a file\nquit\n")
    with open(typed, "rb") as stdin:
        process = start(guest("echo"), stdin=stdin, stdout=subprocess.PIPE)
        assert process.popen.communicate(timeout=PATIENCE)[0] == b"echo ready\necho: from a file\necho: ok\n"
    assert process.status() == 0
    process = start(guest("hello"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(0))
    assert process.popen.communicate(timeout=PATIENCE)[0].endswith(b"hello: ok\n")
    assert process.status() == 0


def test_verbose_tells_why_this_backend(start: Start, guest: Guest) -> None:
    process = start(guest("hello"), "-v", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.popen.communicate(timeout=PATIENCE)
    assert (process.status(), out.endswith(b"hello: ok\n")) == (0, True)
    assert b"asked for" in err and b"multiboot" in err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_interrupted(start: Start, guest: Guest, number: signal.Signals, status: int) -> None:
    process = start(guest("spin"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.popen.stdout is not None
    process.read_until(process.popen.stdout.fileno(), b"spinning\n")
    process.popen.send_signal(number)
    _, err = process.popen.communicate(timeout=PATIENCE)
    assert process.status() == status
    assert b"stopped on kvm" in err and b"Traceback" not in err
    assert (b"interrupted from the keyboard" if status == 130 else b"ended by " + number.name.encode()) in err


def test_a_terminal_that_controls_nobody(start: Start, guest: Guest) -> None:
    control, terminal = pty.openpty()
    process = start(guest("echo"), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    process.read_until(control, b"echo ready")
    os.write(control, b"a\x01h")
    assert b"send Ctrl-a" in process.read_until(control, b"Ctrl-a Ctrl-a  send Ctrl-a")
    os.write(control, b"\nquit\n")
    process.read_until(control, b"echo: a\r\necho: ok")
    assert process.status() == 0
    os.close(terminal)
    os.close(control)


def test_a_terminal_and_sockets_are_left_in_order_by_sigterm(start: Start, guest: Guest, tmp_path: Path) -> None:
    control, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    vsock, net = tmp_path / "vsock", tmp_path / "net"
    words = (guest("echo"), "--vsock", vsock, "--net", f"socket,path={net},listen")
    process = start(*words, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    process.read_until(control, b"echo ready")
    assert vsock.is_socket() and net.is_socket()
    process.popen.send_signal(signal.SIGTERM)
    assert process.status() == -signal.SIGTERM
    assert termios.tcgetattr(terminal) == before
    assert not vsock.exists() and not net.exists()
    os.close(terminal)
    os.close(control)


def test_interrupted_json_is_still_whole(start: Start, guest: Guest) -> None:
    process = start(guest("spin"), "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.popen.stderr is not None
    process.read_until(process.popen.stderr.fileno(), b"spinning\n")
    process.popen.send_signal(signal.SIGINT)
    out, _ = process.popen.communicate(timeout=PATIENCE)
    assert json.loads(out)["outcome"] == "stopped"


def test_output_closed_early(start: Start, tmp_path: Path) -> None:
    """Like `| head -1`: what prints on and on must end, with a verdict that says why."""
    image = tiny.image(tmp_path, "1:\n" + tiny.say("more\n") + "jmp 1b")
    read, write = os.pipe()
    process = start(image, "--format", "flat", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    process.read_until(read, b"more\nmore\n")
    os.close(read)
    _, err = process.popen.communicate(timeout=PATIENCE)
    assert process.status() == 125
    assert b"Broken pipe" in err and b"Traceback" not in err


def full_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    return read, write


def test_interrupt_beats_a_full_pipe(start: Start, guest: Guest) -> None:
    """Nobody reads stdout: the guest's print blocks, Ctrl-C does not."""
    read, write = full_pipe()
    process = start(guest("spin"), stdout=write, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    os.close(write)
    time.sleep(1.0)
    process.popen.send_signal(signal.SIGINT)
    try:
        process.status()
    finally:
        os.close(read)
    assert process.popen.returncode in (125, 130)


def test_timeout_beats_a_full_pipe(start: Start, guest: Guest) -> None:
    read, write = full_pipe()
    process = start(guest("spin"), "--timeout", "0.5", stdout=write, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    os.close(write)
    try:
        assert process.status() == 124
    finally:
        os.close(read)


class Terminal:
    """A pseudoterminal with `pyhv run` in its foreground."""

    def __init__(self, *words: object) -> None:
        self.seen = b""
        self.before: list[object] = []
        pid, self.fd = pty.fork()
        if pid == 0:
            try:
                os.execv(sys.executable, command(*words))
            finally:
                os._exit(99)
        self.pid = pid

    def expect(self, wanted: bytes) -> None:
        """Read until this was shown."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))[0], self.seen
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:
                raise AssertionError(f"the end, and no {wanted!r} in {self.seen!r}") from None

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self.fd)

    def status(self) -> int:
        """Read to the end and give the exit status."""
        deadline = time.monotonic() + PATIENCE
        while select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))[0]:
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                break
            self.seen += data
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(kvm: object) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*words: object) -> Terminal:
        made.append(Terminal(*words))
        return made[-1]

    yield make
    for one in made:
        os.close(one.fd)


def test_the_terminal_is_the_guests_and_comes_back(terminal: Callable[..., Terminal], guest: Guest) -> None:
    tty = terminal(guest("echo"))
    before = tty.attributes()
    tty.expect(b"echo ready\r\n")
    raw = tty.attributes()
    assert raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0
    tty.type(b"typed \x03\x1a\x04 here\r")
    tty.expect(b"echo: typed \x03\x1a\x04 here\r\n")
    tty.type(b"quit\r")
    after = None
    tty.expect(b"echo: ok\r\n")
    tty.expect(b"pyhv: passed")
    after = tty.attributes()
    assert tty.status() == 0
    assert after == before
    assert tty.seen.count(b"typed") == 1, "the guest echoes, the terminal does not"


def test_ctrl_a_x_ends_and_ctrl_a_h_helps(terminal: Callable[..., Terminal], guest: Guest) -> None:
    tty = terminal(guest("spin"))
    before = tty.attributes()
    tty.expect(b"spinning\r\n")
    tty.type(b"\x01h")
    tty.expect(b"Ctrl-a x  end the machine\r\n")
    tty.type(b"\x03")
    tty.type(b"\x01x")
    tty.expect(b"pyhv: stopped on kvm")
    after = tty.attributes()
    assert tty.status() == 125
    assert after == before
    assert not re.search(rb"Traceback|Error", tty.seen)


def test_ctrl_a_twice_types_one(terminal: Callable[..., Terminal], guest: Guest) -> None:
    tty = terminal(guest("echo"))
    tty.expect(b"echo ready\r\n")
    tty.type(b"a\x01")
    tty.type(b"\x01b\r")
    tty.expect(b"echo: a\x01b\r\n")
    tty.type(b"quit\r")
    assert tty.status() == 0


@pytest.mark.parametrize("name", ["triple", "fail"])
def test_the_terminal_comes_back_after_a_bad_end(terminal: Callable[..., Terminal], guest: Guest, name: str) -> None:
    tty = terminal(guest(name))
    before = tty.attributes()
    tty.expect(b"on kvm")
    after = tty.attributes()
    tty.status()
    assert after == before


def test_no_permission(guest: Guest, tmp_path: Path) -> None:
    """As a user who may not open /dev/kvm."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    if os.stat("/dev/kvm").st_mode & 0o006:
        pytest.skip("anybody may open /dev/kvm here")
    script = "\n".join(
        (
            "import os, sys",
            "from pyhv.cli import main",
            "from pyhv.hv import select",
            f"words = ['run', {str(guest('hello'))!r}, '--backend', 'kvm', '-q']",
            "shown, hidden = os.dup(1), os.open(os.devnull, os.O_WRONLY)",
            "os.dup2(hidden, 1)",
            "assert main(words) == 0  # nothing is left to import, which this user's files might forbid",
            "os.dup2(shown, 1)",
            "select._chosen.clear()",
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)",
            "sys.exit(main(words))",
        )
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (125, ""), done
    assert done.stderr.count("\n") == 1 and "/dev/kvm" in done.stderr and "kvm" in done.stderr, done.stderr
    assert "ermission" in done.stderr
