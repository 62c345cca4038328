"""The native parts, built when the package is installed; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

BUILDERS = [
    "pyhv/memory/build_host.py",
    "pyhv/hv/kvm/build_kvm.py",
    "pyhv/hv/sim/build_silicon.py",
]

setup(cffi_modules=[f"{builder}:ffibuilder" for builder in BUILDERS if Path(builder).exists()])
