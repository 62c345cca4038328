"""Which kernel modules to load, in which order, by the kernel's modules.dep (see depmod(8), modules.dep(5))."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from amdv_rig.errors import RigSetupError

_SUFFIXES = (".ko", ".ko.xz")


def module_name(path_or_name: str) -> str:
    """The kernel's own name of a module: '-' and '_' are the same, "kernel/x/kvm-amd.ko" is kvm_amd."""
    name = PurePosixPath(path_or_name).name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("-", "_")


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """modules.dep as {path: dependencies' paths}, in the file's order.

    A line is "path: dependency...", where a dependency stands before those it needs itself.
    """
    table: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, separator, dependencies = line.partition(":")
        if separator and path.strip():
            table[path.strip()] = dependencies.split()
    return table


def load_order(table: dict[str, list[str]], wanted: Iterable[str]) -> list[str]:
    """The paths of wanted modules and all they need, each once, every one after its dependencies.

    Raises RigSetupError for a module that the kernel does not have.
    """
    by_name = {module_name(path): path for path in table}
    order: dict[str, None] = {}
    for name in wanted:
        path = by_name.get(module_name(name))
        if path is None:
            raise RigSetupError(f"this kernel has no module '{name}' (built in, or another kernel's?)")
        for needed in [*reversed(table[path]), path]:
            order.setdefault(needed)
    return list(order)


def has_parameter(content: bytes, name: str) -> bool:
    """Whether a module (its .ko file's bytes) declares a parameter: the kernel only warns of one that it ignores.

    The .modinfo section holds NUL-terminated "parmtype=NAME:TYPE" strings (include/linux/moduleparam.h).
    """
    return b"\0parmtype=" + name.encode() + b":" in content


def read_dependencies(tree: Path) -> dict[str, list[str]]:
    """The table of the module tree (…/lib/modules/VERSION)."""
    try:
        return parse_dependencies((tree / "modules.dep").read_text())
    except OSError as error:
        raise RigSetupError(f"cannot read the kernel's modules.dep ({error.strerror}): run `make kernels`") from None
