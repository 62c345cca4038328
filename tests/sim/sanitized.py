"""The silicon without optimisation and with the address and undefined-behaviour sanitizers: for its fuzzer and for Python.

One object file serves both; what is built stays in build/sanitized until a source changes.
"""

import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
SILICON = PROJECT / "pyhv" / "hv" / "sim" / "silicon"
CACHE = PROJECT / "build" / "sanitized"
FLAGS = [
    *("-std=gnu11", "-O0", "-g1", "-fPIC", "-fno-strict-aliasing", "-fwrapv", "-w"),
    *("-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=undefined"),
]


def runtime() -> Path | None:
    """The address sanitizer's library of this compiler; None where there is none."""
    if shutil.which("gcc") is None:
        return None
    name = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    path = Path(name.strip())
    return path.resolve() if path.is_absolute() and path.exists() else None


def missing() -> str:
    """What the sanitized build lacks on this machine; empty when nothing."""
    if shutil.which("gcc") is None:
        return "the sanitizer build needs gcc"
    return "" if runtime() else "the sanitizer build needs libasan, which comes with gcc"


def _cached(stem: str, sources: list[Path], build: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + " ".join(FLAGS).encode()).hexdigest()
    out = CACHE / f"{stem}-{digest[:16]}"
    if not out.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{stem}-*"):
            old.unlink(missing_ok=True)
        fresh = CACHE / f"new-{os.getpid()}-{stem}"
        build(fresh)
        fresh.rename(out)
    return out


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def _sources() -> list[Path]:
    return sorted([*SILICON.glob("*.[ch]"), *SILICON.glob("*.inc")])


def silicon_object() -> Path:
    """The whole of the silicon."""
    return _cached(
        "silicon", _sources(), lambda out: _run("gcc", *FLAGS, f"-I{SILICON}", "-c", SILICON / "silicon.c", "-o", out)
    )


def fuzzer() -> Path:
    """fuzz_silicon.c as a program."""
    source = HERE / "fuzz_silicon.c"

    def build(out: Path) -> None:
        _run("gcc", *FLAGS, f"-I{SILICON}", source, "-x", "none", _as_object(), "-o", out, "-lm")

    return _cached("fuzz", [*_sources(), source], build)


def module() -> Path:
    """An extension module that can stand in for pyhv.hv.sim._silicon (see silicon_of.py)."""

    def build(out: Path) -> None:
        ffi = FFI()
        ffi.cdef((SILICON / "api.h").read_text())
        ffi.set_source("pyhv.hv.sim._silicon", '#include <stdint.h>\n#include "api.h"\n')
        wrapper = out.with_suffix(".c")
        ffi.emit_c_code(str(wrapper))
        include = sysconfig.get_path("include")
        _run("gcc", *FLAGS, "-shared", f"-I{include}", f"-I{SILICON}", wrapper, _as_object(), "-o", out, "-lm")
        wrapper.unlink()

    return _cached("module", _sources(), build)


def _as_object() -> Path:
    """The object file under a name that the linker knows it by."""
    source = silicon_object()
    path = source.with_suffix(".o")
    if not path.exists():
        path.hardlink_to(source)
    return path
