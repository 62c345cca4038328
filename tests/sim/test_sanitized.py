"""The silicon in a build without optimisation and with the address and undefined-behaviour sanitizers.

It is fuzzed, and it runs the simulator's own tests and the guests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sanitized

TESTS = sanitized.PROJECT / "tests"
SUITE = ["sim", "guests", "conformance"]
LEFT_OUT = ["sim/test_sanitized.py", "sim/test_differential.py"]


@pytest.fixture(scope="module", autouse=True)
def sanitizer() -> None:
    reason = sanitized.missing()
    if reason:
        pytest.skip(reason)


def fuzz(first: int, rounds: int) -> str:
    command = [sanitized.fuzzer(), str(first), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("seed", range(0, 200, 50))
def test_random_guests_do_no_harm(seed: int) -> None:
    fuzz(seed + 1, 50)


def test_random_guests_end_the_same_way_each_time() -> None:
    assert fuzz(1, 25) == fuzz(1, 25) != fuzz(2, 25)


def test_the_suite_runs_on_the_sanitized_silicon() -> None:
    environment = {
        **os.environ,
        "LD_PRELOAD": str(sanitized.runtime()),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "PYHV_TEST_SILICON": str(sanitized.module()),
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYTEST_ADDOPTS", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "silicon_of",
        "-p",
        "no:cacheprovider",
        "-k",
        "not kvm",
    ]
    command += [*(f"--ignore={TESTS / path}" for path in LEFT_OUT), *(str(TESTS / path) for path in SUITE)]
    done = subprocess.run(command, env=environment, cwd=sanitized.PROJECT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
