"""The guest's init, run as the first process of a PID namespace: what it makes of its job, and what it reports."""

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from native_init import PATIENCE, NativeInit

from pyhv.linux.build_init import build
from pyhv.linux.job import PATH, Job, Network

Start = Callable[..., NativeInit]


@cache
def _missing() -> str:
    """What keeps a first process from being started here."""
    if os.geteuid():
        return "it takes root to be the first process of a namespace"
    for tool in ("unshare", "gcc"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    words = ["unshare", "--mount", "--pid", "--fork", "--uts", "--net", "true"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture(scope="session")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if _missing():
        pytest.skip(_missing())
    target = tmp_path_factory.mktemp("init") / "init.elf"
    build(target)
    return target


@pytest.fixture
def start(init: Path) -> Iterator[Start]:
    started: list[NativeInit] = []

    def run(*command: str, extra: tuple[tuple[str, str], ...] = (), **fields: object) -> NativeInit:
        job = Job(command, **({"environment": {"PATH": PATH}, "hostname": "guest-of-a-test"} | fields))
        started.append(NativeInit(init, job, extra))
        return started[-1]

    yield run
    for one in started:
        one.close()


@pytest.mark.parametrize(
    ("command", "report"),
    [
        (["true"], "exit 0 0 0"),
        (["sh", "-c", "exit 9"], "exit 9 0 0"),
        (["sh", "-c", "exit 255"], "exit 255 0 0"),
        (["sh", "-c", "kill -9 $$"], "signal 9 0 0"),
        (["sh", "-c", "kill -SEGV $$"], "signal 11 0 0"),
    ],
)
def test_how_it_ended(start: Start, command: list[str], report: str) -> None:
    one = start(*command)
    assert one.finish() == report
    assert one.received["control"].startswith(b"started\n")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["no-such-command"], 127, "pyhv: no-such-command: command not found\n"),
        (["/no/such/command"], 127, "pyhv: /no/such/command: command not found\n"),
        (["/etc/passwd"], 126, "pyhv: /etc/passwd: permission denied\n"),
        (["/"], 126, "pyhv: /: permission denied\n"),
        (["/etc/passwd/x"], 127, "pyhv: /etc/passwd/x: command not found\n"),
    ],
)
def test_what_cannot_run(start: Start, words: list[str], status: int, says: str) -> None:
    one = start(*words)
    assert one.finish() == f"exit {status} 0 {len(says)}"
    assert one.received["errors"].decode() == says


def test_scripts_and_interpreters(start: Start, tmp_path: Path) -> None:
    plain, broken, garbage = tmp_path / "plain", tmp_path / "broken", tmp_path / "garbage"
    plain.write_text("echo $0 $1 $2\nexit 5\n")
    broken.write_text("#!/no/such/interpreter\n")
    garbage.write_bytes(b"\x7fELF" + bytes(100))
    for path in (plain, broken, garbage):
        path.chmod(0o755)
    one = start("plain", "a b", "c", environment={"PATH": f"/nowhere:{tmp_path}:/etc/passwd"})
    assert one.finish().startswith("exit 5 ")
    assert one.received["output"].decode() == f"{plain} a b c\n"
    one = start("broken", environment={"PATH": str(tmp_path)})
    assert one.finish().startswith("exit 127 ")
    assert b"its interpreter is missing" in one.received["errors"]
    one = start(str(broken))
    assert one.finish().startswith("exit 127 ")
    assert start(str(garbage)).finish().startswith(("exit 126 ", "exit 127 ", "exit 2 "))


def test_what_is_around_it(start: Start, tmp_path: Path) -> None:
    variables = {"PATH": PATH, "A": "x\ny", "B": "", "C": "=="}
    script = 'hostname; pwd; echo "$A|$B|$C"; echo $$; cut -d" " -f1,4 /proc/$$/stat; cat /sys/class/net/lo/flags; env|wc -l'
    one = start("sh", "-c", script, environment=variables, directory=str(tmp_path))
    assert one.finish().startswith("exit 0 ")
    lines = one.received["output"].decode().splitlines()
    assert lines[:4] == ["guest-of-a-test", str(tmp_path), "x", "y||=="]
    assert lines[4] != "1" and lines[5].split() == [lines[4], "1"]
    assert int(lines[6], 16) & 1, "the loopback interface is down"
    assert int(lines[7]) <= len(variables) + 4


def test_a_directory_that_is_not_there(start: Start) -> None:
    one = start("true", directory="/no/such/folder")
    assert one.finish().startswith("exit 126 ")
    assert one.received["errors"] == b"pyhv: /no/such/folder: no such folder in the machine\n"


def test_streams_are_apart_and_binary_clean(start: Start) -> None:
    data = bytes(range(256)) * 64
    one = start("sh", "-c", "echo complaint >&2; cat; printf '\\0\\377' > /dev/stderr", stdin=True)
    one.send("input", data)
    one.send("control", b"eof %d\n" % len(data))
    assert one.finish() == f"exit 0 {len(data)} 12"
    assert one.received["output"] == data
    assert one.received["errors"] == b"complaint\n\0\xff"


def test_without_input_it_is_at_its_end_at_once(start: Start) -> None:
    assert start("cat").finish() == "exit 0 0 0"
    one = start("cat", stdin=True)
    one.send("control", b"eof 0\n")
    assert one.finish() == "exit 0 0 0"


def test_nothing_is_lost_of_much_output(start: Start) -> None:
    size = 8_000_000
    one = start("sh", "-c", f"yes 0123456789abcde | head -c {size}; echo end >&2")
    assert one.finish() == f"exit 0 {size} 4"
    assert hashlib.sha256(one.received["output"]).digest() == hashlib.sha256(b"0123456789abcde\n" * (size // 16)).digest()


def test_input_and_output_do_not_wait_for_one_another(start: Start) -> None:
    """A command that stops reading until its output is read, with more input than fits between it and the host."""
    size = 4_000_000
    one = start("cat", stdin=True)
    sender = threading.Thread(target=one.send, args=("input", bytes(size)))
    sender.start()
    with pytest.raises(AssertionError):
        one.wait_for("errors", b"nothing", only=("control", "errors"), seconds=0.5)
    assert sender.is_alive()
    while len(one.received["output"]) < size:
        before = len(one.received["output"])
        one.pump(seconds=PATIENCE)
        assert len(one.received["output"]) > before
    sender.join()
    one.send("control", b"eof %d\n" % size)
    assert one.finish() == f"exit 0 {size} 0"


def test_input_that_is_not_read_stops_nothing(start: Start) -> None:
    one = start("sh", "-c", "exec 0<&-; echo closed; exec sleep 0.3", stdin=True)
    one.wait_for("output", b"closed\n")
    one.send("input", bytes(100))
    one.send("control", b"eof 100\n")
    assert one.finish() == "exit 0 7 0"
    one = start("sh", "-c", "echo there; exec sleep 0.3", stdin=True)
    one.wait_for("output", b"there\n")
    one.send("input", bytes(70_000))
    assert one.finish() == "exit 0 6 0"


def test_what_it_leaves_behind_ends_with_it(start: Start) -> None:
    one = start("sh", "-c", "(trap '' TERM HUP; echo there; exec sleep 1000) & setsid sleep 1000 & exit 3")
    assert one.finish().startswith("exit 3 ")


def test_orphans_are_collected(start: Start) -> None:
    script = "(sleep 0.01 &); (sleep 0.01 &); sleep 0.3; ps -e -o stat= | grep -c Z"
    one = start("sh", "-c", script)
    assert one.finish().startswith("exit 1 ")
    assert one.received["output"] == b"0\n"


def test_a_reader_that_has_gone_is_a_broken_pipe(start: Start) -> None:
    one = start("yes")
    one.wait_for("output", b"y\ny\n")
    one.send("control", b"closed output\n")
    assert one.finish().startswith("signal 13 ")


def test_nobody_reading_makes_it_wait(start: Start) -> None:
    one = start("sh", "-c", "head -c 5000000 /dev/zero; echo done >&2")
    with pytest.raises(AssertionError):
        one.wait_for("errors", b"done\n", only=("control", "errors"), seconds=0.5)
    assert one.finish() == "exit 0 5000000 5"


def test_a_terminal(start: Start) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size; read line; echo got $line; stty size;"
    script += "trap 'exit 42' INT; echo ready; while :; do sleep 0.05; done"
    one = start("sh", "-c", script, terminal=(80, 24))
    one.wait_for("terminal", b"24 80\r\n")
    one.send("control", b"size 50 132\n")
    one.send("terminal", b"typed\r")
    one.wait_for("terminal", b"got typed\r\n50 132\r\nready\r\n")
    one.send("terminal", b"\x03")
    assert one.finish().startswith("exit 42 ")


def test_a_terminals_hang_up_by_the_command(start: Start) -> None:
    one = start("sh", "-c", "exec 0<&- 1<&- 2<&-; sleep 0.2; exit 6", terminal=(80, 24))
    assert one.finish().startswith("exit 6 ")


def test_a_word_from_the_host_that_means_nothing(start: Start) -> None:
    one = start("cat", stdin=True)
    one.wait_for("control", b"started\n")
    one.send("control", b"nonsense\n" + b"x" * 500 + b"\nsize\nclosed\neof 2\n")
    one.send("input", b"ok")
    assert one.finish() == "exit 0 2 0"


def test_a_module_that_cannot_be_loaded(start: Start) -> None:
    one = start("true", modules=("/no/such/module.ko",))
    one.process.wait(PATIENCE)
    assert "pyhv-init: error cannot load the module /no/such/module.ko: errno 2" in one.errors()
    assert not one.received["control"]


def test_a_network_card_that_is_not_there(start: Start) -> None:
    one = start("true", network=Network("10.0.2.15", "255.255.255.0"))
    assert one.finish() == "error there is no network card eth0: errno 19"


@pytest.mark.parametrize("entry", [("bogus", "1"), ("arguments", "x")])
def test_a_job_that_says_what_is_not_known(start: Start, entry: tuple[str, str]) -> None:
    one = start("true", extra=(entry,))
    one.process.wait(PATIENCE)
    assert f"pyhv-init: error the job has an unknown entry {entry[0]}={entry[1]}" in one.errors()


def test_it_is_small_and_static(init: Path) -> None:
    data = init.read_bytes()
    assert len(data) < 64 << 10
    assert b"/ld-linux" not in data
