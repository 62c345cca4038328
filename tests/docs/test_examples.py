"""Every example of README and docs does what the document says."""

import os
import shutil
import subprocess
import sys

import pytest
from console_session import alike, parse, run
from documents import DOCUMENTS, KEPT, ROOT, RUN, blocks

from pyhv.errors import HostError
from pyhv.hv.select import select

IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
ENVIRONMENT = {
    "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:hypothesispytest",
}


def missing(need: str) -> bool:
    """Whether this host lacks what a block needs."""
    if need == "kernels":
        kernels = ROOT / "build" / "kernels"
        return not all((kernels / name).exists() for name in ("cloud/vmlinuz", "busybox-initramfs.cpio.gz"))
    if need == "tap":
        return os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or shutil.which("ip") is None
    try:
        select("kvm" if need in ("kvm", "amd-v") else need, ("amd-v",) if need == "amd-v" else ())
    except HostError:
        return True
    return False


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_block_has_a_language(path):
    for block in blocks(path):
        assert block.language in (*RUN, *KEPT), f"line {block.line}: {block.language or 'no language'}"


WITH_EXAMPLES = [path for path in DOCUMENTS if any(block.language in RUN for block in blocks(path))]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=[str(path.relative_to(ROOT)) for path in WITH_EXAMPLES])
def test_examples(path, tmp_path):
    if not (ROOT / "guests" / "build" / "hello.elf").exists():
        pytest.skip("guests/build is empty: make guests")
    for name in ("guests", "build", "tests", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for block in blocks(path):
        where = f"{path.relative_to(ROOT)}, line {block.line}"
        if "file" in block.remarks:
            (tmp_path / block.remarks["file"]).write_text(block.text)
        if "needs" in block.remarks and missing(block.remarks["needs"]):
            continue
        if block.language == "python":
            run_python(block, tmp_path, where)
        elif block.language == "console":
            run_console(block, tmp_path, where)


def run_python(block, directory, where):
    name = block.remarks.get("file", "test_example.py" if "def test_" in block.text else "example.py")
    (directory / name).write_text(block.text)
    command = ["-m", "pytest", "-q", name] if "def test_" in block.text else [name]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"
    if "prints" in block.remarks:
        assert done.stdout.strip() == block.remarks["prints"], where


def run_console(block, directory, where):
    commands = parse(block.text)
    for command, printed in zip(commands, run(commands, directory, ENVIRONMENT), strict=True):
        assert alike(command.expected, printed), (
            f"{where}: $ {command.line}\nthe document says:\n{command.expected}\nit printed:\n{printed}"
        )
