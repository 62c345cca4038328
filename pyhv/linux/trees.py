"""Where a kernel's modules are: beside its image, as packages unpack, or where systems keep them."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.linux.modules import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKS = ("modules.dep", "modules.order", "modules.builtin", "kernel")
"""One of these makes a folder a module tree."""
SYSTEM = ("/lib/modules", "/usr/lib/modules")
BUILT_IMAGE = os.path.join("arch", "x86", "boot")


def find_tree(kernel: str, release: str, given: str | None = None) -> tuple[ModuleTree | None, list[str]]:
    """The modules of the kernel in a file, and the folders that were looked at; None where there are none.

    `given`: the folder that a user named: the tree itself, or one that holds lib/modules/RELEASE or modules at any depth.
    Raises ConfigError when that has no modules.
    """
    if given is not None:
        return _given(given, release), [given]
    looked: dict[str, None] = {}
    for path in _places(kernel, release):
        normal = os.path.normpath(path)
        if normal not in looked:
            looked[normal] = None
            if is_tree(normal):
                return ModuleTree(normal, release), list(looked)
    return None, list(looked)


def is_tree(path: str) -> bool:
    """Whether a folder looks like /lib/modules/RELEASE."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in MARKS)


def _given(path: str, release: str) -> ModuleTree:
    if not os.path.isdir(path):
        raise ConfigError(f"modules: {path!r} is not a folder")
    if is_tree(path):
        return ModuleTree(path, release)
    if release:
        for below in ("", "lib/modules", "usr/lib/modules"):
            candidate = os.path.join(path, below, release)
            if is_tree(candidate):
                return ModuleTree(candidate, release)
    tree = ModuleTree(path, release)
    if not len(tree):
        raise ConfigError(f"modules: {path!r} holds no modules of the kernel {release or 'that was given'}")
    return tree


def _places(kernel: str, release: str) -> Iterator[str]:
    """Where the modules may be, the likeliest first: next to the image as it was named, then next to what that is."""
    for image in (os.path.abspath(kernel), os.path.realpath(kernel)):
        folder = os.path.dirname(image)
        yield os.path.join(folder, "modules")
        if release:
            if os.path.basename(folder) == release:
                yield folder
            for above in (folder, os.path.dirname(folder)):
                yield os.path.join(above, "lib", "modules", release)
                yield os.path.join(above, "usr", "lib", "modules", release)
        if folder.endswith(BUILT_IMAGE):
            yield folder.removesuffix(BUILT_IMAGE).rstrip("/")
        elif os.path.exists(os.path.join(folder, "modules.order")):
            yield folder
    if release:
        for place in SYSTEM:
            yield os.path.join(place, release)
