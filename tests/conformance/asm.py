"""Guest code for tests: assembled by GNU as when first needed, then kept under build/."""

import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / "build" / "conformance-asm"
_VERSION = "1"


@cache
def assemble(source: str, *, bits: int = 32, org: int = 0) -> bytes:
    """Machine code of Intel-syntax assembly for 16, 32 or 64 bits, linked to run at `org`."""
    text = f".intel_syntax noprefix\n.code{bits}\n.globl _start\n_start:\n{source}\n"
    digest = hashlib.sha256(f"{_VERSION}:{org}:{text}".encode()).hexdigest()[:32]
    kept = CACHE / f"{digest}.bin"
    if kept.exists():
        return kept.read_bytes()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "code.s").write_text(text)
        machine = ["--64"] if bits == 64 else ["--32"]
        emulation = "elf_x86_64" if bits == 64 else "elf_i386"
        steps = (
            ["as", *machine, "-o", "code.o", "code.s"],
            ["ld", "-m", emulation, "-Ttext", hex(org), "-o", "code.elf", "code.o"],
            ["objcopy", "-O", "binary", "-j", ".text", "code.elf", "code.bin"],
        )
        for step in steps:
            subprocess.run(step, cwd=work, check=True, timeout=60)
        code = (work / "code.bin").read_bytes()
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = CACHE / f"{digest}.{os.getpid()}"
        scratch.write_bytes(code)
        scratch.replace(kept)
    except OSError:  # a read-only checkout: assemble again next time
        pass
    return code
