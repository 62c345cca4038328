"""The `pyhv` command's start: main() with the modules that a run needs read from one file, and a quick end.

Finding and opening eighty byte code files takes longer than a tiny guest's whole life. `write()` puts their code into one
file beside them, and an entry of it counts under the same rule as a .pyc: only while its source has the size and time that it
had. What is not in the file, or is newer than it, is imported the usual way.
"""

from __future__ import annotations

import _frozen_importlib_external as _importlib
import gc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

ROOTS = (
    "pyhv.boot.firmware",
    "pyhv.boot.multiboot",
    "pyhv.cli.arguments",
    "pyhv.cli.run",
    "pyhv.hv.kvm.hypervisor",
)
"""These and all that they import are what running a guest on KVM takes."""

GC_THRESHOLD = 50_000
"""More objects than a run of a tiny guest makes: looking for garbage among its modules would find none."""

_HOME = os.path.dirname(os.path.abspath(__file__))
BUNDLE = f"{_HOME}/__pycache__/startup.{sys.implementation.cache_tag}.bin"


class _Loader(_importlib.SourceFileLoader):
    """A source file whose code is at hand already."""

    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class Bundle:
    """A finder for the modules of a bundle: {name: (file below _HOME, time, size, code)}."""

    def __init__(self, entries: dict[str, tuple[str, int, int, CodeType]]) -> None:
        self.entries = entries
        self.stale = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        entry = self.entries.get(name)
        if entry is None:
            return None
        file, time, size, code = entry
        file = f"{_HOME}/{file}"
        try:
            status = os.stat(file)
        except OSError:
            return None
        if status.st_mtime_ns != time or status.st_size != size:
            self.stale = True
            return None
        loader = _Loader(name, file)
        loader.code = code
        spec = ModuleSpec(name, loader, origin=file)
        spec.has_location = True
        spec.cached = BUNDLE
        if file.endswith("/__init__.py"):
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec


def read(path: str = BUNDLE) -> Bundle | None:
    """The bundle, None where there is none for this interpreter."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        magic = _importlib.MAGIC_NUMBER
        return Bundle(marshal.loads(memoryview(data)[len(magic) :])) if data.startswith(magic) else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def write(path: str = BUNDLE) -> None:
    """Bundle ROOTS, what they import, and what else of this package has been. Raises OSError, and what imports raise."""
    for root in ROOTS:
        __import__(root)
    entries: dict[str, tuple[str, int, int, CodeType]] = {}
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None) or ""
        if name.startswith("pyhv.") and name != __name__ and file.endswith(".py") and file.startswith(f"{_HOME}/"):
            status = os.stat(file)
            code = _importlib.SourceFileLoader(name, file).get_code(name)
            assert code is not None
            entries[name] = (file[len(_HOME) + 1 :], status.st_mtime_ns, status.st_size, code)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as out:
        out.write(_importlib.MAGIC_NUMBER + marshal.dumps(entries))
    os.replace(temporary, path)


def main() -> NoReturn:
    """The `pyhv` command."""
    gc.set_threshold(GC_THRESHOLD)
    bundle = read()
    if bundle is not None:
        finders: list[Any] = sys.meta_path
        finders.insert(0, bundle)
    from pyhv.cli import main

    status = main()
    if (bundle is None or bundle.stale) and sys.argv[1:2] == ["run"] and not sys.dont_write_bytecode:
        from contextlib import suppress

        with suppress(Exception):  # like byte code it only saves time, and may be impossible to keep
            write()
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process. Every VM has been closed: where no thread is left there is nothing to take apart."""
    if "threading" not in sys.modules:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            sys.exit(status)
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    write()
