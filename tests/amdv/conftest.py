"""One start of the AMD-V rig for the whole tier."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
KERNELS = PROJECT / "build" / "kernels"
RIG_TIMEOUT = 900
START_TIMEOUT = 150
STARTS = 3
STARTED = "started"
"""The driver's first file."""
EXIT_LOST = 251
"""scripts/amdv_rig: the machine ended while the command ran."""

Part = Callable[[str], dict[str, Any]]


def missing() -> str:
    """What the rig needs and this machine lacks, with the command that mends it."""
    if "PYHV_RIG" in os.environ:
        return "this is the rig's inside"
    absent = []
    if shutil.which("qemu-system-x86_64") is None:
        absent.append("qemu-system-x86_64 (make deps)")
    if not Path("/usr/lib/qemu/virtiofsd").exists():
        absent.append("/usr/lib/qemu/virtiofsd (make deps)")
    files = (KERNELS / "cloud" / "vmlinuz", KERNELS / "cloud" / "vmlinux", KERNELS / "busybox-initramfs.cpio.gz")
    absent += [f"{path.relative_to(PROJECT)} (make kernels)" for path in files if not path.exists()]
    return ", ".join(absent)


class Rig:
    """What the driver reported, by part."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.starts = 1
        self.status, self.log = self._run()
        # The emulated host itself hung while it booted, or its kernel crashed under QEMU's emulation: that says nothing about
        # this project. The next start goes on where it ended; a part that always takes the host down fails all of them.
        while self.status in (None, EXIT_LOST) and self.starts < STARTS:
            self.starts += 1
            self.status, self.log = self._run()

    def _run(self) -> tuple[int | None, str]:
        """Start the rig; the status, None when its driver did not begin within START_TIMEOUT, and what it printed."""
        driver = PROJECT / "tests" / "amdv" / "rig_driver.py"
        log = self.artifacts / "rig.log"
        (self.artifacts / STARTED).unlink(missing_ok=True)
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, PROJECT / "scripts" / "rig.py", "-v", "--timeout", str(RIG_TIMEOUT)),
                    *("--memory", "1536M", "--hugepages", "128", "--artifacts", self.artifacts),
                    *("--console-log", self.artifacts / "console.log"),
                    *("--", "python3", driver, self.artifacts),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            began = True
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(START_TIMEOUT)
                began = process.returncode is not None or (self.artifacts / STARTED).exists()
                if began:
                    process.wait()
            finally:
                process.terminate()
                process.wait()
        return process.returncode if began else None, log.read_text(errors="replace")

    def part(self, name: str) -> dict[str, Any]:
        """A part's report; fails the test when the rig did not get there, or the part broke."""
        path = self.artifacts / f"{name}.json"
        if not path.exists():
            pytest.fail(
                f"the rig, started {self.starts} times, ended with status {self.status} before {name}:\n{self.log}",
                pytrace=False,
            )
        report: dict[str, Any] = json.loads(path.read_text())
        if "traceback" in report:
            pytest.fail(f"{name} broke inside the rig:\n{report['traceback']}", pytrace=False)
        return report


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    reason = missing()
    if reason:
        pytest.skip(f"the AMD-V rig needs {reason}" if "PYHV_RIG" not in os.environ else reason)
    subprocess.run(["make", "-s", "-C", PROJECT / "guests"], check=True, timeout=120)
    return Rig(tmp_path_factory.mktemp("rig"))


@pytest.fixture
def part(rig: Rig) -> Part:
    """Reads a part's report."""
    return rig.part
