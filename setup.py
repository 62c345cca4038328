"""The native parts, built when the package is installed; everything else is in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

BUILDERS = [
    "pyhv/memory/build_host.py",
    "pyhv/hv/kvm/build_kvm.py",
    "pyhv/hv/sim/build_silicon.py",
    "pyhv/net/build_slirp.py",
    "pyhv/fs/build_calls.py",
]
INIT = "pyhv/linux/build_init.py"
INIT_TARGET = "pyhv/linux/init.elf"


class BuildExt(build_ext):
    """The extension modules, and the first process of Linux guests, which is no module of Python's."""

    def run(self) -> None:
        super().run()
        place = Path() if self.inplace else Path(self.build_lib)
        runpy.run_path(INIT)["build"](place / INIT_TARGET)


setup(
    cffi_modules=[f"{builder}:ffibuilder" for builder in BUILDERS if Path(builder).exists()],
    cmdclass={"build_ext": BuildExt},
)
