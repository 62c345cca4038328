"""Builds `pyhv.hv.sim._silicon`: the simulated AMD64 machine, in cffi's out-of-line API mode.

One translation unit, silicon/silicon.c, includes every other C file; silicon/api.h is the interface.
"""

from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped]

HERE = Path(__file__).parent
SILICON = HERE / "silicon"
FLAGS = ["-std=gnu11", "-O2", "-fno-strict-aliasing", "-fwrapv", "-Wall", "-Wno-unused-function"]

ffibuilder = FFI()
ffibuilder.cdef((SILICON / "api.h").read_text())
ffibuilder.set_source(
    "pyhv.hv.sim._silicon",
    '#include <stdint.h>\n#include "silicon.c"\n',
    include_dirs=[str(SILICON)],
    depends=[str(path) for pattern in ("*.c", "*.h", "*.inc") for path in sorted(SILICON.glob(pattern))],
    extra_compile_args=FLAGS,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
