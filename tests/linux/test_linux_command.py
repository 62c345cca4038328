"""The host's side of a command in a guest: its job, its streams, its report, and what is said where there is none."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_module import made_module

import pyhv
from pyhv.errors import ConfigError, HostError
from pyhv.linux import Command, CommandResult, streams
from pyhv.linux.command import _beside
from pyhv.linux.console import POWER_OFF_NS, CommandConsole, Report, parse_report
from pyhv.linux.job import Job, Network
from pyhv.result import Outcome, Result
from pyhv.testing import DeviceBench

RELEASE = "6.9.9-test"


# The job


def entries(job: Job) -> list[tuple[str, str]]:
    data = job.encode()
    assert data.endswith(b"\0")
    return [tuple(os.fsdecode(entry).split("=", 1)) for entry in data[:-1].split(b"\0")]  # type: ignore[misc]


def test_what_init_is_told() -> None:
    job = Job(
        ("sh", "-c", "a\nb", ""),
        environment={"A": "b=c"},
        tag="root",
        modules=("/m/a.ko", "/m/b.ko"),
        module_tree="/x",
        release=RELEASE,
        network=Network("1.2.3.4", "255.0.0.0", "1.2.3.1"),
        stdin=True,
    )
    told = entries(job)
    assert [value for name, value in told if name == "argument"] == ["sh", "-c", "a\nb", ""]
    assert [value for name, value in told if name == "module"] == ["/m/a.ko", "/m/b.ko"]
    alone = dict(told)
    assert alone["variable"] == "A=b=c" and alone["root"] == "share" and alone["tag"] == "root"
    assert alone["gateway"] == "1.2.3.1" and "nameserver" not in alone
    assert alone["input"] == "pyhv.stdin" and "terminal" not in alone
    assert (alone["modules"], alone["release"]) == ("/x", RELEASE)


def test_a_terminal_takes_the_place_of_the_streams() -> None:
    told = dict(entries(Job(("sh",), terminal=(132, 50))))
    assert (told["rows"], told["columns"], told["terminal"]) == ("50", "132", "pyhv.tty")
    assert "output" not in told and told["root"] == "none"


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9), max_size=5))
def test_any_arguments_arrive(words: list[str]) -> None:
    told = entries(Job(("x", *words)))
    assert [value for name, value in told if name == "argument"] == ["x", *words]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Job(()), "command: it is empty"),
        (lambda: Job(("",)), "command: it is empty"),
        (lambda: Job(("a",), hostname="x" * 65), "hostname"),
        (lambda: Job(("a",), environment={"A=B": ""}), "environment: 'A=B'"),
        (lambda: Job(("a", "\0")).encode(), "NUL"),
        (lambda: Job(("a", "\ud800")).encode(), "cannot be encoded"),
        (lambda: Job(("a", "b" * (1 << 20))).encode(), "bytes; at most"),
        (lambda: Job(("a",) * 40_000).encode(), "are too many"),
    ],
)
def test_jobs_that_cannot_be_told(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


# The report


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("exit 9 10 0", Report(status=9, output=10)),
        ("signal 11 0 7", Report(signal=11, errors=7)),
        ("error cannot: errno 2", Report(error="cannot: errno 2")),
        ("missing virtiofs", Report(missing="virtiofs")),
        ("exit 256 0 0", None),
        ("exit -1 0 0", None),
        ("exit 1", None),
        ("exit 1 2 ٣", None),
        ("exit 1 2 3 4", None),
        ("exit 1 2 " + "9" * 5000, None),
        ("started", None),
        ("error ", None),
        ("", None),
    ],
)
def test_reports(line: str, report: Report | None) -> None:
    assert parse_report(line) == report


@given(st.text(max_size=60) | st.from_regex(r"(exit|signal) [0-9 ]*"))
def test_any_line_is_a_report_or_none(line: str) -> None:
    report = parse_report(line)
    assert report is None or isinstance(report, Report)


def attached(**options: object) -> tuple[CommandConsole, DeviceBench]:
    console = CommandConsole(transport="mmio", **options)  # type: ignore[arg-type]
    return console, DeviceBench(console)


def heard(console: CommandConsole) -> bytes:
    """What the host said on the control port."""
    said = console.control.peek(1 << 16)
    console.control.consume(len(said))
    return said


def test_the_guest_may_go_once_all_has_arrived() -> None:
    console, bench = attached()
    console.control.output(b"star")
    assert not console.started
    console.control.output(b"ted\n")
    assert console.started
    console.control.output(b"exit 4 5 3\n")
    assert heard(console) == b""
    console.output.port.output(b"hello")
    assert heard(console) == b""
    console.errors.port.output(b"err")
    assert heard(console) == b"done\n"
    assert console.report == Report(status=4, output=5, errors=3)
    assert (bytes(console.output.captured), bytes(console.errors.captured)) == (b"hello", b"err")
    console.control.output(b"exit 0 0 0\n")
    assert console.report.status == 4, "the first report stands"
    assert heard(console) == b"" and bench.control.calls == []


def test_a_guest_that_stays_on_has_not_ended_well() -> None:
    console, bench = attached()
    console.control.output(b"exit 0 0 0\n")
    bench.clock.advance(POWER_OFF_NS - 1)
    assert bench.control.calls == []
    bench.clock.advance(1)
    assert bench.control.calls[0][:2] == ("panic", "power off")


def test_a_report_is_of_one_run() -> None:
    console, bench = attached()
    with pytest.raises(ConfigError, match="it was run already"):
        console.attach(bench.platform)
    with pytest.raises(ConfigError, match="cannot be started again"):
        console.reset()


def test_a_slow_reader_is_waited_for() -> None:
    read, write = os.pipe()
    try:
        console, bench = attached(output=write)
        data = bytes(range(256)) * 4096
        console.output.port.output(data)
        console.control.output(b"exit 0 %d 0\n" % len(data))
        assert heard(console) == b"" and console.output.waiting
        got = b""
        while len(got) < len(data):
            got += os.read(read, 1 << 16)
            bench.events.run()
        assert got == data
        assert heard(console) == b"done\n"
    finally:
        os.close(read)
        os.close(write)


def test_a_reader_that_went_away_is_told_to_the_guest() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        console, _ = attached(output=write)
        console.output.port.output(b"x")
        assert heard(console) == b"closed output\n"
        console.output.port.output(b"more")
        console.control.output(b"signal 13 2 0\n")
        assert heard(console) == b"done\n"
    finally:
        os.close(write)


def test_a_disk_that_is_full_is_an_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        console, _ = attached(errors=full)
        with pytest.raises(HostError, match="standard error cannot be written: No space left"):
            console.errors.port.output(b"x")
    finally:
        os.close(full)


def test_output_is_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CAPTURE_LIMIT", 100)
    console, _ = attached()
    console.output.port.output(bytes(100))
    with pytest.raises(HostError, match="standard output: the command printed more"):
        console.output.port.output(b"x")


@pytest.mark.parametrize("size", [0, 1, 1 << 15, 70_000, 200_001])
def test_input_from_bytes_is_followed_by_its_size(size: int) -> None:
    data = bytes(i & 0xFF for i in range(size))
    console, _ = attached(stdin=data)
    assert not console.live
    port = console.ports[-1]
    got = b""
    while port.waiting:
        piece = port.peek(4096)
        port.consume(len(piece))
        got += piece
        port.tell_room()
    assert got == data and port.open
    assert heard(console) == b"eof %d\n" % size


def test_input_from_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"some input")
    fd = os.open(path, os.O_RDONLY)
    try:
        console, bench = attached(stdin=fd)
        assert console.live
        for _ in range(3):
            bench.events.run()
        assert console.ports[-1].peek(99) == b"some input"
        assert heard(console) == b"eof 10\n"
    finally:
        os.close(fd)


def test_what_is_typed_passes_the_filter() -> None:
    read, write = os.pipe()
    try:
        console, bench = attached(terminal=bytes.upper, stdin=read, output=write)
        os.write(write, b"typed")
        bench.events.run()
        assert console.output.port.peek(99) == b"TYPED"
        console.resize(132, 50)
        assert heard(console) == b"size 50 132\n"
    finally:
        os.close(read)
        os.close(write)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_of_the_guest(pieces: list[bytes]) -> None:
    console, _ = attached()
    for piece in pieces:
        console.control.output(piece)
    console.control.output(b"x" * 100_000)
    assert len(console._line) <= 100_000


# The machine


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A file that says it is a kernel, with modules beside it."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500 : 0x500 + len(RELEASE)] = RELEASE.encode()
    path = tmp_path / "vmlinuz"
    path.write_bytes(image)
    tree = tmp_path / "modules"
    tree.mkdir()
    names = ["virtio_pci", "virtiofs", "virtio_console", "overlay", "virtio_net"]
    (tree / "modules.dep").write_text("".join(f"{name}.ko:\n" for name in names))
    (tree / "modules.builtin").write_text("kernel/virtio_mmio.ko\n")
    for name in names:
        (tree / f"{name}.ko").write_bytes(made_module(f"name={name}"))
    return path


@pytest.fixture(autouse=True)
def an_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "init.elf"
    path.write_bytes(b"\x7fELF")
    monkeypatch.setattr("pyhv.linux.initramfs.INIT", str(path))


def job_of(command: Command) -> dict[str, list[str]]:
    assert command.machine.initrd is not None
    archive = Path(command.machine.initrd).read_bytes()
    start = archive.index(b"pyhv/job\0")
    job: dict[str, list[str]] = {}
    for entry in archive[start + 9 :].split(b"TRAILER")[0].strip(b"\0").split(b"\0"):
        name, _, value = entry.decode().partition("=")
        job.setdefault(name, []).append(value)
    return job


def test_the_machine_of_a_command(kernel: Path, tmp_path: Path) -> None:
    with Command(kernel, ["ls", "-l"], root=tmp_path, cpus=2, cmdline="panic=1") as command:
        machine = command.machine
        assert (machine.memory, machine.cpus) == (512 << 20, 2)
        assert machine.cmdline == "console=ttyS0 quiet panic=1"
        assert [getattr(device, "kind", "console") for device in machine.devices] == ["share", "console"]
        job = job_of(command)
        assert job["argument"] == ["ls", "-l"]
        assert job["module"] == [f"/lib/modules/{m}.ko" for m in ("virtio_pci", "virtio_console", "virtiofs", "overlay")]
        assert job["modules"] == ["/modules"] and job["release"] == [RELEASE]
        assert job["directory"] == ["/"]
    command.close()
    assert not Path(machine.initrd or "").exists()


def test_the_same_command_makes_the_same_archive(kernel: Path) -> None:
    made = []
    for _ in range(2):
        with Command(kernel, ["true"]) as command:
            made.append(Path(command.machine.initrd or "").read_bytes())
    assert made[0] == made[1]


def test_transport_root_and_network(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "root" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    devices = [pyhv.Net.user()]
    with Command(kernel, ["x"], root=tmp_path / "root", writable=True, transport="mmio", devices=devices) as command:
        job = job_of(command)
        assert job["module"] == [f"/lib/modules/{m}.ko" for m in ("virtio_pci", "virtio_console", "virtiofs", "virtio_net")]
        assert job["writable"] == ["1"] and job["directory"] == ["/inside"]
        assert job["address"] == ["10.0.2.15"] and job["nameserver"] == ["10.0.2.3"]
        assert "modules" not in job, "the root does not hold them"
    monkeypatch.chdir("/")
    with Command(kernel, ["x"], root=None, environment={"PATH": "/y", "Z": "1"}) as command:
        job = job_of(command)
        assert job["root"] == ["none"] and job["directory"] == ["/"]
        assert {"PATH=/y", "Z=1", "HOME=/root"} <= set(job["variable"])
        assert job["module"] == ["/lib/modules/virtio_pci.ko", "/lib/modules/virtio_console.ko"]


def test_addresses_beside_the_hosts() -> None:
    assert _beside("10.0.0.1/24") == Network("10.0.0.2", "255.255.255.0", "10.0.0.1")
    assert _beside("10.0.0.254/24") is None
    assert _beside("10.0.0.1/32") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"root": "/no/such/folder"}, "root: '/no/such/folder' is not a folder"),
        ({"modules": "/no/such/folder"}, "modules: '/no/such/folder' is not a folder"),
        ({"transport": "isa"}, "transport: 'isa' is not one of"),
        ({"on_reset": "restart"}, "on_reset"),
        ({"devices": [pyhv.Entropy()]}, "no module 'virtio_rng'.*CONFIG_HW_RANDOM_VIRTIO"),
        ({"memory": "x"}, "memory: 'x'"),
    ],
)
def test_mistakes(kernel: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Command(kernel, ["true"], **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_command_is_a_list_of_texts(kernel: Path) -> None:
    for wrong in ("true", [1], [b"x"]):
        with pytest.raises(ConfigError, match=r"command: .* is not a list of texts"):
            Command(kernel, wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="command: it is empty"):
        Command(kernel, [])


def test_an_installation_without_init(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhv.linux.initramfs.INIT", "/no/init.elf")
    with pytest.raises(HostError, match="init was not built"):
        Command(kernel, ["true"])


# Verdicts


def ended(kernel: Path, said: bytes, outcome: Outcome = Outcome.POWER_OFF, **fields: object) -> CommandResult:
    with Command(kernel, ["cmd"]) as command:
        DeviceBench(command.console)
        command.console.control.output(said)
        fields = {"detail": "why"} | fields
        return command.result(Result(outcome=outcome, backend="sim", backend_reason="", **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "outcome", "code", "words"),
    [
        (b"started\nexit 0 0 0\n", Outcome.POWER_OFF, 0, "exit status 0"),
        (b"started\nexit 0 0 0\n", Outcome.RESET, 0, "exit status 0"),
        (b"started\nexit 9 0 0\n", Outcome.POWER_OFF, 9, "exit status 9"),
        (b"started\nexit 123 0 0\n", Outcome.POWER_OFF, 123, "exit status 123"),
        (b"started\nexit 124 0 0\n", Outcome.POWER_OFF, 123, "exit status 124"),
        (b"started\nexit 255 0 0\n", Outcome.POWER_OFF, 123, "exit status 255"),
        (b"started\nsignal 11 0 0\n", Outcome.POWER_OFF, 123, "killed by SIGSEGV (11)"),
        (b"started\nsignal 99 0 0\n", Outcome.POWER_OFF, 123, "killed by a signal (99)"),
        (b"started\n", Outcome.POWER_OFF, 125, "powered off while the command ran, without a word about its end"),
        (b"", Outcome.RESET, 125, "reset before the command was started, without a word about its end"),
        (b"started\n", Outcome.PASSED, 125, "without a word"),
        (b"started\n", Outcome.FAILED, 125, "without a word"),
        (b"started\n", Outcome.PANIC, 3, "the kernel panicked: why (while the command ran)"),
        (b"started\nexit 0 0 0\n", Outcome.PANIC, 3, "the kernel panicked: why (after the command had ended)"),
        (b"started\nexit 0 0 0\n", Outcome.ERROR, 125, "why"),
        (b"", Outcome.TRIPLE_FAULT, 3, "triple fault"),
        (b"", Outcome.TIMEOUT, 124, "timeout: why, before the command was started"),
        (b"started\nexit 0 0 0\n", Outcome.TIMEOUT, 124, "after the command had ended"),
        (b"started\n", Outcome.STOPPED, 125, "while the command ran"),
        (b"missing virtiofs\n", Outcome.POWER_OFF, 125, f"the kernel {RELEASE} has no virtiofs (CONFIG_VIRTIO_FS)"),
        (b"missing devtmpfs\n", Outcome.POWER_OFF, 125, "has no devtmpfs: it needs CONFIG_DEVTMPFS=y"),
        (b"missing overlay\n", Outcome.POWER_OFF, 125, "has no overlay (CONFIG_OVERLAY_FS)"),
        (b"error cannot mount on /x: errno 2\n", Outcome.POWER_OFF, 125, "cannot mount on /x: No such file or directory"),
        (b"error strange\n", Outcome.RESET, 125, "the guest's init: strange"),
    ],
)
def test_verdicts(kernel: Path, said: bytes, outcome: Outcome, code: int, words: str) -> None:
    result = ended(kernel, said, outcome)
    assert result.exit_code == code
    assert words in result.summary() and "\n" not in result.summary()
    assert result.ok == (code == 0) == (not result.error and result.status == 0)
    document = json.loads(json.dumps(result.to_dict()))
    assert (document["exit_code"], document["ok"]) == (code, result.ok)
    assert document["command"]["status"] == result.status
    assert pickle.loads(pickle.dumps(result)) == result


def test_what_init_printed_explains_a_report_that_never_came(kernel: Path) -> None:
    console = "[1] noise\npyhv-init: error cannot load the module /m.ko: errno 8\n[2] reboot\n"
    result = ended(kernel, b"", console=console)
    assert "cannot load the module /m.ko: Exec format error" in result.error and result.exit_code == 125


def test_modules_of_another_kernel_are_told(kernel: Path) -> None:
    (kernel.parent / "modules/overlay.ko").write_bytes(made_module("vermagic=5.5.5 SMP modversions"))
    said = b"error cannot load the module /lib/modules/overlay.ko: errno %d\n"
    assert f"it is for the kernel 5.5.5, and this one is {RELEASE}" in ended(kernel, said % 8).error
    assert "5.5.5" not in ended(kernel, said % 2).error
    assert "5.5.5" not in ended(kernel, (said % 8).replace(b"overlay", b"nothing")).error


def test_a_line_on_the_console_is_no_report_of_a_status(kernel: Path) -> None:
    result = ended(kernel, b"started\n", console="pyhv-init: exit 0 0 0\n")
    assert not result.ok and result.exit_code == 125


def test_without_modules_it_is_told_where_they_were_looked_for(kernel: Path) -> None:
    for path in kernel.parent.glob("modules/*"):
        path.unlink()
    kernel.parent.joinpath("modules").rmdir()
    result = ended(kernel, b"missing virtiofs\n")
    assert f"/lib/modules/{RELEASE}" in result.error and "--modules" in result.error


def test_check_raises_what_fits(kernel: Path) -> None:
    assert ended(kernel, b"exit 0 0 0\n").check().ok
    for said, outcome, kind in (
        (b"exit 1 0 0\n", Outcome.POWER_OFF, pyhv.GuestFailed),
        (b"signal 9 0 0\n", Outcome.POWER_OFF, pyhv.GuestFailed),
        (b"", Outcome.PANIC, pyhv.GuestPanic),
        (b"", Outcome.TRIPLE_FAULT, pyhv.TripleFault),
        (b"", Outcome.TIMEOUT, pyhv.VmTimeout),
        (b"", Outcome.STOPPED, pyhv.GuestFailed),
        (b"", Outcome.POWER_OFF, pyhv.VmmError),
        (b"", Outcome.ERROR, pyhv.VmmError),
    ):
        result = ended(kernel, said, outcome, console="last words")
        with pytest.raises(kind) as caught:
            result.check()
        assert type(caught.value) is kind
        assert "last words" in str(caught.value) and "cmd: " in str(caught.value)
