import subprocess
import sys
from pathlib import Path

import pytest
from amdv_rig import cli, processes
from amdv_rig.errors import RigSetupError
from amdv_rig.job import Job, job_script, settings_script

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["--shell", "true"], "not two"),
        (["--smp", "0", "true"], "--smp: '0' (takes 1 to 8)"),
        (["--smp", "two", "true"], "--smp"),
        (["--memory", "banana", "true"], "--memory: 'banana'"),
        (["--memory", "1M", "true"], "--memory"),
        (["--timeout", "0", "true"], "--timeout"),
        (["--timeout", "nan", "true"], "--timeout"),
        (["--timeout", "inf", "true"], "--timeout"),
        (["--hugepages", "1000", "true"], "do not fit"),
        (["--module-param", "nested=0", "true"], "MODULE.NAME=VALUE"),
        (["--module-param", "kvm_amd.a=1 b", "true"], "MODULE.NAME=VALUE"),
        (["--env", "1A=x", "true"], "--env"),
        (["--artifacts", "/", "true"], "--artifacts"),
        (["--directory", "/no/such/place", "true"], "--directory"),
        (["--kernel", "mine", "true"], "--kernel"),
        (["--no-such-option", "true"], "--no-such-option"),
    ],
)
def test_mistakes_are_one_line_and_status_252(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.EXIT_SETUP
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def parse(*arguments: str) -> Job:
    parser = cli.build_parser()
    return cli.job_from(parser.parse_args(arguments), parser)


def test_options_after_the_command_are_the_commands() -> None:
    assert parse("--smp", "1", "--", "pytest", "--smp", "3").command == ("pytest", "--smp", "3")
    job = parse("pytest", "-v", "--", "x")
    assert job.command == ("pytest", "-v", "--", "x")
    assert (job.smp, job.memory, job.tty, job.stdin) == (2, 1024, False, False)


def test_values_reach_the_job(tmp_path: Path) -> None:
    artifacts = tmp_path / "out"
    job = parse(
        *("--memory", "2G", "--timeout", "1.5", "--hugepages", "16", "--artifacts", str(artifacts)),
        *("--module-param", "kvm-amd.nested=0", "--module-param", "kvm_amd.npt=1", "--module", "vfio-pci"),
        *("--append", "a=1", "--append", "b", "--env", "X=1 2", "true"),
    )
    assert (job.memory, job.timeout, job.hugepages) == (2048, 1.5, 16)
    assert job.module_params == {"kvm_amd": ["nested=0", "npt=1"]}
    assert job.modules[-1] == "vfio-pci"
    assert job.append == "a=1 b"
    assert job.environment["X"] == "1 2"
    assert job.environment["PYHV_ARTIFACTS"] == str(artifacts)
    assert artifacts.is_dir()


def test_the_projects_environment_leads() -> None:
    environment = parse("true").environment
    assert environment["PYHV_RIG"] == "1"
    assert environment["PATH"].startswith(f"{cli.PROJECT}/.venv/bin:")


def test_a_shell_has_a_terminal() -> None:
    job = parse("--shell")
    assert job.tty
    assert job.stdin
    assert not job.merge_stderr


AWKWARD = ("a b", "it's", "$HOME", "`x`", "\\n", "*", "", "é", "two\nlines")


def test_awkward_arguments_reach_the_command_as_they_are(tmp_path: Path) -> None:
    job = Job(
        command=("python3", "-c", "import os, sys; print([*sys.argv[1:], os.environ['V'], os.getcwd()])", *AWKWARD),
        directory=tmp_path,
        environment={"V": AWKWARD[1]},
    )
    done = subprocess.run(["/bin/sh"], input=job_script(job).encode(), capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().strip() == repr([*AWKWARD, AWKWARD[1], str(tmp_path)])


def test_settings_are_read_by_a_shell_and_the_marker_is_printed_whole() -> None:
    marker = b"\0rig-end %s\\ 12\0"
    job = Job(command=("true",), directory=Path("/"), artifacts=Path("/tmp/it's"))
    script = settings_script(job, marker, "6.1", Path("/m")) + 'printf "$end_marker$artifacts"'
    done = subprocess.run(["/bin/sh"], input=script.encode(), capture_output=True, check=True, timeout=60)
    assert done.stdout == marker + b"/tmp/it's"


def qemu(job: Job) -> list[str]:
    ports = {"console": 5, "status": 6, "stdout": 7, "stderr": 8}
    return processes.qemu_command(job, Path("/k"), Path("/i"), ports, {"host0": "/s"})


def test_threads_follow_the_number_of_cpus() -> None:
    single = qemu(Job(command=("true",), directory=Path("/"), smp=1))
    assert "tcg,thread=single" in single
    double = qemu(Job(command=("true",), directory=Path("/"), smp=2))
    assert "tcg,thread=multi" in double


def test_hugepages_and_parameters_reach_the_kernel() -> None:
    command = qemu(Job(command=("true",), directory=Path("/"), hugepages=7, append="foo=1"))
    words = command[command.index("-append") + 1].split()
    assert "hugepages=7" in words
    assert "foo=1" in words


def test_without_root_the_rig_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(processes, "_VIRTIOFSD", Path("/bin/sh"))
    monkeypatch.setattr(processes.os, "geteuid", lambda: 1000)
    with pytest.raises(RigSetupError, match="root"):
        processes.find_programs()


def test_without_qemu_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.shutil, "which", lambda name: None)
    with pytest.raises(RigSetupError, match="make deps"):
        processes.find_programs()


def test_help_names_the_statuses() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "rig.py"), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    for status in (cli.EXIT_TIMEOUT, cli.EXIT_LOST, cli.EXIT_SETUP):
        assert str(status) in done.stdout
