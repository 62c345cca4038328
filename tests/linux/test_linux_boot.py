"""Commands in Debian's kernels on the simulator: what issues from the guest, and how the machine around it ends."""

import contextlib
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyhv
from pyhv.hv.select import Selection
from pyhv.linux import Command, CommandResult
from pyhv.linux.trees import find_tree

ROOT = Path(__file__).resolve().parents[2]
FASTER = "cryptomgr.notests"
"""Half of a boot's time is the kernel's test of its own cryptography."""
PATIENCE = 120.0
BUSYBOX = Path("/bin/busybox")


def kernel(name: str) -> Path:
    path = ROOT / "build" / "kernels" / name / "vmlinuz"
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: run `make kernels`")
    return path


@pytest.fixture
def cloud(sim: Selection) -> Path:
    return kernel("cloud")


def run(image: Path, *words: str, cmdline: str = FASTER, **options: Any) -> CommandResult:
    return pyhv.run_command(image, words, backend="sim", timeout=PATIENCE, cmdline=cmdline, **options)


def pyhv_run(image: Path, *words: str | Path) -> list[str]:
    start = [sys.executable, "-m", "pyhv", "run", str(image), "--backend", "sim", "--timeout", str(PATIENCE)]
    return [*start, "--cmdline", FASTER, *map(str, words)]


def test_a_command_sees_this_machine_and_changes_nothing_of_it(cloud: Path, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "mine").write_text("the host's\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").touch()
    script = """
        set -e
        uname -r; hostname; pwd; cat mine
        test -e /lib/modules/$(uname -r)/modules.dep && echo modules
        grep -c '^overlay / overlay' /proc/mounts
        echo changed > mine; echo new > new; mkdir /there; rm -r sub; ls -d sub 2>/dev/null || echo gone
        echo complaint >&2
        echo reopened > /dev/stdout
        sha256sum
        (sleep 1000; echo never) &
        exit 9
    """
    result = run(cloud, "sh", "-c", script, stdin=data, directory=str(tmp_path), hostname="a-guest")
    release = cloud.resolve().name.removeprefix("vmlinuz-")
    lines = [release, "a-guest", str(tmp_path), "the host's", "modules", "1", "gone", "reopened"]
    assert result.stdout.decode().splitlines() == [*lines, f"{hashlib.sha256(data).hexdigest()}  -"]
    assert result.stderr == b"complaint\n"
    assert (result.status, result.exit_code, result.error) == (9, 9, "")
    assert result.machine.outcome is pyhv.Outcome.POWER_OFF and result.machine.deterministic
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "sub"]
    assert (tmp_path / "mine").read_text() == "the host's\n" and not Path("/there").exists()
    with pytest.raises(pyhv.GuestFailed, match="exit status 9"):
        result.check()


def test_mmio_several_processors_and_a_network(cloud: Path) -> None:
    script = """
        nproc; cat /sys/class/net/eth0/operstate /etc/resolv.conf; ip -o -4 addr show eth0; ip route show default
        head -c 6000000 /dev/zero | tr '\\0' x
    """
    result = run(cloud, "sh", "-c", script, transport="mmio", cpus=2, devices=[pyhv.Net.user()]).check()
    head, _, tail = result.stdout.partition(b"xxx")
    lines = head.decode().splitlines()
    assert lines[0] == "2" and lines[2] == "nameserver 10.0.2.3"
    assert "10.0.2.15/24" in lines[3] and lines[4].startswith("default via 10.0.2.2 dev eth0")
    assert len(tail) == 6_000_000 - 3 and not tail.strip(b"x")


def test_a_root_of_its_own_that_is_written_to(sim: Selection, tmp_path: Path) -> None:
    if not BUSYBOX.exists():
        pytest.skip("no /bin/busybox (busybox-static): run `make deps`")
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(BUSYBOX, root / "busybox")
    script = "echo $$ > made; /busybox ls /; kill -SEGV $$"
    result = run(kernel("generic"), "/busybox", "sh", "-c", script, root=root, writable=True)
    assert result.stdout == b"busybox\nmade\n" and result.stderr == b""
    assert (result.status, result.signal, result.exit_code) == (None, signal.SIGSEGV, 123)
    assert int((root / "made").read_text()) > 1
    assert sorted(path.name for path in root.iterdir()) == ["busybox", "made"]


def test_the_command_lines_streams_and_status(cloud: Path, tmp_path: Path) -> None:
    """A pipe in, a file out, and a status above those that pyhv leaves to commands."""
    data = os.urandom(3_000_000)
    script = "echo before; cat; echo after >&2; exit 200"
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(
            pyhv_run(cloud, "--", "sh", "-c", script),
            input=data,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 123, done.stderr
    assert (tmp_path / "out").read_bytes() == b"before\n" + data
    first, second = done.stderr.decode().splitlines()
    assert first == "after" and second.startswith("pyhv: exit status 200 (power-off on sim, ")


def test_a_guest_that_goes_without_a_report_and_json_that_is_alone_on_stdout(cloud: Path) -> None:
    words = pyhv_run(cloud, "--json", "--", "sh", "-c", "echo out; echo err >&2; echo o > /proc/sysrq-trigger; sleep 100")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, text=True, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"], document["outcome"], document["ok"]) == (125, 125, "power-off", False)
    command = document["command"]
    assert (command["status"], command["stdout"], command["stderr"]) == (None, "out\n", "err\n")
    assert command["error"] == "the guest powered off while the command ran, without a word about its end"
    assert done.stderr.splitlines()[0] == f"pyhv: {command['error']}"


def test_a_panic_is_no_status(cloud: Path) -> None:
    words = pyhv_run(cloud, "--", "sh", "-c", "echo before; echo c > /proc/sysrq-trigger; exit 0")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, text=True, check=False)
    assert done.returncode == 3, done.stderr
    first, *tail = done.stderr.splitlines()
    assert first.startswith("pyhv: the kernel panicked: ") and "sysrq triggered crash" in first
    assert tail[0] == "pyhv: the kernel's last lines:" and any("end Kernel panic" in line for line in tail)


def test_a_timeout(cloud: Path) -> None:
    words = pyhv_run(cloud, "--timeout", "1", "--", "sh", "-c", "while :; do :; done")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, text=True, check=False)
    assert done.returncode == 124
    assert done.stderr.startswith("pyhv: timeout: no end within 1 s, ")


def test_a_kernel_without_the_file_system(cloud: Path, tmp_path: Path) -> None:
    """Its modules are a folder that has the console's only, and does not say what is built in."""
    tree, _ = find_tree(str(cloud), cloud.resolve().name.removeprefix("vmlinuz-"))
    assert tree is not None
    for path in tree.load_order(["virtio_pci", "virtio_console"]):
        shutil.copy(Path(tree.path) / path, tmp_path)
    result = run(cloud, "true", modules=tmp_path)
    assert result.exit_code == 125
    assert "has no virtiofs (CONFIG_VIRTIO_FS)" in result.error and str(tmp_path) in result.error


def test_a_kernel_that_was_copied_away_from_its_modules(cloud: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(cloud, tmp_path / "vmlinuz"))
    result = run(image, "true")
    assert result.exit_code == 125
    assert "has no virtio_console (CONFIG_VIRTIO_CONSOLE): its modules are neither built in nor in " in result.error
    assert str(tmp_path / "modules") in result.error and result.error.endswith("; --modules names their folder")


def test_a_missing_module_is_said_before_the_boot(cloud: Path) -> None:
    words = pyhv_run(cloud, "--device", "watchdog,i6300esb", "--", "true")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, text=True, check=False)
    assert done.returncode == 125 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "no module 'i6300esb'" in done.stderr and "CONFIG_I6300ESB_WDT" in done.stderr


def test_without_a_root_and_with_all_that_the_kernel_says(cloud: Path) -> None:
    """The machine of a command is a machine: it can be started, and its console watched."""
    with Command(cloud, ["cat", "/pyhv/job"], root=None, cmdline=FASTER, quiet=False) as command:
        with command.machine.start(backend="sim") as vm:
            vm.console.expect(r"Run /init as init process", timeout=PATIENCE)
            machine = vm.wait(PATIENCE)
        result = command.result(machine)
    assert (result.status, result.stderr) == (127, b"pyhv: cat: command not found\n")
    assert "Linux version" in machine.console


class Terminal:
    """A pseudoterminal with a command in its foreground."""

    def __init__(self, words: list[str], rows: int, columns: int) -> None:
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                termios.tcsetwinsize(0, (rows, columns))
                os.execv(words[0], words)
            finally:
                os._exit(99)

    def expect(self, wanted: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))[0], self.seen
            self.seen += self._read()
        self.seen = self.seen.partition(wanted)[2]

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, 4096)
        except OSError:
            raise AssertionError(f"the end, after {self.seen!r}") from None

    def status(self) -> int:
        with contextlib.suppress(AssertionError):
            while data := self._read():
                self.seen += data
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(cloud: Path) -> Iterator[Terminal]:
    one = Terminal(pyhv_run(cloud, "--", "sh", "-i"), 30, 90)
    yield one
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(one.pid, signal.SIGKILL)
        os.waitpid(one.pid, 0)
    os.close(one.fd)


def test_a_terminal(terminal: Terminal) -> None:
    terminal.expect(b"# ")
    raw = termios.tcgetattr(terminal.fd)[3]
    os.write(terminal.fd, b"stty size; tty\r")
    terminal.expect(b"30 90\r\n")
    terminal.expect(b"/dev/pts/0\r\n")
    termios.tcsetwinsize(terminal.fd, (40, 120))
    os.kill(terminal.pid, signal.SIGWINCH)
    os.write(terminal.fd, b"echo run''ning; cat\r")
    terminal.expect(b"running\r\n")
    os.write(terminal.fd, b"\x01\x01\r")
    terminal.expect(b"^A\r\n\x01\r\n")
    os.write(terminal.fd, b"\x03")
    terminal.expect(b"^C")
    terminal.expect(b"# ")
    os.write(terminal.fd, b"stty size\r")
    terminal.expect(b"40 120\r\n")
    os.write(terminal.fd, b"\x01h")
    terminal.expect(b"Ctrl-a x  end the machine\r\n")
    os.write(terminal.fd, b"\x01x")
    assert terminal.status() == 125
    assert b"pyhv: stopped" in terminal.seen.replace(b"\r\n", b" ")
    assert termios.tcgetattr(terminal.fd)[3] != raw, "the terminal was raw, and is not any more"
