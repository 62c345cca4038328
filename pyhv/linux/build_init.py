"""Compiles the guest's init, one static program without a C library: when the package is built, or run as a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "init"
TARGET = SOURCES.parent / "init.elf"
FLAGS = (
    *("-Os", "-std=gnu11", "-Wall", "-Wextra", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mno-avx"),
    *("-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,noseparate-code", "-s"),
)


def build(target: Path = TARGET) -> None:
    """Compile to `target`, which is there whole or not at all. Raises OSError, subprocess.CalledProcessError."""
    compiler = os.environ.get("PYHV_GUEST_CC", "gcc").split()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([*compiler, *FLAGS, "-o", partial, *sorted(SOURCES.glob("*.c"))], check=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
