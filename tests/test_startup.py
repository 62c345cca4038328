"""The command's start: what a run imports, and the bundle that it comes from."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyhv import startup
from pyhv.hv.select import Selection

SLOW = ("argparse", "collections", "dataclasses", "enum", "functools", "inspect", "json", "logging", "pathlib", "re")
SLOWER = ("structlog", "psutil", "pyroute2", "subprocess", "threading", "typing")


def imported_by_a_run(image: Path, backend: str) -> set[str]:
    code = (
        "import sys; from pyhv.cli import main; status = main(sys.argv[1:]);"
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--backend", backend, "--quiet", str(image)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


def test_a_run_imports_nothing_that_is_slow(backend: Selection, guest: Callable[[str], Path]) -> None:
    slow = {*SLOW, *SLOWER} - ({"collections"} if backend.name == "sim" else set())  # `array` in C imports it
    assert not imported_by_a_run(guest("hello"), backend.name) & slow


def test_the_bundle_has_what_a_run_imports(
    backend: Selection, guest: Callable[[str], Path], tmp_path: Path
) -> None:
    code = "import sys; from pyhv import startup; startup.write(sys.argv[1])"
    path = tmp_path / "cache" / "bundle.bin"
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)
    bundle = startup.read(str(path))
    assert bundle is not None
    assert bundle.find_spec("pyhv.hv.sim.vmcb") is None
    if backend.name == "sim":
        assert bundle.find_spec("pyhv.hv.sim") is not None
    compiled = {"pyhv.hv.kvm._kvm", "pyhv.hv.sim._silicon", "pyhv.memory._host"}
    imported = imported_by_a_run(guest("hello"), backend.name)
    wanted = {name for name in imported if name.startswith("pyhv.") and ".lib" not in name}
    assert wanted - compiled <= set(bundle.entries)


@pytest.fixture
def bundle(tmp_path: Path) -> startup.Bundle:
    startup.write(str(tmp_path / "bundle.bin"))
    read = startup.read(str(tmp_path / "bundle.bin"))
    assert read is not None
    return read


def test_a_module_of_the_bundle_is_the_module(bundle: startup.Bundle) -> None:
    spec = bundle.find_spec("pyhv.units")
    assert spec is not None and spec.loader is not None
    import importlib.util

    import pyhv.units

    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__file__ == pyhv.units.__file__
    assert module.parse_size("3M", "memory") == 3 << 20


def test_a_package_of_the_bundle_is_a_package(bundle: startup.Bundle) -> None:
    spec = bundle.find_spec("pyhv.boot")
    assert spec is not None
    assert spec.submodule_search_locations == [str(Path(startup.__file__).parent / "boot")]


@pytest.mark.parametrize("what", ["time", "size", "file"])
def test_a_changed_source_counts_more_than_the_bundle(bundle: startup.Bundle, what: str) -> None:
    file, time, size, code = bundle.entries["pyhv.units"]
    changed = {"time": (file, time + 1, size), "size": (file, time, size + 1), "file": ("gone.py", time, size)}[what]
    bundle.entries["pyhv.units"] = (*changed, code)
    assert bundle.find_spec("pyhv.units") is None


def test_unknown_modules_are_left_to_others(bundle: startup.Bundle) -> None:
    assert bundle.find_spec("json") is None
    assert not bundle.stale


@pytest.mark.parametrize("content", [b"", b"junk", startup._importlib.MAGIC_NUMBER, b"\0\0\0\0" + b"\xe9" * 40])
def test_a_damaged_bundle_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.bin"
    path.write_bytes(content)
    assert startup.read(str(path)) is None


def test_no_bundle_is_none(tmp_path: Path) -> None:
    assert startup.read(str(tmp_path / "none.bin")) is None


def test_the_script_ends_with_the_status_and_all_output() -> None:
    script = Path(__file__).resolve().parent.parent / "scripts" / "pyhv"
    done = subprocess.run([sys.executable, script, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "pyhv", "")
    done = subprocess.run([sys.executable, script, "nonsense"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    assert "nonsense" in done.stderr
