"""The modules of one kernel: which to load, in which order, and their bytes.

Sources: depmod(8), modules.dep(5), modprobe.d(5), and the kernel's Documentation/kbuild/kbuild.rst (modules.builtin).
"""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.boot.packing import unpack
from pyhv.errors import ConfigError
from pyhv.linux.modinfo import ModInfo, ModInfoError, before

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")
LIMIT = 64 << 20
"""A module that unpacks to more is refused."""
MAX_FILES = 100_000
"""Files below a folder without modules.dep that are looked at."""


def module_name(path_or_name: str) -> str:
    """The kernel's own name of a module: '-' and '_' are the same, "kernel/x/kvm-amd.ko.xz" is kvm_amd."""
    name = path_or_name.rpartition("/")[2]
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("-", "_")


def unpacked_path(path: str) -> str:
    """The path without what says how it is packed: "a/b.ko.xz" is a/b.ko."""
    stem, ko, _ = path.rpartition(".ko")
    return stem + ko


class ModuleTree:
    """What lies in `path`: a kernel's /lib/modules/RELEASE, or any folder with modules somewhere below it.

    With modules.dep the dependencies are read from it, otherwise from the modules themselves. `kernel` is the release that
    the modules are for, where it is known. Raises ConfigError when the folder cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], kernel: str = "") -> None:
        self.path = os.fspath(path)
        self.kernel = kernel
        self._paths: dict[str, str] = {}
        self._dependencies: dict[str, list[str]] | None = None
        self._infos: dict[str, ModInfo] = {}
        listed = self._text("modules.dep")
        if listed is None:
            self._paths = {module_name(file): file for file in self._walk()}
        else:
            self._dependencies = dict(parse_dependencies(listed))
            self._paths = {module_name(file): file for file in self._dependencies}
        builtin = self._text("modules.builtin")
        self.knows_builtin = builtin is not None
        self._builtin = {module_name(line) for line in (builtin or "").split()}
        self._soft: dict[str, list[str]] | None = None
        self._aliases: list[tuple[str, str]] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, name: str) -> bool:
        return module_name(name) in self._paths

    def find(self, name: str) -> str | None:
        """A module's path below the folder."""
        return self._paths.get(module_name(name))

    def is_builtin(self, name: str) -> bool:
        """Whether the kernel has it without loading anything."""
        return module_name(name) in self._builtin

    def load_order(self, wanted: Iterable[str], optional: Iterable[str] = ()) -> list[str]:
        """The paths (below `path`) of modules and all that they need, each once, every one after its dependencies.

        What is built in is left out. Raises ConfigError for a module that the kernel does not have; those of `optional`
        are left out as well. Where it is not known what is built in, so is what is not found.
        """
        order: dict[str, None] = {}
        for name in wanted:
            found = self._wanted(name)
            if found is not None:
                self._add(found, order)
        for name in optional:
            found = self.find(name)
            if found is not None:
                self._add(found, order)
        return list(order)

    def _wanted(self, name: str) -> str | None:
        """A module's path, None where it need not be loaded. Raises MissingModule."""
        path = self.find(name)
        if path is not None or self.is_builtin(name) or not self.knows_builtin:
            return path
        raise MissingModule(self, module_name(name))

    def _add(self, path: str, order: dict[str, None]) -> None:
        """Put a module behind all that it needs: a walk in depth, without recursion."""
        visited = {path}
        stack = [(path, iter(self._needs(path)))]
        while stack:
            current, needs = stack[-1]
            needed = next((p for p in needs if p not in visited and p not in order), None)
            if needed is None:
                order.setdefault(current)
                stack.pop()
            else:
                visited.add(needed)
                stack.append((needed, iter(self._needs(needed))))

    def _needs(self, path: str) -> list[str]:
        """The paths of what a module needs at once, soft dependencies that the kernel has included."""
        soft = [found for name in self._soft_before(path) for found in self._resolve(name)]
        if self._dependencies is not None:
            return [*soft, *reversed(self._dependencies.get(path, []))]
        needed = [self._wanted(name) for name in self.info(path).depends]
        return [*soft, *(found for found in needed if found is not None)]

    def _soft_before(self, path: str) -> list[str]:
        if self._dependencies is None:
            return self.info(path).soft_before
        if self._soft is None:
            self._soft = {}
            for line in (self._text("modules.softdep") or "").splitlines():
                words = line.split()
                if len(words) > 2 and words[0] == "softdep":
                    self._soft.setdefault(module_name(words[1]), []).extend(before(words[2:]))
        return self._soft.get(module_name(path), [])

    def _resolve(self, name: str) -> list[str]:
        """The paths of the modules of that name or alias."""
        path = self.find(name)
        if path is not None:
            return [path]
        if self._aliases is None:
            words = (line.split() for line in (self._text("modules.alias") or "").splitlines())
            self._aliases = [(w[1], w[2]) for w in words if len(w) == 3 and w[0] == "alias"]
        modules = (module for pattern, module in self._aliases if _matches(name, pattern))
        return [self._paths[m] for m in map(module_name, modules) if m in self._paths]

    def info(self, path: str) -> ModInfo:
        """What a module says of itself. Raises ConfigError."""
        found = self._infos.get(path)
        if found is None:
            try:
                found = self._infos[path] = ModInfo(self.read(path))
            except ModInfoError as error:
                raise ConfigError(f"modules: {os.path.join(self.path, path)}: {error}") from None
        return found

    def read(self, path: str) -> bytes:
        """A module's bytes, unpacked. Raises ConfigError, CapabilityMissing (its packing needs a library)."""
        full = os.path.join(self.path, path)
        try:
            with open(full, "rb", buffering=0) as file:
                data = file.readall()
            if path.endswith(".ko"):
                return data
            content = unpack(data, LIMIT, f"the module {full}")
        except (OSError, ValueError, EOFError, MemoryError) as error:
            raise ConfigError(f"modules: {full}: {getattr(error, 'strerror', None) or error}") from None
        if content is None or len(content) > LIMIT:
            raise ConfigError(f"modules: {full}: it is not packed as its name says")
        return content

    def check_release(self, path: str) -> None:
        """Raises ConfigError where a module was built for another kernel than this one.

        With modversions the kernel compares symbols instead (kernel/module/version.c), which only it can do.
        """
        magic = self.info(path).version_magic.split()
        if self.kernel and magic and magic[0] != self.kernel and "modversions" not in magic:
            raise ConfigError(
                f"modules: {os.path.join(self.path, path)} is for the kernel {magic[0]}, and this one is {self.kernel}: "
                "--modules names the folder of its own"
            )

    def _walk(self) -> Iterator[str]:
        """The modules' paths below the folder, in order."""
        seen = 0
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            seen += len(files)
            if seen > MAX_FILES:
                raise ConfigError(f"modules: {self.path!r} has no modules.dep and more than {MAX_FILES} files to search")
            for file in sorted(files):
                if file.endswith(SUFFIXES):
                    yield os.path.relpath(os.path.join(folder, file), self.path)

    def _text(self, name: str) -> str | None:
        try:
            with open(os.path.join(self.path, name), "rb", buffering=0) as file:
                return file.readall().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"modules: {os.path.join(self.path, name)}: {reason}") from None


class MissingModule(ConfigError):
    """A module that a kernel neither has in its folder nor built in."""

    def __init__(self, tree: ModuleTree, name: str) -> None:
        from pyhv.linux.needs import config_of

        self.tree = tree
        self.name = name
        kernel = f"the kernel {tree.kernel}" if tree.kernel else "this kernel"
        option = config_of(name)
        mend = f"it needs {option}=m or =y" if option else "it is not one of its configuration"
        super().__init__(
            f"modules: {kernel} has no module {name!r}, in {tree.path} or built in: {mend}, or --modules another folder"
        )

    def __reduce__(self) -> tuple[type[MissingModule], tuple[ModuleTree, str]]:
        return type(self), (self.tree, self.name)


def _matches(name: str, pattern: str) -> bool:
    """Whether an alias is meant; most patterns differ in what comes before their first wildcard."""
    if "*" not in pattern and "?" not in pattern and "[" not in pattern:
        return name == pattern
    literal = pattern.partition("*")[0].partition("?")[0].partition("[")[0]
    if not name.startswith(literal):
        return False
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern)


def parse_dependencies(text: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of modules.dep as (path, dependencies' paths).

    A line is "path: dependency...", where a dependency stands before those that it needs itself.
    """
    for line in text.splitlines():
        path, separator, dependencies = line.partition(":")
        if separator and path.strip():
            yield path.strip(), dependencies.split()
