"""The silicon in a build without optimisation and with the address and undefined-behaviour sanitizers, fuzzed."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SILICON = HERE.parent.parent / "pyhv" / "hv" / "sim" / "silicon"
CACHE = HERE.parent.parent / "build" / "sanitized"
FLAGS = [
    *("-std=gnu11", "-O0", "-g1", "-fno-strict-aliasing", "-fwrapv", "-w"),
    *("-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=undefined"),
]


@pytest.fixture(scope="session")
def fuzzer() -> Path:
    """The sanitized build with the fuzzer's main, made again when a source has changed."""
    if shutil.which("gcc") is None:
        pytest.skip("the sanitizer build needs gcc")
    sources = sorted([*SILICON.glob("*.[ch]"), *SILICON.glob("*.inc"), HERE / "fuzz_silicon.c"])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + " ".join(FLAGS).encode()).hexdigest()
    program = CACHE / f"fuzz-{digest[:16]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob("fuzz-*"):
            old.unlink(missing_ok=True)
        fresh = CACHE / f"new-{os.getpid()}"
        command = ["gcc", *FLAGS, f"-I{SILICON}", "-o", fresh, SILICON / "silicon.c", HERE / "fuzz_silicon.c", "-lm"]
        subprocess.run(command, check=True, capture_output=True)
        fresh.rename(program)
    return program


@pytest.mark.parametrize("seed", range(0, 400, 100))
def test_random_guests_do_no_harm(fuzzer: Path, seed: int) -> None:
    done = subprocess.run([fuzzer, str(seed + 1), "100"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
