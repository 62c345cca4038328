"""Builds `pyhv.fs._calls`: system calls that the standard library does not offer, in cffi's API mode."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped]

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "calls.h").read_text())
ffibuilder.set_source(
    "pyhv.fs._calls",
    '#include "calls.h"\n',
    sources=["pyhv/fs/calls.c"],
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
