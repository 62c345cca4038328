"""Builds `pyhv.hv.kvm._kvm`: the KVM ABI and the run loop's native part, in cffi's out-of-line API mode."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped]

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "abi.h").read_text() + (HERE / "native.h").read_text())
ffibuilder.set_source(
    "pyhv.hv.kvm._kvm",
    '#include "abi.h"\n#include "native.h"\n',
    sources=["pyhv/hv/kvm/native.c"],
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
