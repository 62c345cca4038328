"""The pytest plugin, by the reports of pytest runs that use it."""

import json
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

from pyhv.errors import CapabilityMissing, HostError
from pyhv.hv.select import select

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester, guests, monkeypatch):
    """Runs a test file, in which GUESTS is the directory of the built guests, with pyhv's plugin as pytest finds it."""

    def run(source, *options):
        pytester.makepyfile(f"import pytest, pyhv\nGUESTS = {str(guests)!r}\n{source}")
        before = threading.active_count()
        result = pytester.runpytest_inprocess("-rs", "--strict-markers", "-p", "no:hypothesispytest", *options)
        assert threading.active_count() == before
        return result

    return run


def has(backend, *require):
    try:
        select(backend, require)
    except HostError:
        return False
    return True


def test_a_machine_runs_and_passes(run):
    result = run("""
@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout=30, memory="16M")
def test_hello(vm):
    vm.console.expect("hello: ok")
    assert vm.wait().check().guest_status == 0
    assert vm.machine.memory == 16 << 20
""")
    result.assert_outcomes(passed=1)


def test_paths_are_relative_to_the_test_or_to_the_root(run, pytester, guests):
    import shutil

    pytester.makeini("[pytest]\n")
    pytester.mkdir("deep")
    shutil.copy(guests / "hello.elf", pytester.path / "deep" / "near.elf")
    shutil.copy(guests / "fail.elf", pytester.path / "near.elf")
    shutil.copy(guests / "fail.elf", pytester.path / "far.elf")
    (pytester.path / "deep" / "test_paths.py").write_text("""
import pytest
@pytest.mark.parametrize("name, status", [("near.elf", 0), ("far.elf", 7)])
@pytest.mark.vm(timeout=30)
def test_it(vm_factory, name, status):
    assert vm_factory(name).wait().guest_status == status
""")
    pytester.runpytest_inprocess("deep").assert_outcomes(passed=2)


def test_each_backend_is_a_test_and_a_missing_one_says_what_is_missing(run):
    result = run("""
@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout=60, backends=["kvm", "sim", "amd-v"])
def test_hello(vm, vm_backend):
    assert vm.backend.name == {"amd-v": "kvm"}.get(vm_backend, vm_backend)
    vm.wait().check()
""")
    there = [has("kvm"), has("sim"), has("kvm", "amd-v")]
    result.assert_outcomes(passed=there.count(True), skipped=there.count(False))
    if there[0] and not there[2]:
        result.stdout.fnmatch_lines(["SKIPPED*backend amd-v: *SVM*"])


@pytest.fixture
def lacks(monkeypatch):
    """Makes this host lack some of kvm, sim and amd-v."""
    machines = import_module("pyhv.testing.machines")  # not the package's attribute: pytester drops modules behind it

    def lacks(*missing):
        def pick(backend="auto", require=()):
            for name in (backend, *require):
                if name in missing:
                    raise CapabilityMissing(f"this host has no {name}")
            return select(backend, [name for name in require if name != "amd-v"])

        monkeypatch.setattr(machines, "select", pick)

    return lacks


NAMED = """
@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout=60, backends=[{!r}])
def test_hello(vm):
    vm.wait().check()
"""
AUTOMATIC = """
@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout=60)
def test_hello(vm):
    vm.wait().check()
"""


@pytest.mark.parametrize("name", ["kvm", "sim", "amd-v"])
def test_a_missing_backend_is_a_skip_or_where_it_is_required_an_error(run, lacks, name):
    lacks(name)
    skipped = run(NAMED.format(name))
    skipped.assert_outcomes(skipped=1)
    skipped.stdout.fnmatch_lines([f"SKIPPED*backend {name}: this host has no {name}"])
    required = run(NAMED.format(name), "--pyhv-require", name)
    required.assert_outcomes(errors=1)
    required.stdout.fnmatch_lines([f"backend {name} is required (--pyhv-require): this host has no {name}"])


def test_what_is_required_is_required_of_kvm_and_of_the_automatic_choice_only(run, lacks):
    lacks("amd-v")
    run(AUTOMATIC).assert_outcomes(passed=1)
    run(AUTOMATIC, "--pyhv-require", "amd-v").assert_outcomes(errors=1)
    run(NAMED.format("kvm"), "--pyhv-require", "amd-v").assert_outcomes(errors=1)
    run(NAMED.format("sim"), "--pyhv-require", "amd-v").assert_outcomes(passed=has("sim"), skipped=1 - has("sim"))


def test_backends_from_the_command_line(run):
    result = run(
        """
def test_without_mark(vm_factory):
    vm_factory(GUESTS + "/hello.elf").wait(60).check()

@pytest.mark.vm(backends="auto")
def test_its_own(vm_backend):
    assert vm_backend == "auto"
""",
        *("-v", "--pyhv-backend", "auto", "--pyhv-backend", "kvm"),
    )
    result.assert_outcomes(passed=2 + has("kvm"), skipped=1 - has("kvm"))
    result.stdout.fnmatch_lines(["*test_without_mark?kvm?*"])


def test_a_failure_shows_console_registers_exits_and_files(run, pytester):
    result = run("""
@pytest.mark.vm(kernel=GUESTS + "/spin.elf", timeout=60)
def test_spin(vm):
    vm.console.expect("spinning")
    assert vm is None
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the machine: verdict*",
            "still running when the test failed",
            "*the machine: console (tail)*",
            "spinning",
            "*the machine: registers*",
            "*rip*",
            "*the machine: last exits*",
            "*PioOut(port=1016*",
            "*the machine: artifacts*",
            "*console.log",
        ]
    )
    log = next(line for line in result.stdout.lines if line.endswith("console.log"))
    assert Path(log).read_text() == "spinning\n"
    assert json.loads(Path(log).with_name("result.json").read_text())["outcome"] == "stopped"


def test_a_junit_report_holds_it_too(run, pytester):
    run(
        """
@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout=60)
def test_hello(vm):
    vm.wait()
    assert 0
""",
        "--junitxml=junit.xml",
    )
    text = (pytester.path / "junit.xml").read_text()
    assert "hello: ok" in text and "rip" in text and "console.log" in text


def test_a_failed_check_is_not_repeated(run):
    result = run("""
@pytest.mark.vm(kernel=GUESTS + "/triple.elf", timeout=60)
def test_triple(vm):
    vm.wait().check()
""")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "TripleFault: triple-fault" in text and text.count("Shutdown()") == 2
    assert "the machine: registers" not in text and "the machine: artifacts" in text


def test_artifacts_go_where_they_are_wanted(run, pytester):
    run(
        """
@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout=60)
@pytest.mark.parametrize("name", ["a/b", "c"])
def test_hello(vm_factory, name):
    vm_factory().wait().check()
    vm_factory().wait().check()
    assert name == "c"
""",
        "--pyhv-artifacts",
        "out",
    ).assert_outcomes(passed=1, failed=1)
    found = sorted(path for path in (pytester.path / "out").rglob("*") if path.is_file())
    logs = ["console-2.log", "console.log"]
    assert [path.name for path in found] == [*logs, "result-2.json", "result.json", *logs]
    assert "hello: ok" in found[0].read_text()


def test_running_out_of_time_fails_even_a_test_that_does_not_look(run):
    result = run("""
@pytest.mark.vm(kernel=GUESTS + "/spin.elf", timeout=0.3)
def test_spin(vm):
    vm.wait()

@pytest.mark.vm(kernel=GUESTS + "/spin.elf", timeout=60)
def test_expects(vm_factory):
    with pytest.raises(pyhv.GuestError):
        vm_factory(timeout=0.2).console.expect("never")
""")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["the machine did not end within 0.3 s"])


def test_a_failure_of_the_vmm_is_not_overlooked(run):
    result = run("""
class Broken(pyhv.PioDevice):
    port, length = 0xe9 + 1, 1
class Bug(pyhv.MmioDevice):
    address, length = 0xd0000000, 4096
    def attach(self, platform):
        super().attach(platform)
        platform.clock.call_at(0, self.fail)
    def fail(self):
        raise RuntimeError("a bug in a device")

@pytest.mark.vm(kernel=GUESTS + "/spin.elf", timeout=60, devices=[Bug])
def test_blind(vm):
    while vm.outcome is None:
        pass

@pytest.mark.vm(kernel=GUESTS + "/spin.elf", timeout=60, devices=[Bug])
def test_seeing(vm):
    assert vm.wait().outcome is pyhv.Outcome.ERROR
    assert isinstance(vm.machine.devices[0], Bug)
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["the machine ended by a failure of the VMM: *a bug in a device*"])


def test_unknown_fields_and_missing_kernels_are_one_line(run):
    result = run("""
@pytest.mark.vm(kernel="nowhere.elf")
def test_no_file(vm): pass

@pytest.mark.vm()
def test_no_kernel(vm): pass

@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeuot=3)
def test_misspelt(vm): pass

@pytest.mark.vm(kernel=GUESTS + "/hello.elf", memory="banana")
def test_nonsense(vm): pass

@pytest.mark.vm(kernel=GUESTS + "/hello.elf", timeout="soon")
def test_no_time(vm): pass
""")
    result.assert_outcomes(errors=5)
    result.stdout.fnmatch_lines(
        [
            "kernel: 'nowhere.elf' is not at *",
            "vm: no kernel: *",
            "mark vm: 'timeuot' is not one of *",
            "memory: 'banana' *",
            "timeout: 'soon' *",
        ]
    )


def test_marks_of_the_class_are_defaults(run):
    run("""
@pytest.mark.vm(GUESTS + "/fail.elf", timeout=60, cpus=2)
class TestAll:
    def test_inherited(self, vm):
        assert vm.wait().guest_status == 7 and vm.machine.cpus == 2

    @pytest.mark.vm(kernel=GUESTS + "/hello.elf")
    def test_own(self, vm):
        assert vm.wait().guest_status == 0 and vm.machine.cpus == 2
""").assert_outcomes(passed=2)


def test_the_factory_makes_machines_that_do_not_run_yet(run):
    run("""
@pytest.mark.vm(timeout=60)
def test_exits(vm_factory):
    vm = vm_factory(pyhv.Machine(GUESTS + "/hello.elf"), start=False)
    exits = list(vm.exits())
    assert exits and vm.result().ok
""").assert_outcomes(passed=1)


def test_loading_the_plugin_imports_nothing_but_pytest():
    code = (
        "import sys, pytest; before = set(sys.modules); import pyhv.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    assert set(loaded) <= {"pyhv", "pyhv._types", "pyhv.testing", "pyhv.testing.plugin"}
