"""Builds `pyhv.net._slirp`: user-mode networking by libslirp, which is looked for when it is first used."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped]

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "slirp.h").read_text())
ffibuilder.set_source(
    "pyhv.net._slirp",
    '#include <stddef.h>\n#include <stdint.h>\n#include "slirp.h"\n',
    sources=["pyhv/net/slirp.c"],
    include_dirs=[str(HERE)],
    libraries=["dl"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
